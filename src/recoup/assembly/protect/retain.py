"""What retention decides for one repository of a plan: the snapshot of facts, read from it, and the decisions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from recoup.assembly.access import Found, Readable
from recoup.assembly.prove.copies import prove_and_note
from recoup.assembly.prove.live import highest_grade
from recoup.assembly.system import System
from recoup.backup.run_records import read_task
from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import RecoupError, WrongKeyError
from recoup.kernel.finding import Verdict
from recoup.plan.services import ComposeService, FilesService, RedisService
from recoup.repository.catalog import IMAGES, REPLACED, STACK, Catalog, Entry, read_catalog
from recoup.repository.holds import HoldRecord, read_holds
from recoup.repository.proofs import ProofRecord, Proofs
from recoup.repository.repository import Repository
from recoup.repository.retention import Copy, Decision, Hold, Proof, Rules, Snapshot, decide
from recoup.repository.wal_archive import WalArchive, clusters_in
from recoup.repository.wal_names import WalEntry, WalGap, WalPiece, WalSegment
from recoup.repository.wal_retention import WalBase, WalDecision, WalUnit, decide_wal
from recoup.verification.expiry import held
from recoup.verification.grade import Grade

_SEGMENT_BYTES = 16 << 20  #: PostgreSQL's default, for clusters whose base backups are all gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The WAL of one cluster in a repository: what is there, by its place in the log."""

    archive: WalArchive
    entries: Mapping[WalUnit, tuple[WalEntry, ...]]
    newest: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What was read of a repository before deciding. ``problems`` are (verdict-like word, what), for people."""

    repository: Repository
    catalog: Catalog
    snapshot: Snapshot
    clusters: tuple[Cluster, ...]
    reach: Mapping[str, datetime]  #: by service, the oldest instant its WAL must reach
    problems: tuple[str, ...]
    stream_window: timedelta | None = None  #: how far back command streams must reach


def gather(system: System, repository: Repository, now: datetime, *, blocked: Mapping[str, str]) -> Facts:
    """Read what retention has to know. ``blocked`` is why nothing of a service may go. Raise ``RecoupError``."""
    catalog = read_catalog([repository], system.state_folder)
    for _, failure in catalog.silent:
        raise failure
    holds = read_holds(repository)
    problems = [f"hold {name} cannot be believed: {what}" for name, what in holds.problems]
    problems += [f"{one.id} cannot be believed: {one.what}" for one in catalog.problems]
    stops = _stops(system, catalog) | {
        (entry.service, entry.kind): blocked[entry.service] for entry in catalog.entries if entry.service in blocked
    }
    clusters = _clusters(repository, catalog)
    reach = _reach(system, repository, catalog, clusters, [one.hold() for one in holds.records], now)
    window = (system.plan.repositories[repository.name].retention or system.plan.retention).wal
    proofs = Proofs(system.state_folder).of(repository.identity)
    snapshot = Snapshot(
        copies=tuple(
            _copy(entry, proofs.get(entry.id, {}), needed_grade(system, entry.kind)) for entry in catalog.entries
        ),
        rules=rules_for(system, repository.name),
        now=now,
        holds=tuple(one.hold() for one in holds.records),
        blocked=stops,
        frozen=_frozen(problems),
        reach={(service, "base"): instant for service, instant in reach.items()}
        | _stream_reach(system, window, catalog, holds.records, now),
    )
    return Facts(
        repository=repository,
        catalog=catalog,
        snapshot=snapshot,
        clusters=clusters,
        reach=reach,
        problems=tuple(problems),
        stream_window=window,
    )


def prove_newest(system: System, facts: Facts, on_work: Callable[[str], None]) -> bool:
    """Verify the newest copies whose proof is all that keeps older ones from expiring; whether any was verified.

    The results are noted in the state folder: ``gather`` again to use them.
    """
    # One that was found bad is looked at again: it may have been repaired, or a disk may have had a bad moment.
    newest = {copy.group: copy.id for copy in sorted(facts.snapshot.copies, key=lambda one: (one.begun, one.id))}
    hoped = [
        replace(copy, proof=Proof.GOOD) if newest[copy.group] == copy.id else copy for copy in facts.snapshot.copies
    ]
    hopeful = replace(facts.snapshot, copies=hoped)
    by_id = {copy.id: copy for copy in facts.snapshot.copies}
    expiring = {one.copy.group for one in decide(hopeful) if not one.keep}
    verified = False
    for group in sorted(expiring):
        copy = by_id[newest[group]]
        if copy.proof is not Proof.GOOD:
            on_work(f"verifying {copy.id} in {facts.repository.name} before anything older goes")
            verified = _verify(system, facts.repository, copy) or verified
    return verified


def _verify(system: System, repository: Repository, copy: Copy) -> bool:
    try:
        manifest = repository.manifest(copy.id)
    except WrongKeyError:
        raise
    except RecoupError:
        return False  # not proven: everything stays
    opened = Readable(repositories=(repository,), failed={}, state_folder=system.state_folder, system=system)
    found = Found(manifest=manifest, holders=(repository,))
    prove_and_note(opened, found, needed_grade(system, copy.kind))
    return True


def needed_grade(system: System, kind: str) -> Grade:
    """How far the newest copy must be proven before older ones may go: as the plan proves it after a backup.

    No further than copies of ``kind`` can be proven at all.
    """
    return min(Grade(system.plan.verify.after_backup), highest_grade(kind), key=lambda grade: grade.rank)


def decide_all(facts: Facts, locked: Mapping[str, datetime]) -> tuple[Decision, ...]:
    """The decisions for the copies, given what the store itself keeps."""
    return decide(replace(facts.snapshot, locked=locked))


def decide_cluster(facts: Facts, cluster: Cluster, decisions: Sequence[Decision]) -> WalDecision:
    """What may go of one cluster's WAL, given what stays of its base backups."""
    archive, snapshot = cluster.archive, facts.snapshot
    stays = {one.copy.id for one in decisions if one.keep and one.copy.proof is not Proof.BAD}
    of_service = [one for one in facts.catalog.entries if (one.service, one.kind) == (archive.service, "base")]
    own = [one for one in of_service if one.facts.get("system_identifier") == archive.system_identifier]
    newest = next((one for one in of_service if one.label != REPLACED), None)
    copy = next((one.copy for one in decisions if newest is not None and one.copy.id == newest.id), None)
    stopped = log_is_kept(facts, archive.service, "base", copy)
    try:
        bases = [_base(entry) for entry in own if entry.id in stays]
    except (KeyError, ValueError) as wrong:
        bases, stopped = [], stopped or f"a base backup does not say where its WAL begins ({wrong})"
    return decide_wal(
        list(cluster.entries),
        bases,
        reach=facts.reach.get(archive.service),
        now=snapshot.now,
        superseded=newest is not None and newest.facts.get("system_identifier") != archive.system_identifier,
        blocked=stopped,
    )


