"""What a first plan is written from: a Compose project as ``inventory`` recognises it, in the plan's own terms."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recoup.assembly.stack import default_files
from recoup.engines.compose.docker import ComposeSource
from recoup.engines.compose.project import Project, read_project
from recoup.inventory import system as found
from recoup.inventory.recognise import recognise
from recoup.kernel.errors import EngineError, UsageError
from recoup.kernel.process import Command, run
from recoup.plan.guess import GuessedService, Inventory, UnprotectedVolume
from recoup.plan.template import url_password

_GIT_SECONDS = 10.0

#: What people call these files where they do not have the name that Compose takes by itself.
_LIKE_COMPOSE = ("*compose*.yml", "*compose*.yaml")
_LIKE_ENV = (".env*", "*.env")


def recognise_compose(
    folder: Path,
    *,
    files: Sequence[Path] = (),
    env_files: Sequence[Path] = (),
    profiles: Sequence[str] = (),
    system: str | None = None,
) -> Inventory:
    """Recognise the Compose project in ``folder``, the plan's. Paths in the answer are relative to it.

    ``files`` and ``env_files`` are taken from the working folder, as Compose does; without them, Compose's own names
    in ``folder``. Raise ``UsageError`` when there is no Compose file, ``EngineError`` with Compose's own words.
    """
    chosen = tuple(Path.cwd() / file for file in files) or _default_files(folder)
    given = tuple(Path.cwd() / file for file in env_files) or _default_env_files(chosen[0].parent)
    source = ComposeSource(files=chosen, env_files=given)
    project = _with_profiles(_read(source), profiles)
    recognised = recognise(project)
    base = source.folder
    in_git = any((parent / ".git").exists() for parent in (folder.resolve(), *folder.resolve().parents))
    return Inventory(
        system=system or recognised.system,
        services=tuple(_service(one, base, folder, in_git=in_git) for one in recognised.services),
        compose_files=tuple(_from_plan(file, folder) for file in chosen),
        env_files=tuple(_from_plan(file, folder) for file in given),
        profiles=tuple(profiles),
        source=_origin(folder) if in_git else None,
        unprotected=tuple(
            UnprotectedVolume(volume=one.what, used_by=one.used_by, reason=one.why) for one in recognised.unprotected
        ),
        notes=(*(f"{name} is left out: it {why}." for name, why in recognised.passed_over), *recognised.warnings),
    )


def _default_files(folder: Path) -> tuple[Path, ...]:
    try:
        return default_files(folder)
    except UsageError as missing:
        raise UsageError(
            missing.message.replace("there is no Compose file", "there is no Compose file of a usual name"),
            hint=f"Name it with --compose FILE{_found(folder, _LIKE_COMPOSE)}, or give --postgres URL and --redis URL.",
        ) from missing


def _read(source: ComposeSource) -> Project:
    """There is no plan yet whose lines could be corrected: the options are what can be."""
    for option, path in (("--compose", source.files), ("--env-file", source.env_files)):
        for one in path:
            if not one.is_file():
                like = _found(one.parent, _LIKE_COMPOSE if option == "--compose" else _LIKE_ENV)
                raise UsageError(f"no such file: {one}", hint=f"Correct {option} FILE{like}.")
    try:
        return read_project(source)
    except EngineError as failure:
        if failure.hint is None and "is missing a value" in failure.message:
            like = _found(source.folder, _LIKE_ENV)
            raise EngineError(
                failure.message, hint=f"Name the file that holds the values with --env-file FILE{like}."
            ) from failure
        raise


def _found(folder: Path, like: Sequence[str]) -> str:
    names = sorted({one.name for pattern in like for one in folder.glob(pattern) if one.is_file()})
    return f" (here is {', '.join(names[:4])})" if names else ""


def _default_env_files(folder: Path) -> tuple[Path, ...]:
    """Compose reads ``.env`` beside its file by itself; Recoup looks up references there only when the plan says so."""
    return (folder / ".env",) if (folder / ".env").is_file() else ()


def _with_profiles(project: Project, profiles: Sequence[str]) -> Project:
    """Services of a profile that is on are part of the system like all others."""
    unknown = set(profiles) - {profile for service in project.services.values() for profile in service.profiles}
    if unknown:
        raise UsageError(
            f"the Compose project {project.name} has no profile {', '.join(sorted(unknown))}",
            hint="`docker compose config --profiles` lists them.",
        )
    services = {
        name: replace(service, profiles=()) if set(service.profiles) & set(profiles) else service
        for name, service in project.services.items()
    }
    return replace(project, services=services)


def _service(service: found.Service, base: Path, folder: Path, *, in_git: bool) -> GuessedService:
    guess = GuessedService(
        name=service.name, engine="compose", compose=service.compose, after=service.after, reasons=service.reasons
    )
    match service.kind:
        case found.Postgres(databases=databases, password=password):
            reasons = (*service.reasons, *_of_password(password))
            return replace(guess, engine="postgres", databases=databases, reasons=reasons)
        case found.Redis(password=password):
            return replace(guess, engine="redis", reasons=(*service.reasons, *_of_password(password)))
        case found.Application(health=health):
            return replace(guess, health=health)
        case found.FileSet(paths=paths, git=git):
            own = "." if in_git and service.name == "configuration" else git
            rebased = tuple(_from_plan(base / path, folder) for path in paths)
            return replace(guess, engine="files", compose=None, paths=rebased, git=own)


def _of_password(password: found.Password) -> tuple[str, ...]:
    """Where Recoup takes the password from when it needs it. The plan holds none, so none can be out of date in it."""
    match password:
        case found.NoPassword():
            return ("no password was found",)
        case found.InTheFile():
            return ("its password stands in the Compose file and is read from there",)
    return (f"its password is read from {password} through the Compose file",)


def _from_plan(path: Path, folder: Path) -> str:
    """A path as the plan has it: relative when it is at or below the plan's folder."""
    absolute, start = Path(os.path.abspath(path)), Path(os.path.abspath(folder))  # noqa: PTH100 - links stay links
    return str(absolute.relative_to(start)) if absolute.is_relative_to(start) else str(absolute)


def _origin(folder: Path) -> str | None:
    """Where the Git work tree was cloned from; None when that is unknown, or holds a password."""
    with contextlib.suppress(EngineError):  # without git there is no answer, and a plan needs none
        argv = ("git", "-C", str(folder), "config", "--get", "remote.origin.url")
        address = (
            run(Command(argv=argv, timeout_seconds=_GIT_SECONDS), expect=None).stdout.decode(errors="replace").strip()
        )
        if address and url_password(address) is None and not re.search(r"//[^/]*token[^/]*@", address):
            return address
    return None
