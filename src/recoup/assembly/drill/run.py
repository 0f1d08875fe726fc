"""Holds a drill: chooses what to go back to, opens the sandbox, runs the steps, takes it down, and writes it down."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from recoup.assembly.access import Readable, open_for_reading
from recoup.assembly.drill.compose import StackWish, remove_from_engine, teardown_of
from recoup.assembly.drill.doer import ComposeDoer
from recoup.assembly.drill.flows import flow_specs, questions_of
from recoup.assembly.drill.leftovers import ENGINE, clean, has_engine, owner_of
from recoup.assembly.drill.members import Chosen, choose, service_of
from recoup.assembly.drill.native import NativeDatabases
from recoup.assembly.drill.people import participants, who_does_it
from recoup.assembly.drill.plan import plan_identity
from recoup.assembly.drill.production import Look, look_at_production, untouched
from recoup.assembly.drill.record import declared_at, not_past, rpo_of, rto_of, steps_of, used_copies
from recoup.assembly.prove.live import sandboxes
from recoup.assembly.recorded_images import recorded_images
from recoup.assembly.recover.facts import drill_facts
from recoup.assembly.recover.plan_from_repository import no_plan, sets_with_a_plan, with_plan_in
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.drill.model import DrillRecord, Place, RecoveryPoint
from recoup.drill.proving import Proof, planned_proofs, require_proof, shown_proofs
from recoup.engines.files.restore import restore_files
from recoup.engines.sandbox import Sandbox, open_sandbox
from recoup.kernel import clock, ids
from recoup.kernel.errors import EngineError, UsageError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.secret import Secret
from recoup.recovery.runbook import PEOPLE, Facts, Situation
from recoup.recovery.runbook import steps_of as runbook
from recoup.recovery.step import Act, Step, StepRun, Watching, run_steps
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.lease import hold_lease

LEASE: Final = "drill"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillWish:
    """What to rehearse. ``source`` is one repository, by its name in the plan or its address."""

    situation: Situation
    instant: datetime | None = None
    source: str | None = None
    file: Path | None = None
    key_file: Path | None = None
    absent: tuple[str, ...] = ()
    surprise: bool = False
    declared_by: str = ""


@dataclass(slots=True, kw_only=True)
class _Drill:
    """A drill on its way."""

    id: str
    wish: DrillWish
    opened: Readable
    system: System
    sandbox: Sandbox
    voice: Voice
    watching: Watching
    chosen: Chosen
    before: Look
    begun: datetime


def hold_drill(wish: DrillWish, voice: Voice, watching: Watching) -> DrillRecord:
    """Hold a drill and return its record, which is not stored yet.

    Raise ``BusyError`` while another drill of this plan runs, ``RefusedError`` when nothing in it would prove data or
    an instant cannot be reached, the repositories' errors. What goes wrong in a step is in the record, and so is what
    could not be removed afterwards.
    """
    opened = open_for_reading(wish.file, wish.source, wish.key_file)
    if opened.system is not None:
        _proofs(opened.system)  # refused before anything is begun; without a plan it is known later
    with hold_lease(opened.state_folder, LEASE, f"drill of {wish.situation}"):
        compose = opened.system is None or opened.system.plan.compose is not None
        clean(opened.state_folder, compose=compose)
        engine = has_engine(compose=compose)
        held: tuple[_Drill, DrillRecord] | None = None
        left: EngineError | None = None
        try:
            with open_sandbox(
                sandboxes(opened.state_folder),
                f"drill of {wish.situation}",
                elsewhere=lambda one: remove_from_engine(ENGINE, one) if engine else None,
            ) as sandbox:
                drill = _begin(wish, opened, voice, watching, sandbox)
                held = drill, _run(drill)
        except EngineError as failure:
            if held is None:
                raise
            left = failure  # the drill was held; that something is left of it is one of its results
        drill, record = held
        teardown = _teardown(drill, left)
        production = untouched(drill.before, look_at_production(drill.system))
        return replace(record, production=production, teardown=teardown, ended=clock.now())


def _begin(wish: DrillWish, opened: Readable, voice: Voice, watching: Watching, sandbox: Sandbox) -> _Drill:
    opened, system = _with_plan(opened, wish, sandbox)
    begun = clock.now()
    return _Drill(
        id=ids.new_id(begun),
        wish=wish,
        opened=opened,
        system=system,
        sandbox=sandbox,
        voice=voice,
        watching=watching,
        chosen=choose(opened, wish.instant, files_lost=wish.situation == "server-loss"),
        before=look_at_production(system),
        begun=begun,
    )


def _run(drill: _Drill) -> DrillRecord:
    planned = _proofs(drill.system)
    facts = drill_facts(drill.system, drill.chosen, people=drill.voice.ask is not None)
    with _doer(drill) as doer:
        runs = run_steps(runbook(drill.wish.situation, facts), doer, drill.watching)
        return _record(drill, doer, runs, planned, facts)


def _teardown(drill: _Drill, left: EngineError | None) -> tuple[Finding, ...]:
    folder = drill.sandbox.folder
    there = folder.exists()
    disk = Finding(
        check="nothing of the sandbox is left on the disk",
        subject=drill.sandbox.id,
        verdict=Verdict.FAILED if there or left is not None else Verdict.OK,
        detail=left.message
        if left is not None
        else f"{folder} is still there"
        if there
        else "its folder, its processes are gone",
        hint="Remove it: recoup drill --clean" if there or left is not None else None,
    )
    if drill.system.plan.compose is None:
        return (disk,)
    return (teardown_of(ENGINE, drill.sandbox.id), disk)


def _with_plan(opened: Readable, wish: DrillWish, sandbox: Sandbox) -> tuple[Readable, System]:
    """The plan: the one at hand, or on a machine that has none, the newest in the repository's file sets."""
    if opened.system is not None:
        if wish.key_file is not None:
            opened.system.key  # noqa: B018 - it was given, and is the one in use
        return opened, opened.system
    folder = sandbox.child("plan")
    for found in sets_with_a_plan(opened, wish.instant):
        restore_files(ArtefactReader(found.manifest, found.holders), folder, force=True)
        made = with_plan_in(opened, folder)
        if made is not None:
            return made
    raise no_plan()


