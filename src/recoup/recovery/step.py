"""Steps of a recovery as data, and what carries them out one after the other: check, act, check, and the time of each.

The list of steps comes from ``recovery.runbook``. Showing it, printing it and running it are three uses of the same
list. What a step does is in the hands of a ``Doer``; this file knows only the order and the truth about each.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from recoup.kernel import clock
from recoup.kernel.errors import Exit, RecoupError, UncheckedError
from recoup.kernel.finding import Finding, Verdict, overall

Kind = Literal["machine", "person"]

#: Where a list of steps is carried out.
Where = Literal["production", "sandbox"]


class Phase(enum.StrEnum):
    """When a step happens. The clock of the recovery time starts with the first step of ``RECOVER``.

    ``PREPARE`` builds, in a drill, what the disaster would have left standing; a real recovery has no such steps.
    """

    PREPARE = "prepare"
    RECOVER = "recover"
    PROVE = "prove"
    AFTER = "after"  #: the users are back; protection is resumed and the rest is looked at


class Act(enum.StrEnum):
    """What a step does. Closed: a doer handles each of them."""

    ASK = "ask"  #: a person does it and says so
    HOLD = "hold"  #: from now on nothing expires, until the run is closed
    CONFIRM = "confirm"  #: look at the symptoms, and name what is hurt
    CHOOSE = "choose"  #: prove that what one goes back to is good, before it replaces anything
    MACHINE = "machine"  #: look whether this machine has what the stack needs
    FILES = "files"  #: bring a file set back
    SOURCE = "source"  #: get the stack's source at the commit that was recorded
    IMAGES = "images"  #: get the images that were recorded
    STACK = "stack"  #: make containers, networks and volumes from the configuration
    STOP = "stop"  #: stop services
    RESTORE = "restore"  #: bring a database's data to their place, beside what is there
    SWAP = "swap"  #: set a database's old data aside and the new ones in place
    START = "start"  #: start a database, and look at what it holds
    APPLICATION = "application"  #: start an application until it is healthy; without a subject, all that do not run
    HEALTH = "health"  #: ask the addresses that say how a service is
    CHECKS = "checks"  #: ask the plan's questions of a service
    FLOWS = "flows"  #: do what users do
    PROTECT = "protect"  #: take a new copy of a database, which is one that can be gone back to from now on
    CHECKLIST = "checklist"  #: look whether everything is as before the disaster


class Consent(enum.StrEnum):
    """Whose word a step of production needs."""

    NONE = "none"  #: nobody's: it harms nothing
    YES = "yes"  #: a yes, which may be given beforehand
    TYPED = "typed"  #: the name of the system, typed for this step: it replaces what users worked with


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. ``id`` stays the same from run to run. ``subject`` is the service, where there is one.

    ``commands`` are what somebody would type who had to do it by hand; ``check`` is what is looked at afterwards.
    ``replaces`` says what of production it sets aside, or stays empty. ``differs`` says, in a drill, what of the real
    recovery is done differently in this step; it was not tested. ``seconds`` is when it is stopped; ``attempts`` is how
    often it is tried before a person is asked, more than once only where that is safe.
    """

    id: str
    title: str
    meaning: str
    act: Act
    phase: Phase
    subject: str = ""
    commands: tuple[str, ...] = ()
    check: str = ""
    consent: Consent = Consent.NONE
    replaces: str = ""
    differs: str = ""
    seconds: float = 3600.0
    attempts: int = 1

    @property
    def kind(self) -> Kind:
        """Who does it."""
        return "person" if self.act is Act.ASK else "machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRun:
    """One step as it went. One that was not come to has no times, and is unknown."""

    step: Step
    verdict: Verdict = Verdict.UNKNOWN
    started: datetime | None = None
    ended: datetime | None = None
    seconds: float = 0.0  #: by a clock that nobody sets
    waited: float = 0.0  #: seconds of it that a person was waited for
    findings: tuple[Finding, ...] = ()
    detail: str = ""
    hint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What carrying out a step gave. ``data`` is what later steps need of it: words and numbers, no secrets."""

    findings: tuple[Finding, ...] = ()
    detail: str = ""
    waited: float = 0.0
    data: Mapping[str, Any] = field(default_factory=dict)


class Doer(Protocol):
    """Carries steps out at one destination."""

    def before(self, step: Step) -> None:
        """Look whether the step may be done here. Raise ``RefusedError`` when not; nothing was changed."""
        ...

    def act(self, step: Step) -> Done:
        """Do it. Raise ``RecoupError`` when it fails."""
        ...

    def after(self, step: Step) -> Sequence[Finding]:
        """Look at what was done."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Who hears of each step: before it, and after it."""

    begins: Callable[[int, int, Step], None] = lambda _number, _of, _step: None
    ended: Callable[[StepRun], None] = lambda _run: None


def run_steps(steps: Sequence[Step], doer: Doer, watching: Watching) -> tuple[StepRun, ...]:
    """Carry the steps out in order. The first that fails ends it, unless it only looks; what follows stays undone.

    A step whose outcome is unknown does not end the run, but the run's outcome is unknown then. What is no
    ``RecoupError`` is passed on.
    """
    runs: list[StepRun] = []
    for number, step in enumerate(steps, start=1):
        watching.begins(number, len(steps), step)
        runs.append(_run(step, doer))
        watching.ended(runs[-1])
        # Checks only look, so one that fails need not hide what the others would say.
        if runs[-1].verdict is Verdict.FAILED and step.phase is not Phase.PROVE:
            break
    return (*runs, *(StepRun(step=step, detail="not come to") for step in steps[len(runs) :]))


def _run(step: Step, doer: Doer) -> StepRun:
    started, began = clock.now(), clock.monotonic()
    done = Done()
    findings: tuple[Finding, ...] = ()
    verdict, detail, hint = Verdict.OK, "", None
    try:
        doer.before(step)
        done = doer.act(step)
        findings = (*done.findings, *doer.after(step))
        verdict, detail = overall(findings) if findings else Verdict.OK, done.detail
        bad = next((one for one in findings if one.verdict is verdict and verdict is not Verdict.OK), None)
        if bad is not None:
            detail, hint = f"{bad.check}: {bad.subject}: {bad.detail}", bad.hint
    except RecoupError as failure:
        unknown = isinstance(failure, UncheckedError) or failure.exit_code is Exit.UNKNOWN
        verdict = Verdict.UNKNOWN if unknown else Verdict.FAILED
        detail, hint = failure.message, failure.hint
    return StepRun(
        step=step,
        verdict=verdict,
        started=started,
        ended=clock.now(),
        seconds=clock.monotonic() - began,
        waited=done.waited,
        findings=findings,
        detail=detail,
        hint=hint,
    )


def not_come_to(runs: Sequence[StepRun]) -> tuple[Step, ...]:
    """The steps that were not begun."""
    return tuple(one.step for one in runs if one.started is None)
