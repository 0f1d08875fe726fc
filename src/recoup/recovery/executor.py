"""Carries out a run: each step journaled before and after, repeated safely, resumed where it was killed.

The invariant: nothing is done that is not in the journal first, and no step counts as done that was not looked at
afterwards. A step that was begun and not ended may have done anything up to all of its work; so every step begins with
a look (``Actor.done``), and its act can be repeated. Before anything is repeated, the children that a dead run left are
ended (``Actor.fence``): two of them at one database are worse than none.

A step has a time. When it is over the work is interrupted, its children are ended, and the step counts as failed. One
that may be tried several times is tried again after a pause; then a person has to look.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from recoup.kernel import clock
from recoup.kernel.errors import (
    BusyError,
    EngineError,
    InterruptedRunError,
    PlanError,
    RecoupError,
    RefusedError,
    UncheckedError,
    UsageError,
    WrongKeyError,
)
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.kernel.limits import Watch
from recoup.kernel.units import show_duration
from recoup.recovery import progress as written
from recoup.recovery.journal import Line
from recoup.recovery.progress import Approve, Carry, Finished, Progress, Stuck, is_agreed, next_move, read_progress
from recoup.recovery.step import Consent, Done, Step
from recoup.recovery.step_document import step_document

#: What clears up after a step whose time is over may take so long; then it is interrupted as well.
_UNWIND_SECONDS: Final = 60.0
#: Between two attempts: twice as long each time, from the first to the longest.
_FIRST_PAUSE_SECONDS: Final = 2.0
_LONGEST_PAUSE_SECONDS: Final = 30.0
#: Trying again does not change these.
_FINAL: Final = (RefusedError, UsageError, PlanError, WrongKeyError, BusyError)


class Log(Protocol):
    """Where a run is written down: ``journal.Journal``."""

    @property
    def who(self) -> str:
        """Who writes it."""
        ...

    @property
    def lines(self) -> Sequence[Line]:
        """Everything so far."""
        ...

    def append(self, event: str, **data: Any) -> Line:
        """Write a line; it is on the disk when this returns. Raise ``RecoupError`` when it is not."""
        ...


class Actor(Protocol):
    """Carries out the steps of one runbook at one destination. Every method may be called again after a kill."""

    def fence(self, step: Step) -> None:
        """End whatever an earlier run left working on this step. Raise ``RecoupError`` when that cannot be sure."""
        ...

    def done(self, step: Step) -> bool:
        """Whether the effect of the step is there already, so that nothing is to be done. Changes nothing."""
        ...

    def act(self, step: Step) -> Done:
        """Do it, within its time. Raise ``RecoupError`` when it fails."""
        ...

    def after(self, step: Step) -> Sequence[Finding]:
        """Look at what was done."""
        ...


class StepStopped(BaseException):
    """The step has to end now: its time is over, or somebody else has the run. ``reason`` says why.

    No error: as an interrupt, it goes through what handles errors.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Somebody agreed to a step. ``by`` is who, empty for who runs this; ``how`` is what they did: typed the name."""

    by: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the operator wants of this run, and who hears of it.

    ``approve`` asks a person for a step that needs one (``Step.consent``), and returns None when they do not agree; it
    may raise ``RefusedError``. ``two_people``: who agrees to a step that replaces production is not who began the run.
    ``skip`` are steps to be left out, each with the reason; ``pause_before`` ends the run in front of a step, to be
    resumed later. ``at_boundary`` is called after each line of the journal: it copies it elsewhere, and must not
    raise. ``lost`` says why this process may not go on any more, when it may not; then nothing more is written down.
    ``make_sure`` brings ``lost`` up to date: it is called before a step that somebody had to agree to,
    and before one is tried again. ``pause`` waits
    so many seconds between two attempts.
    """

    approve: Callable[[Step], Agreement | None]
    two_people: bool = False
    skip: Mapping[str, str] = field(default_factory=dict)
    pause_before: str | None = None
    begins: Callable[[Step, int], None] = lambda _step, _attempt: None
    ends: Callable[[Step, Verdict, str], None] = lambda _step, _verdict, _detail: None
    at_boundary: Callable[[], None] = lambda: None
    lost: Callable[[], str | None] = lambda: None
    make_sure: Callable[[], None] = lambda: None
    pause: Callable[[float], None] = clock.pause


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call of ``carry_out`` ended. ``verdict`` is ok only when the run is finished and every look was good."""

    verdict: Verdict
    finished: bool
    stopped_at: Step | None = None
    detail: str = ""
    hint: str | None = None
    findings: tuple[Finding, ...] = ()


def begin(
    journal: Log,
    *,
    run: str,
    situation: str,
    steps: Sequence[Step],
    facts: Mapping[str, Any],
    resumed: Mapping[str, Any] | None = None,
) -> Progress:
    """Begin the run of this journal, or go on with the one that is in it; then ``resumed`` is noted.

    Raise ``RefusedError`` when the list of steps is not the one that it was begun with.
    """
    there = read_progress(journal.lines)
    if there is None:
        journal.append(
            written.RUN_BEGUN, schema=1, run=run, situation=situation, order=written.ORDER,
            steps=[step.id for step in steps], facts=dict(facts),
            runbook=[step_document(step) for step in steps],
        )  # fmt: skip
    else:
        written.require_same_run(there, steps)
        if there.ended is None:
            journal.append(written.RUN_RESUMED, **(resumed or {}))
    found = read_progress(journal.lines)
    assert found is not None
    return found


def carry_out(journal: Log, steps: Sequence[Step], actor: Actor, control: Control) -> Outcome:
    """Carry out what is left of a run that ``begin`` opened.

    It ends when nothing is left, when a step fails, when a person does not agree, or in front of ``pause_before``. In
    each case the same command goes on later. Raise ``RefusedError`` when nobody agreed, ``BusyError`` when somebody
    else has the run now. What is no ``RecoupError`` is passed on, and the journal shows the step as begun.
    """
    return _Run(journal, steps, actor, control).to_its_end()


class _Run:
    """One call of ``carry_out``."""

    def __init__(self, journal: Log, steps: Sequence[Step], actor: Actor, control: Control) -> None:
        self._journal, self._steps, self._actor, self._control = journal, steps, actor, control
        self._findings: list[Finding] = []
        self._resumed = any(line.event == written.RUN_RESUMED for line in journal.lines)

    def to_its_end(self) -> Outcome:
        try:
            return self._to_its_end()
        except (KeyboardInterrupt, InterruptedRunError):
            with contextlib.suppress(RecoupError):
                self._write(written.RUN_INTERRUPTED)
            raise

    def _to_its_end(self) -> Outcome:
        self._fence_what_was_begun()
        while True:
            self._require_ours()
            found = self._progress()
            move = next_move(found, self._steps, two_people=self._control.two_people)
            match move:
                case Finished():
                    if found.ended is None:
                        self._write(written.RUN_ENDED, outcome=found.verdict.value)
                    return self._ended(found.verdict, finished=True)
                case Stuck(step=step, why=why):
                    return self._ended(Verdict.FAILED, step, why)
                case Approve(step=step) | Carry(step=step):
                    ended = self._step(move, step)
                    if ended is not None:
                        return ended

    def _step(self, move: Approve | Carry, step: Step) -> Outcome | None:
        if step.id in self._control.skip:
            self._write(written.STEP_SKIPPED, step=step.id, because=self._control.skip[step.id])
            return None
        if step.id == self._control.pause_before:
            self._write(written.RUN_PAUSED, step=step.id)
            hint = "The same command without --pause-before goes on."
            return self._ended(Verdict.UNKNOWN, step, "paused as asked", hint)
        if isinstance(move, Approve):
            self._approve(step)
            return None
        failure = self._carry(step, move.attempt)
        if failure is None:
            return None
        verdict = Verdict.UNKNOWN if isinstance(failure, UncheckedError) else Verdict.FAILED
        return self._ended(verdict, step, failure.message, failure.hint)

    def _approve(self, step: Step) -> None:
        agreed = self._control.approve(step)
        by = "" if agreed is None else agreed.by or self._journal.who
        if agreed is None:
            self._write(written.DECLINED, step=step.id)
            raise RefusedError(
                f"nobody agreed to the step {step.id} ({step.title})",
                hint="Nothing of it was done. The same command asks again.",
            )
        if not is_agreed(self._progress(), step, two_people=self._control.two_people, by=by):
            self._write(written.DECLINED, step=step.id, by=by, why="the same person")
            raise RefusedError(
                f"{by} began this run, and the plan asks for another person to agree to the step {step.id}",
                hint="Nothing of it was done. Somebody else agrees with: recoup recover --resume --as NAME.",
            )
        self._write(written.APPROVED, step=step.id, by=by, how=agreed.how)

    def _carry(self, step: Step, attempt: int) -> RecoupError | None:
        """One step, as often as it may be tried; what made it fail in the end."""
        for tries in range(1, step.attempts + 1):
            self._control.begins(step, attempt)
            self._write(written.STEP_BEGUN, step=step.id, attempt=attempt)
            if step.consent is not Consent.NONE or tries > 1:
                self._control.make_sure()
            self._require_ours()
            failure = self._attempt(step, attempt)
            if failure is None:
                return None
            again = tries < step.attempts and not isinstance(failure, (*_FINAL, _TimeIsOverError))
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** (tries - 1)) if again else None
            self._write(written.STEP_FAILED, step=step.id, detail=failure.message, again_in_seconds=pause)
            self._control.ends(step, Verdict.FAILED, failure.message)
            if pause is None:
                return failure
            self._control.pause(pause)
            self._require_ours()
            attempt += 1
        raise AssertionError("a step is tried once at least")

    def _attempt(self, step: Step, attempt: int) -> RecoupError | None:
        """What made it fail. One whose outcome is unknown is done, and makes the outcome of the run unknown."""
        try:
            done, seen = self._in_time(step, attempt)
        except (InterruptedRunError, _LostError):
            raise  # the step stays begun, and is looked at when the run goes on
        except RecoupError as failure:
            return failure
        verdict = overall(seen) if seen else Verdict.OK
        bad = next((one for one in seen if one.verdict is Verdict.FAILED), None)
        if bad is not None:
            return EngineError(f"{bad.check}: {bad.subject}: {bad.detail}", hint=bad.hint)
        self._findings += seen
        self._write(
            written.STEP_DONE, step=step.id, detail=done.detail, verdict=verdict.value,
            seconds_waited=round(done.waited, 3), data=dict(done.data),
        )  # fmt: skip
        self._control.ends(step, verdict, done.detail)
        return None

    def _in_time(self, step: Step, attempt: int) -> tuple[Done, tuple[Finding, ...]]:
        """Look, do it, look. Raise ``_TimeIsOverError`` when it took too long; then nothing of it is at work any more.

        People take the time that they take.
        """
        deadline = None if step.kind == "person" else clock.monotonic() + step.seconds
        watch = Watch(deadline=deadline, time_over=f"it took longer than {show_duration(step.seconds)}")
        watch.also(self._control.lost)
        try:
            with watch.interrupting(raising=StepStopped, again_seconds=_UNWIND_SECONDS):
                # A journal may lack its last lines (a copy of a lost machine's), and with them that a step was begun.
                if attempt > 1 or self._resumed:
                    self._actor.fence(step)
                done = Done(detail="it was done already") if self._actor.done(step) else self._actor.act(step)
                return done, (*done.findings, *self._actor.after(step))
        except StepStopped as stopped:
            self._require_ours()
            self._actor.fence(step)
            raise _TimeIsOverError(
                f"the step {step.id} was stopped: {stopped.reason}",
                hint="Look why it takes so long. The same command tries it again; --skip leaves it out.",
            ) from stopped

    def _fence_what_was_begun(self) -> None:
        """What a dead run left at work is ended before anything is done, also when its step is left out now."""
        for step in self._steps:
            stands = self._progress().steps[step.id]
            if stands.attempts and stands.standing not in ("done", "skipped"):
                self._actor.fence(step)

    def _require_ours(self) -> None:
        why = self._control.lost()
        if why is not None:
            raise _LostError(
                why, hint="Nothing more is done here. Look at the run from where it goes on: recoup recover --show."
            )

    def _progress(self) -> Progress:
        found = read_progress(self._journal.lines)
        assert found is not None, "begin comes first"
        return found

    def _ended(
        self, verdict: Verdict, step: Step | None = None, detail: str = "", hint: str | None = None, *,
        finished: bool = False,
    ) -> Outcome:  # fmt: skip
        return Outcome(
            verdict=verdict, finished=finished, stopped_at=step, detail=detail, hint=hint,
            findings=tuple(self._findings),
        )  # fmt: skip

    def _write(self, event: str, **data: Any) -> None:
        self._require_ours()  # a line that somebody else's run does not know would part the two for ever
        self._journal.append(event, **data)
        self._control.at_boundary()


class _TimeIsOverError(EngineError):
    """A step took longer than it may."""


class _LostError(BusyError):
    """Somebody else has the run now."""
