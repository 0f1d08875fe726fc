"""What a plan wants done and when: its schedules, with what the repositories and the records of this machine know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from recoup.assembly.protect.kinds import KINDS
from recoup.assembly.system import System
from recoup.backup.due import Run, Scheduled, agenda, newest
from recoup.backup.run_records import WHOLE_PLAN, TaskRecord, read_requests, read_tasks
from recoup.kernel import clock
from recoup.kernel.errors import Exit, NoRepositoryError, RecoupError
from recoup.plan.schedule import Schedule, parse_schedule
from recoup.repository.catalog import REPLACED, STACK, read_catalog
from recoup.repository.repository import Repository

SYNC: Final = "sync"
PRUNE: Final = "prune"
VERIFY: Final = "verify "  #: followed by daily, weekly, monthly or slice
SLICE: Final = "slice"
DRILL: Final = "drill"

#: When what the plan gives no hour is done, in its zone: after a night's copies, and clear of the hours that clocks
#: skip or double when they change.
_HOURS: Final[Mapping[str, str]] = {
    SYNC: "daily 04:00",
    PRUNE: "daily 04:30",
    VERIFY + SLICE: "daily 05:00",
    VERIFY + "daily": "daily 05:30",
    VERIFY + "weekly": "sunday 06:30",
    VERIFY + "monthly": "monthly 07:30",
}
#: How a task that leaves no copy can end and need not be repeated: done, found bad, could not be known.
_RAN_THROUGH: Final = (Exit.OK, Exit.BAD, Exit.UNKNOWN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the decision rests on, as it was at one moment. ``silent`` are the repositories that did not answer."""

    tasks: tuple[Scheduled, ...]
    silent: Mapping[str, RecoupError]
    answered: tuple[str, ...]


def copies_scheduled(system: System) -> dict[tuple[str, str], Schedule]:
    """The schedule of every service and kind that has one, in the plan's order."""
    return {
        (name, kind): when
        for name, service in system.plan.services.items()
        for kind, when in service.schedules().items()
        if kind in KINDS[type(service)]
    }


def upkeep_scheduled(system: System) -> dict[str, Schedule]:
    """When the whole plan's work is done: stack points, upkeep, each verification asked for, drills."""
    verify = system.plan.verify
    wanted = [*([SLICE] if verify.every_byte is not None else []), *verify.rhythm()]
    first = [SYNC] if len(system.plan.repositories) > 1 else []
    kinds = [*first, PRUNE, *(VERIFY + name for name in wanted)]
    points = {} if system.plan.stack is None else {STACK: system.plan.stack}
    drill = None if system.plan.drill is None else system.plan.drill.schedule
    drills = {} if drill is None else {DRILL: drill}
    return points | {kind: parse_schedule(_HOURS[kind]) for kind in kinds} | drills


def look(system: System, *, upkeep: bool) -> Known:
    """Ask the repositories for the newest copies. With ``upkeep``, the whole plan's work is looked at as well.

    Raise ``WrongKeyError``, since nothing decided with the wrong key could be right. A repository that does not answer
    is named in the result; while one is silent, the records of this machine stand in for its copies.
    """
    opened = system.open()
    catalog = read_catalog(opened.repositories, system.state_folder)
    # a place without a repository answers too: there are no copies in it
    failed = {name: error for name, error in opened.failed.items() if not isinstance(error, NoRepositoryError)}
    silent = {**failed, **dict(catalog.silent)}
    records = {(one.service, one.kind): one for one in read_tasks(system.state_folder)}
    requests = read_requests(system.state_folder)
    now = clock.now()
    begun: dict[tuple[str, str], list[datetime]] = {}
    for entry in catalog.entries:  # newest first: one that is not of the future is enough
        instants = begun.setdefault((entry.service, entry.kind), [])
        if entry.label != REPLACED and newest(instants, now) is None:
            instants.append(entry.begun)
    scheduled = copies_scheduled(system)
    asked = {one: None for one in requests if one not in scheduled and _can_be_copied(system, *one)}
    tasks = [
        Scheduled(
            service=service,
            kind=kind,
            when=when,
            last=_last_copy(begun.get((service, kind), []), records.get((service, kind)), now, silent=bool(silent)),
            record=records.get((service, kind)),
            asked=requests.get((service, kind)),
        )
        for (service, kind), when in {**scheduled, **asked}.items()
    ]
    if upkeep and opened.repositories:
        since = min(one.created for one in opened.repositories)
        begins = {STACK: newest(begun.get((STACK, STACK), []), now), DRILL: _newest_drill(system, opened.repositories)}
        tasks += [_upkeep(kind, when, records.get((WHOLE_PLAN, kind)), begins.get(kind) or since)
                  for kind, when in upkeep_scheduled(system).items()]  # fmt: skip
    answered = tuple(name for name in system.plan.repositories if name not in silent)
    return Known(tasks=tuple(tasks), silent=silent, answered=answered)


def decide(
    system: System, known: Known, now: datetime, *, awake_since: datetime | None = None, jitter: timedelta | None = None
) -> tuple[Run, ...]:
    """The next run of every task, what is due first. ``awake_since``: see ``backup.due.agenda``.

    ``jitter`` is the plan's, unless it is given: who is called by a timer leaves it to the timer.
    """
    return agenda(
        known.tasks,
        zone=ZoneInfo(system.plan.timezone),
        jitter=system.plan.jitter if jitter is None else jitter,
        system=system.plan.system,
        now=now,
        awake_since=awake_since,
    )


def _newest_drill(system: System, opened: Sequence[Repository]) -> datetime | None:
    """When the newest drill was held, on whichever machine; None when the plan schedules none, or none was held."""
    if system.plan.drill is None or system.plan.drill.schedule is None:
        return None
    from recoup.assembly.drill.rehearsed import drills_of

    book = drills_of(system, opened)
    return None if book is None else newest((one.declared for one in book.records), clock.now())


def _can_be_copied(system: System, service: str, kind: str) -> bool:
    described = system.plan.services.get(service)
    return described is not None and kind in KINDS[type(described)]


def _last_copy(begun: Sequence[datetime], record: TaskRecord | None, now: datetime, *, silent: bool) -> datetime | None:
    if silent and record is not None and record.last_ok is not None:
        begun = [*begun, record.last_ok]
    return newest(begun, now)


def _upkeep(kind: str, when: Schedule, record: TaskRecord | None, since: datetime) -> Scheduled:
    """Upkeep leaves no copy: its record says when it ran through; before the first time, the age of the repository."""
    last = since
    if record is not None:
        # A repository that could not be asked is tried again: it catches up soon after it answers.
        done = _RAN_THROUGH if kind != SYNC else (Exit.OK,)
        through = record.started if record.exit_code in done else record.last_ok
        if through is not None:
            # One that is of the future says nothing of what was done since: a clock was ahead.
            last = max(since, through) if newest([since], clock.now()) is not None else through
    return Scheduled(service=WHOLE_PLAN, kind=kind, when=when, last=last, record=record)
