"""Finds out how everything stands: repositories, copies, proofs, streams, runs, the daemon. Never raises for what is
wrong: that is what is asked. The judgement is in ``objectives``."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from recoup.assembly.drill.rehearsed import drills_of, rehearsed
from recoup.assembly.known_repositories import KnownRepositories
from recoup.assembly.protect.agenda import Known, copies_scheduled, decide, upkeep_scheduled
from recoup.assembly.protect.streams import stream_of
from recoup.assembly.prove.proven import Proven, coverage_facts, latest_of, proven_copies, renewals_of
from recoup.assembly.system import System
from recoup.assembly.watch.notes import History, instant_of, read_history, read_note
from recoup.backup.due import Run as PlannedRun
from recoup.backup.due import Scheduled, newest
from recoup.backup.run_records import WHOLE_PLAN, DaemonRecord, TaskRecord, read_daemon, read_tasks, read_workers
from recoup.drill.book import Book
from recoup.kernel import clock
from recoup.kernel.errors import Exit, NoRepositoryError, RecoupError, TransientStorageError
from recoup.kernel.finding import Verdict
from recoup.objectives.alarms import Delivery, Facts, RepositoryFacts, Run, ServiceFacts
from recoup.objectives.forecast import days_until_full, growth, samples_from_copies
from recoup.objectives.standing import Point, standing, worst_by_day
from recoup.plan.services import ComposeService, PostgresService, RedisService
from recoup.repository import layout
from recoup.repository.catalog import REPLACED, Catalog, Entry, read_catalog
from recoup.repository.repository import Repository, open_repository

_SILENT_AFTER = timedelta(minutes=2)
#: How long a repository may take to say what it holds; its own time limits and retries are made for copying.
_LONGEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """All that was found out. ``days``: the worst loss of each of the last thirty days, by service."""

    facts: Facts
    days: Mapping[str, Sequence[timedelta | None]]
    opened: tuple[Repository, ...]
    system: str
    drills: Book | None = None  #: the newest; None when the plan has none
    catalog: Catalog = field(default_factory=lambda: Catalog(entries=()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """One repository of the plan: opened, or why not."""

    name: str
    address: str
    repository: Repository | None
    error: RecoupError | None
    other_bytes: int = 0
    catalog: Catalog = field(default_factory=lambda: Catalog(entries=()))


def survey(system: System, now: datetime) -> Survey:
    """Look at everything. Repositories are asked side by side, each within its own time limits."""
    key_error = _key_error(system)
    names = list(system.plan.repositories)
    places = _open_all(system, names, key_error)
    opened = tuple(place.repository for place in places if place.repository is not None)
    catalog = _merged([place.catalog for place in places])
    records, history = read_tasks(system.state_folder), read_history(system.state_folder)
    silent = {name for name, _ in catalog.silent} | {
        place.name
        for place in places
        if place.error is not None
        and not (isinstance(place.error, NoRepositoryError) and not _was_there(system, place.name))
    }
    planned = _planned(system, catalog, opened, records, now, silent=bool(silent))
    daemon = read_daemon(system.state_folder)
    proven, points = proven_copies(system.state_folder, opened), _points(catalog)
    services = tuple(
        _service(system, name, points.get(name, ()), proven, planned, records, history, now, silent)
        for name, one in system.plan.services.items()
        if not isinstance(one, ComposeService)
    )
    drills = drills_of(system, opened)
    facts = Facts(
        now=now,
        services=services,
        repositories=tuple(_repository(system, place, catalog, history, now) for place in places),
        lag_limit=system.plan.alarms.lag,
        key_error=None if key_error is None else key_error.message,
        key_hint=None if key_error is None else key_error.hint,
        daemon=daemon_state(daemon, now),
        daemon_since=None if daemon is None else daemon.alive,
        plan_fault=None if daemon is None or daemon.state == "stopped" else daemon.plan_fault,
        runs=tuple(_run(kind, WHOLE_PLAN, planned, records, now) for kind in upkeep_scheduled(system)),
        skews=_skews(system, now),
        undelivered=_undelivered(system),
        coverage=coverage_facts(system, opened, catalog.entries, now),
        rehearsed=rehearsed(system, drills, opened, now),
    )
    days = {
        one.name: history.days_of(one.name, now, 30) if one.streams else worst_by_day(_good(one), now=now)
        for one in services
    }
    return Survey(facts=facts, days=days, opened=opened, system=system.plan.system, drills=drills, catalog=catalog)


def _good(service: ServiceFacts) -> list[Point]:
    bad = {name for name, proof in service.proofs.items() if proof.verdict is Verdict.FAILED}
    return [point for point in service.points if point.id not in bad]


def _key_error(system: System) -> RecoupError | None:
    try:
        assert system.key
    except RecoupError as failure:
        return failure
    return None


def _open_all(system: System, names: Sequence[str], key_error: RecoupError | None) -> list[_Place]:
    """Every repository, side by side. One that has not answered in time is left behind in its thread."""
    found: dict[str, _Place] = {}

    def look(name: str) -> None:
        place = _open(system, name, key_error)
        found[name] = place

    threads = [threading.Thread(target=look, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    deadline = clock.monotonic() + _LONGEST_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - clock.monotonic()))
    return [found.get(name) or _too_slow(system, name) for name in names]


def _too_slow(system: System, name: str) -> _Place:
    described = system.plan.repositories[name]
    error = TransientStorageError(
        f"it did not answer within {_LONGEST_SECONDS:.0f} s", hint="Is its server up, and the network in between?"
    )
    return _Place(name=name, address=str(described.path or described.url), repository=None, error=error)


def _merged(catalogs: Sequence[Catalog]) -> Catalog:
    """The catalogs of single repositories as one, newest first."""
    entries: dict[str, Entry] = {}
    for catalog in catalogs:
        for entry in catalog.entries:
            known = entries.get(entry.id)
            entries[entry.id] = (
                entry if known is None else replace(known, repositories=known.repositories + entry.repositories)
            )
    ordered = sorted(entries.values(), key=lambda entry: (entry.begun_text, entry.id), reverse=True)
    return Catalog(
        entries=tuple(ordered),
        problems=tuple(one for catalog in catalogs for one in catalog.problems),
        silent=tuple(one for catalog in catalogs for one in catalog.silent),
    )


def _open(system: System, name: str, key_error: RecoupError | None) -> _Place:
    described = system.plan.repositories[name]
    address = str(described.path or described.url)
    if key_error is not None:
        return _Place(name=name, address=address, repository=None, error=key_error)
    try:
        repository = open_repository(name, system.store(name), system.key)
        # What streams bring has no manifest: its size is what the listing says.
        other = sum(info.size_bytes for info in repository.store.list(layout.WAL))
        other += sum(info.size_bytes for info in repository.store.list(layout.COMMANDS))
        catalog = read_catalog((repository,), system.state_folder)
    except RecoupError as failure:
        return _Place(name=name, address=address, repository=None, error=failure)
    return _Place(
        name=name,
        address=repository.store.address,
        repository=repository,
        error=None,
        other_bytes=other,
        catalog=catalog,
    )


def _was_there(system: System, name: str) -> bool:
    return KnownRepositories(system.state_folder).identity_of(name) is not None


def _points(catalog: Catalog) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for entry in catalog.entries:
        if entry.label != REPLACED:
            point = Point(
                id=entry.id,
                kind=entry.kind,
                at=entry.begun,
                usable=entry.ended,
                stored_bytes=entry.stored_bytes,
                repositories=entry.repositories,
            )
            found.setdefault(entry.service, []).append(point)
    return found


def _planned(
    system: System,
    catalog: Catalog,
    opened: Sequence[Repository],
    records: Sequence[TaskRecord],
    now: datetime,
    *,
    silent: bool,
) -> dict[tuple[str, str], PlannedRun]:
    """The next run of every task of the plan, as the daemon would decide it."""
    by_task = {(one.service, one.kind): one for one in records}
    begun: dict[tuple[str, str], datetime] = {}
    for entry in catalog.entries:
        task = (entry.service, entry.kind)
        if entry.label != REPLACED and task not in begun and newest([entry.begun], now) is not None:
            begun[task] = entry.begun
    tasks = []
    for (service, kind), when in copies_scheduled(system).items():
        last, record = begun.get((service, kind)), by_task.get((service, kind))
        if silent and record is not None and record.last_ok is not None:
            last = max(filter(None, (last, record.last_ok)))
        tasks.append(Scheduled(service=service, kind=kind, when=when, last=last, record=record))
    since = min((one.created for one in opened), default=now)
    for kind, when in upkeep_scheduled(system).items():
        record = by_task.get((WHOLE_PLAN, kind))
        through = None
        if record is not None:
            ran_through = record.exit_code in (Exit.OK, Exit.BAD, Exit.UNKNOWN)
            through = record.started if ran_through else record.last_ok
        last = max(filter(None, (since, through)))
        tasks.append(Scheduled(service=WHOLE_PLAN, kind=kind, when=when, last=last, record=record))
    runs = decide(system, Known(tasks=tuple(tasks), silent={}, answered=()), now)
    return {(run.service, run.kind): run for run in runs}


def _service(
    system: System,
    name: str,
    points: Sequence[Point],
    proven: Mapping[str, Proven],
    planned: Mapping[tuple[str, str], PlannedRun],
    records: Sequence[TaskRecord],
    history: History,
    now: datetime,
    silent: set[str],
) -> ServiceFacts:
    described = system.plan.services[name]
    kinds = [kind for service, kind in copies_scheduled(system) if service == name]
    kinds += [one.kind for one in records if one.service == name and one.kind not in kinds]
    newest_base = max((one.at for one in points if one.kind in ("base", "incremental", "rdb")), default=None)
    workers = {one.name: one for one in read_workers(system.state_folder)}
    streams = []
    if isinstance(described, PostgresService) and described.wal is not None:
        streams.append(stream_of("wal", workers.get(f"wal {name}"), newest_base))
    if isinstance(described, RedisService) and described.stream is not None:
        streams.append(stream_of("stream", workers.get(f"stream {name}"), newest_base))
    own = {point.id: proven[point.id].proof for point in points if point.id in proven}
    takes = {"base", "dump", "rdb", "files", *kinds}
    missing = any(system.plan.repositories[one].takes(kind) for one in silent for kind in takes)
    objective = system.plan.objective(name)
    stands = standing(
        objective, points, own, streams, now=now, silent=missing, observed_worst=history.worst_of(name, now)
    )
    return ServiceFacts(
        name=name,
        engine=described.engine,
        tier=described.tier,
        objective=objective,
        points=tuple(points),
        proofs=own,
        streams=tuple(streams),
        runs=tuple(_run(kind, name, planned, records, now) for kind in kinds),
        standing=stands,
        renewals=renewals_of(system, points, proven),
        latest=latest_of(system, points, proven),
    )


def _run(
    kind: str,
    service: str,
    planned: Mapping[tuple[str, str], PlannedRun],
    records: Sequence[TaskRecord],
    now: datetime,
) -> Run:
    plan = planned.get((service, kind))
    record = next((one for one in records if (one.service, one.kind) == (service, kind)), None)
    due = None if plan is None or plan.reason == "first" else plan.slot
    ahead = None if plan is None else max(plan.at, now)
    if record is None:
        return Run(kind=kind, due=due, next=ahead)
    outcome: str = record.outcome
    error = record.error
    if outcome == "running" and not _alive(record.pid):
        outcome, error = "failed", "its process ended without a word (killed, out of memory, or the machine went down)"
    return Run(
        kind=kind,
        due=due,
        next=ahead,
        outcome=outcome,
        started=record.started,
        ended=record.ended,
        error=error,
        failures=record.failures,
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _repository(system: System, place: _Place, catalog: Catalog, history: History, now: datetime) -> RepositoryFacts:
    error = place.error or dict(catalog.silent).get(place.name)
    problems = tuple(f"{one.id}: {one.what}" for one in catalog.problems if one.repository == place.name)
    if error is not None:
        return RepositoryFacts(
            name=place.name,
            address=place.address,
            error=error.message,
            hint=error.hint,
            missing=isinstance(error, NoRepositoryError),
            expected=_was_there(system, place.name),
            problems=problems,
        )
    there = [one for one in catalog.entries if place.name in one.repositories]
    used = sum(one.stored_bytes for one in there) + place.other_bytes
    growing = growth(history.sizes(place.name))
    if growing is None:
        growing = growth(samples_from_copies([(one.ended, one.stored_bytes) for one in there], now=now))
    path = system.plan.repositories[place.name].path
    disk = shutil.disk_usage(system.resolver.path(path)) if path is not None else None
    return RepositoryFacts(
        name=place.name,
        address=place.address,
        problems=problems,
        used_bytes=used,
        disk_bytes=None if disk is None else disk.total,
        free_bytes=None if disk is None else disk.free,
        bytes_per_day=None if growing is None else growing.bytes_per_day,
        days_until_full=None if disk is None else days_until_full(disk.free, growing),
    )


def daemon_state(record: DaemonRecord | None, now: datetime) -> Literal["running", "stopped", "silent", "never"]:
    """Whether the daemon of this machine runs, by what it says of itself."""
    if record is None:
        return "never"
    if record.state == "stopped":
        return "stopped"
    return "running" if now - record.alive < _SILENT_AFTER else "silent"


def _skews(system: System, now: datetime) -> dict[str, timedelta]:
    """What workers found out lately of other clocks, against this machine's."""
    found: dict[str, timedelta] = {}
    for record in read_workers(system.state_folder):
        if record.said is None or now - record.said > timedelta(hours=1):
            continue
        said = dict(record.facts.get("skews") or {})
        said[str(record.facts.get("service", ""))] = record.facts.get("server_clock_ahead_seconds")
        for name, seconds in said.items():
            if isinstance(seconds, int | float):
                found[str(name)] = timedelta(seconds=seconds)
    return found


def _undelivered(system: System) -> tuple[Delivery, ...]:
    found = []
    for what in ("pings", "channels"):
        for name, said in read_note(system.state_folder / f"{what}.json").items():
            since = instant_of(said.get("since")) if isinstance(said, dict) else None
            if isinstance(said, dict) and said.get("error") and since is not None:
                found.append(Delivery(name=f"{what[:-1]} {name}", error=str(said["error"]), since=since))
    return tuple(found)
