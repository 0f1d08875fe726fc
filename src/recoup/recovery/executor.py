"""Carries out a run: each step journaled before and after, repeated safely, resumed where it was killed.

The invariant: nothing is done that is not in the journal first, and no step counts as done that was not looked at
afterwards. A step that was begun and not ended may have done anything up to all of its work; so every step begins with
a look (``Actor.done``), and its act can be repeated. Before anything is repeated, the children that a dead run left are
ended (``Actor.fence``): two of them at one database are worse than none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from recoup.kernel.errors import InterruptedRunError, RecoupError, RefusedError, UncheckedError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.recovery import progress as written
from recoup.recovery.journal import Line
from recoup.recovery.progress import Approve, Carry, Finished, Progress, Stuck, next_move, read_progress
from recoup.recovery.step import Done, Step
from recoup.recovery.step_document import step_document


class Log(Protocol):
    """Where a run is written down: ``journal.Journal``."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the operator wants of this run, and who hears of it.

    ``approve`` asks a person and answers whether they agreed; it may raise ``RefusedError``. ``skip`` are steps to be
    left out, each with the reason; ``pause_before`` ends the run in front of a step, to be resumed later.
    ``at_boundary`` is called after each line of the journal: it copies it elsewhere, and must not raise.
    """

    approve: Callable[[Step], bool]
    needs_approval: frozenset[str] = frozenset()
    skip: Mapping[str, str] = field(default_factory=dict)
    pause_before: str | None = None
    begins: Callable[[Step, int], None] = lambda _step, _attempt: None
    ends: Callable[[Step, Verdict, str], None] = lambda _step, _verdict, _detail: None
    at_boundary: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a call of ``carry_out`` ended. ``verdict`` is ok only when the run is finished and every look was good."""

    verdict: Verdict
    finished: bool
    stopped_at: Step | None = None
    detail: str = ""
    hint: str | None = None
    findings: tuple[Finding, ...] = ()


def begin(journal: Log, *, run: str, situation: str, steps: Sequence[Step], facts: Mapping[str, Any]) -> Progress:
    """Begin the run of this journal, or go on with the one that is in it.

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
            journal.append(written.RUN_RESUMED)
    found = read_progress(journal.lines)
    assert found is not None
    return found


def carry_out(journal: Log, steps: Sequence[Step], actor: Actor, control: Control) -> Outcome:
    """Carry out what is left of a run that ``begin`` opened.

    It ends when nothing is left, when a step fails, when a person does not agree, or in front of ``pause_before``. In
    each case the same command goes on later. What is no ``RecoupError`` is passed on, and the journal shows the step
    as begun.
    """
    findings: list[Finding] = []
    while True:
        found = read_progress(journal.lines)
        assert found is not None, "begin comes first"
        move = next_move(found, steps, needs_approval=control.needs_approval)
        match move:
            case Finished():
                verdict = found.verdict
                if found.ended is None:
                    _write(journal, control, written.RUN_ENDED, outcome=verdict.value)
                return Outcome(verdict=verdict, finished=True, findings=tuple(findings))
            case Stuck(step=step, why=why):
                return Outcome(
                    verdict=Verdict.FAILED, finished=False, stopped_at=step, detail=why, findings=tuple(findings)
                )
            case Approve(step=step) | Carry(step=step):
                if step.id in control.skip:
                    _write(journal, control, written.STEP_SKIPPED, step=step.id, because=control.skip[step.id])
                    continue
                if step.id == control.pause_before:
                    return Outcome(
                        verdict=Verdict.UNKNOWN, finished=False, stopped_at=step, detail="paused as asked",
                        hint="The same command without --pause-before goes on.", findings=tuple(findings),
                    )  # fmt: skip
                if isinstance(move, Approve):
                    if not control.approve(step):
                        raise RefusedError(
                            f"nobody agreed to the step {step.id} ({step.title})",
                            hint="Nothing of it was done. The same command asks again.",
                        )
                    _write(journal, control, written.APPROVED, step=step.id)
                    continue
                failure = _carry(journal, move, actor, control, findings)
                if failure is not None:
                    return Outcome(
                        verdict=Verdict.UNKNOWN if isinstance(failure, UncheckedError) else Verdict.FAILED,
                        finished=False, stopped_at=step, detail=failure.message, hint=failure.hint,
                        findings=tuple(findings),
                    )  # fmt: skip


def _carry(journal: Log, move: Carry, actor: Actor, control: Control, findings: list[Finding]) -> RecoupError | None:
    """One step; what made it fail. One whose outcome is unknown is done, and makes the outcome of the run unknown."""
    step = move.step
    control.begins(step, move.attempt)
    _write(journal, control, written.STEP_BEGUN, step=step.id, attempt=move.attempt)
    try:
        if move.attempt > 1:
            actor.fence(step)
        done = Done(detail="it was done already") if actor.done(step) else actor.act(step)
        seen = (*done.findings, *actor.after(step))
    except InterruptedRunError:
        raise  # somebody pressed Ctrl-C: the step stays begun, and is looked at when the run goes on
    except RecoupError as failure:
        _write(journal, control, written.STEP_FAILED, step=step.id, detail=failure.message)
        control.ends(step, Verdict.FAILED, failure.message)
        return failure
    verdict = overall(seen) if seen else Verdict.OK
    bad = next((one for one in seen if one.verdict is Verdict.FAILED), None)
    if bad is not None:
        said = f"{bad.check}: {bad.subject}: {bad.detail}"
        _write(journal, control, written.STEP_FAILED, step=step.id, detail=said)
        control.ends(step, verdict, said)
        return RecoupError(said, hint=bad.hint)
    findings += seen
    _write(
        journal, control, written.STEP_DONE, step=step.id, detail=done.detail, verdict=verdict.value,
        seconds_waited=round(done.waited, 3), data=dict(done.data),
    )  # fmt: skip
    control.ends(step, verdict, done.detail)
    return None


def _write(journal: Log, control: Control, event: str, **data: Any) -> None:
    journal.append(event, **data)
    control.at_boundary()
