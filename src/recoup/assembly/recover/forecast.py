"""What a recovery is likely to take: the times of earlier runs and drills, the sizes of today, the promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from recoup.assembly.access import Readable
from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.recover.runs import RunSeen, runs_seen, under_way
from recoup.assembly.system import System
from recoup.drill.book import read_book
from recoup.drill.model import DrillRecord
from recoup.kernel.errors import UnknownFormatError
from recoup.kernel.finding import Verdict
from recoup.objectives.objective import Objective
from recoup.plan.model import Plan
from recoup.recovery import progress as written
from recoup.recovery.attained import attained, clock_facts
from recoup.recovery.forecast import Outlook, Taken, outlook
from recoup.recovery.instant import parse_instant
from recoup.recovery.journal import Line
from recoup.recovery.step import Act, Step
from recoup.repository.catalog import Catalog

#: How many of the newest drills of each repository are read.
_DRILLS: Final = 24
#: What these do differs: a point is restored and looked at after damage, and taken as it is after the loss of a server.
_BY_SITUATION: Final = (Act.CONFIRM, Act.CHOOSE)
#: Copies that are whole by themselves: their sizes are those of the data.
_WHOLE: Final = ("base", "rdb", "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """A forecast, and what could not be asked for it. ``under_way`` is a run that was begun and has not ended."""

    outlook: Outlook
    silent: tuple[str, ...] = ()
    under_way: str | None = None


def expect(
    opened: Readable,
    system: System,
    situation: str,
    steps: Sequence[Step],
    runs: Sequence[RunSeen] | None = None,
) -> Expected:
    """Forecast these steps of a recovery from ``situation``.

    Never raises for a record that cannot be read: it is named, and not counted.
    ``runs`` are those that were read a moment ago; None: they are read now.
    """
    catalog = opened.catalog()
    book = read_book(opened.repositories, system=system.plan.system, failed=opened.failed, newest=_DRILLS)
    then = {one.id: one.plain_bytes for one in catalog.entries}
    taken = [one for record in book.records for one in _rehearsed(record, then)]
    runs = runs_seen(opened, system.plan.system) if runs is None else runs
    strange: list[str] = []
    for run in runs:
        try:
            taken += _recovered(run, situation)
        except UnknownFormatError as unknown:
            strange.append(f"its times are not counted: {unknown.message}")
    promised = stack_objective(system.plan)
    silent = [f"{name}: its drills were not read: {failure.message}" for name, failure in book.failed.items()]
    silent += [f"{one.repository}: {one.key}: {one.what}" for one in book.problems]
    silent += strange
    return Expected(
        outlook=outlook(steps, taken, sizes_of(catalog), promised.rto),
        silent=tuple(silent),
        under_way=None if (newest := under_way(runs)) is None else newest.run,
    )


def clock_facts_of(opened: Readable, system: System, wish: RecoverWish) -> dict[str, Any]:
    """What the clock of a run needs of the day on which it begins: to be frozen in its journal."""
    plan = system.plan
    back_to = None if wish.instant in (None, "latest") else parse_instant(str(wish.instant), plan.timezone)
    return clock_facts(
        detected=wish.detected,
        back_to=back_to,
        stack=stack_objective(plan),
        services={name: plan.objective(name) for name in plan.services},
        sizes=sizes_of(opened.catalog()),
    )


def stack_objective(plan: Plan) -> Objective:
    """The promise for the whole stack: the strictest of its services."""
    each = [plan.objective(name) for name in plan.services]
    return Objective(
        rto=min((one.rto for one in each if one.rto is not None), default=None),
        rpo=min((one.rpo for one in each if one.rpo is not None), default=None),
    )


def sizes_of(catalog: Catalog) -> dict[str, int]:
    """The bytes of the newest whole copy of each service."""
    found: dict[str, int] = {}
    for one in catalog.entries:  # the newest first
        if one.kind in _WHOLE:
            found.setdefault(one.service, one.plain_bytes)
    return found


def _rehearsed(record: DrillRecord, sizes: Mapping[str, int]) -> list[Taken]:
    copies = {one.service: sizes.get(one.id) for one in record.point.copies}
    return [
        Taken(
            step=one.key,
            at=one.started,
            seconds=max(took - one.waiting, timedelta(0)).total_seconds(),
            waited=one.waiting.total_seconds(),
            size=copies.get(one.service),
            rehearsed=True,
        )
        for one in record.steps
        if one.verdict is Verdict.OK and one.started is not None and (took := one.took) is not None
    ]


def _recovered(run: RunSeen, situation: str) -> list[Taken]:
    found = attained(run.lines)
    if found is None:
        return []
    sizes = found.progress.facts.get("sizes", {})
    strange = _cut_off(run.lines)
    if found.progress.situation != situation:
        strange |= {one.step.id for one in found.steps if one.step.act in _BY_SITUATION}
    return [
        Taken(
            step=one.step.id,
            at=one.progress.ended,
            seconds=one.machine.total_seconds(),
            waited=one.people.total_seconds(),
            size=sizes.get(one.step.subject),
        )
        for one in found.steps
        if one.progress.standing == "done" and one.progress.verdict is Verdict.OK and one.progress.ended is not None
        if one.step.id not in strange
    ]


def _cut_off(lines: Sequence[Line]) -> set[str]:
    """The steps that a kill had once in its hands: how long they had worked by then is nowhere."""
    open_: set[str] = set()
    cut: set[str] = set()
    for line in lines:
        step = str(line.data.get("step", ""))
        if line.event == written.STEP_BEGUN:
            cut |= {step} & open_
            open_.add(step)
        elif line.event in (written.STEP_DONE, written.STEP_FAILED):
            open_.discard(step)
    return cut
