"""The step that looks whether this machine has what the stack needs, and installs what it is told to."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from recoup.assembly.access import Readable
from recoup.assembly.drill.leftovers import ENGINE
from recoup.assembly.protect.kept_images import kept_images
from recoup.assembly.recorded_images import recorded_images
from recoup.assembly.recover.clock_look import clock_facts
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.fence import TO_STAY
from recoup.assembly.restore.place_files import damaged_for, placed_in
from recoup.assembly.stack import Stack, open_stack
from recoup.assembly.system import System
from recoup.engines.compose.engine_facts import EngineFacts, engine_facts
from recoup.engines.compose.project import Port
from recoup.kernel.errors import EngineError, UsageError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import Command, run
from recoup.kernel.units import show_size
from recoup.plan.services import FilesService, PostgresService, RedisService
from recoup.recovery.blank_machine import (
    Lack,
    MachineFacts,
    Room,
    TakenPort,
    installing,
    lacks_of,
    read_distribution,
)
from recoup.recovery.step import Done, Step
from recoup.repository.catalog import REPLACED

_OS_RELEASE: Final = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
#: The whole copy of each engine: what a recovery unpacks.
_KINDS: Final[dict[type, str]] = {PostgresService: "base", RedisService: "rdb", FilesService: "files"}
_INSTALL_SECONDS: Final = 1500.0
#: Data are unpacked beside nothing here; WAL that is replayed, and what the engine itself writes, come on top.
_MARGIN: Final = 1.2
_SPARE_BYTES: Final = 256 << 20


def machine(recovery: Recovery, step: Step) -> Done:  # noqa: ARG001
    """Look at everything that could stop the recovery later, and name all of it at once.

    With ``install`` the distribution's own commands bring what can be installed; each is said before it is run. Raise
    ``EngineError`` that names what is missing and what to do about it.
    """
    facts = machine_facts(recovery.opened, recovery.system)
    lacks = lacks_of(facts)
    installed: tuple[str, ...] = ()
    if any(one.part is not None for one in lacks) and recovery.wish.install:
        installed = _install(recovery, lacks)
        facts = machine_facts(recovery.opened, recovery.system)
        lacks = lacks_of(facts)
    if lacks:
        raise _cannot(facts, lacks)
    return Done(findings=_findings(facts), detail=_said(facts, installed), data={"installed": list(installed)})


def machine_facts(opened: Readable, system: System) -> MachineFacts:
    """What this machine is, against what the stack needs. Nothing is changed."""
    needs_docker = system.plan.compose is not None
    engine = engine_facts(ENGINE) if needs_docker else None
    stack, not_seen = _stack(system) if needs_docker else (None, ())
    ahead, newest = clock_facts(opened, system)
    return MachineFacts(
        engine=None if engine is None else engine.engine,
        engine_problem="" if engine is None else engine.engine_problem,
        compose=None if engine is None else engine.compose,
        compose_problem="" if engine is None else engine.compose_problem,
        needs_docker=needs_docker,
        git=shutil.which("git") is not None,
        needs_git=_needs_git(system),
        rooms=_rooms(opened, system, engine),
        ports=() if stack is None else _taken_ports(stack),
        ahead=ahead,
        newest=newest,
        not_seen=not_seen,
    )


def _stack(system: System) -> tuple[Stack | None, tuple[str, ...]]:
    try:
        return open_stack(system), ()
    except (EngineError, UsageError) as failure:
        return None, (f"the ports that the stack publishes: {failure.message}",)


def _needs_git(system: System) -> bool:
    compose = system.plan.compose
    if compose is not None and compose.source is not None:
        return True
    return any(isinstance(one, FilesService) and one.git is not None for one in system.plan.services.values())


def _rooms(opened: Readable, system: System, engine: EngineFacts | None) -> tuple[Room, ...]:
    """What comes onto each file system, and what is free there."""
    newest: dict[str, int] = {}
    # The plan came with its files before the first step: what is in its place already takes no room any more.
    placed = placed_in(opened.state_folder, system.folder)
    damaged = damaged_for(opened.state_folder, system.folder)
    for entry in opened.catalog().entries:
        described = system.plan.services.get(entry.service)
        wanted = _KINDS.get(type(described))
        if wanted is not None and entry.kind == wanted and entry.label != REPLACED and entry.id not in damaged:
            newest.setdefault(entry.service, 0 if entry.id in placed else entry.plain_bytes)
    files = sum(size for name, size in newest.items() if isinstance(system.plan.services[name], FilesService))
    needed = {system.folder: round(files * _MARGIN)}
    if engine is not None:
        data = sum(newest.values()) - files + _missing_images(opened, engine)
        needed[engine.folder] = needed.get(engine.folder, 0) + round(data * _MARGIN)
    by_device: dict[int, tuple[Path, int]] = {}
    for place, size in needed.items():
        there = _existing(place)
        device = there.stat().st_dev
        first, sum_so_far = by_device.get(device, (there, 0))
        by_device[device] = (first, sum_so_far + size)
    return tuple(
        Room(place=str(there), needed_bytes=size + _SPARE_BYTES, free_bytes=shutil.disk_usage(there).free)
        for there, size in by_device.values()
    )


def _missing_images(opened: Readable, engine: EngineFacts) -> int:
    """The bytes of the kept images that are not on this machine. Those of a registry do not say how large they are."""
    kept = kept_images(opened)
    wanted = {one.image_id: one for one in recorded_images(opened).values() if one.image_id in kept}
    return sum(kept[name].plain_bytes for name, one in wanted.items() if engine.engine is None or one.here() is None)


def _existing(place: Path) -> Path:
    return next(one for one in (place, *place.parents) if one.exists())


def _taken_ports(stack: Stack) -> tuple[TakenPort, ...]:
    """The published ports that cannot be had. Those that the stack itself has already are no hindrance."""
    own = {one.service for one in stack.client.containers() if one.running}
    taken = []
    for name, service in stack.project.services.items():
        for port in () if name in own else service.ports:
            why = _why_taken(port)
            if why is not None and port.published is not None:
                taken.append(TakenPort(port=port.published, protocol=port.protocol, service=name, why=why))
    return tuple(taken)


def _why_taken(port: Port) -> str | None:
    """Why a port cannot be bound here, in the system's words; None when it can."""
    if port.published is None:
        return None
    kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in port.host else socket.AF_INET
    try:
        with socket.socket(family, kind) as trial:
            if kind == socket.SOCK_STREAM:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that just closed is no hindrance
            trial.bind((port.host or ("::" if family == socket.AF_INET6 else "0.0.0.0"), port.published))  # noqa: S104
    except PermissionError:
        return None  # a low port, and this user is not root; the engine is, and says itself when it is taken
    except OSError as failure:
        return (failure.strerror or str(failure)).lower()
    return None


