"""The command stream of a Redis as it is kept: append-only-file bytes with timestamps, cut into segments.

A segment is a piece of an ordinary append-only file (Redis, src/aof.c): commands as the server replicated them, with

- ``#TS:<unix seconds>`` before the commands of each second, as ``aof-timestamp-enabled`` writes them, for
  ``redis-check-aof --truncate-to-timestamp``;
- ``#RECOUP:<replication offset> <unix milliseconds>`` wherever the offset does not follow from the bytes before it, or
  the time has changed. Redis 7 and newer skips every line that begins with ``#``; for Redis 6 they are taken out;
- a ``SELECT`` first, so that a segment can be read from its beginning;
- what names a time relative to now (Redis before 7 replicates ``EXPIRE key 100`` as it is) made absolute, as the server
  does for its own append-only file (``feedAppendOnlyFile`` in 6.2);
- ``PING``, ``REPLCONF``, ``PUBLISH`` and ``SPUBLISH`` left out: they change no data.

Offsets are those of replication: the number of bytes of the stream before a place. A transaction is one thing: it has
one time, that of its ``EXEC``, and no segment ends inside it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from recoup.engines.redis.commands import COMMAND_LIMIT, CommandReader, CommandTooLongError, arguments, encode, read_log
from recoup.kernel.errors import DamageError, EngineError

_WITHOUT_DATA = frozenset((b"PING", b"REPLCONF", b"PUBLISH", b"SPUBLISH"))
_MARK = re.compile(rb"#RECOUP:(\d{1,19}) (\d{1,19})\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSegment:
    """The bytes ``[start, end)`` of a stream as append-only-file bytes. Times: ms since 1970, the server's clock."""

    replication_id: str
    start: int
    end: int
    stamp_ms: int  #: when the last byte came: the state of the data up to here is known
    commands: int  #: how many change data
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedCommand:
    """One command of a log: where it stands, when it came, and its bytes. ``end`` is the offset after it."""

    offset: int
    end: int
    at_ms: int
    name: bytes
    data: bytes


