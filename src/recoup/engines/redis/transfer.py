"""Receiving an RDB as a replica does: the replication handshake, spoken directly.

Source: Redis, src/replication.c (``syncCommand``, ``readSyncBulkPayload``). The server forks once and sends the data
set of that instant; ``rdb-only`` (Redis 7 and newer) keeps it from buffering later writes for us, so that a slow
repository costs production nothing but the life of that fork. Recoup closes the connection afterwards and is no
replica any more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from recoup.engines.redis.connection import Connection, LostConnectionError, RefusedByServerError
from recoup.kernel import clock
from recoup.kernel.errors import EngineError

IDLE_SECONDS = 120.0
#: How long a server may fork and write its file (``repl-diskless-sync no``) before the first byte comes.
BEGIN_SECONDS = 4 * 3600.0
_MARK_BYTES = 40
_PIECE = 256 * 1024
_FULLRESYNC = re.compile(r"FULLRESYNC ([0-9a-f]{40}) (-?\d+)")
_CLOSED_HINT = (
    "Look at the log of the Redis server: it may have been stopped, out of memory for a fork, or out of disk space."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What the master said of the data set it sent."""

    replication_id: str
    offset: int
    plain_bytes: int
    diskless: bool  #: sent by the fork itself, without a file on the server's disk


def receive_rdb(
    connection: Connection,
    write: Callable[[bytes], None],
    *,
    on_size: Callable[[int | None], None] = lambda _: None,
    idle_seconds: float = IDLE_SECONDS,
) -> Received:
    """Ask for a full synchronisation and hand every byte of the RDB to ``write``; the connection is spent afterwards.

    ``on_size`` learns the length when the server states it. Raise ``EngineError`` when the server refuses, stays
    silent longer than ``idle_seconds``, or the connection ends before the last byte.
    """
    _introduce(connection)
    replication_id, offset = _ask(connection)
    connection.limit_silence(idle_seconds)
    try:
        announcement = _first_words(connection)
        if announcement.startswith(b"-"):
            raise EngineError(
                f"{connection.address} gave up the transfer: {announcement[1:200].decode(errors='replace')}",
                hint=_CLOSED_HINT,
            )
        if announcement.startswith(b"$EOF:") and len(announcement) == 5 + _MARK_BYTES:
            on_size(None)
            length, diskless = _until_mark(connection, write, announcement[5:]), True
        elif announcement.startswith(b"$") and announcement[1:].isdigit():
            length, diskless = int(announcement[1:]), False
            on_size(length)
            _counted(connection, write, length)
        else:
            raise EngineError(f"{connection.address} sent no RDB: {announcement[:40]!r}")
    except LostConnectionError as lost:
        raise LostConnectionError(f"the transfer of the RDB was cut: {lost.message}", hint=_CLOSED_HINT) from lost
    finally:
        connection.close()
    return Received(replication_id=replication_id, offset=offset, plain_bytes=length, diskless=diskless)


def _introduce(connection: Connection) -> None:
    # A port of 0 keeps us out of nothing: it only shows in INFO replication. Servers older than the option answer an
    # error to rdb-only and go on.
    connection.command("REPLCONF", "listening-port", "0")
    connection.command("REPLCONF", "capa", "eof", "capa", "psync2")
    try:
        connection.command("REPLCONF", "rdb-only", "1")
    except RefusedByServerError as refusal:
        if refusal.code != "ERR":
            raise


def _ask(connection: Connection) -> tuple[str, int]:
    # The answer may take as long as a running BGSAVE, which the server finishes first.
    connection.limit_silence(IDLE_SECONDS)
    connection.send("PSYNC", "?", "-1")
    text = _first_words(connection).decode(errors="replace")
    if text.startswith("-"):
        raise connection.refusal(text[1:])
    match = _FULLRESYNC.match(text[1:])
    if match is None:
        raise EngineError(f"unexpected answer of {connection.address} to PSYNC: {text[:80]!r}")
    return match[1], int(match[2])


def _first_words(connection: Connection) -> bytes:
    """Wait for the server to go on; it sends an empty line now and then while it waits, forks and writes its file."""
    deadline = clock.monotonic() + BEGIN_SECONDS
    while not (words := connection.line()):
        if clock.monotonic() > deadline:
            raise EngineError(f"{connection.address} has not begun to send within {BEGIN_SECONDS:g} s")
    return words


def _counted(connection: Connection, write: Callable[[bytes], None], length: int) -> None:
    left = length
    while left:
        data = connection.some(min(left, _PIECE))
        left -= len(data)
        write(data)


def _until_mark(connection: Connection, write: Callable[[bytes], None], mark: bytes) -> int:
    """The diskless form: the length is unknown beforehand, and a random mark follows the last byte."""
    held, written = b"", 0
    while True:
        held += connection.some()
        if held.endswith(mark):
            ready, held = held[:-_MARK_BYTES], b""
        else:
            ready, held = held[:-_MARK_BYTES], held[-_MARK_BYTES:]
        if ready:
            write(ready)
            written += len(ready)
        if not held:
            return written
