"""How far a run has come, read from its journal, and what has to happen next. Pure.

The journal is the only memory of a run. A step that was begun and of whose end nothing is written may have done
nothing, half of its work, or all of it: it is begun again, and its own first look finds out which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, Literal

from recoup.kernel.errors import RefusedError
from recoup.kernel.finding import Verdict, worst
from recoup.recovery.journal import Line
from recoup.recovery.step import Consent, Step

#: What orders steps in this version of Recoup. It grows by hand when the order, or what a step does, changes meaning:
#: a run that began under another number is not continued.
ORDER: Final = 1

RUN_BEGUN: Final = "run-begun"
RUN_RESUMED: Final = "run-resumed"
LEASED: Final = "leased"
RUN_PAUSED: Final = "run-paused"
RUN_INTERRUPTED: Final = "run-interrupted"
RUN_ENDED: Final = "run-ended"
#: How a run ended that somebody gave up.
ABANDONED: Final = "abandoned"
STEP_BEGUN: Final = "step-begun"
STEP_DONE: Final = "step-done"
STEP_FAILED: Final = "step-failed"
STEP_SKIPPED: Final = "step-skipped"
APPROVED: Final = "approved"
ROLLBACK_BEGUN: Final = "rollback-begun"
PUT_BACK: Final = "put-back"
RUN_CLOSED: Final = "run-closed"
#: How a run ended whose replaced data were put back.
ROLLED_BACK: Final = "rolled-back"
DECLINED: Final = "declined"

Standing = Literal["waiting", "begun", "done", "failed", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgress:
    """One step: where it stands, how often it was begun, and when it was first begun and ended."""

    standing: Standing = "waiting"
    attempts: int = 0
    approved_by: str | None = None
    first_begun: datetime | None = None
    ended: datetime | None = None
    verdict: Verdict = Verdict.UNKNOWN  #: of the looks at what was done; unknown for a step that was left out
    detail: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)  #: what it told the steps after it


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A run. ``steps`` holds every step of the list that was frozen when it began, in its order."""

    run: str
    situation: str
    begun: datetime
    order: int
    frozen: tuple[str, ...]
    steps: Mapping[str, StepProgress] = field(default_factory=dict)
    ended: str | None = None  #: how it ended; None while it goes on
    rolling_back: bool = False  #: putting back what it replaced was begun, and is not over
    begun_by: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)  #: what was chosen when it began, and must not change

    @property
    def verdict(self) -> Verdict:
        """Ok when every step was done and looked at with good result; failed when one failed; else unknown."""
        return worst(one.verdict for one in self.steps.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Carry:
    """Carry this step out now, for the ``attempt``-th time."""

    step: Step
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """A person has to agree before this step."""

    step: Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """Nothing is left to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stuck:
    """A step failed, and nobody said that it is to be tried again or left out."""

    step: Step
    why: str


Move = Carry | Approve | Finished | Stuck


def read_progress(lines: Sequence[Line]) -> Progress | None:
    """What a journal says; None when no run was begun in it. A line that is there twice counts once."""
    found: Progress | None = None
    seen: set[str] = set()
    for line in lines:
        if line.id in seen:
            continue
        seen.add(line.id)
        if line.event == RUN_BEGUN:
            found = Progress(
                run=str(line.data["run"]),
                situation=str(line.data["situation"]),
                begun=line.at,
                begun_by=line.who,
                order=int(line.data["order"]),
                frozen=tuple(line.data["steps"]),
                steps={name: StepProgress() for name in line.data["steps"]},
                facts=line.data.get("facts", {}),
            )
        elif found is not None:
            found = _after(found, line)
    return found


def _after(progress: Progress, line: Line) -> Progress:
    if line.event == ROLLBACK_BEGUN:
        return replace(progress, rolling_back=True)
    if line.event == RUN_ENDED:
        outcome = str(line.data["outcome"])
        return replace(progress, ended=outcome, rolling_back=progress.rolling_back and outcome != ROLLED_BACK)
    if line.event == RUN_RESUMED:
        # What failed may be tried again now; what was begun is begun again.
        again = {
            name: replace(one, standing="waiting", verdict=Verdict.UNKNOWN) if one.standing == "failed" else one
            for name, one in progress.steps.items()
        }
        return replace(progress, steps=again)
    step = line.data.get("step")
    before = progress.steps.get(str(step))
    if before is None:
        return progress
    now = before
    if line.event == STEP_BEGUN:
        now = replace(before, standing="begun", attempts=before.attempts + 1, first_begun=before.first_begun or line.at)
    elif line.event == STEP_DONE:
        verdict = Verdict(line.data.get("verdict", Verdict.UNKNOWN.value))
        detail, data = str(line.data.get("detail", "")), line.data.get("data", {})
        now = replace(before, standing="done", ended=line.at, verdict=verdict, detail=detail, data=data)
    elif line.event == STEP_FAILED:
        # One that is tried again by itself waits for that, also when a kill comes in between.
        retried = line.data.get("again_in_seconds") is not None
        now = replace(
            before,
            standing="waiting" if retried else "failed",
            ended=line.at,
            verdict=Verdict.UNKNOWN if retried else Verdict.FAILED,
            detail=str(line.data.get("detail", "")),
        )
    elif line.event == STEP_SKIPPED:
        now = replace(before, standing="skipped", ended=line.at, detail=str(line.data.get("because", "")))
    elif line.event == APPROVED:
        now = replace(before, approved_by=str(line.data.get("by") or line.who))
    return replace(progress, steps={**progress.steps, str(step): now})


def require_not_rolling_back(progress: Progress) -> None:
    """Raise ``RefusedError`` while some of the data may be from before the run, and some from what it recovered."""
    if progress.rolling_back:
        raise RefusedError(
            f"putting back what the run {progress.run} replaced was begun and is not over",
            hint=f"Finish it: recoup recover --rollback {progress.run}.",
        )


def has_replaced(progress: Progress, service: str) -> bool:
    """Whether the data of a service were replaced by the run, or by a person for it, or that had been begun."""
    if nothing_chosen(progress, service):
        return False  # there was nothing to put in place: the steps for it ended in front of the data
    found = (progress.steps.get(f"{act}-{service}") for act in ("swap", "place"))
    # One that failed half-way and was left out then has changed things as well.
    return any(one is not None and one.attempts > 0 for one in found)


def has_unpacked(progress: Progress, service: str) -> bool:
    """Whether a copy was unpacked beside the data of a service, or that had begun, and was never put in place."""
    if nothing_chosen(progress, service) or f"swap-{service}" not in progress.steps:
        return False  # without that step it is in a folder of its own, and a person puts it in place
    restored = progress.steps.get(f"restore-{service}")
    return restored is not None and restored.attempts > 0 and not has_replaced(progress, service)


def nothing_chosen(progress: Progress, service: str) -> bool:
    """Whether the choice of what a service goes back to was left out, so that its data stay as they are."""
    chose = progress.steps.get(f"choose-{service}")
    return chose is not None and chose.standing == "skipped"


def require_same_order(progress: Progress) -> None:
    """Raise ``RefusedError`` when the run was begun by a Recoup whose steps mean something else."""
    if progress.order != ORDER:
        raise cannot_continue(
            progress,
            f"the run {progress.run} was begun by a Recoup that orders steps otherwise "
            f"(number {progress.order}, this one has {ORDER})",
        )


def require_same_run(progress: Progress, steps: Sequence[Step]) -> None:
    """Raise ``RefusedError`` unless the list of steps is the one that the run began with."""
    require_same_order(progress)
    names = tuple(step.id for step in steps)
    if progress.frozen != names:
        changed = sorted(set(names) ^ set(progress.frozen)) or ["their order"]
        why = f"the steps of the run {progress.run} would not be the same any more: {', '.join(changed)}"
        raise cannot_continue(progress, why)


def require_same_machine(progress: Progress, *, machine: str, host: str, here: bool) -> None:
    """Raise ``RefusedError`` when a run that builds up a server would go on with another one.

    What is done was done there, and nothing of it is here: an application would start on databases that nobody brought
    back. ``machine`` names the installation (machine-id(5)), ``host`` is its name; an empty text proves nothing, and
    machines made from one image share both. ``here``: this machine has a journal of the run.
    """
    there, name = str(progress.facts.get("machine") or ""), str(progress.facts.get("host") or "")
    other = machine != there if machine and there else bool(name) and name != host
    begun = any(one.attempts and step != "hold" for step, one in progress.steps.items())
    if progress.situation == "server-loss" and begun and (other or not here):
        this = f"this is another machine, {host}" if other else "this machine has no journal of it"
        raise RefusedError(
            f"the run {progress.run} builds up the server {name}, and {this}",
            hint="Go on with it there, as the user who began it. Is that server lost as well? Then give it up, and "
            f"begin anew here: `recoup recover --abandon {progress.run} --because TEXT`, `recoup recover server-loss`.",
        )


def cannot_continue(progress: Progress, why: str) -> RefusedError:
    """The error for a run that this Recoup cannot continue."""
    return RefusedError(
        why,
        hint="Continue it with the version of Recoup that began it, or end it with "
        f"`recoup recover --abandon {progress.run} --because TEXT` and begin a new one: every step looks first what is "
        "already done.",
    )


def next_move(progress: Progress, steps: Sequence[Step], *, two_people: bool = False) -> Move:
    """What has to happen next. ``two_people``: who agrees to what replaces production is not who began the run."""
    for step in steps:
        stands = progress.steps[step.id]
        if stands.standing in ("done", "skipped"):
            continue
        if stands.standing == "failed":
            return Stuck(step=step, why=stands.detail)
        if not is_agreed(progress, step, two_people=two_people):
            return Approve(step=step)
        return Carry(step=step, attempt=stands.attempts + 1)
    return Finished()


def is_agreed(progress: Progress, step: Step, *, two_people: bool, by: str | None = None) -> bool:
    """Whether a step may be done as far as people's word goes. ``by`` is who would agree now, instead of who did."""
    agreed = progress.steps[step.id].approved_by if by is None else by
    if step.consent is Consent.NONE:
        return True
    alone = two_people and step.consent is Consent.TYPED and agreed == progress.begun_by
    return agreed is not None and not alone
