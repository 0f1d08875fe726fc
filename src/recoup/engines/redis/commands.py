"""Commands as they travel in a replication stream and lie in an append-only file: arrays of bulk strings.

Source: the Redis protocol (https://redis.io/docs/latest/develop/reference/protocol-spec/, "Sending commands to a Redis
server"); Redis, src/aof.c (``loadSingleAppendOnlyFile``: lines that begin with ``#`` are annotations and are skipped
since 7.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from recoup.kernel.errors import DamageError

#: The longest command that is taken whole. A value of more than this cannot be kept in a stream of bounded memory.
COMMAND_LIMIT = 64 << 20
_ARGUMENTS_LIMIT = 1 << 20
_HEAD_LIMIT = 32
_SHORTEST_ARGUMENT = 6  #: ``$0``, and two ends of line


class CommandTooLongError(DamageError):
    """One command is longer than ``COMMAND_LIMIT``."""


class CommandReader:
    """Cuts bytes into commands. Give it pieces as they come; it keeps at most one unfinished command."""

    def __init__(self) -> None:
        self._buffer = b""
        self._pieces: list[bytes] = []
        self._held = 0
        self._needed = 1

    @property
    def unfinished_bytes(self) -> int:
        """How many bytes of a command have come whose end has not."""
        return self._held

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take the next piece and yield each command that is complete: its name in capitals, and all its bytes.

        Raise ``DamageError`` for bytes that are no command, ``CommandTooLongError``.
        """
        self._pieces.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return
        buffer = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        at, end = 0, len(buffer)
        try:
            while at < end:
                found = _measure(buffer, at)
                if isinstance(found, int):
                    self._needed = found - at
                    break
                stop, name = found
                yield name, buffer[at:stop]
                at = stop
            else:
                self._needed = 1
        finally:
            rest = buffer[at:]
            self._pieces, self._held = ([rest] if rest else []), len(rest)


def _measure(buffer: bytes, at: int) -> tuple[int, bytes] | int:
    """Where the command that begins at ``at`` ends, and its name; or where it ends at the earliest, when bytes lack."""
    count, at = _number(buffer, at, b"*")
    if count < 0:
        return len(buffer) + 1
    if not 1 <= count <= _ARGUMENTS_LIMIT:
        raise DamageError(f"no command: it states {count} arguments")
    begin, name = at, b""
    for position in range(count):
        length, at = _number(buffer, at, b"$")
        if length < 0:
            return len(buffer) + 1
        stop = at + length
        if stop - begin > COMMAND_LIMIT:
            raise CommandTooLongError(f"a command is longer than {COMMAND_LIMIT} bytes")
        if stop + 2 > len(buffer):
            return stop + 2 + (count - position - 1) * _SHORTEST_ARGUMENT
        if buffer[stop : stop + 2] != b"\r\n":
            raise DamageError("no command: an argument does not end where it says")
        if position == 0:
            name = buffer[at:stop].upper()
        at = stop + 2
    return at, name


def _number(buffer: bytes, at: int, kind: bytes) -> tuple[int, int]:
    """The number of the head at ``at`` and where what follows it begins; (-1, at) when bytes lack."""
    end = buffer.find(b"\r\n", at, at + _HEAD_LIMIT)
    if end < 0:
        if len(buffer) - at >= _HEAD_LIMIT or (at < len(buffer) and buffer[at : at + 1] != kind):
            raise DamageError(f"no command: {buffer[at : at + 16]!r} stands where {kind.decode()} and a number belong")
        return -1, at
    if buffer[at : at + 1] != kind or not buffer[at + 1 : end].isdigit():
        raise DamageError(f"no command: {buffer[at:end]!r} stands where {kind.decode()} and a number belong")
    return int(buffer[at + 1 : end]), end + 2


def arguments(command: bytes) -> list[bytes]:
    """The arguments of one whole command."""
    count, at = _number(command, 0, b"*")
    found = []
    for _ in range(count):
        length, at = _number(command, at, b"$")
        found.append(command[at : at + length])
        at += length + 2
    return found


def encode(*words: bytes) -> bytes:
    """One command from its arguments."""
    return b"".join((b"*%d\r\n" % len(words), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)))


def read_log(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Given an append-only file without preamble, yield its annotations (name ``#``) and commands, in order.

    Raise ``DamageError`` when it is no such file or ends inside a command.
    """
    buffer = b"".join(pieces)
    at = 0
    while at < len(buffer):
        if buffer[at : at + 1] == b"#":
            end = buffer.find(b"\n", at)
            if end < 0:
                raise DamageError("the command log ends inside an annotation")
            yield b"#", buffer[at : end + 1]
            at = end + 1
            continue
        found = _measure(buffer, at)
        if isinstance(found, int):
            raise DamageError("the command log ends inside a command")
        stop, name = found
        yield name, buffer[at:stop]
        at = stop
