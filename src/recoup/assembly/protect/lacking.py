"""What each repository of a plan lacks of what the others hold: copies, WAL, and command streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from recoup.assembly.protect.retain import Facts, cluster_of, decide_cluster, gather, segment_bytes, unit_of
from recoup.assembly.system import System
from recoup.kernel import clock
from recoup.plan.model import RepositoryPlan
from recoup.repository.catalog import REPLACED, STACK, Catalog, Entry, Problem, read_catalog
from recoup.repository.repository import Repository
from recoup.repository.retention import KINDS, Copy, Proof
from recoup.repository.stream_archive import StreamArchive, StreamEntry, StreamSegment, services_in
from recoup.repository.stream_retention import StreamStart, decide_stream
from recoup.repository.wal_archive import WalArchive, clusters_in
from recoup.repository.wal_names import WalEntry, WalGap, WalHistory, WalPiece, WalSegment
from recoup.repository.wanting import Wanting, decide_wanting

_NONE: Final = -1

Cluster = tuple[str, str]  #: service, system identifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What one repository holds, as it was listed."""

    repository: Repository
    catalog: Catalog
    wal: Mapping[Cluster, Mapping[str, WalEntry]]  #: by the name of what is in it
    streams: Mapping[str, Mapping[str, StreamEntry]]  #: by service and key


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """What ``target`` is to get: copies in their order, WAL and streams the oldest first.

    ``left`` is what it should get and cannot, with reasons; ``problems`` are manifests there that cannot be believed.
    """

    target: Repository
    copies: tuple[Entry, ...] = ()
    heal: tuple[Entry, ...] = ()  #: copies whose manifest is damaged there and whole elsewhere
    wal: tuple[tuple[Cluster, WalEntry], ...] = ()
    streams: tuple[tuple[str, StreamEntry], ...] = ()
    left: tuple[tuple[str, str], ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def nothing(self) -> bool:
        """Whether it holds everything."""
        return not (self.copies or self.wal or self.streams or self.problems)

    @property
    def stored_bytes(self) -> int:
        """What it takes there."""
        wal, streams = (one.stored_bytes for _, one in self.wal), (one.stored_bytes for _, one in self.streams)
        return sum(one.stored_bytes for one in self.copies) + sum(wal) + sum(streams)


def holding_of(system: System, repository: Repository) -> Holding:
    """List what a repository holds. Raise ``RecoupError`` when that cannot be found out."""
    catalog = read_catalog([repository], system.state_folder)
    for _, failure in catalog.silent:
        raise failure
    archives = {cluster: WalArchive(repository, *cluster) for cluster in clusters_in(repository)}
    streams = {service: StreamArchive(repository, service) for service in services_in(repository)}
    return Holding(
        repository=repository,
        catalog=catalog,
        wal={cluster: {wal_name(one): one for one in archive.entries()} for cluster, archive in archives.items()},
        streams={service: {one.key: one for one in archive.entries()} for service, archive in streams.items()},
    )


def wal_name(entry: WalEntry) -> str:
    """What an object of WAL holds, whoever sealed it."""
    return entry.key.rsplit("/", 1)[-1].rsplit("-", 2)[0]


def lack_of(system: System, target: Holding, others: Sequence[Holding]) -> Lack:
    """What ``target`` lacks. Raise ``RecoupError`` when its holds or its WAL cannot be read."""
    described = system.plan.repositories[target.repository.name]
    facts = gather(system, target.repository, clock.now(), blocked={})
    everyone = [target, *others]
    facts = _reaching(facts, everyone)
    known = {entry.id: entry for one in everyone for entry in one.catalog.entries}
    wrong = {one.id: one for one in target.catalog.problems}
    heal = [entry for name, entry in known.items() if name in wrong and wrong[name].fault == "damage"]
    candidates = [_copy(one) for name, one in known.items() if name not in wrong]
    there = replace(facts.snapshot, copies=(*facts.snapshot.copies, *map(_copy, heal)))
    wanting = decide_wanting(there, candidates, _fits(facts, described))
    brought = [known[copy.id] for copy in wanting.bring]
    merged = sorted([*target.catalog.entries, *heal, *brought], key=lambda one: (one.begun_text, one.id), reverse=True)
    after = replace(facts, catalog=replace(target.catalog, entries=tuple(merged)))
    return Lack(
        target=target.repository,
        copies=tuple(brought),
        heal=tuple(heal),
        wal=tuple(_wal(after, target, others, wanting)) if described.takes("wal") else (),
        streams=tuple(_streams(after, target, others, wanting)) if described.takes("stream") else (),
        left=tuple((copy.id, why) for copy, why in wanting.left),
        problems=target.catalog.problems,
    )


def _fits(facts: Facts, described: RepositoryPlan) -> set[str]:
    """The services and kinds that a repository takes. Stack points go wherever all of their members are."""
    kinds = {kind for kind in KINDS if kind != STACK and described.takes(kind)}
    services = [name for name in facts.snapshot.rules if name != STACK]
    return {f"{service}/{kind}" for service in services for kind in kinds} | {f"{STACK}/{STACK}"}


def _copy(entry: Entry) -> Copy:
    return Copy(
        id=entry.id,
        service=entry.service,
        kind=entry.kind,
        begun=entry.begun,
        ended=entry.ended,
        proof=Proof.GOOD,
        depends_on=entry.depends_on,
        replaced=entry.label == REPLACED,
    )


def _reaching(facts: Facts, everyone: Sequence[Holding]) -> Facts:
    """Measure windows back from the newest that *any* repository knows: this one may have been away."""
    window = facts.stream_window
    if window is None:
        return facts
    now, begins = facts.snapshot.now, [one.begins for one in facts.snapshot.holds if one.begins is not None]
    newest: dict[tuple[str, str], datetime] = {}

    def know(service: str, kind: str, instant: datetime) -> None:
        newest[service, kind] = max(newest.get((service, kind), instant), instant)

    for one in everyone:
        for (service, _), entries in one.wal.items():
            for entry in entries.values():
                know(service, "base", entry.stamp)
        for service, segments in one.streams.items():
            for segment in segments.values():
                know(service, "rdb", segment.stamp)
        for copy in one.catalog.entries:
            if (copy.service, copy.kind) in newest:
                know(copy.service, copy.kind, copy.ended)
    known = {place: min([min(now, instant) - window, *begins]) for place, instant in newest.items()}
    reach = {**facts.snapshot.reach, **known}
    return replace(
        facts,
        snapshot=replace(facts.snapshot, reach=reach),
        reach={service: instant for (service, kind), instant in reach.items() if kind == "base"},
    )


def _wal(
    after: Facts, target: Holding, others: Sequence[Holding], wanting: Wanting
) -> Iterable[tuple[Cluster, WalEntry]]:
    for cluster in sorted({cluster for one in others for cluster in one.wal}):
        service, identifier = cluster
        if service not in after.snapshot.rules:
            continue
        here = target.wal.get(cluster, {})
        everything = {name: entry for one in others for name, entry in one.wal.get(cluster, {}).items()} | dict(here)
        size = segment_bytes(after.catalog, service, identifier)
        whole = cluster_of(WalArchive(target.repository, service, identifier), everything.values(), size)
        expired = set(decide_cluster(_calm(after), whole, wanting.decisions).remove)
        lacking = [
            entry
            for name, entry in everything.items()
            if name not in here and unit_of(entry, size) not in expired and not _superfluous(entry, everything, size)
        ]
        yield from ((cluster, entry) for entry in sorted(lacking, key=lambda one: _place(one, size)))


def _calm(facts: Facts) -> Facts:
    """Without what stops pruning: it is no reason to bring what the window does not need."""
    return replace(facts, snapshot=replace(facts.snapshot, blocked={}, frozen=None))


def _superfluous(entry: WalEntry, everything: Mapping[str, WalEntry], size: int) -> bool:
    """Whether something else stands for it: the whole segment for a piece, all of the WAL for a record of its loss."""
    if isinstance(entry, WalPiece):
        return entry.segment in everything
    if isinstance(entry, WalGap):
        held = {(one.timeline, one.number(size)) for one in everything.values() if isinstance(one, WalSegment)}
        numbers = range(entry.start // size, max(entry.end - 1, entry.start) // size + 1)
        return len(numbers) <= len(held) and all((entry.timeline, number) in held for number in numbers)
    return False


def _place(entry: WalEntry, size: int) -> tuple[int, int, int, str]:
    """Histories first, then in the order of the log: whatever ends early leaves no hole."""
    if isinstance(entry, WalHistory):
        return (_NONE, entry.timeline, 0, entry.key)
    unit = unit_of(entry, size)
    assert unit is not None, "only history files have no place"
    return (unit.timeline, unit.segment, getattr(entry, "start", 0), entry.key)


def _streams(
    after: Facts, target: Holding, others: Sequence[Holding], wanting: Wanting
) -> Iterable[tuple[str, StreamEntry]]:
    stays = {one.copy.id for one in wanting.decisions if one.keep}
    for service in sorted({service for one in others for service in one.streams}):
        if service not in after.snapshot.rules:
            continue
        here = target.streams.get(service, {})
        everything = {key: entry for one in others for key, entry in one.streams.get(service, {}).items()} | dict(here)
        starts = [
            StreamStart(id=one.id, begun=one.begun, ended=one.ended)
            for one in after.catalog.entries
            if (one.service, one.kind) == (service, "rdb") and one.id in stays and one.facts.get("replid")
        ]
        reach = after.snapshot.reach.get((service, "rdb"))
        entries = list(everything.values())
        decided = decide_stream(entries, starts, reach=reach, now=after.snapshot.now)
        needless = {one.key for one in decided.remove} | _joined(entries)
        lacking = [one for one in entries if one.key not in here and one.key not in needless]
        yield from ((service, one) for one in sorted(lacking, key=lambda one: (one.stamp, one.start, one.key)))


def _joined(entries: Sequence[StreamEntry]) -> set[str]:
    """The keys of segments that lie within a larger one: those that were joined, and not removed yet."""
    found: set[str] = set()
    ends: dict[str, int] = {}
    segments = [one for one in entries if isinstance(one, StreamSegment)]
    for one in sorted(segments, key=lambda each: (each.replication_id, each.start, -each.end, each.key)):
        if one.end <= ends.get(one.replication_id, _NONE):
            found.add(one.key)
        ends[one.replication_id] = max(one.end, ends.get(one.replication_id, _NONE))
    return found
