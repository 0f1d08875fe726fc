"""What keeps the processes of a sandbox in: namespaces of their own, by ``unshare`` of util-linux (namespaces(7)).

A network namespace without any interface that is up has no way out, not even to this machine's own loopback. What is
left are the sockets in the file system: a database asks its like at ``/var/run/postgresql`` when nobody says where. In
a mount namespace the folders of all sockets of this machine are covered by empty ones. A process namespace ends with
its first process, so that nothing can stay behind.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Final

from recoup.engines import sandbox_inside
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, run

#: Of our own environment, what programs in a sandbox may see. Everything else could be a secret.
_PASSED_ON: Final = ("PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH")
_PROCESSES: Final = ("--ipc", "--pid", "--fork", "--kill-child")
#: Where services put their sockets, whether there is one now or not.
_SOCKET_PLACES: Final = ("/run", "/tmp", "/var/run", "/var/tmp")  # noqa: S108 hidden, nothing is put there
#: What a folder must not be, or hold, to be covered as a whole: programs would not run without it.
_NEEDED: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc", "/dev", "/proc", "/sys", "/nix")


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """How commands are kept in. ``unshare`` are the options of that program, empty where nothing is allowed."""

    unshare: tuple[str, ...]

    @property
    def network_closed(self) -> bool:
        """Whether processes inside have no network at all."""
        return "--net" in self.unshare

    @property
    def sockets_hidden(self) -> bool:
        """Whether processes inside find no socket of this machine's services in the file system."""
        return "--mount" in self.unshare

    def around(self, command: Command, folder: Path) -> Command:
        """Given a command, return the one that runs it inside, in the sandbox in ``folder``."""
        mapped = "--user" in self.unshare
        user = (os.getuid(), os.getgid()) if mapped else command.user
        hidden = [str(folder.parent), *sockets_of_this_machine()] if self.sockets_hidden else []
        order = {
            "user": user,
            "mapped": mapped,
            "dies": "--fork" in self.unshare,
            "hide": covered(hidden) if self.sockets_hidden else None,
            "keep": [str(folder), *kept_programs(command.argv, hidden)] if self.sockets_hidden else [],
            "variables": [*_PASSED_ON, *command.environment],
        }
        become = [sys.executable, "-I", "-S", sandbox_inside.__file__, json.dumps(order)]
        unshare = ["unshare", *self.unshare] if self.unshare else []
        return replace(command, argv=[*unshare, *become, *command.argv], user=None)


@functools.cache
def find_walls() -> Walls:
    """The best walls that this machine allows us. Somewhere they are not allowed at all: in many containers."""
    mine: Sequence[str] = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    for options in (("--net", "--mount", *_PROCESSES), ("--net", *_PROCESSES), ("--net",)):
        walls = Walls(unshare=(*mine, *options))
        if _hold(walls):
            return walls
    return Walls(unshare=())


def _hold(walls: Walls) -> bool:
    """Whether a process inside sees no network interface but a loopback of its own."""
    user = (65534, 65534) if os.geteuid() == 0 else None
    command = Command(argv=["cat", "/proc/net/dev"], timeout_seconds=30, user=user, folder=Path("/"))
    try:
        said = run(walls.around(command, Path("/proc")))
    except EngineError:
        return False
    lines = said.stdout.decode(errors="replace").splitlines()[2:]
    return {line.split(":")[0].strip() for line in lines} <= {"lo"}


def sockets_of_this_machine() -> list[str]:
    """The folders that this machine's services have sockets in, and the usual ones (``/proc/net/unix``, proc(5))."""
    found = set(_SOCKET_PLACES)
    try:
        listed = Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]
    except OSError:
        listed = []
    for line in listed:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].startswith("/"):
            folder = str(PurePosixPath(fields[7]).parent)
            found.add(fields[7] if _is_needed(folder) else folder)
    return sorted(found)


def covered(paths: Iterable[str]) -> list[str]:
    """Which of these folders and files are covered: by their real paths, without what the machine needs."""
    real = {os.path.realpath(path) for path in paths}
    return sorted(path for path in real if not _is_needed(path) or not Path(path).is_dir())


def _is_needed(folder: str) -> bool:
    if folder.startswith("/dev/shm/"):  # noqa: S108 a file system of its own, in which somebody works
        return False
    return folder == "/" or any(folder == needed or folder.startswith(needed + "/") for needed in _NEEDED)


def kept_programs(argv: Sequence[str], hidden: Iterable[str]) -> list[str]:
    """What must be put back into covered folders so that the programs among ``argv`` can run.

    A program that was unpacked somewhere needs what lies around it: everything down from the covered folder.
    """
    kept = set()
    covers = [real for path in hidden if not _is_needed(real := os.path.realpath(path))]
    for argument in argv:
        if not (argument.startswith("/") and Path(argument).is_file() and os.access(argument, os.X_OK)):
            continue
        program = PurePosixPath(os.path.realpath(argument))
        for cover in covers:
            if PurePosixPath(cover) in program.parents:
                kept.add(f"{cover}/{program.relative_to(cover).parts[0]}")
    return sorted(kept)
