"""The clock of a recovery, read from its journal: detected, declared, each step, restored, users healthy. Pure.

Times are sums of what lies between two lines of the journal. While a machine stays up, that is measured by a clock that
nobody sets; across a restart, or from one machine to another, only their wall clocks are left. Where the wall clock
moved against the other one, somebody set it or the machine slept, and which of the two cannot be known: a promise
counts as kept only when it is kept either way.

Each stretch is one of three things: the machine worked, people were waited for, or the run stood still because nobody
carried it out (it was paused, interrupted or killed).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from recoup.kernel import clock
from recoup.kernel.errors import UnknownFormatError
from recoup.kernel.finding import Verdict, worst
from recoup.kernel.units import show_duration
from recoup.objectives.objective import Measured, Objective, attainment
from recoup.recovery import progress as written
from recoup.recovery.journal import Line
from recoup.recovery.progress import Progress, StepProgress, read_progress
from recoup.recovery.step import Act, Phase, Step
from recoup.recovery.step_document import step_of_document

Spent = Literal["machine", "people", "still"]

#: A clock that is disciplined by NTP drifts by less than this part of the time.
_DRIFT: Final = 0.001
_ZERO: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Jump:
    """The wall clock moved. ``seconds`` is by how much more than time went by; negative when it was set back."""

    at: datetime
    seconds: float
    restarted: bool = False  #: between two machines, or two starts of one: the true time is not known

    def __str__(self) -> str:
        moved = f"{show_duration(abs(self.seconds))} {'forward' if self.seconds > 0 else 'back'}"
        where = "between two machines or starts of one" if self.restarted else "it was set, or the machine slept"
        return f"the clock moved {moved} before {self.at:%Y-%m-%d %H:%M:%S} UTC ({where})"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """One step as it went, all its attempts together."""

    step: Step
    progress: StepProgress
    machine: timedelta = _ZERO
    people: timedelta = _ZERO
    over: timedelta | None = None  #: after the declaration, when it was over


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The data of one service that did not survive, as time. ``how`` says how ``newest`` is known."""

    service: str
    newest: datetime | None
    how: str
    measured: timedelta | None
    objective: timedelta | None
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Attained:
    """A run by the clock. ``restored``, ``healthy`` and ``so_far`` are counted from the declaration.

    ``restored``: the databases answer with their data; ``healthy``: the users can work. None: not yet.
    """

    progress: Progress
    declared: datetime
    detected: datetime | None
    declared_by: str
    steps: tuple[StepTime, ...]
    restored: timedelta | None
    healthy: timedelta | None
    so_far: timedelta
    spent: Mapping[Spent, timedelta]  #: until the users were healthy, or until now
    rto: timedelta | None  #: what was promised
    rto_verdict: Verdict
    lost: tuple[Lost, ...] = ()
    jumps: tuple[Jump, ...] = ()
    closed: bool = False  #: nothing of it is kept any more

    @property
    def before(self) -> timedelta:
        """From detection to declaration."""
        return _ZERO if self.detected is None else max(self.declared - self.detected, _ZERO)

    @property
    def recovery_time(self) -> timedelta | None:
        """From detection, or from the declaration when that is not known, until the users were healthy."""
        return None if self.healthy is None else self.before + self.healthy

    @property
    def rpo_verdict(self) -> Verdict:
        """Failed when one service lost more than was promised, ok when all are known to have kept their promise."""
        return worst(one.verdict for one in self.lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """An instant by both clocks, on one start of one machine: the present, for a run that goes on."""

    at: datetime
    clock: float
    boot: str


@dataclass(slots=True)
class _Sums:
    """What is being added up, line by line."""

    so_far: timedelta = _ZERO
    possible: timedelta = _ZERO  #: the longest that it can have been
    spent: dict[Spent, timedelta] = field(default_factory=lambda: {"machine": _ZERO, "people": _ZERO, "still": _ZERO})
    machine: dict[str, timedelta] = field(default_factory=dict)
    people: dict[str, timedelta] = field(default_factory=dict)
    over: dict[str, tuple[timedelta, timedelta, dict[Spent, timedelta]]] = field(default_factory=dict)
    jumps: list[Jump] = field(default_factory=list)
    sure: bool = True


def runbook_of(lines: Sequence[Line]) -> tuple[Step, ...]:
    """The steps of a run as they stand in its journal; empty when no run was begun in it.

    Raise ``UnknownFormatError`` for steps that this Recoup does not know: a newer one has begun the run.
    """
    begun = next((line for line in lines if line.event == written.RUN_BEGUN), None)
    if begun is None:
        return ()
    try:
        return tuple(step_of_document(one) for one in begun.data.get("runbook", ()))
    except ValueError as wrong:
        raise UnknownFormatError(
            f"the run {begun.data.get('run')} has steps that this Recoup does not know: {wrong}",
            hint="Look at it with the version of Recoup that began it, or a newer one.",
        ) from wrong


def clock_facts(
    *,
    detected: datetime | None = None,
    back_to: datetime | None = None,
    stack: Objective,
    services: Mapping[str, Objective],
    sizes: Mapping[str, int],
) -> dict[str, Any]:
    """What the clock needs of the day on which a run began, to be frozen among the run's facts.

    ``back_to`` is what was asked for; None for the newest. ``stack`` is the promise for the whole stack,
    ``services`` for each. ``sizes`` are the bytes of each service's copy, to scale this run's times by in later ones.
    """
    return {
        "detected": clock.optional_text(detected),
        "back_to": clock.optional_text(back_to),
        "rto_seconds": _seconds(stack.rto),
        "rpo_seconds": {name: _seconds(one.rpo) for name, one in services.items()},
        "sizes": dict(sizes),
    }


def attained(lines: Sequence[Line], now: Moment | None = None) -> Attained | None:
    """Read the clock. None when no run was begun in the journal. ``now`` is the present, when the run goes on in it.

    Raise ``UnknownFormatError`` as ``runbook_of`` does.
    """
    found = read_progress(lines)
    if found is None:
        return None
    steps = runbook_of(lines)
    rto = _duration(found.facts.get("rto_seconds"))
    begun = next(line for line in lines if line.event == written.RUN_BEGUN)
    detected = None if found.facts.get("detected") is None else clock.from_text(str(found.facts["detected"]))
    at = next((one for one in steps if found.steps[one.id].standing == "begun"), None)
    sums = _add_up(lines[lines.index(begun) :], now, works=at is not None and at.kind == "machine")
    needed = [one for one in steps if one.phase is not Phase.AFTER]
    data = [one for one in steps if one.act is Act.START]
    healthy, restored = _all_over(needed, found, sums), _all_over(data, found, sums)
    at_the_end = None
    if healthy is not None:  # also when all of it took no time
        at_the_end = sums.over[max((one.id for one in needed), key=lambda name: sums.over[name][0])]
    before = _ZERO if detected is None else begun.at - detected
    return Attained(
        progress=found,
        declared=begun.at,
        detected=detected,
        declared_by=begun.who,
        steps=tuple(
            StepTime(
                step=one,
                progress=found.steps[one.id],
                machine=sums.machine.get(one.id, _ZERO),
                people=sums.people.get(one.id, _ZERO),
                over=sums.over[one.id][0] if one.id in sums.over else None,
            )
            for one in steps
        ),
        restored=restored,
        healthy=healthy,
        so_far=sums.so_far,
        spent=sums.spent if at_the_end is None else at_the_end[2],
        rto=rto,
        rto_verdict=_rto(rto, needed, found, sums, healthy=healthy, before=before),
        lost=_lost(found, steps, begun.at if detected is None else min(detected, begun.at)),
        jumps=tuple(sums.jumps),
        closed=any(line.event == written.RUN_CLOSED for line in lines),
    )


def _add_up(lines: Sequence[Line], now: Moment | None, *, works: bool) -> _Sums:
    """``works``: the machine is in the middle of a step, so that nobody is waited for."""
    sums = _Sums()
    seen = {lines[0].id}
    before: Line = lines[0]
    for line in lines[1:]:
        if line.id in seen:
            continue
        seen.add(line.id)
        begins_work = line.event == written.LEASED and before.event not in (written.RUN_BEGUN, written.RUN_RESUMED)
        _account(sums, _passed(sums, before, line), line, nobody=begins_work or line.event == written.RUN_RESUMED)
        before = line
    if now is not None:
        passed = _passed(sums, before, now)
        sums.spent["machine" if works else "people"] += passed
    return sums


def _passed(sums: _Sums, before: Line | Moment, then: Line | Moment) -> timedelta:
    """How much time went by between two lines; where the clock moved, that is noted."""
    wall = (then.at - before.at).total_seconds()
    if before.boot and before.boot == then.boot:
        true = max(0.0, then.clock - before.clock)
        moved = wall - true
        if abs(moved) > 1.0 + _DRIFT * true:
            sums.jumps.append(Jump(at=then.at, seconds=moved))
            sums.possible += timedelta(seconds=max(moved, 0.0))
    else:
        true = max(0.0, wall)
        if wall < 0:
            sums.jumps.append(Jump(at=then.at, seconds=wall, restarted=True))
            sums.sure = False
    passed = timedelta(seconds=true)
    sums.so_far += passed
    sums.possible += passed
    return passed


def _account(sums: _Sums, passed: timedelta, line: Line, *, nobody: bool) -> None:
    """Whose time it was that ended with this line. ``nobody``: nobody carried the run out until then."""
    step = str(line.data.get("step", ""))
    people = _ZERO
    if nobody:
        sums.spent["still"] += passed
        return
    if line.event in (written.APPROVED, written.DECLINED):
        people = passed
    elif line.event in (written.STEP_DONE, written.STEP_FAILED):
        people = min(passed, timedelta(seconds=float(line.data.get("seconds_waited", 0.0))))
    sums.spent["people"] += people
    sums.spent["machine"] += passed - people
    if step:
        sums.people[step] = sums.people.get(step, _ZERO) + people
        sums.machine[step] = sums.machine.get(step, _ZERO) + passed - people
    if line.event in (written.STEP_DONE, written.STEP_SKIPPED):
        sums.over[step] = (sums.so_far, sums.possible, dict(sums.spent))


def _all_over(steps: Sequence[Step], found: Progress, sums: _Sums) -> timedelta | None:
    """When the last of these steps was over; None when one is not, or there are none."""
    if not steps or any(found.steps[one.id].standing not in ("done", "skipped") for one in steps):
        return None
    return max(sums.over[one.id][0] for one in steps)


def _rto(
    rto: timedelta | None,
    needed: Sequence[Step],
    found: Progress,
    sums: _Sums,
    *,
    healthy: timedelta | None,
    before: timedelta,
) -> Verdict:
    if rto is None:
        return Verdict.UNKNOWN
    # So much is sure to have gone by; when the users are not back yet, more will have.
    least = max(before, _ZERO) + (sums.so_far if healthy is None else healthy)
    if least > rto:
        return Verdict.FAILED
    if healthy is None or before < _ZERO or not sums.sure:
        return Verdict.UNKNOWN
    looked = any(one.act in (Act.HEALTH, Act.FLOWS) for one in needed)
    if not looked or any(found.steps[one.id].verdict is not Verdict.OK for one in needed):
        return Verdict.UNKNOWN  # nobody looked, or could look, whether the users can really work
    most = before + max(sums.over[one.id][1] for one in needed)
    return Verdict.OK if most <= rto else Verdict.UNKNOWN


def _lost(found: Progress, steps: Sequence[Step], until: datetime) -> tuple[Lost, ...]:
    """What each database lost: from its newest surviving record to the disaster, as far as that is known."""
    asked = found.facts.get("back_to")
    if asked is not None:
        until = clock.from_text(str(asked))
    result = []
    for service in dict.fromkeys(one.subject for one in steps if one.act is Act.CHOOSE):
        left = _left_as_they_are(found, service)
        told = [
            found.steps[one.id].data
            for one in steps
            if one.subject == service and one.act is not Act.CHOOSE and not left
        ]
        said = next((one for one in reversed(told) if one.get("newest") is not None), None)  # a later look knows more
        newest = None if said is None else clock.from_text(str(said["newest"]))
        unknown = "its data were left as they are" if left else "not brought back yet"
        how = unknown if said is None else str(said.get("how", ""))
        how += "; counted to the instant that was asked for" if asked is not None and said is not None else ""
        promised = _duration(found.facts.get("rpo_seconds", {}).get(service))
        measured = None if newest is None else max(until - newest, _ZERO)
        kept = attainment(Objective(rpo=promised), Measured(lost_data=measured))
        result.append(
            Lost(service=service, newest=newest, how=how, measured=measured, objective=promised, verdict=kept.rpo)
        )
    return tuple(result)


def _left_as_they_are(found: Progress, service: str) -> bool:
    """Whether nothing was put in the place of a database's data, because somebody left that out."""
    place = [one for act in ("swap", "place") if (one := found.steps.get(f"{act}-{service}")) is not None]
    return written.nothing_chosen(found, service) or any(
        one.standing == "skipped" and not one.attempts for one in place
    )


def _seconds(value: timedelta | None) -> float | None:
    return None if value is None else value.total_seconds()


def _duration(seconds: float | None) -> timedelta | None:
    return None if seconds is None else timedelta(seconds=float(seconds))
