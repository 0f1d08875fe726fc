"""The sandbox of a Compose stack: made from the files that were brought back, and nothing else of production."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from recoup.assembly.stack import Stack, default_files, open_stack
from recoup.assembly.system import System
from recoup.engines.compose.docker import ComposeSource, call
from recoup.engines.compose.engine_facts import image_id
from recoup.engines.compose.project import Project, read_project
from recoup.engines.compose.sandbox_engine import isolation_of, one_offs_of, remove, things_in
from recoup.engines.compose.sandbox_project import Isolated, SandboxWish, isolate, place_of
from recoup.engines.sandbox import SANDBOX_VARIABLE, Sandbox
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.files import write_atomically
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.secret import Secret
from recoup.plan.model import Plan
from recoup.plan.services import ComposeService, FilesService, PostgresService
from recoup.plan.template import Template
from recoup.recovery.destination import Identity, Production, require_sandbox
from recoup.recovery.destination import Sandbox as Destination

#: A restored database acts on nobody: it archives nothing, receives and sends nothing, runs no jobs of its own.
_QUIET_POSTGRES: Final = (
    "postgres",
    *("-c", "archive_mode=off"),
    *("-c", "max_logical_replication_workers=0"),
    *("-c", "synchronous_standby_names="),  # or each commit would wait for a standby that is not here
    *("-c", "cron.launch_active_jobs=off"),
)
_CREATE_SECONDS: Final = 300.0
_MOST_PROCESSORS: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """The stack of a sandbox, created and not started. ``system`` is the plan with it as its Compose project."""

    system: System
    stack: Stack
    original: Project  #: as the restored files describe production
    isolated: Isolated
    isolation: tuple[Finding, ...]
    not_tested: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StackWish:
    """What to build the stack of a sandbox from. ``recorded`` are image ids by service, as a stack point has them."""

    system: System
    sandbox: Sandbox
    files: Path
    owner: str
    production: Production
    recorded: Mapping[str, Sequence[str]] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)


def build_stack(wish: StackWish) -> Built:
    """Make the sandbox's project of the restored files, and its containers, networks and volumes.

    Raise ``EngineError`` when the files are not there or an image is not here, ``RefusedError`` when what would be made
    is production's.
    """
    plan = wish.system.plan
    source = _restored_source(wish)
    original = read_project(source)
    text = call(source.compose("config", "--format", "json"), doing="read the restored configuration").stdout
    services = taking_part(plan, original)
    images, notes = _images(source, original, services, wish.recorded)
    sandbox_wish = SandboxWish(
        id=wish.sandbox.id,
        owner=wish.owner,
        files=PurePosixPath(wish.files),
        services=services,
        images=images,
        secrets=wish.secrets,
        processors=_processors(source),
        arguments={
            one.compose: _QUIET_POSTGRES
            for one in plan.services.values()
            if isinstance(one, PostgresService) and one.compose is not None
        },
    )
    isolated = isolate(json.loads(text), sandbox_wish)
    target = Destination(id=wish.sandbox.id, folder=wish.sandbox.folder, project=sandbox_wish.project)
    require_sandbox(target, _identity(isolated), wish.production)
    file = wish.sandbox.folder / "compose.json"
    write_atomically(file, json.dumps(isolated.document, indent=1).encode())
    file.chmod(0o600)
    notes = [*isolated.not_tested, *notes, *_make_missing(isolated)]
    system = _system_of(wish.system, wish.files, file, sandbox_wish.project, wish.sandbox.id)
    stack = open_stack(system)
    create = stack.client.source.compose("up", "--no-start", *services, timeout_seconds=_CREATE_SECONDS)
    call(create, doing="create the containers of the sandbox")
    isolation = (*isolation_of(source, wish.sandbox.id), *_quiet(isolated))
    if any(one.verdict is Verdict.FAILED for one in isolation):
        raise RefusedError(f"the sandbox is not closed: {isolation[0].detail}", hint="Nothing was started in it.")
    return Built(
        system=system,
        stack=stack,
        original=original,
        isolated=isolated,
        isolation=isolation,
        not_tested=tuple(dict.fromkeys(notes)),
    )


def remove_from_engine(source: ComposeSource, sandbox: str) -> None:
    """Remove every container, network and volume of a sandbox. Harmless when repeated. Raise ``EngineError``."""
    remove(source, (*one_offs_of(source, {sandbox}), *things_in(source, sandbox)))


def teardown_of(source: ComposeSource, sandbox: str) -> Finding:
    """Whether anything of a sandbox is left in the engine."""
    check, subject = "nothing of the sandbox is left in the engine", sandbox
    try:
        left = (*one_offs_of(source, {sandbox}), *things_in(source, sandbox))
    except EngineError as failure:
        return Finding(check=check, subject=subject, verdict=Verdict.UNKNOWN, detail=failure.message, hint=failure.hint)
    said = ", ".join(f"{one.kind} {one.name}" for one in left)
    return Finding(
        check=check,
        subject=subject,
        verdict=Verdict.FAILED if left else Verdict.OK,
        detail=said or "no container, no network, no volume with its label",
        hint="Remove them: recoup drill --clean" if left else None,
    )


def _restored_source(wish: StackWish) -> ComposeSource:
    """The Compose files among the files that were brought back."""
    plan, files = wish.system.plan, wish.files
    assert plan.compose is not None, "the caller has a Compose stack"
    resolver = wish.system.resolver

    def restored(template: Template) -> Path:
        given = resolver.path(template)
        inside = given.relative_to(wish.system.folder) if given.is_relative_to(wish.system.folder) else None
        place = str(files / inside) if inside is not None else place_of(PurePosixPath(files), str(given))
        found = None if place is None else Path(place)
        if found is None or not found.is_file():
            raise EngineError(
                f"{given} is in none of the file sets that were brought back",
                hint="Add it to the paths of a service with engine: files, and take a copy of it.",
            )
        return found

    names = tuple(restored(one) for one in plan.compose.all_files()) or default_files(files)
    return ComposeSource(
        files=names,
        env_files=tuple(restored(one) for one in plan.compose.env_files),
        name=plan.compose.project,
        docker_environment=dict(wish.secrets),
    )


def taking_part(plan: Plan, project: Project) -> tuple[str, ...]:
    """The services that production runs: those without a profile, those of the plan's profiles, and those it names."""
    assert plan.compose is not None, "the caller has a Compose stack"
    profiles = set(plan.compose.profiles)
    named = {
        one.compose or (name if isinstance(one, ComposeService) else None)
        for name, one in plan.services.items()
        if not isinstance(one, FilesService)
    }
    return tuple(
        name
        for name, one in project.services.items()
        if name in named or not one.profiles or profiles & set(one.profiles)
    )


