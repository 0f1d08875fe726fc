"""Carries out the recovery of production: begins a run or goes on with one, and holds what keeps others away."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from recoup.assembly.access import Readable
from recoup.assembly.recover_context import RecoverWish, Recovery
from recoup.assembly.recover_forecast import clock_facts_of
from recoup.assembly.recover_runs import RunSeen, local_runs, run_folder, unfinished
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.drill.codec import decode, encode
from recoup.kernel import clock, ids
from recoup.kernel.finding import Verdict
from recoup.kernel.presence import boot_id, login_name, myself
from recoup.recovery.executor import Actor, Agreement, Control, Outcome, begin, carry_out
from recoup.recovery.journal import Journal, Line
from recoup.recovery.progress import read_progress
from recoup.recovery.runbook import Facts, steps_of
from recoup.recovery.step import Consent, Step
from recoup.repository.lease import cannot_note, hold_lease

#: The lease of a stack on this machine.
LEASE: Final = "recover"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A run that is about to begin, or to go on: nothing of it was done in this call yet."""

    run: str
    steps: tuple[Step, ...]
    lines: tuple[Line, ...]  #: its journal so far; empty for a new one
    opened: Readable
    system: System


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverControl:
    """What the operator wants of this call. ``agree`` asks a person whether a step may be done.

    It returns None when they do not agree. Who agrees is ``who``, unless the agreement names somebody else.

    ``ready`` is told what is about to be done before anything is written; it may raise ``RefusedError``. ``watch`` is
    given what reads the journal while the run goes on.

    ``yes`` agrees beforehand to every step that needs no more than that. ``run`` is the id of the run to go on with;
    without one it is the unfinished run of this situation, or a new one.
    """

    agree: Callable[[Step], Agreement | None]
    who: str = field(default_factory=login_name)
    yes: bool = False
    run: str | None = None
    skip: Mapping[str, str] = field(default_factory=dict)
    pause_before: str | None = None
    ready: Callable[[Ready], None] = lambda _ready: None
    watch: Callable[[Callable[[], Sequence[Line]]], None] = lambda _lines: None
    begins: Callable[[Step, int], None] = lambda _step, _attempt: None
    ends: Callable[[Step, Verdict, str], None] = lambda _step, _verdict, _detail: None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryOutcome:
    """How a call ended. ``lines`` is the whole journal of the run, ``steps`` are all of its steps."""

    run: str
    outcome: Outcome
    steps: tuple[Step, ...]
    lines: tuple[Line, ...]
    resumed: bool


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
    opened, system = parts.open(wish)
    state = opened.state_folder
    with hold_lease(state, LEASE, f"recovery from {wish.situation}"), contextlib.ExitStack() as scope:
        there = unfinished(local_runs(state), wish.situation, control.run)
        run = ids.new_id(clock.now()) if there is None else there.run
        frozen = _begun(there, wish) or encode(parts.facts(opened, system, wish))
        steps = steps_of(wish.situation, decode(Facts, frozen), "production")
        so_far = () if there is None else there.lines
        control.ready(Ready(run=run, steps=steps, lines=so_far, opened=opened, system=system))
        journal = scope.enter_context(_journal(run_folder(state, run), control.who))
        control.watch(lambda: journal.lines)
        begin(journal, run=run, situation=wish.situation, steps=steps, facts=_facts(opened, system, wish, frozen))
        recovery = Recovery(
            run=run, wish=wish, opened=opened, system=system, state=run_folder(state, run), journal=journal,
            voice=voice, scope=scope.enter_context(contextlib.ExitStack()),
        )  # fmt: skip
        outcome = carry_out(journal, steps, parts.actor(recovery), _control(control))
        return RecoveryOutcome(
            run=run, outcome=outcome, steps=steps, lines=tuple(journal.lines), resumed=there is not None
        )


def show_steps(wish: RecoverWish, parts: Parts | None = None) -> tuple[Readable, System, tuple[Step, ...]]:
    """The steps that a recovery begun now would have, and what was opened to know them. Nothing is changed.

    Raise as ``run_recovery`` does.
    """
    parts = parts or production_parts()
    opened, system = (parts.look or parts.open)(wish)
    return opened, system, steps_of(wish.situation, parts.facts(opened, system, wish), "production")


def production_parts() -> Parts:
    """The parts of a real recovery."""
    facts = importlib.import_module("recoup.assembly.recover_facts")
    actor = importlib.import_module("recoup.assembly.recover_actor")
    blank = importlib.import_module("recoup.assembly.recover_blank")
    return Parts(open=blank.open_blank, look=blank.open_to_look, facts=facts.facts_of, actor=actor.ProductionActor)


def _journal(folder: Path, who: str) -> Journal:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as failure:
        raise cannot_note(folder, failure) from failure
    return Journal(folder / "journal", who=who, host=myself().host, boot=boot_id())


def _begun(there: RunSeen | None, wish: RecoverWish) -> Any:
    """The facts that a run was begun with; None for a new one."""
    found = None if there is None else read_progress(there.lines)
    assert found is None or found.situation == wish.situation
    return None if found is None else found.facts["facts"]


def _facts(opened: Readable, system: System, wish: RecoverWish, frozen: Any) -> dict[str, Any]:
    """What is chosen when a run begins, and does not change while it goes on."""
    return {
        "system": system.plan.system,
        "services": list(wish.services),
        "instant": wish.instant,
        "facts": frozen,
        **clock_facts_of(opened, system, wish),
    }


def _control(control: RecoverControl) -> Control:
    def approve(step: Step) -> Agreement | None:
        if control.yes and step.consent is Consent.YES:
            return Agreement(how="beforehand")
        return control.agree(step)

    return Control(
        approve=approve, skip=control.skip, pause_before=control.pause_before, begins=control.begins, ends=control.ends
    )