def _proofs(system: System) -> tuple[Proof, ...]:
    planned = planned_proofs(questions_of(system.plan), flow_specs(system.plan), {})
    require_proof(planned)
    return planned


def show_steps(wish: DrillWish, *, people: bool) -> tuple[Step, ...]:
    """The steps that a drill would have, by the plan at hand. Nothing is opened but the repositories.

    Raise as ``hold_drill`` does, and ``UsageError`` on a machine that has no plan.
    """
    opened = open_for_reading(wish.file, wish.source, wish.key_file)
    if opened.system is None:
        raise UsageError("the steps follow from a plan, and there is none here", hint="Give it: -f FILE.")
    require_proof(_proofs(opened.system))
    return runbook(
        wish.situation,
        drill_facts(
            opened.system, choose(opened, wish.instant, files_lost=wish.situation == "server-loss"), people=people
        ),
    )


@contextlib.contextmanager
def _doer(drill: _Drill) -> Iterator[ComposeDoer]:
    plan = drill.system.plan
    files = drill.sandbox.folder / "files"
    files.mkdir(mode=0o755)
    wish = StackWish(
        system=drill.system,
        sandbox=drill.sandbox,
        files=files,
        owner=owner_of(drill.opened.state_folder),
        production=drill.before.production,
        recorded=_recorded_images(drill),
        secrets=_secrets(drill.system),
    )
    with contextlib.ExitStack() as scope:
        yield ComposeDoer(
            wish=wish,
            opened=drill.opened,
            files={one.manifest.service: one for one in drill.chosen.files},
            databases={service_of(one): one for one in drill.chosen.databases},
            flows=flow_specs(drill.system.plan),
            voice=drill.voice,
            scope=scope,
            native=NativeDatabases(
                opened=drill.opened,
                system=drill.system,
                sandbox=drill.sandbox,
                say=drill.voice.say,
                on_progress=drill.voice.on_progress,
                scope=scope,
            ),
            someone=not plan.team or who_does_it(plan.team, drill.wish.absent) is not None,
        )


def _secrets(system: System) -> dict[str, Secret]:
    drill = system.plan.drill
    given = {} if drill is None else drill.secrets
    return {name: system.resolver.resolve(template) for name, template in given.items()}