class LogWriter:
    """Takes the bytes of a replication stream from ``start`` on and gives segments.

    ``after_ms`` is the time of what came before: times never go back. ``on_request`` is called with the offset behind a
    ``REPLCONF GETACK``.
    """

    def __init__(
        self,
        replication_id: str,
        start: int,
        *,
        after_ms: int = 0,
        database: bytes | None = None,
        on_request: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.replication_id = replication_id
        self._reader = CommandReader()
        self._on_request = on_request
        self._database = database  # as the server last selected; None before the first command of a new stream
        self._start = self._offset = start
        self._at_ms = after_ms
        self._open: list[tuple[bytes, bytes]] | None = None  # a transaction whose EXEC has not come
        self._open_from, self._open_bytes = 0, 0
        self._begin()

    def _begin(self) -> None:
        self._data = bytearray()
        self._follows: int | None = None  # the offset a reader would count to
        self._second = self._marked_ms = -1
        self._commands = 0
        self._first_ms: int | None = None

    @property
    def end(self) -> int:
        """The offset up to which the next segment will reach: behind the last whole command or transaction."""
        return self._offset if self._open is None else self._open_from

    @property
    def database(self) -> bytes | None:
        """The database that the stream has selected at ``end``."""
        return self._database

    @property
    def last_ms(self) -> int:
        """When the last byte came."""
        return self._at_ms

    @property
    def commands(self) -> int:
        """How many commands that change data the next segment will hold."""
        return self._commands

    @property
    def first_ms(self) -> int | None:
        """When the first of those came."""
        return self._first_ms

    @property
    def held_bytes(self) -> int:
        """What is held in memory: the next segment, and a transaction or a command whose end has not come."""
        return len(self._data) + self._open_bytes + self._reader.unfinished_bytes

    def feed(self, data: bytes, at_ms: int) -> None:
        """Take the next bytes, which came at ``at_ms``.

        Raise ``DamageError`` when they are no commands, ``CommandTooLongError`` for a command or a transaction that
        cannot be held, ``EngineError`` for a server whose stream cannot be replayed.
        """
        self._at_ms = max(self._at_ms, at_ms)
        for name, command in self._reader.feed(data):
            begin, self._offset = self._offset, self._offset + len(command)
            if self._open is not None:
                self._gather(name, command)
            elif name == b"MULTI":
                self._open, self._open_from, self._open_bytes = [(name, command)], begin, len(command)
            else:
                self._write(begin, [(name, command)])

    def _gather(self, name: bytes, command: bytes) -> None:
        assert self._open is not None
        self._open.append((name, command))
        self._open_bytes += len(command)
        if self._open_bytes > COMMAND_LIMIT:
            raise CommandTooLongError(f"a transaction is longer than {COMMAND_LIMIT} bytes")
        if name == b"EXEC":
            whole, self._open, self._open_bytes = self._open, None, 0
            self._write(self._open_from, whole)

    def _write(self, begin: int, commands: list[tuple[bytes, bytes]]) -> None:
        kept: list[bytes] = []
        changes = 0
        for name, command in commands:
            if name in _WITHOUT_DATA:
                self._look(name, command)
                continue
            if name == b"SELECT":
                self._database = arguments(command)[1]
            elif name in (b"EVALSHA", b"EVALSHA_RO"):
                raise EngineError(
                    "the server replicates a script by its digest; the stream cannot be replayed",
                    hint="Set lua-replicate-commands yes on the Redis server (it is the default since 5.0).",
                )
            else:
                changes += name not in (b"MULTI", b"EXEC")
            kept.append(absolute(name, command, self._at_ms))
        if not kept:
            return
        plain = b"".join(kept)
        self._mark(begin)
        self._data += plain
        self._follows = begin + len(plain)
        self._commands += changes
        if changes and self._first_ms is None:
            self._first_ms = self._at_ms

    def _look(self, name: bytes, command: bytes) -> None:
        if name == b"REPLCONF":
            words = arguments(command)
            if len(words) > 1 and words[1].upper() == b"GETACK":
                self._on_request(self._offset)

    def _mark(self, offset: int) -> None:
        """Write the annotations that a command at ``offset`` needs."""
        second = self._at_ms // 1000
        if second != self._second:
            self._data += b"#TS:%d\r\n" % second
            self._second = second
        if offset != self._follows or self._at_ms != self._marked_ms:
            self._data += b"#RECOUP:%d %d\r\n" % (offset, self._at_ms)
            self._marked_ms = self._at_ms

    def cut(self) -> LogSegment | None:
        """End the segment at the last whole command or transaction and begin the next; None when nothing has come."""
        end = self.end
        if end == self._start:
            return None
        self._mark(end)
        segment = LogSegment(
            replication_id=self.replication_id,
            start=self._start,
            end=end,
            stamp_ms=self._at_ms,
            commands=self._commands,
            data=bytes(self._data),
        )
        self._start = end
        self._begin()
        if self._database is not None:
            self._data += b"#TS:%d\r\n" % (self._at_ms // 1000) + encode(b"SELECT", self._database)
            self._second = self._at_ms // 1000
        return segment


_RELATIVE = frozenset((b"EXPIRE", b"PEXPIRE", b"SETEX", b"PSETEX", b"SET", b"GETEX", b"RESTORE", b"RESTORE-ASKING"))
_UNIT = {b"EX": 1000, b"PX": 1}


def absolute(name: bytes, command: bytes, now_ms: int) -> bytes:
    """A command that names a time to live, with the instant in its place; every other one as it is."""
    if name not in _RELATIVE:
        return command
    words = arguments(command)
    try:
        if name in (b"EXPIRE", b"PEXPIRE"):
            return _expire_at(words[1], now_ms + int(words[2]) * (1000 if name == b"EXPIRE" else 1))
        if name in (b"SETEX", b"PSETEX"):
            at = now_ms + int(words[2]) * (1000 if name == b"SETEX" else 1)
            return encode(b"SET", words[1], words[3]) + _expire_at(words[1], at)
        if name == b"SET":
            for place in range(3, len(words) - 1):
                if (unit := _UNIT.get(words[place].upper())) is not None:
                    at = now_ms + int(words[place + 1]) * unit
                    return encode(b"SET", words[1], words[2]) + _expire_at(words[1], at)
        if name == b"GETEX" and len(words) == 4 and (unit := _UNIT.get(words[2].upper())) is not None:
            return _expire_at(words[1], now_ms + int(words[3]) * unit)
        if name.startswith(b"RESTORE") and words[2] != b"0" and b"ABSTTL" not in {word.upper() for word in words[4:]}:
            words[2] = b"%d" % (now_ms + int(words[2]))
            return encode(*words, b"ABSTTL")
    except (IndexError, ValueError) as wrong:
        raise DamageError(f"a {name.decode()} of the stream is not as Redis writes it") from wrong
    return command


def _expire_at(key: bytes, at_ms: int) -> bytes:
    return encode(b"PEXPIREAT", key, b"%d" % at_ms)


def read_segment(pieces: Iterable[bytes]) -> Iterator[LoggedCommand]:
    """Given the bytes of a segment, yield its commands. Those of a transaction have one offset and time.

    The first may be a ``SELECT`` with the offset -1: the database that was selected before.

    Raise ``DamageError`` when they are no segment.
    """
    offset = at_ms = -1
    transaction: list[tuple[bytes, bytes]] | None = None
    opened = 0
    for name, data in read_log(pieces):
        if name == b"#":
            if mark := _MARK.fullmatch(data):
                offset, at_ms = int(mark[1]), int(mark[2])
            continue
        if at_ms < 0:  # the SELECT at the beginning stands for what came before
            if name != b"SELECT":
                raise DamageError("the command log does not say where it begins")
            yield LoggedCommand(offset=-1, end=-1, at_ms=-1, name=name, data=data)
            continue
        if name == b"MULTI":
            transaction, opened = [], offset
        begin, offset = offset, offset + len(data)
        if transaction is None:
            yield LoggedCommand(offset=begin, end=offset, at_ms=at_ms, name=name, data=data)
            continue
        transaction.append((name, data))
        if name == b"EXEC":
            for inner, bytes_ in transaction:
                yield LoggedCommand(offset=opened, end=offset, at_ms=at_ms, name=inner, data=bytes_)
            transaction = None
    if transaction is not None:
        raise DamageError("the command log ends inside a transaction")
