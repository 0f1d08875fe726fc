"""Taking an RDB from a running Redis over the replication protocol.

What it costs production: one fork (as any BGSAVE), and the transfer. A BGSAVE that is already running is awaited,
never disturbed. With ``repl-diskless-sync yes`` (the default since 7.0) nothing is written to the server's disk, and
the server waits ``repl-diskless-sync-delay`` (5 s) before it forks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from recoup.engines.engine import Content, CopyFacts, Progress, ProgressListener, Sink
from recoup.engines.redis.connection import (
    Connection,
    RefusedByServerError,
    connect,
    read_info,
    read_keyspace,
    read_settings,
)
from recoup.engines.redis.rdb import Auxiliary, Header, read_rdb
from recoup.engines.redis.tee import FingerprintTee
from recoup.engines.redis.transfer import IDLE_SECONDS, receive_rdb
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RecoupError, RefusedError
from recoup.kernel.secret import Secret

STREAM = "dump.rdb"
_REMARKS_BYTES = 2048  #: of the beginning of an RDB; what the server says of itself there takes about 200

#: Settings that a restore must know to bring the server back as it was.
SETTINGS = (
    "appendonly",
    "appendfilename",
    "appenddirname",
    "dbfilename",
    "dir",
    "save",
    "databases",
    "maxmemory",
    "maxmemory-policy",
    "rdbchecksum",
    "aof-use-rdb-preamble",
)


def take_rdb(
    url: Secret | str,
    sink: Sink,
    *,
    on_progress: ProgressListener,
    fingerprint: bool = True,
    origin_ms: int | None = None,
    idle_seconds: float = IDLE_SECONDS,
) -> CopyFacts:
    """Stream the data set of a Redis, as of one instant, into ``dump.rdb``, and return what is known of it.

    ``origin_ms`` is that of an earlier fingerprint, with which the new one shall be compared.

    Raise ``EngineError`` when the server cannot be reached, refuses, or goes away in the middle; ``DamageError`` when
    what it sent is no intact RDB; ``RefusedError`` for a cluster, of which this would be one part only.
    """
    with connect(url) as connection:
        facts, left_out = gather_facts(connection)
        at_ms = server_time_ms(connection)
    with connect(url) as connection, sink.stream(STREAM, content=Content.OPAQUE) as stream:
        receipt = RdbReceipt(stream.write, on_progress, at_ms=at_ms if fingerprint else None, origin_ms=origin_ms)
        try:
            received = receive_rdb(connection, receipt.write, on_size=receipt.expect, idle_seconds=idle_seconds)
            more, sums, missing = receipt.finish()
        except BaseException:
            receipt.abandon()
            raise
    facts |= more | {"replid": received.replication_id, "offset": received.offset, "diskless": received.diskless}
    return CopyFacts(facts=facts, fingerprint=sums, left_out=(*left_out, *missing))


class RdbReceipt:
    """What happens to every piece of an RDB on its way into a sink: stored, counted, fingerprinted."""

    def __init__(
        self,
        write: Callable[[bytes], None],
        on_progress: ProgressListener,
        *,
        at_ms: int | None,
        origin_ms: int | None = None,
    ) -> None:
        self._store = write
        self._on_progress = on_progress
        self._tee = None if at_ms is None else FingerprintTee(at_ms=at_ms, origin_ms=origin_ms)
        self._head = b""
        self._begin = b""
        self._done = 0
        self._expected: int | None = None

    def expect(self, total_bytes: int | None) -> None:
        """Learn the length, where it is known beforehand."""
        self._expected = total_bytes

    def write(self, data: bytes) -> None:
        """Take the next piece."""
        self._head = (self._head + data[:9])[:9]
        if len(self._begin) < _REMARKS_BYTES:
            self._begin += data[: _REMARKS_BYTES - len(self._begin)]
        self._store(data)
        if self._tee is not None:
            self._tee.write(data)
        self._done += len(data)
        self._on_progress(Progress(what=STREAM, done_bytes=self._done, total_bytes=self._expected))

    def finish(self) -> tuple[dict[str, Any], dict[str, Any] | None, tuple[tuple[str, str], ...]]:
        """After the last piece: facts, the fingerprint or None, and what was left out. Raise ``DamageError``."""
        if self._head[:5] != b"REDIS" or not self._head[5:].isdigit():
            raise DamageError("the server sent no RDB: it does not begin with REDIS and a version")
        facts: dict[str, Any] = {"rdb_version": int(self._head[5:]), "size_bytes": self._done}
        facts |= _place_in_stream(self._begin)
        if self._tee is None:
            return facts, None, ()
        outcome = self._tee.finish()
        if isinstance(outcome, str):
            return facts, None, (("fingerprint", outcome),)
        sums, summary = outcome
        assert summary.end is not None
        facts["keys"] = {str(db): count for db, count in sorted(summary.keys.items())}
        facts["checksum"] = summary.end.checksum_stated
        return facts, sums, ()

    def abandon(self) -> None:
        """The transfer failed; stop working. Harmless when repeated."""
        if self._tee is not None:
            self._tee.abandon()


def _place_in_stream(begin: bytes) -> dict[str, Any]:
    """The replication id and offset that a server with a backlog writes at the beginning of an RDB; {} without.

    Source: Redis, src/rdb.c (``rdbSaveInfoAuxFields``).
    """
    remarks: dict[bytes, bytes] = {}
    with contextlib.suppress(RecoupError):  # the beginning is cut off somewhere, and the whole is judged elsewhere
        for record in read_rdb([begin]):
            if isinstance(record, Auxiliary):
                remarks[record.name] = record.value
            elif not isinstance(record, Header):
                break
    replid, offset = remarks.get(b"repl-id", b"").decode(errors="replace"), remarks.get(b"repl-offset", b"")
    return {"replid": replid, "offset": int(offset)} if replid and offset.isdigit() else {}


def gather_facts(connection: Connection) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """What the server says of itself, and what it would not say. Raise ``RefusedError`` for a cluster."""
    info = read_info(connection, "server", "replication", "persistence", "memory", "keyspace")
    facts = facts_of(info, str(connection.address), read_keyspace(info))
    try:
        facts["settings"] = read_settings(connection, *SETTINGS)
    except RefusedByServerError as refusal:
        return facts, (("settings", f"CONFIG GET is not allowed: {refusal.message}"),)
    return facts, ()


def facts_of(info: Mapping[str, str], where: str, keys: Mapping[int, int]) -> dict[str, Any]:
    """The facts of a copy that ``INFO`` gives. Raise ``RefusedError`` for a cluster."""
    if info.get("redis_mode") == "cluster":
        raise RefusedError(
            f"{where} is one node of a Redis Cluster; its copy alone would not be the data set",
            hint="Recoup protects single servers and their replicas; back up each node as a service of its own.",
        )
    return {
        "redis_version": info.get("redis_version", ""),
        "run_id": info.get("run_id", ""),
        "role": info.get("role", ""),
        "aof_enabled": info.get("aof_enabled") == "1",
        "used_memory_bytes": int(info.get("used_memory", "0")),
        "keys_about": {str(db): count for db, count in keys.items()},
    }


def milliseconds_now() -> int:
    """This machine's clock, in ms since 1970."""
    return clock.to_ms(clock.now())


def server_time_ms(connection: Connection) -> int:
    """The server's clock, which decides what expires, in ms since 1970; this machine's where TIME is not allowed."""
    return server_time_us(connection) // 1000


def server_time_us(connection: Connection) -> int:
    """As ``server_time_ms``, in microseconds."""
    try:
        answer = connection.command("TIME")
    except RefusedByServerError:
        answer = None
    if isinstance(answer, list) and len(answer) == 2 and all(isinstance(part, bytes) for part in answer):
        seconds, microseconds = (int(part) for part in answer if isinstance(part, bytes))
        return seconds * 1_000_000 + microseconds
    return clock.to_us(clock.now())