def _recorded_images(drill: _Drill) -> Mapping[str, Sequence[str]]:
    """What the services ran, the most telling first: at the newest stack point, else now."""
    recorded = recorded_images(drill.opened, drill.wish.instant)
    found = {name: list(one.references) for name, one in recorded.items()}
    for name, identity in drill.before.images.items():
        found.setdefault(name, []).append(identity)
    return found


def _record(
    drill: _Drill, doer: ComposeDoer, runs: Sequence[StepRun], planned: Sequence[Proof], facts: Facts
) -> DrillRecord:
    plan, wish = drill.system.plan, drill.wish
    declared = declared_at(runs)
    came_back = [one.step.subject for one in runs if one.step.act is Act.START and one.verdict is not Verdict.FAILED]
    rpo = rpo_of(drill.chosen, doer.outcomes(), doer.beats, declared, plan, [one for one in came_back if one])
    good = {one.subject for one in doer.checks if one.verdict is Verdict.OK}
    passed = [one for one in planned if one.kind == "check" and one.name in good]
    repository = drill.opened.repositories[0]
    known = [one.newest for one in rpo if one.newest is not None]
    at = min(known, default=None) if len(known) == len(rpo) else None
    bad = next((one for one in runs if one.verdict is Verdict.FAILED), None)
    ended_early = any(one.started is None for one in runs)
    return DrillRecord(
        id=drill.id,
        system=plan.system,
        situation=wish.situation,
        kind="surprise" if wish.surprise else "announced",
        declared_by=wish.declared_by,
        declared=declared,
        ended=clock.now(),
        plan=plan_identity(drill.system, drill.before.images),
        point=RecoveryPoint(
            target="latest" if wish.instant is None else clock.to_text(wish.instant),
            repository=wish.source or repository.name,
            repository_id=repository.identity,
            copies=used_copies(drill.chosen, doer.outcomes()),
            at=at,
            age=None if at is None else declared - at,
        ),
        place=Place(
            sandbox=drill.sandbox.id,
            host=socket.gethostname(),
            project="" if doer.built is None else doer.built.stack.project.name,
            kind="compose" if facts.compose else "native",
        ),
        steps=steps_of(runs),
        checks=(*doer.checks, *not_past(drill.chosen, doer.beats)),
        flows=doer.flow_results,
        rto=rto_of(runs, declared, plan),
        rpo=rpo,
        production=(),
        isolation=_isolation(drill, doer),
        teardown=(),
        not_tested=_not_tested(drill, doer, runs),
        proves_data=shown_proofs(planned, doer.flow_results, passed),
        absent=wish.absent,
        participants=participants(plan.team, wish.absent, asked=drill.voice.ask is not None),
        stopped=None if not ended_early or bad is None else f"{bad.step.title}: {bad.detail}",
        tool=_tool(),
    )


def _isolation(drill: _Drill, doer: ComposeDoer) -> tuple[Finding, ...]:
    found = [*(() if doer.built is None else doer.built.isolation), *doer.isolation]
    if any(getattr(one, "url", None) is not None for one in drill.system.plan.services.values()):
        closed = drill.sandbox.network_closed
        found.append(
            Finding(
                check="the sandbox has no way out",
                subject="its own servers",
                verdict=Verdict.OK if closed else Verdict.UNKNOWN,
                detail="they have a network of their own, with nothing in it" if closed else "they have this machine's",
                hint=None if closed else "Run `recoup drill` as root, or allow namespaces to users.",
            )
        )
    return tuple(found)


def _not_tested(drill: _Drill, doer: ComposeDoer, runs: Sequence[StepRun]) -> tuple[str, ...]:
    said = [*drill.chosen.missing, *(one.step.differs for one in runs if one.step.differs), *doer.not_tested]
    if drill.voice.ask is None:
        said += [f"what people do: {one.title}; nobody was asked" for one in PEOPLE]
    for one in () if doer.built is None else doer.built.isolation:
        said += [one.not_checked] if one.not_checked else []
    said += [f"{run.step.title}: not come to" for run in runs if run.started is None]
    return tuple(dict.fromkeys(said))


def _tool() -> dict[str, str]:
    from importlib.metadata import version

    return {"recoup": version("recoup")}