def _install(recovery: Recovery, lacks: Sequence[Lack]) -> tuple[str, ...]:
    """Run what the distribution installs the missing parts with; each command is said before."""
    found = installing(read_distribution(_os_release()), lacks)
    if found.why_not:
        raise EngineError("what is missing cannot be installed from here: " + _all(lacks), hint=found.why_not)
    if os.geteuid() != 0:
        said = "; ".join(shlex.join(one) for one in found.commands)
        raise EngineError("installing needs root", hint=f"Run Recoup as root, or type yourself: {said}")
    for argv in found.commands:
        recovery.voice.say(f"installing: {shlex.join(argv)}")
    for argv in found.commands:
        environment = {"DEBIAN_FRONTEND": "noninteractive", **TO_STAY}  # it may start the engine itself
        run(Command(argv=argv, environment=environment, timeout_seconds=_INSTALL_SECONDS))
    return tuple(shlex.join(one) for one in found.commands)


def _os_release() -> str:
    for path in _OS_RELEASE:
        with contextlib.suppress(OSError):
            return path.read_text(errors="replace")
    return ""


def _cannot(facts: MachineFacts, lacks: Sequence[Lack]) -> EngineError:
    hints = [one.hint for one in lacks]
    found = installing(read_distribution(_os_release()), lacks)
    if found.commands:
        typed = " && ".join(shlex.join(one) for one in found.commands)
        parts = " and ".join(found.parts)
        hints = [one.hint for one in lacks if one.part is None]
        hints.append(f"For {parts}: add --install, or type: {typed}.")
    elif found.why_not:
        hints = [one.hint for one in lacks if one.part is None] + [found.why_not + "."]
    unseen = "".join(f"; not looked at yet: {one}" for one in facts.not_seen)
    return EngineError(
        "this machine cannot carry the stack yet: " + _all(lacks) + unseen,
        hint=" ".join(dict.fromkeys(hints)) + " Then the same command goes on.",
    )


def _all(lacks: Sequence[Lack]) -> str:
    return "; ".join(one.what for one in lacks)


def _findings(facts: MachineFacts) -> tuple[Finding, ...]:
    """What could not be looked at stays unknown. That nobody could say what time it is, is no more than that."""
    return tuple(
        Finding(
            check="the machine has what the stack needs",
            subject=what.partition(":")[0],
            verdict=Verdict.UNKNOWN,
            detail=what,
            hint="The step that makes the stack says when it is taken.",
        )
        for what in facts.not_seen
    )


def _said(facts: MachineFacts, installed: Sequence[str]) -> str:
    said = [f"Docker {facts.engine} with Compose {facts.compose}"] if facts.needs_docker else []
    said += [
        f"{show_size(one.free_bytes)} free at {one.place} for {show_size(one.needed_bytes)}" for one in facts.rooms
    ]
    if facts.ahead is not None:
        said.append(f"the clock is {abs(facts.ahead.total_seconds()):.0f} s off the repository's")
    if installed:
        said.append(f"installed: {'; '.join(installed)}")
    return ", ".join(said)
