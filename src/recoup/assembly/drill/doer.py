"""Carries the steps of a drill out in the sandbox of a Compose stack, by the procedures that a recovery uses."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recoup.assembly.access import Found, Readable
from recoup.assembly.database_steps import (
    WELL_SECONDS,
    ask_person,
    beat_of,
    compared,
    outcome_of,
    place_member,
    runs_well,
    start_others,
    swapped,
)
from recoup.assembly.drill.compose import Built, StackWish, build_stack
from recoup.assembly.drill.members import service_of
from recoup.assembly.drill.native import NativeDatabases
from recoup.assembly.drill.reach import ComposeReach
from recoup.assembly.protect.heartbeats import Beat
from recoup.assembly.prove_stack import ask_postgres, ask_redis, do_flow, flow_findings, wait_until_well
from recoup.assembly.redis import redis_address
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.assembly.restore.surroundings import Surroundings
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.drill.flows import FlowSpec
from recoup.drill.model import FlowResult
from recoup.engines.compose.enter_network import inside_network
from recoup.engines.compose.sandbox_engine import machine_answers
from recoup.engines.files.restore import restore_files
from recoup.kernel import clock, ids
from recoup.kernel.errors import EngineError, RefusedError, UncheckedError
from recoup.kernel.finding import Finding, Verdict
from recoup.plan.services import PostgresService
from recoup.recovery.destination import Identity, Production, require_sandbox
from recoup.recovery.destination import Sandbox as Destination
from recoup.recovery.in_place import Consent, decide
from recoup.recovery.stack_in_place import VolumeMember
from recoup.recovery.step import Act, Done, Step
from recoup.repository.copy_reader import ArtefactReader

if TYPE_CHECKING:
    from recoup.engines.postgres.recovery_script import Reached
    from recoup.engines.postgres.wal_windows import Base


@dataclass(slots=True, kw_only=True)
class ComposeDoer:
    """Implements ``recovery.step.Doer``. What it learns on the way is in its fields."""

    wish: StackWish
    opened: Readable  #: the repositories, as the drill opened them
    files: Mapping[str, Found]
    databases: Mapping[str, Found | TimedMember]
    flows: tuple[FlowSpec, ...]
    voice: Voice
    scope: contextlib.ExitStack
    native: NativeDatabases
    someone: bool = True  #: whether anybody of the team is left to be asked
    built: Built | None = None
    members: dict[str, VolumeMember] = field(default_factory=dict)
    placements: dict[str, str] = field(default_factory=dict)  #: under which id the data of a service are put in place
    flow_results: tuple[FlowResult, ...] = ()
    not_tested: list[str] = field(default_factory=list)
    checks: list[Finding] = field(default_factory=list)
    beats: dict[str, Beat] = field(default_factory=dict)  #: the newest heartbeat of each database that was started
    isolation: list[Finding] = field(default_factory=list)  #: as seen from inside

    @property
    def system(self) -> System:
        """The plan of the drill: its Compose project is the sandbox's, as soon as there is one."""
        return self.wish.system if self.built is None else self.built.system

    def before(self, step: Step) -> None:
        """See ``Doer``. Every step that writes is held against what is known of production."""
        if self._is_native(step.subject):
            folders = frozenset({self.wish.sandbox.folder / step.subject})
            require_sandbox(self._destination(None), Identity(folders=folders), self._production)
            return
        if step.act is Act.FILES:
            require_sandbox(self._destination(None), Identity(folders=frozenset({self.wish.files})), self._production)
        elif step.act in (Act.RESTORE, Act.SWAP, Act.START, Act.APPLICATION):
            built = self._stack()
            compose = self._compose_of(step.subject) if step.subject else None
            containers = [one for one in built.stack.client.containers() if compose in (None, one.service)]
            mounts = [mount for one in containers for mount in one.mounts]
            target = Identity(
                projects=frozenset({built.stack.project.name}),
                containers=frozenset(one.id for one in containers),
                volumes=frozenset(mount.name for mount in mounts if mount.name),
                folders=frozenset(Path(mount.source) for mount in mounts if mount.kind == "bind"),
            )
            require_sandbox(self._destination(built.stack.project.name), target, self._production)

    def act(self, step: Step) -> Done:
        """See ``Doer``."""
        act: Callable[[Step], Done] = {
            Act.ASK: self._ask,
            Act.FILES: self._bring_files,
            Act.STACK: self._build,
            Act.RESTORE: self._restore,
            Act.SWAP: self._swap,
            Act.START: self._start,
            Act.APPLICATION: self._start_application,
            Act.HEALTH: self._health,
            Act.CHECKS: self._check,
            Act.FLOWS: self._flow,
        }[step.act]
        return act(step)

    def after(self, step: Step) -> Sequence[Finding]:
        """See ``Doer``. What was started must still be well when the next step begins."""
        if step.act not in (Act.START, Act.APPLICATION) or self._is_native(step.subject):
            return ()
        compose = self._compose_of(step.subject) if step.subject else None
        return runs_well(self._stack().stack, compose, step.subject)

    # -- people --------------------------------------------------------------------------------------------------------

    def _ask(self, step: Step) -> Done:
        return ask_person(step, self.voice.ask if self.someone else None)

    # -- machines ------------------------------------------------------------------------------------------------------

    def _bring_files(self, step: Step) -> Done:
        found = self.files[step.subject]
        reader = ArtefactReader(found.manifest, found.holders)
        done = restore_files(reader, self.wish.files, force=True, on_progress=self.voice.on_progress)
        return Done(detail=f"{done.placed} files of {found.manifest.id}")

    def _build(self, step: Step) -> Done:  # noqa: ARG002
        self.built = build_stack(self.wish)
        self.not_tested += self.built.not_tested
        return Done(findings=self.built.isolation, detail=f"project {self.built.stack.project.name}")

    def _restore(self, step: Step) -> Done:
        if self._is_native(step.subject):
            return self.native.restore(step.subject, self.databases[step.subject])
        built, voice = self._stack(), self.voice
        member = self.members[step.subject] = self._member(self.databases[step.subject], built)
        occupant = member.home.look()
        clusters = frozenset() if occupant.identity is None else frozenset({occupant.identity})
        target = Identity(clusters=clusters, projects=frozenset({built.stack.project.name}))
        require_sandbox(self._destination(built.stack.project.name), target, self._production)
        decide(
            occupant,
            identity=None,  # whatever is there already is not what the drill has put there
            artefact_id=member.artefact_id,
            needed_bytes=member.home.needs_bytes(member.reader),
            consent=Consent(),
        )
        restore_id = self.placements[step.subject] = f"{member.artefact_id}.{ids.new_id(clock.now())[-6:]}"
        member.home.stage(member.reader, restore_id, voice.on_progress)
        return Done(findings=tuple(member.staged()), detail=member.what)

    def _swap(self, step: Step) -> Done:
        return swapped(self.members[step.subject].home.swap(self.placements[step.subject]))

    def _start(self, step: Step) -> Done:
        if self._is_native(step.subject):
            done = self.native.start(step.subject)
            seen, what = compared(step.subject, done.findings), done.detail
        else:
            member = self.members[step.subject]
            self._stack().stack.client.start([member.compose], seconds=WELL_SECONDS)
            if not self.isolation:
                self._require_closed(member.compose)
            seen, what = compared(step.subject, member.home.check(member.reader)), member.what
        self.beats[step.subject] = self._beat_of(step.subject)
        self.not_tested += seen.not_compared
        return Done(findings=seen.findings, detail=what)

    def _beat_of(self, service: str) -> Beat:
        """The newest heartbeat in a database that was just started, before anything else writes to it."""
        asked = getattr(self.system.plan.services[service], "heartbeat", False)
        return self.native.beat(service) if asked and self._is_native(service) else beat_of(self.system, service)

    def _require_closed(self, compose: str) -> None:
        """The first container of the sandbox runs, before any application does: look from inside whether it is closed.

        Raise ``RefusedError`` when this machine, on which production may be, can be reached from there.
        """
        built = self._stack()
        container = next(one for one in built.stack.client.of_service(compose) if one.running)
        if container.addresses:
            finding = machine_answers(built.stack.client.source, container.id, container.addresses[0])
            self.isolation.append(finding)
            if finding.verdict is Verdict.FAILED:
                raise RefusedError(f"the sandbox is not closed: {finding.detail}", hint=finding.hint)

    def _start_application(self, step: Step) -> Done:
        built = self._stack()
        around = Surroundings(plan=built.system.plan, stack=built.stack)
        if step.subject:
            around.start([self._compose_of(step.subject)])
            return Done()
        return start_others(around, built.stack.project.services)

    def _health(self, step: Step) -> Done:
        seconds = wait_until_well(self._stack().system, step.subject, self.reach())
        return Done(detail=f"well after {seconds:.1f} s")

    def _check(self, step: Step) -> Done:
        described = self.system.plan.services[step.subject]
        if self._is_native(step.subject):
            findings = tuple(self.native.check(step.subject))
        elif isinstance(described, PostgresService):
            findings = ask_postgres(self.system, step.subject, on_nothing=True)
        else:
            findings = self._ask_redis(step.subject)
        self.checks += findings
        return Done(findings=findings)

    def _ask_redis(self, service: str) -> tuple[Finding, ...]:
        """From inside the sandbox's network, as flows do: nothing of it can be reached from outside."""
        client, compose = self._stack().stack.client, self._compose_of(service)
        running = [one for one in client.of_service(compose) if one.running and one.addresses]
        if not running:
            raise EngineError(f"{service} does not run in the sandbox")
        address = redis_address(self.system, service)
        return inside_network(
            client.source,
            running[0].id,
            running[0].addresses[0],
            lambda: ask_redis(self.system, service, address, on_nothing=True),
        )

    def _flow(self, step: Step) -> Done:  # noqa: ARG002
        system, reach = self.system, self.reach()

        def lookup(name: str) -> str | None:
            given = self.wish.secrets.get(name)
            return given.reveal() if given is not None else system.resolver.lookup(name)

        self.flow_results = tuple(do_flow(one, reach, lookup) for one in self.flows)
        return Done(findings=flow_findings(self.flow_results))

    def outcomes(self) -> dict[str, tuple[Base, Reached]]:
        """Where the recoveries to an instant stopped, by service."""
        found = dict(self.native.outcomes)
        for name, member in self.members.items():
            reached = outcome_of(member)
            if reached is not None:
                found[name] = reached
        return found

    def reach(self) -> ComposeReach:
        """The way into the sandbox."""
        from recoup.engines.compose.addresses import published_ports

        built = self.built
        if built is None:
            return ComposeReach(system=self.system, stack=None, published={}, native=self.native)
        published = published_ports(built.original)
        return ComposeReach(system=built.system, stack=built.stack, published=published, native=self.native)

    # -- parts ---------------------------------------------------------------------------------------------------------

    @property
    def _production(self) -> Production:
        return self.wish.production

    def _destination(self, project: str | None) -> Destination:
        return Destination(id=self.wish.sandbox.id, folder=self.wish.sandbox.folder, project=project)

    def _stack(self) -> Built:
        if self.built is None:
            raise EngineError("the stack of the sandbox was not made")
        return self.built

    def _is_native(self, service: str) -> bool:
        """Whether a database is reached by an address in production: in the sandbox it has a server of its own."""
        return getattr(self.wish.system.plan.services.get(service), "url", None) is not None

    def _compose_of(self, service: str) -> str:
        described = self._stack().system.plan.services.get(service)
        return getattr(described, "compose", None) or service

    def _member(self, member: Found | TimedMember, built: Built) -> VolumeMember:
        """Where the member goes in the sandbox: as in a recovery of the whole stack, with the sandbox's plan."""
        # A state folder of its own: neither notes of production's restores nor its leases are met here.
        readable = Readable(
            repositories=self.opened.repositories,
            failed=self.opened.failed,
            state_folder=self.wish.sandbox.folder / "state",
            system=built.system,
        )
        placed = place_member(member, readable, built.system, self.voice, self.scope)
        if not isinstance(placed, VolumeMember):
            raise UncheckedError(
                f"{service_of(member)} does not run in the Compose stack, so it is not in its sandbox",
                hint="Rehearse it by itself, in a plan without compose:.",
            )
        return placed