def log_is_kept(facts: Facts, service: str, kind: str, newest: Copy | None) -> str | None:
    """Why nothing may go of the log (WAL, command stream) that leads on from copies of ``kind``; None when it may.

    ``newest`` is the newest of these copies: while it is not proven, an older one may have to be used.
    """
    snapshot = facts.snapshot
    stopped = snapshot.frozen or snapshot.blocked.get((service, kind))
    if stopped is not None:
        return stopped
    if service not in snapshot.rules:
        return f"the plan has no service {service!r}"
    everything = next((hold for hold in snapshot.holds if hold.begins is None), None)
    if everything is not None:
        return f"hold {everything.name}: {everything.reason}"
    if newest is None or newest.proof is Proof.GOOD:
        return None
    what = "base backup" if kind == "base" else "copy"
    return f"the newest {what}, {newest.id}, is {'damaged' if newest.proof is Proof.BAD else 'not proven'}"


def rules_for(system: System, repository: str) -> dict[str, Rules]:
    """The rules of each service of the plan that holds data, for copies in ``repository``."""
    plan = system.plan
    retention = plan.repositories[repository].retention or plan.retention
    points = Rules(counts=retention.counts, minimum=retention.minimum, zone=ZoneInfo(plan.timezone))
    return {STACK: points, IMAGES: points} | {
        name: Rules(
            counts=retention.counts,
            keep=service.keep if isinstance(service, FilesService) else None,
            minimum=retention.minimum,
            zone=ZoneInfo(plan.timezone),
        )
        for name, service in plan.services.items()
        if not isinstance(service, ComposeService)
    }


def _copy(entry: Entry, known: Mapping[str, ProofRecord], needed: Grade) -> Copy:
    proven = held(known.values())
    proof = Proof.BAD if proven.failed is not None else Proof.UNPROVEN
    # What could not be checked when it was looked at last does not count here, however well it was before.
    if proven.holds(needed) and all(known[grade].verdict == Verdict.OK for grade in needed.up_to()):
        proof = Proof.GOOD
    return Copy(
        id=entry.id,
        service=entry.service,
        kind=entry.kind,
        begun=entry.begun,
        ended=entry.ended,
        proof=proof,
        depends_on=entry.depends_on,
        replaced=entry.label == REPLACED,
    )


