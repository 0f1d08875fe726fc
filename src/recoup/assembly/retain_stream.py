"""Retention of command streams: what may go in a repository, and its removal."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from recoup.assembly.retain import Facts
from recoup.kernel.errors import RecoupError, StorageError
from recoup.repository.retention import Decision, Proof, shown_instant
from recoup.repository.stream_archive import StreamArchive, StreamEntry, services_in
from recoup.repository.stream_retention import StreamStart, decide_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamFate:
    """What was decided of one service's command stream, and what became of it. ``expired`` counts objects."""

    service: str
    kept: int
    expired: int
    expired_bytes: int
    reason: str
    removed: int = 0
    error: RecoupError | None = None


def prune_streams(facts: Facts, decisions: Sequence[Decision], *, dry_run: bool) -> tuple[StreamFate, ...]:
    """Decide and remove, for every service that has a stream in the repository. Raise ``StorageError``."""
    return tuple(
        _one(facts, StreamArchive(facts.repository, service), decisions, dry_run=dry_run)
        for service in services_in(facts.repository)
    )


def _one(facts: Facts, archive: StreamArchive, decisions: Sequence[Decision], *, dry_run: bool) -> StreamFate:
    entries = list(archive.entries())
    decided = decide_stream(
        entries,
        _starts(facts, archive.service, decisions),
        reach=_reach(facts, entries),
        now=facts.snapshot.now,
        blocked=_stopped(facts, archive.service, decisions),
    )
    reason, error, removed, expired = decided.reason, None, 0, 0
    for entry in decided.remove:
        try:
            until = facts.repository.store.stat(entry.key).locked_until
            if until is not None and until > facts.snapshot.now:
                reason = f"locked by the store until {shown_instant(until)}"
                break
            if not dry_run:
                archive.delete(entry)
                removed += 1
            expired += 1
        except StorageError as failure:
            error = failure
            break
    return StreamFate(
        service=archive.service,
        kept=len(entries) - expired,
        expired=expired,
        expired_bytes=sum(entry.stored_bytes for entry in decided.remove[:expired]),
        reason=reason,
        removed=removed,
        error=error,
    )


def _reach(facts: Facts, entries: Sequence[StreamEntry]) -> datetime | None:
    """The plan's window back from the newest that is known, or from now if that is earlier; further for holds."""
    if facts.stream_window is None:
        return None
    newest = max((one.stamp for one in entries), default=facts.snapshot.now)
    begins = [hold.begins for hold in facts.snapshot.holds if hold.begins is not None]
    return min([min(facts.snapshot.now, newest) - facts.stream_window, *begins])


def _starts(facts: Facts, service: str, decisions: Sequence[Decision]) -> list[StreamStart]:
    """The copies of the service that stay, are not damaged, and say where in the stream they lie."""
    stays = {one.copy.id for one in decisions if one.keep and one.copy.proof is not Proof.BAD}
    found = []
    for entry in facts.catalog.entries:
        if (entry.service, entry.kind) == (service, "rdb") and entry.id in stays:
            known: Mapping[str, Any] = {}
            with contextlib.suppress(RecoupError):  # one that cannot be read is no beginning; it is reported elsewhere
                known = facts.repository.manifest(entry.id).facts
            if known.get("replid") and isinstance(known.get("offset"), int):
                found.append(StreamStart(id=entry.id, begun=entry.begun, ended=entry.ended))
    return found


def _stopped(facts: Facts, service: str, decisions: Sequence[Decision]) -> str | None:
    snapshot = facts.snapshot
    stopped = snapshot.frozen or snapshot.blocked.get((service, "rdb"))
    if stopped is None and service not in snapshot.rules:
        stopped = f"the plan has no service {service!r}"
    everything = next((hold for hold in snapshot.holds if hold.begins is None), None)
    if stopped is None and everything is not None:
        stopped = f"hold {everything.name}: {everything.reason}"
    newest = next((one.copy for one in decisions if (one.copy.service, one.copy.kind) == (service, "rdb")), None)
    if stopped is None and newest is not None and newest.proof is not Proof.GOOD:
        stopped = f"the newest copy, {newest.id}, is {'damaged' if newest.proof is Proof.BAD else 'not proven'}"
    return stopped
