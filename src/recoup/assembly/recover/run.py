"""Carries out the recovery of production: begins a run or goes on with one, and holds what keeps others away."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from recoup.assembly.access import Readable
from recoup.assembly.recover.context import RecoverWish, Recovery
from recoup.assembly.recover.fence import FencedActor
from recoup.assembly.recover.forecast import clock_facts_of
from recoup.assembly.recover.hold import LEASE, Stack, Who, hold_stack, lines_of
from recoup.assembly.recover.patience import patiently
from recoup.assembly.recover.runs import RunSeen, run_folder, unfinished
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.drill.codec import decode, encode
from recoup.kernel import clock, ids
from recoup.kernel.errors import RefusedError, UsageError
from recoup.kernel.finding import Verdict
from recoup.kernel.presence import login_name, myself
from recoup.recovery.executor import Actor, Agreement, Control, Outcome, begin, carry_out
from recoup.recovery.journal import Line
from recoup.recovery.progress import (
    Progress,
    cannot_continue,
    read_progress,
    require_same_machine,
    require_same_order,
    require_same_run,
)
from recoup.recovery.runbook import Facts, Situation, steps_of
from recoup.recovery.step import Consent, Step
from recoup.repository.run_lease import Rhythm

__all__ = ["LEASE", "Parts", "Ready", "RecoverControl", "RecoveryOutcome", "run_recovery", "show_steps"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A run that is about to begin, or to go on: nothing of it was done in this call yet."""

    run: str
    steps: tuple[Step, ...]
    lines: tuple[Line, ...]  #: its journal so far; empty for a new one
    runs: tuple[RunSeen, ...]  #: every run that there was when this one was about to begin
    opened: Readable
    system: System


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverControl:
    """What the operator wants of this call. ``agree`` asks a person whether a step may be done.

    It returns None when they do not agree. Who agrees is ``who``, unless the agreement names somebody else.

    ``ready`` is told what is about to be done before anything is written; it may raise ``RefusedError``. ``watch`` is
    given what reads the journal while the run goes on.

    ``yes`` agrees beforehand to every step that needs no more than that. ``run`` is the id of the run to go on with;
    without one it is the unfinished run of this situation, or a new one. ``take_over``: also when somebody else seems
    to be at it, or what this machine knows of the run does not count any more.
    """

    agree: Callable[[Step], Agreement | None]
    who: str = field(default_factory=login_name)
    yes: bool = False
    run: str | None = None
    take_over: bool = False
    skip: Mapping[str, str] = field(default_factory=dict)
    pause_before: str | None = None
    ready: Callable[[Ready], None] = lambda _ready: None
    watch: Callable[[Callable[[], Sequence[Line]]], None] = lambda _lines: None
    begins: Callable[[Step, int], None] = lambda _step, _attempt: None
    ends: Callable[[Step, Verdict, str], None] = lambda _step, _verdict, _detail: None
    pause: Callable[[float], None] = clock.pause
    rhythm: Rhythm = field(default_factory=Rhythm)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOutcome:
    """How a call ended. ``lines`` is the whole journal of the run, ``steps`` are all of its steps.

    ``uncopied`` are the repositories that do not have all of it, and why.
    """

    run: str
    outcome: Outcome
    steps: tuple[Step, ...]
    lines: tuple[Line, ...]
    resumed: bool
    uncopied: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a recovery is made of. Tests put in their own."""

    open: Callable[[RecoverWish], tuple[Readable, System]]
    facts: Callable[[Readable, System, RecoverWish], Facts]
    actor: Callable[[Recovery], Actor]
    look: Callable[[RecoverWish], tuple[Readable, System]] | None = None  #: as ``open``, and changes nothing


def run_recovery(
    wish: RecoverWish, voice: Voice, control: RecoverControl, parts: Parts | None = None
) -> RecoveryOutcome:
    """Begin a recovery, or go on with the one that is under way, until it ends or needs somebody.

    Raise ``BusyError`` while another process carries it out, ``RefusedError`` when it cannot be continued as it was
    begun or nobody agreed to a step, the repositories' errors.
    """
    parts = parts or production_parts()
    opened, system = patiently(lambda: parts.open(wish), voice.say)
    who = Who(name=control.who, take_over=control.take_over, rhythm=control.rhythm)
    with hold_stack(opened, system, who, f"recovery from {wish.situation}", voice.say) as stack:
        there = unfinished(stack.runs, wish.situation, control.run)
        run = ids.new_id(clock.now()) if there is None else there.run
        so_far = read_progress(lines := lines_of(there, who))
        if there is not None and so_far is not None and so_far.ended is not None:
            raise _settled(stack, there, so_far.ended)
        if so_far is None:
            found = parts.facts(opened, system, wish)
            steps = steps_of(wish.situation, found, "production")
        else:
            me = myself()
            here = there is not None and there.is_here
            require_same_machine(so_far, machine=me.machine, host=me.host, here=here)
            found, steps = None, _steps_of(so_far, wish.situation, system, control.skip)
        control.ready(Ready(run=run, steps=steps, lines=tuple(lines), runs=stack.runs, opened=opened, system=system))
        with stack.journal(run, there) as (journal, settled), contextlib.ExitStack() as scope:
            control.watch(lambda: journal.lines)
            facts = {} if found is None else _facts(opened, system, wish, encode(found))
            begin(journal, run=run, situation=wish.situation, steps=steps, facts=facts,
                  resumed=_changes(so_far, system, voice.say))  # fmt: skip
            stack.note(journal, settled)
            recovery = Recovery(
                run=run, wish=wish, opened=opened, system=system, state=run_folder(opened.state_folder, run),
                journal=journal, voice=voice, scope=scope,
            )  # fmt: skip
            actor = FencedActor(parts.actor(recovery), run)
            outcome = carry_out(journal, steps, actor, _control(control, stack))
        return RecoveryOutcome(
            run=run, outcome=outcome, steps=steps, lines=tuple(journal.lines), resumed=there is not None,
            uncopied=stack.keepers.uncopied(),
        )  # fmt: skip


def show_steps(wish: RecoverWish, parts: Parts | None = None) -> tuple[Readable, System, tuple[Step, ...]]:
    """The steps that a recovery begun now would have, and what was opened to know them. Nothing is changed.

    Raise as ``run_recovery`` does.
    """
    parts = parts or production_parts()
    opened, system = (parts.look or parts.open)(wish)
    return opened, system, steps_of(wish.situation, parts.facts(opened, system, wish), "production")


def production_parts() -> Parts:
    """The parts of a real recovery. They load every engine, which looking at a run does not need."""
    from recoup.assembly.recover.actor import ProductionActor
    from recoup.assembly.recover.blank import open_blank, open_to_look
    from recoup.assembly.recover.facts import facts_of

    return Parts(open=open_blank, look=open_to_look, facts=facts_of, actor=ProductionActor)


def _settled(stack: Stack, there: RunSeen, ended: str) -> UsageError:
    """Put the copy that counts in the place of a journal that does not, of a run that has ended; the error to raise."""
    with stack.journal(there.run, there):
        return UsageError(
            f"the run {there.run} has ended: {ended}",
            hint="Its journal is whole again. The same command without --resume and --take-over begins a new one.",
        )


def _steps_of(so_far: Progress, situation: Situation, system: System, skip: Collection[str]) -> tuple[Step, ...]:
    """The steps of a run that was begun.

    Raise ``RefusedError`` when they are not those of this Recoup, or the plan lacks by now what they are about.
    """
    require_same_order(so_far)
    try:
        facts = decode(Facts, so_far.facts.get("facts"))
    except ValueError as wrong:
        why = f"what the run {so_far.run} rests on was written by a Recoup that says it otherwise: {wrong}"
        raise cannot_continue(so_far, why) from wrong
    steps = steps_of(situation, facts, "production")
    require_same_run(so_far, steps)
    ahead = [one for one in steps if so_far.steps[one.id].standing not in ("done", "skipped") and one.id not in skip]
    _require_services(so_far, facts, system, {one.subject for one in ahead})
    return steps


def _require_services(so_far: Progress, facts: Facts, system: System, subjects: Collection[str]) -> None:
    """Raise ``RefusedError`` when the plan was changed since the run began, and has not what is still to be done."""
    engines = {one.service: one.engine for one in facts.databases}
    for name in dict.fromkeys((*engines, *facts.files, *facts.health)):
        described = system.plan.services.get(name)
        same = described is not None and engines.get(name, described.engine) == described.engine
        if name in subjects and not same:
            what = "is another kind of service in the plan" if described is not None else "is not in the plan any more"
            raise RefusedError(
                f"{name} {what}, and the run {so_far.run} has steps for it before it",
                hint=f"Put it back into {system.loaded.file} as it was, and the same command goes on. Or give the run "
                f"up, and begin anew: `recoup recover --abandon {so_far.run} --because TEXT`.",
            )


def _changes(so_far: Progress | None, system: System, say: Callable[[str], None]) -> dict[str, Any]:
    """What is otherwise than when the run began, for its journal; it is said, too."""
    now = _plan_digest(system)
    if so_far is None or so_far.facts.get("plan") in (None, now):
        return {"recoup": version("recoup")}
    say("the plan was changed since this run began: its steps stay the same, what they do follows the plan of now")
    return {"recoup": version("recoup"), "plan": now}


def _plan_digest(system: System) -> str:
    return hashlib.sha256(system.loaded.text.encode()).hexdigest()


def _facts(opened: Readable, system: System, wish: RecoverWish, frozen: Any) -> dict[str, Any]:
    """What is chosen when a run begins, and does not change while it goes on."""
    return {
        "system": system.plan.system,
        "services": list(wish.services),
        "instant": wish.instant,
        "folder": None if wish.folder is None else str(wish.folder.absolute()),
        "facts": frozen,
        "machine": myself().machine,
        "host": myself().host,
        "plan": _plan_digest(system),
        "recoup": version("recoup"),
        **clock_facts_of(opened, system, wish),
    }


def _control(control: RecoverControl, stack: Stack) -> Control:
    def approve(step: Step) -> Agreement | None:
        if control.yes and step.consent is Consent.YES:
            return Agreement(how="beforehand")
        return control.agree(step)

    return Control(
        approve=approve,
        two_people=stack.system.plan.recovery.two_people,
        skip=control.skip,
        pause_before=control.pause_before,
        begins=control.begins,
        ends=control.ends,
        at_boundary=stack.keepers.at_boundary,
        lost=stack.keepers.lost,
        make_sure=stack.keepers.make_sure,
        pause=control.pause,
    )
