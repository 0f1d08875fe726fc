"""The Compose project of a plan, read and ready to act on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recoup.assembly.system import System
from recoup.engines.compose.client import ComposeProject
from recoup.engines.compose.docker import ComposeSource
from recoup.engines.compose.project import Project, read_project
from recoup.kernel.errors import RecoupError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A Compose project: what its files say, and the acts on its containers."""

    project: Project
    client: ComposeProject


def open_stack(system: System) -> Stack:
    """Read the plan's Compose project. Raise ``UsageError`` when the plan names none, ``EngineError`` from Compose."""
    described = system.plan.compose
    if described is None:
        raise UsageError(
            "the plan has a service with 'compose:' but no 'compose:' section",
            hint="Add compose: {file: docker-compose.yml} to the plan.",
        )
    resolver = system.resolver
    files = tuple(resolver.path(one) for one in described.all_files()) or default_files(system.folder)
    env_files = tuple(resolver.path(one) for one in described.env_files)
    marks = dict(system.docker_environment)
    source = ComposeSource(files=files, env_files=env_files, name=described.project, docker_environment=marks)
    project = read_project(source)
    return Stack(project=project, client=ComposeProject(project))


def try_stack(system: System) -> Stack | RecoupError | None:
    """The Compose project of a plan, or why it cannot be read; None for a plan without one."""
    try:
        return None if system.plan.compose is None else open_stack(system)
    except RecoupError as failure:
        return failure


def default_files(folder: Path) -> tuple[Path, ...]:
    """The Compose files that ``docker compose`` itself would take in ``folder``. Raise ``UsageError`` for none.

    Names and order: https://github.com/compose-spec/compose-spec/blob/main/spec.md, "Compose file".
    """
    for name in ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"):
        if (folder / name).is_file():
            stem, _, suffix = name.rpartition(".")
            override = folder / f"{stem}.override.{suffix}"
            return (folder / name, override) if override.is_file() else (folder / name,)
    raise UsageError(
        f"there is no Compose file in {folder}", hint="Name it in the plan: compose: {file: docker-compose.prod.yml}."
    )
