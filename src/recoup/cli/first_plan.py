"""The acts of ``recoup init``: recognise, write the plan and the key without ever replacing one, tell Git."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from recoup.cli.key_file import read_key, write_new_key
from recoup.kernel.errors import RecoupError, RefusedError, UsageError
from recoup.kernel.files import expanded
from recoup.plan.guess import GuessedService, Inventory
from recoup.plan.urls import VariableToSet, inventory_of_urls
from recoup.plan.write import Choices, plan_text
from recoup.repository.seal import Key

_DEFAULT_REPOSITORY = "backups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user asked ``recoup init`` for. ``plan`` and ``key`` are absolute."""

    plan: Path
    key: Path
    compose: tuple[Path, ...] = ()
    env_files: tuple[Path, ...] = ()
    profiles: tuple[str, ...] = ()
    postgres: tuple[str, ...] = ()
    redis: tuple[str, ...] = ()
    system: str | None = None
    repositories: tuple[str, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The repositories as they stand in the plan."""
        return self.repositories or (_DEFAULT_REPOSITORY,)


def check_nothing_is_lost(wanted: Wanted) -> None:
    """Raise ``RefusedError`` when there is a plan already, ``UsageError`` when the folder is missing."""
    if os.path.lexists(wanted.plan):
        raise RefusedError(
            f"there is a plan already: {wanted.plan}",
            hint="It is never overwritten. Edit it, move it away, or write another one with -f FILE.",
        )
    for path in (wanted.plan, wanted.key):
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent}", hint="Create it, or name another file.")
    if wanted.plan == wanted.key:
        raise UsageError(f"the plan and the key cannot be one file: {wanted.key}", hint="Name two files.")
    if (wanted.compose or wanted.env_files or wanted.profiles) and (wanted.postgres or wanted.redis):
        raise UsageError(
            "a plan is made from a Compose project or from addresses, not from both",
            hint="Leave out --compose, --env-file and --profile, or --postgres and --redis.",
        )


def prepare(wanted: Wanted) -> tuple[Inventory, tuple[VariableToSet, ...], str]:
    """What is there, which variables the plan will need, and the plan's text. Changes nothing."""
    folder = wanted.plan.parent
    variables: tuple[VariableToSet, ...] = ()
    if wanted.postgres or wanted.redis:
        name = wanted.system or folder.resolve().name or "system"
        inventory, variables = inventory_of_urls(name, wanted.postgres, wanted.redis)
    else:
        from recoup.assembly.recognise import recognise_compose

        inventory = recognise_compose(
            folder,
            files=wanted.compose,
            env_files=wanted.env_files,
            profiles=wanted.profiles,
            system=wanted.system,
        )
    inventory = _with_the_plan_itself(inventory, _relative(wanted.plan, folder))
    choices = Choices(repositories=wanted.addresses, key_file=_relative(wanted.key, folder))
    return inventory, variables, plan_text(inventory, choices)


def _with_the_plan_itself(inventory: Inventory, plan_file: str) -> Inventory:
    """The plan among the protected files: then a new machine needs the repository and the key, and nothing else."""
    services = list(inventory.services)
    for place, service in enumerate(services):
        if service.engine == "files":
            if plan_file not in service.paths:
                services[place] = replace(service, paths=(plan_file, *service.paths))
            return replace(inventory, services=tuple(services))
    own = GuessedService(
        name="configuration",
        engine="files",
        reasons=("the plan itself, so that a new machine needs only the repository and the key",),
        paths=(plan_file,),
    )
    return replace(inventory, services=(*services, own))


def write_plan(path: Path, text: str) -> None:
    """Write a new plan durably. Raise ``RefusedError`` when one appeared in the meantime."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise RefusedError(f"there is a plan already: {path}", hint="It is never overwritten.") from None
    except OSError as failure:
        raise RecoupError(f"cannot write the plan {path}: {failure.strerror}") from failure
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(text.encode())
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as failure:
        path.unlink(missing_ok=True)
        raise RecoupError(f"cannot write the plan {path}: {failure.strerror}") from failure


def new_or_kept_key(path: Path) -> tuple[Key, bool]:
    """The key at ``path``, and whether it was there before. Raise ``WrongKeyError`` when what is there is no key."""
    if os.path.lexists(path):
        return read_key(None, path)[0], True
    return write_new_key(path), False


def ignore_in_git(wanted: Wanted) -> list[str]:
    """Keep the key and local repositories out of Git: add them to ``.gitignore``, and return what was added."""
    folder = wanted.plan.parent
    if not _in_git(folder):
        return []
    local = [folder / expanded(one) for one in wanted.addresses if not one.startswith("s3://")]
    inside = [path for path in (wanted.key, *local) if path.is_relative_to(folder) and path != folder]
    lines = [f"/{path.relative_to(folder)}{'' if path == wanted.key else '/'}" for path in inside]
    ignore = folder / ".gitignore"
    try:
        before = ignore.read_text(encoding="utf-8", errors="surrogateescape") if ignore.exists() else ""
        present = {line.strip().strip("/") for line in before.splitlines()}
        added = [line for line in lines if line.strip("/") not in present]
        if added:
            glue = "" if not before or before.endswith("\n") else "\n"
            with ignore.open("a", encoding="utf-8", errors="surrogateescape") as opened:
                opened.write(glue + "".join(f"{line}\n" for line in added))
    except OSError as failure:
        raise RecoupError(
            f"the plan and the key are written, but {ignore} is not: {failure.strerror}",
            hint=f"Keep these out of Git yourself: {', '.join(lines)}.",
        ) from failure
    return added


def _in_git(folder: Path) -> bool:
    """Whether ``folder`` is in a Git work tree: a ``.git`` folder (or file, in a linked one) here or above."""
    return any((parent / ".git").exists() for parent in (folder.resolve(), *folder.resolve().parents))


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
