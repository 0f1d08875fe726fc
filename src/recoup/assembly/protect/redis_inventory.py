"""What the repositories hold of a Redis service's command stream and of the copies it begins at."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.backup.stream_keeper import entries_of
from recoup.engines.redis.stream_windows import (
    Inventory,
    Join,
    Loss,
    Piece,
    RdbBase,
    StreamGapBetween,
    StreamWindow,
    gaps,
    windows,
)
from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, StorageError
from recoup.repository.catalog import Catalog, read_catalog
from recoup.repository.repository import Repository
from recoup.repository.stream_archive import StreamArchive, StreamEntry, StreamGap, StreamJoin, StreamSegment

_REPLICATION_ID_DIGITS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHoldings:
    """Bases, the stream's inventory, and who holds each of its objects."""

    bases: tuple[RdbBase, ...]
    inventory: Inventory
    entries: Mapping[str, StreamEntry]
    holders: Mapping[str, Sequence[StreamArchive]]

    def read(self, key: str) -> tuple[bytes, tuple[str, ...]]:
        """The plain bytes of an object, from the first repository that has it right; what was wrong in others.

        Raise ``DamageError`` naming the object when none has.
        """
        wrong: list[RecoupError] = []
        for archive in self.holders[key]:
            try:
                return archive.read(self.entries[key]), tuple(one.message for one in wrong)
            except (DamageError, StorageError) as failure:
                wrong.append(failure)
        raise DamageError(
            f"the command stream has a damaged segment: {'; '.join(one.message for one in wrong)}",
            hint="`recoup windows` shows the instants that are reachable without it, once it is removed; "
            "or restore a copy as it is: `recoup list`.",
        ) from wrong[0]

    def why_lost(self, gap: StreamGapBetween) -> str:
        """Why the instants of a gap are lost, as it was recorded."""
        entry = None if gap.record is None else self.entries.get(gap.record)
        if not isinstance(entry, StreamGap):
            return "the command stream was not kept"
        for archive in self.holders[entry.key]:
            with contextlib.suppress(RecoupError):
                return archive.reason(entry)
        return "why is recorded, but cannot be read"


def read_holdings(
    repositories: Sequence[Repository], service: str, state_folder: Path, *, catalog: Catalog | None = None
) -> StreamHoldings:
    """List the stream's objects and the service's RDB copies. Raise ``StorageError`` when a repository is silent."""
    entries, holders = entries_of([StreamArchive(one, service) for one in repositories])
    pieces = [
        Piece(key=one.key, replication_id=one.replication_id, start=one.start, end=one.end, time=one.stamp)
        for one in entries.values()
        if isinstance(one, StreamSegment)
    ]
    joins = [
        Join(replication_id=one.replication_id, start=one.start, before=one.before)
        for one in entries.values()
        if isinstance(one, StreamJoin)
    ]
    losses = [
        Loss(
            key=one.key,
            replication_id=one.replication_id,
            start=one.start,
            before=one.before,
            before_end=one.before_end,
        )
        for one in entries.values()
        if isinstance(one, StreamGap)
    ]
    return StreamHoldings(
        bases=tuple(read_bases(repositories, service, state_folder, catalog=catalog)) if pieces else (),
        inventory=Inventory(pieces, joins, losses),
        entries=entries,
        holders=holders,
    )


def read_bases(
    repositories: Sequence[Repository], service: str, state_folder: Path, *, catalog: Catalog | None = None
) -> list[RdbBase]:
    """The RDB copies of a service that know their place in a stream, the newest first."""
    catalog = catalog or read_catalog(repositories, state_folder)
    by_name = {one.name: one for one in repositories}
    found = []
    for entry in catalog.entries:
        if entry.service != service or entry.kind != "rdb":
            continue
        for name in entry.repositories:
            try:
                facts = by_name[name].manifest(entry.id).facts
            except (DamageError, MissingObjectError, StorageError):
                continue
            line, offset = facts.get("replid"), facts.get("offset")
            if isinstance(line, str) and len(line) == _REPLICATION_ID_DIGITS and isinstance(offset, int):
                found.append(RdbBase(id=entry.id, replication_id=line, offset=offset, time=entry.ended))
            break
    return found


def redis_windows(holdings: StreamHoldings) -> tuple[tuple[StreamWindow, ...], tuple[StreamGapBetween, ...]]:
    """Every instant that a Redis service can be brought back to, and what lies between. Pure."""
    found = windows(holdings.bases, holdings.inventory)
    return found, gaps(found, holdings.inventory)
