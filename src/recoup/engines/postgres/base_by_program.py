"""Take a base backup with the server's own ``pg_basebackup``, where no replication connection can be made from here.

In a container the program connects over the local socket, which needs neither a published port nor a line in
``pg_hba.conf``. It writes one tar to its standard output, with the server's manifest as the last member.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from recoup.engines.engine import Content, CopyFacts, Progress, ProgressListener, Sink, StreamSink
from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.backup_manifest import BackupManifest, parse_manifest
from recoup.engines.postgres.base_backup import refuse_other_cluster
from recoup.engines.postgres.base_stopped import StopSign
from recoup.engines.postgres.earlier import Earlier
from recoup.engines.postgres.incremental import explain_program, require_summaries, require_timeline, require_version
from recoup.engines.postgres.server_facts import as_rows, inventory, left_out_of, settings_by_sql
from recoup.engines.postgres.stream_names import BASE_ARCHIVE, MANIFEST_STREAM
from recoup.engines.postgres.tar_walk import TarWalk
from recoup.engines.postgres.wire import IDLE_SECONDS
from recoup.kernel.errors import DamageError, EngineError, RefusedError
from recoup.kernel.process import Child, open_child

_PIECE_BYTES = 256 << 10
_PIPE_BYTES = 1 << 20
_CHECKPOINT_SECONDS = 1800.0
_TABLESPACES = """
SELECT spcname AS name, pg_tablespace_location(oid) AS path FROM pg_tablespace
WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1"""


def take_base_backup_by_program(
    access: ServerAccess,
    sink: Sink,
    *,
    label: str,
    checkpoint_fast: bool = True,
    max_rate: int | None = None,
    expected_system_identifier: str | None = None,
    on_progress: ProgressListener | None = None,
    idle_seconds: float = IDLE_SECONDS,
    since: Earlier | None = None,
    on_stopped: Callable[[datetime], None] | None = None,
) -> CopyFacts:
    """Stream ``base.tar``, WAL and manifest inside it, into ``sink``. ``max_rate`` is in bytes per second.

    With ``since``, the copy holds only the blocks that changed since that backup began. ``on_stopped``: see
    ``StopSign``.

    Raise ``RefusedError`` for another cluster than the expected one, when the server cannot tell what changed, and for
    a cluster with tablespaces, which ``pg_basebackup`` cannot write to its standard output; ``EngineError`` when the
    program fails or falls silent.
    """
    with open_maintenance(access) as session:
        facts = settings_by_sql(session)
        refuse_other_cluster(str(facts["system_identifier"]), expected_system_identifier, access.place)
        if since is not None:
            refuse_other_cluster(str(facts["system_identifier"]), since.system_identifier, access.place)
            require_version(int(facts["major"]), access.place)
            require_summaries(str(session.query("SHOW summarize_wal")[0][0]), access.place)
        spaces = as_rows(session, _TABLESPACES)
        size = as_rows(session, "SELECT sum(pg_database_size(oid))::bigint AS bytes FROM pg_database")[0]["bytes"]
    if spaces:
        raise RefusedError(
            f"the server in {access.place} has tablespaces ({', '.join(row['name'] for row in spaces)}), "
            "which pg_basebackup cannot send through a pipe",
            hint="Give the plan an address of the server (url:), so that a replication connection can take the copy.",
        )
    found = inventory(access)
    arguments = _arguments(label, checkpoint_fast=checkpoint_fast, max_rate=max_rate, incremental=since is not None)
    report = _reporter(on_progress, size)
    sign = None if on_stopped is None else StopSign(on_stopped)
    command = access.command("pg_basebackup", *arguments)
    try:
        with (
            open_child(command, stdin=since is not None) as child,
            sink.stream(BASE_ARCHIVE, content=Content.TAR, expected_bytes=size) as out,
        ):
            if since is not None:
                _send_manifest(child, since)
            manifest = _copy(child, out, report, idle_seconds, sign)
            positions = _positions(manifest)
            if since is not None:
                require_timeline(int(positions["timeline"]), access.place, since)
    except EngineError as failure:
        raise failure if since is None else explain_program(failure, since) from failure
    return CopyFacts(
        facts={
            **facts,
            **positions,
            **({} if since is None else since.facts()),
            "tablespaces": [],
            "databases": found["databases"],
            "includes_wal": True,
            "method": "pg_basebackup",
        },
        left_out=left_out_of(found),
        depends_on=() if since is None else since.chain,
    )


def _arguments(label: str, *, checkpoint_fast: bool, max_rate: int | None, incremental: bool) -> list[str]:
    arguments = ["--pgdata=-", "--format=tar", "--wal-method=fetch", "--no-password", f"--label={label}"]
    arguments.append(f"--checkpoint={'fast' if checkpoint_fast else 'spread'}")
    if max_rate is not None:
        arguments.append(f"--max-rate={min(max(max_rate // 1024, 32), 1 << 20)}k")
    if incremental:
        arguments.append("--incremental=/dev/stdin")
    return arguments


def _send_manifest(child: Child, since: Earlier) -> None:
    """Give the program the manifest to build on; it reads all of it before it sends a byte."""
    with contextlib.suppress(BrokenPipeError):  # it has ended, and says why
        for piece in since.manifest():
            child.stdin.write(piece)
        child.stdin.close()


def _copy(
    child: Child, out: StreamSink, report: Callable[[int], None], idle_seconds: float, sign: StopSign | None
) -> BackupManifest:
    """Pass the bytes on while reading along; the tar must be whole, and the program must end well."""
    manifest: BackupManifest | None = None
    try:
        walk = TarWalk(_pieces(child, out, report, idle_seconds, sign), "the output of pg_basebackup")
        for entry in walk:
            if entry.path == MANIFEST_STREAM:
                manifest = parse_manifest(walk.data())
    except DamageError as cut:
        # The program's own words say more than that its output ended early.
        child.require_success(60)
        raise EngineError(cut.message) from cut
    child.require_success(60)
    if manifest is None:
        raise EngineError("pg_basebackup sent no manifest")
    if sign is not None:
        sign.end()
    return manifest


def _pieces(
    child: Child, out: StreamSink, report: Callable[[int], None], idle_seconds: float, sign: StopSign | None
) -> Iterator[bytes]:
    pipe = child.stdout.fileno()
    with contextlib.suppress(OSError):  # a smaller pipe only costs some speed
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    patience = max(idle_seconds, _CHECKPOINT_SECONDS)
    while True:
        if not poll.poll(patience * 1000):
            raise EngineError(
                f"pg_basebackup has sent nothing for {patience:g} s and was stopped",
                hint="Look whether the server is overloaded or its disk hangs, then try again.",
            )
        data = os.read(pipe, _PIECE_BYTES)
        if not data:
            return
        patience = idle_seconds
        if sign is not None:
            sign.see(data)  # first: the sink may be slow
        out.write(data)
        report(len(data))
        yield data


def _reporter(on_progress: ProgressListener | None, total: int | None) -> Callable[[int], None]:
    done = reported = 0

    def report(size: int) -> None:
        nonlocal done, reported
        done += size
        if on_progress is not None and done - reported >= 8 << 20:
            reported = done
            on_progress(Progress(what="base backup", done_bytes=done, total_bytes=total))

    return report


def _positions(manifest: BackupManifest) -> dict[str, Any]:
    if not manifest.wal_ranges:
        raise EngineError("the manifest of pg_basebackup has no WAL range")
    last = max(manifest.wal_ranges, key=lambda needed: needed.end)
    return {
        "timeline": last.timeline,
        "begin_lsn": str(min(needed.start for needed in manifest.wal_ranges)),
        "end_lsn": str(last.end),
    }
