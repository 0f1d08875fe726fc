"""What is in a folder: a PostgreSQL cluster, which one, running or not; an unfinished restore; or something else."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from recoup.engines.postgres.control import CONTROL_FILE, ClusterState, parse_control
from recoup.kernel.errors import EngineError, RecoupError

#: Marks a folder whose restore has not ended. Removed as the restore's last act.
MARKER = "recoup-restore.json"
#: What an empty disk's root may hold.
_NOTHING = frozenset({"lost+found"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderDescription:
    """What ``describe_folder`` saw. Unknown things are None; ``problem`` says why."""

    folder: Path
    exists: bool
    names: tuple[str, ...] = ()  #: the first entries, by name
    entries: int = 0
    unfinished_restore: bool = False
    major: int | None = None
    system_identifier: str | None = None
    state: ClusterState | None = None
    running: bool = False
    pid: int | None = None
    problem: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing would be lost by writing here."""
        return self.entries == 0

    def __str__(self) -> str:
        if not self.exists:
            return "does not exist"
        if self.empty:
            return "is empty"
        if self.unfinished_restore:
            return "holds an unfinished restore"
        if self.system_identifier is not None:
            how = f"running (process {self.pid})" if self.running else "not running"
            version = f"PostgreSQL {self.major} " if self.major is not None else "PostgreSQL "
            return f"holds the {version}cluster {self.system_identifier}, {how}"
        return f"holds {self.entries} entries: {', '.join(self.names)}" + (", …" if self.entries > 5 else "")


def describe_folder(folder: Path) -> FolderDescription:
    """Look at a folder without changing it. Raise ``EngineError`` when it may not be looked at."""
    try:
        names = sorted(path.name for path in folder.iterdir() if path.name not in _NOTHING)
    except FileNotFoundError:
        return FolderDescription(folder=folder, exists=False)
    except OSError as failure:
        raise EngineError(f"cannot look into {folder}: {failure.strerror}") from failure
    has_control = (folder / CONTROL_FILE).exists()
    identifier, state, problem = _control_of(folder) if has_control else (None, None, "")
    pid = running_pid(folder)
    return FolderDescription(
        folder=folder,
        exists=True,
        names=tuple(names[:5]),
        entries=len(names),
        unfinished_restore=MARKER in names and not has_control,
        major=_major_of(folder),
        system_identifier=identifier,
        state=state,
        running=pid is not None,
        pid=pid,
        problem=problem,
    )


def _control_of(folder: Path) -> tuple[str | None, ClusterState | None, str]:
    try:
        control = parse_control((folder / CONTROL_FILE).read_bytes())
    except OSError as failure:
        return None, None, f"pg_control cannot be read: {failure.strerror}"
    except RecoupError as failure:
        return None, None, failure.message
    return control.system_identifier, control.state, ""


def _major_of(folder: Path) -> int | None:
    try:
        return int((folder / "PG_VERSION").read_text(errors="replace"))
    except (OSError, ValueError):
        return None


def running_pid(folder: Path) -> int | None:
    """The process id of the server that runs on this folder, as far as this machine can see; None when none does.

    ``postmaster.pid`` of a server in a container holds an id of the container's own; whether that one lives cannot be
    seen from outside, so a file whose process is unknown here counts as not running.
    """
    try:
        pid = int((folder / "postmaster.pid").read_text(errors="replace").split("\n", 1)[0])
        os.kill(pid, 0)
    except PermissionError:
        return pid  # it lives, and belongs to somebody else
    except (OSError, ValueError, OverflowError):
        return None
    return pid if pid > 0 else None
