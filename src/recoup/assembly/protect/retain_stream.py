"""Retention of command streams: what may go in a repository, and its removal."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from recoup.assembly.protect.retain import Facts, log_is_kept
from recoup.kernel.errors import RecoupError
from recoup.repository.expire import Cut, cut_log
from recoup.repository.retention import Decision, Proof, shown_instant
from recoup.repository.stream_archive import StreamArchive, StreamEntry, services_in
from recoup.repository.stream_retention import StreamStart, decide_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFate:
    """What was decided of one log, a cluster's WAL or a command stream, and what became of it.

    ``expired`` counts objects, removed or not. A command stream has no ``system_identifier``.
    """

    service: str
    system_identifier: str | None = None
    kept: int
    expired: int
    expired_bytes: int
    reason: str
    removed: int = 0
    error: RecoupError | None = None


def prune_streams(facts: Facts, decisions: Sequence[Decision], *, dry_run: bool) -> tuple[LogFate, ...]:
    """Decide and remove, for every service that has a stream in the repository. Raise ``StorageError``."""
    return tuple(
        _one(facts, StreamArchive(facts.repository, service), decisions, dry_run=dry_run)
        for service in services_in(facts.repository)
    )


def _one(facts: Facts, archive: StreamArchive, decisions: Sequence[Decision], *, dry_run: bool) -> LogFate:
    entries = list(archive.entries())
    copies = (one.copy for one in decisions if (one.copy.service, one.copy.kind) == (archive.service, "rdb"))
    newest = next(copies, None)
    decided = decide_stream(
        entries,
        _starts(facts, archive.service, decisions),
        reach=_reach(facts, entries),
        now=facts.snapshot.now,
        blocked=log_is_kept(facts, archive.service, "rdb", newest),
    )
    cut = cut_log(facts.repository, decided.remove, archive.delete, now=facts.snapshot.now, dry_run=dry_run)
    return log_fate(cut, service=archive.service, held=len(entries), reason=decided.reason)


def log_fate(cut: Cut, *, service: str, held: int, reason: str, system_identifier: str | None = None) -> LogFate:
    """What became of a log of ``held`` objects. ``reason`` says why the rest stays, unless the store locks it."""
    locked = None if cut.locked_until is None else f"locked by the store until {shown_instant(cut.locked_until)}"
    return LogFate(
        service=service,
        system_identifier=system_identifier,
        kept=held - cut.expired,
        expired=cut.expired,
        expired_bytes=cut.expired_bytes,
        reason=locked or reason,
        removed=cut.removed,
        error=cut.error,
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
