"""Following a Redis as a replica does, without taking its data set: the commands from a known offset on.

Source: Redis, src/replication.c (``masterTryPartialResynchronization``, ``replconfCommand``). ``PSYNC <id> <offset>``
with an offset that the server's backlog still holds is answered by ``+CONTINUE`` and the bytes from there on: no fork,
no file. So the stream never asks for a full synchronisation: it begins at the server's present offset, and the RDB
it belongs to is an ordinary copy taken afterwards, whose offset lies inside the stream.

What it costs the server: the output buffer of one replica. A replica that does not read fast enough is cut off at
``client-output-buffer-limit replica``; it then asks for what it missed from the backlog (``repl-backlog-size``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from recoup.engines.redis.address import RedisAddress
from recoup.engines.redis.connection import Connection, LostConnectionError, connect, read_info
from recoup.engines.redis.snapshot import server_time_us
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.secret import Secret

_CONTINUE = re.compile(r"CONTINUE(?: ([0-9a-f]{40}))?")
_ANSWER_SECONDS = 60.0
#: How long a server may send nothing. It sends a PING every ``repl-ping-replica-period`` (10 s) at the latest.
SILENCE_SECONDS = 60.0


class CannotContinueError(EngineError):
    """The server does not have the bytes that were asked for any more: what follows is not what was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamState:
    """Where a server's replication stream stands, from ``INFO replication``."""

    replication_id: str
    offset: int
    second_id: str  #: the id before a failover or a restart, ``0000…`` when there is none
    second_offset: int  #: up to where the second id is valid, -1 when there is none
    backlog_first: int | None  #: the number of the first byte in the backlog, None without a backlog
    backlog_bytes: int
    version: str
    run_id: str

    def continues(self, replication_id: str, offset: int) -> bool:
        """Whether the server can go on behind ``offset`` of ``replication_id`` without a full synchronisation."""
        wanted = offset + 1  # PSYNC counts the first byte as 1
        if self.backlog_first is None:
            return False
        known = replication_id == self.replication_id or (
            replication_id == self.second_id and wanted <= self.second_offset
        )
        return known and self.backlog_first <= wanted <= self.backlog_first + self.backlog_bytes


def read_state(info: Mapping[str, str], where: str) -> StreamState:
    """Given ``INFO server`` and ``INFO replication``, return the state. Raise ``RefusedError``, ``EngineError``."""
    if info.get("redis_mode") == "cluster":
        raise RefusedError(
            f"{where} is one node of a Redis Cluster; its stream alone would not be the data set",
            hint="Recoup protects single servers and their replicas.",
        )
    if info.get("role") == "slave" and info.get("master_link_status") != "up":
        raise EngineError(
            f"{where} is a replica without its master, so it has no stream", hint="Use the master's address."
        )
    try:
        return StreamState(
            replication_id=info["master_replid"],
            offset=int(info["master_repl_offset"]),
            second_id=info.get("master_replid2", ""),
            second_offset=int(info.get("second_repl_offset", "-1")),
            backlog_first=int(info["repl_backlog_first_byte_offset"]) if info["repl_backlog_active"] == "1" else None,
            backlog_bytes=int(info.get("repl_backlog_histlen", "0")),
            version=info.get("redis_version", ""),
            run_id=info.get("run_id", ""),
        )
    except (KeyError, ValueError) as wrong:
        raise EngineError(f"{where} does not say where its replication stands (INFO replication)") from wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerClock:
    """What a server answered when it was asked for its time, and when it was asked, by the clock of this machine.

    All in microseconds since 1970, each cut off behind the last one.
    """

    asked_us: int
    answer_us: int

    def latest_ms(self, now_us: int) -> int:
        """The latest that the server's clock can show at ``now_us``, rounded up to a millisecond.

        What arrives now was done by then. A time that is too early would put it into a restore to a moment before it.
        """
        ahead_us = self.answer_us + 1 - self.asked_us  # when it answered no time had passed: at most so much
        return -(-(now_us + 1 + ahead_us) // 1000)


class Follower:
    """One connection that follows a server. Not safe to share between threads."""

    def __init__(self, url: Secret | str | RedisAddress) -> None:
        """Connect and look. Raise ``EngineError``, ``RefusedError``."""
        self._connection: Connection = connect(url, database=0)
        try:
            info = read_info(self._connection, "server", "replication")
            self.state = read_state(info, self.where)
            asked_us = clock.to_us(clock.now())
            self._clock = ServerClock(asked_us=asked_us, answer_us=server_time_us(self._connection))
        except BaseException:
            self._connection.close()
            raise
        self._heard = clock.monotonic()

    @property
    def where(self) -> str:
        """The server, for people."""
        return str(self._connection.address)

    def look_again(self) -> StreamState:
        """Where the server's stream stands now. Only before ``follow``."""
        self.state = read_state(read_info(self._connection, "server", "replication"), self.where)
        return self.state

    def now_ms(self) -> int:
        """The latest that the server's clock can show now, as far as it could be asked, in ms since 1970."""
        return self._clock.latest_ms(clock.to_us(clock.now()))

    def close(self) -> None:
        """End it. Harmless when repeated."""
        self._connection.close()

    def follow(self, replication_id: str, offset: int) -> str:
        """Ask for everything behind ``offset``; return the replication id that holds from there on.

        Raise ``CannotContinueError`` when the server would begin anew, ``EngineError`` when it refuses.
        """
        link = self._connection
        # A port of 0 only shows in INFO replication.
        link.command("REPLCONF", "listening-port", "0")
        link.command("REPLCONF", "capa", "eof", "capa", "psync2")
        link.limit_silence(_ANSWER_SECONDS)
        link.send("PSYNC", replication_id, offset + 1)
        while not (line := link.line()):
            pass  # an empty line now and then, while it waits
        text = line.decode(errors="replace")
        if text.startswith("-"):
            raise link.refusal(text[1:])
        match = _CONTINUE.fullmatch(text[1:])
        if match is None:
            self.close()  # before it has sent much of the data set that it would send now
            raise CannotContinueError(f"{link.address} has no stream from offset {offset} on: {text[:60]!r}")
        self._heard = clock.monotonic()
        return match[1] or replication_id

    def receive(self, seconds: float) -> bytes:
        """What the server sent, waiting at most so long; nothing when it sent nothing.

        Raise ``LostConnectionError`` when the connection is gone, or silent for ``SILENCE_SECONDS``.
        """
        if not self._connection.wait(seconds):
            if clock.monotonic() - self._heard > SILENCE_SECONDS:
                raise LostConnectionError(f"{self.where} sent nothing for {SILENCE_SECONDS:g} s")
            return b""
        data = self._connection.some()
        self._heard = clock.monotonic()
        return data

    def acknowledge(self, offset: int) -> None:
        """Tell the server what is kept safely (``REPLCONF ACK``); it answers nothing. Raise ``LostConnectionError``."""
        self._connection.send("REPLCONF", "ACK", offset)
