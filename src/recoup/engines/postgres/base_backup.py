"""Take a PostgreSQL base backup over the replication protocol: the whole cluster, restorable alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from recoup.engines.engine import Content, CopyFacts, Progress, ProgressListener, Sink, StreamSink
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.base_protocol import BaseBackupOptions, BaseBackupStream, upload_manifest
from recoup.engines.postgres.base_stopped import StopSign
from recoup.engines.postgres.earlier import Earlier
from recoup.engines.postgres.incremental import explain_refusal, require_incremental, require_timeline
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.server_facts import inventory, left_out_of, settings_over_wire
from recoup.engines.postgres.stream_names import BASE_ARCHIVE, MANIFEST_STREAM
from recoup.engines.postgres.wal_hold import WalHold
from recoup.engines.postgres.wire import IDLE_SECONDS, ServerError, SystemIdentity, Wire, connect
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.secret import Secret


def take_base_backup(
    connection_info: Secret,
    sink: Sink,
    *,
    label: str,
    checkpoint_fast: bool = True,
    max_rate: int | None = None,
    include_wal: bool = True,
    expected_system_identifier: str | None = None,
    on_progress: ProgressListener | None = None,
    idle_seconds: float = IDLE_SECONDS,
    hold_wal_bytes: int | None = None,
    since: Earlier | None = None,
    on_stopped: Callable[[datetime], None] | None = None,
) -> CopyFacts:
    """Stream ``base.tar``, ``<oid>.tar`` for each tablespace, and ``backup_manifest`` into ``sink``.

    ``max_rate`` is in bytes per second. With ``include_wal`` the copy holds the WAL it needs to start; until it is
    sent, a temporary slot keeps it on the server, but never more than ``hold_wal_bytes`` (0: none; by default a
    tenth of the cluster's size, at least 1 and at most 16 GiB). The copy is good only when this returns: the caller
    must discard it when this raises, which may be after the last byte. With ``since``, it holds only the blocks that
    changed since that backup began, and is restored together with it. ``on_stopped``: see ``StopSign``.

    Raise ``RefusedError`` when the server is another cluster than ``expected_system_identifier``, or cannot tell what
    changed; ``EngineError`` and its kinds for everything the server or the network does wrong.
    """
    options = BaseBackupOptions(
        label=label,
        checkpoint_fast=checkpoint_fast,
        max_rate_kib=_rate(max_rate),
        include_wal=include_wal,
        incremental=since is not None,
    )
    with connect(connection_info) as wire:
        identity = wire.identify()
        refuse_other_cluster(identity.system_identifier, expected_system_identifier, wire.address)
        if since is not None:
            refuse_other_cluster(identity.system_identifier, since.system_identifier, wire.address)
            require_incremental(wire, identity.timeline, since)
        facts = settings_over_wire(wire)
        found, not_read = _inventory(connection_info)
        sign = None if on_stopped is None else StopSign(on_stopped)
        with WalHold(connection_info, limit_bytes=hold_wal_bytes) as hold:
            try:
                if since is not None:
                    upload_manifest(wire, since.manifest(), idle_seconds=idle_seconds)
                begin, end, timeline, stream = _copy(wire, sink, options, hold, on_progress, idle_seconds, sign)
            except ServerError as failure:
                raise _explain(failure, wire, hold, since) from failure
        if since is not None:
            require_timeline(timeline, wire.address, since)
    return CopyFacts(
        facts={
            **facts,
            **_positions(identity, begin, end, timeline),
            "tablespaces": [{"oid": space.oid, "path": space.path} for space in stream.tablespaces],
            "databases": (found or {}).get("databases"),
            "includes_wal": include_wal,
            "wal_hold": hold.state,
            "method": "replication protocol",
            **({} if since is None else since.facts()),
        },
        left_out=(*left_out_of(found), *not_read),
        depends_on=() if since is None else since.chain,
    )


def refuse_other_cluster(found: str, expected: str | None, where: str) -> None:
    """Raise ``RefusedError`` when the system identifier is not the expected one."""
    if expected is not None and found != expected:
        raise RefusedError(
            f"PostgreSQL at {where} is another cluster: its system identifier is {found}, expected {expected}",
            hint="Correct the address. If the cluster was replaced on purpose, say so with --other-cluster.",
        )


def _copy(
    wire: Wire,
    sink: Sink,
    options: BaseBackupOptions,
    hold: WalHold,
    on_progress: ProgressListener | None,
    idle_seconds: float,
    sign: StopSign | None,
) -> tuple[Lsn, Lsn, int, BaseBackupStream]:
    total: int | None = None

    def report(done: int) -> None:
        if on_progress is not None:
            on_progress(Progress(what="base backup", done_bytes=done, total_bytes=total))

    stream = BaseBackupStream(wire, report, idle_seconds=idle_seconds)
    begin, timeline = stream.begin(options)
    total = stream.total_kib * 1024
    hold.for_cluster_of(total)
    sizes = {f"{space.oid}.tar": space.kib * 1024 for space in stream.tablespaces}
    sizes[BASE_ARCHIVE] = total - sum(sizes.values())
    end = None
    while (name := stream.next_archive()) is not None:
        content = Content.OPAQUE if name == MANIFEST_STREAM else Content.TAR
        with sink.stream(name, content=content, expected_bytes=sizes.get(name)) as out:
            if sign is not None and name == BASE_ARCHIVE:
                stream.pump(_seen_by(sign, out))
                sign.end()
            else:
                stream.pump(out.write)
            if name == MANIFEST_STREAM:
                # Still inside the stream: an error after all the data must discard the copy.
                end, end_timeline = stream.end()
    if end is None:
        raise EngineError(f"{wire.address} sent no manifest with its base backup")
    if end_timeline != timeline:
        raise EngineError(f"the timeline changed from {timeline} to {end_timeline} during the base backup")
    return begin, end, timeline, stream


def _seen_by(sign: StopSign, out: StreamSink) -> Callable[[memoryview], None]:
    def write(data: memoryview) -> None:
        sign.see(data)  # first: the sink may be slow
        out.write(data)

    return write


def _explain(failure: ServerError, wire: Wire, hold: WalHold, since: Earlier | None) -> EngineError | RefusedError:
    """Add what the server warned about, and what to do."""
    if since is not None and (refusal := explain_refusal(failure, since)) is not failure:
        return refusal
    text, hint = failure.message, failure.hint
    if wire.notices:
        text += f"; before that it warned: {'; '.join(wire.notices[:3])}"
    if "checksum verification" in text:
        hint = (
            "A page on the server's disk is damaged, so no good copy can be taken. Keep the older backups, find the "
            "table with pg_amcheck, and restore it from a backup before the damage."
        )
    elif "WAL segment" in text or "could not find any WAL files" in text:
        hint = (
            "The server removed WAL that the copy needs while it was taken. Raise wal_keep_size, or take the copy when "
            f"less is written. (The WAL was {hold.state}.)"
        )
    return EngineError(text, hint=hint)


def _positions(identity: SystemIdentity, begin: Lsn, end: Lsn, timeline: int) -> Mapping[str, Any]:
    return {
        "system_identifier": identity.system_identifier,
        "timeline": timeline,
        "begin_lsn": str(begin),
        "end_lsn": str(end),
    }


def _inventory(url: Secret) -> tuple[dict[str, Any] | None, tuple[tuple[str, str], ...]]:
    """The inventory is for people and for later checks; a role that may only replicate still takes a whole copy."""
    try:
        return inventory(DirectAccess(url, statement_timeout_seconds=60)), ()
    except EngineError as failure:
        return None, (("the list of databases and extensions", failure.message),)


def _rate(bytes_per_second: int | None) -> int | None:
    return None if bytes_per_second is None else min(max(bytes_per_second // 1024, 32), 1 << 20)
