"""Where a recovery goes: production, or a sandbox. A drill can only be given a sandbox.

The type alone does not keep production safe: names and addresses can be wrong. So what is about to be written to is
looked at, and compared with what is known of production, by things that do not lie: the database's system identifier,
the identity of a folder, the names that the container engine knows volumes and projects by.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recoup.kernel.errors import RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a place is known by. Only what could be found out is in it; an empty one says nothing."""

    projects: frozenset[str] = frozenset()  #: Compose projects
    volumes: frozenset[str] = frozenset()  #: as the engine names them
    containers: frozenset[str] = frozenset()
    folders: frozenset[Path] = frozenset()
    clusters: frozenset[str] = frozenset()  #: system identifiers of databases


@dataclass(frozen=True, slots=True, kw_only=True)
class Production:
    """What the users work with."""

    identity: Identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """An isolated place of a drill. ``project`` is its Compose project; None when its servers run natively."""

    id: str
    folder: Path
    project: str | None = None


Destination = Production | Sandbox


def require_sandbox(sandbox: Sandbox, target: Identity, production: Production) -> None:
    """Raise ``RefusedError`` unless what is about to be written to is the sandbox's and nothing of production's.

    ``target`` is what was found at the place itself, a moment ago.
    """
    if not isinstance(sandbox, Sandbox):
        raise RefusedError("a drill can only be given a sandbox")
    known = production.identity
    for what, mine, theirs in (
        ("the Compose project", target.projects, known.projects),
        ("the volume", target.volumes, known.volumes),
        ("the container", target.containers, known.containers),
        ("the database", target.clusters, known.clusters),
    ):
        if both := sorted(mine & theirs):
            raise _refused(what, both[0])
    for folder in target.folders:
        for other in known.folders:
            if _same_folder(folder, other):
                raise _refused("the folder", str(folder))
        if not folder.resolve().is_relative_to(sandbox.folder.resolve()):
            raise RefusedError(f"a drill does not write to {folder}: it is outside of its sandbox {sandbox.folder}")
    if sandbox.project is not None and (strange := sorted(target.projects - {sandbox.project})):
        raise _refused("the Compose project", strange[0])


def _same_folder(one: Path, other: Path) -> bool:
    """By what the file system knows them by: links and bind mounts have other names."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _refused(what: str, name: str) -> RefusedError:
    return RefusedError(
        f"a drill does not write to {what} {name}: it is not the sandbox's",
        hint="Nothing was changed. This is a fault of the plan or of Recoup; do not work around it.",
    )