def _images(
    source: ComposeSource, project: Project, services: Collection[str], recorded: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], list[str]]:
    """Which image each service runs: the recorded one where it is here, else what the file names."""
    found, notes = {}, []
    for name in services:
        written = project.services[name].image or f"{project.name}-{name}"  # what Compose calls one that it builds
        for candidate in (*recorded.get(name, ()), written):
            identity = image_id(source, candidate)
            if identity is not None:
                found[name] = identity
                if candidate == written and recorded.get(name):
                    notes.append(f"{name}: the image that was recorded is not here; {written} is")
                elif candidate == written:
                    notes.append(f"{name}: whether {written} is the image of production; none is recorded")
                break
        else:
            raise EngineError(
                f"the image of {name} is not on this machine: {written}",
                hint=f"Get it first: docker pull {written}. A drill does not, since production's registry may be gone.",
            )
    return found, notes


def _processors(source: ComposeSource) -> float:
    """How many processors a container may use: two, or all there are; the engine refuses more than it has."""
    said = call(source.docker("info", "--format", "{{.NCPU}}"), doing="ask the engine for its processors")
    there = said.stdout.decode().strip()
    return min(_MOST_PROCESSORS, float(there)) if there.isdigit() and there != "0" else 1.0


def _identity(isolated: Isolated) -> Identity:
    document: Mapping[str, Any] = isolated.document
    project = str(document["name"])
    return Identity(
        projects=frozenset({project}),
        volumes=frozenset(
            str(one.get("name") or f"{project}_{key}") for key, one in document.get("volumes", {}).items()
        ),
        folders=frozenset(Path(one.now) for one in isolated.binds),
    )


def _make_missing(isolated: Isolated) -> list[str]:
    """Empty files and folders where services had something of the host that no file set holds."""
    notes = []
    for one in isolated.binds:
        place = Path(one.now)
        if place.exists():
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if one.service in ("secrets", "configs") or Path(one.was).is_file() or place.suffix:
            place.touch(mode=0o644)
        else:
            place.mkdir()
            place.chmod(0o777)  # its user in the container is not known; the folder above is private
        notes.append(f"{one.service}: what it has of {place.name}; no file set holds it, it is empty here")
    return notes


def _quiet(isolated: Isolated) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            check="a restored database acts on nobody",
            subject=name,
            verdict=Verdict.UNKNOWN,
            detail="its command is a script, so it could not be given arguments",
            hint="Start PostgreSQL in the Compose file with command: [postgres, ...].",
        )
        for name in isolated.without_arguments
    )


def _system_of(system: System, files: Path, file: Path, project: str, sandbox: str) -> System:
    """The plan of the drill: everything as it is, but the Compose project is the sandbox's."""
    described = system.plan.compose
    assert described is not None, "the caller has a Compose stack"
    place = Template(str(file).replace("$", "$$"))
    compose = described.model_copy(update={"file": place, "files": (), "project": project})
    plan = system.plan.model_copy(update={"compose": compose})
    made = System(replace(system.loaded, plan=plan, file=files / system.loaded.file.name))
    made.key = system.key
    # A client of the engine that outlives a killed drill is ended with the sandbox.
    made.docker_environment = {SANDBOX_VARIABLE: sandbox}
    return made