def _frozen(problems: Sequence[str]) -> str | None:
    if not problems:
        return None
    return problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def _stops(system: System, catalog: Catalog) -> dict[tuple[str, str], str]:
    """The services and kinds whose last backup on this machine failed after their newest copy here."""
    stops: dict[tuple[str, str], str] = {}
    seen: set[tuple[str, str]] = set()
    for entry in catalog.entries:
        task = (entry.service, entry.kind)
        if task in seen or entry.label == REPLACED:
            continue
        seen.add(task)
        record = read_task(system.state_folder, *task)
        if record is not None and record.outcome in ("failed", "unknown") and record.started > entry.begun:
            stops[task] = f"the last backup, begun {record.started:%Y-%m-%d %H:%M} UTC, is not good: {record.error}"
    return stops


def _clusters(repository: Repository, catalog: Catalog) -> tuple[Cluster, ...]:
    clusters = []
    for service, identifier in clusters_in(repository):
        archive = WalArchive(repository, service, identifier)
        clusters.append(cluster_of(archive, archive.entries(), segment_bytes(catalog, service, identifier)))
    return tuple(clusters)


def cluster_of(archive: WalArchive, entries: Iterable[WalEntry], size: int) -> Cluster:
    """The WAL of a cluster with segments of ``size`` bytes, by its place in the log."""
    units: dict[WalUnit, tuple[WalEntry, ...]] = {}
    for entry in entries:
        unit = unit_of(entry, size)
        if unit is not None:
            units[unit] = (*units.get(unit, ()), entry)
    return Cluster(archive=archive, entries=units, newest=max((unit.stamp for unit in units), default=None))


def segment_bytes(catalog: Catalog, service: str, identifier: str) -> int:
    """The size of a cluster's WAL segments, as its base backups say; PostgreSQL's default when there are none."""
    sizes = [e.facts.get("wal_segment_bytes") for e in catalog.entries if _of_cluster(e, service, identifier)]
    return next((int(one) for one in sizes if one is not None), _SEGMENT_BYTES)


def _of_cluster(entry: Entry, service: str, identifier: str) -> bool:
    same = entry.service == service and entry.kind == "base"
    return same and entry.facts.get("system_identifier") == identifier


def unit_of(entry: WalEntry, size: int) -> WalUnit | None:
    """The place of an entry in the log; None for history files, which stay."""
    match entry:
        case WalSegment() | WalPiece():
            return WalUnit(timeline=entry.timeline, segment=entry.number(size), stamp=entry.stamp)
        case WalGap():
            last = max(entry.end - 1, entry.start) // size
            return WalUnit(timeline=entry.timeline, segment=last, stamp=entry.stamp)
    return None


def _base(entry: Entry) -> WalBase:
    facts = entry.facts
    begins = Lsn.parse(str(facts["begin_lsn"])).segment(int(facts.get("wal_segment_bytes") or _SEGMENT_BYTES))
    return WalBase(
        id=entry.id,
        timeline=int(facts["timeline"]),
        first_segment=begins,
        ended=entry.ended,
        needs_archive=not facts.get("includes_wal", True),
    )


def _reach(
    system: System,
    repository: Repository,
    catalog: Catalog,
    clusters: Sequence[Cluster],
    holds: Sequence[Hold],
    now: datetime,
) -> dict[str, datetime]:
    """By service, the oldest instant its WAL must reach: the plan's window back from the newest that is known, or from
    now if that is earlier, and the beginnings of holds.
    """
    plan = system.plan
    window = (plan.repositories[repository.name].retention or plan.retention).wal
    reach: dict[str, datetime] = {}
    for service in {cluster.archive.service for cluster in clusters} if window is not None else ():
        known = [one.newest for one in clusters if one.archive.service == service and one.newest is not None]
        known += [one.ended for one in catalog.entries if (one.service, one.kind) == (service, "base")][:1]
        assert window is not None
        begins = [hold.begins for hold in holds if hold.begins is not None]
        reach[service] = min([min(now, max(known, default=now)) - window, *begins])
    return reach


def _stream_reach(
    system: System, window: timedelta | None, catalog: Catalog, holds: Sequence[HoldRecord], now: datetime
) -> dict[tuple[str, str], datetime]:
    """The oldest instant that the copies of each service with a command stream must reach back to."""
    reach = {}
    for name, service in system.plan.services.items():
        if window is not None and isinstance(service, RedisService) and service.stream is not None:
            newest = next((one.ended for one in catalog.entries if (one.service, one.kind) == (name, "rdb")), now)
            begins = [begin for one in holds if (begin := one.hold().begins) is not None]
            reach[name, "rdb"] = min([min(now, newest) - window, *begins])
    return reach
