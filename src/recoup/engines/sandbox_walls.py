"""What keeps the processes of a sandbox in: namespaces of their own, by ``unshare`` of util-linux (namespaces(7)).

A network namespace without any interface that is up has no way out, not even to this machine's own loopback. A
process namespace of its own ends with its first process, so that nothing can stay behind.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, run

#: Of our own environment, what programs in a sandbox may see. Everything else could be a secret.
_PASSED_ON: Final = ("PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH")
_FULL: Final = ("--net", "--ipc", "--pid", "--fork", "--kill-child")
_AS_USER: Final = ("--user", "--map-current-user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Walls:
    """How commands are kept in. ``prefix`` is what stands before them, empty where this machine allows nothing."""

    prefix: tuple[str, ...]

    @property
    def network_closed(self) -> bool:
        """Whether processes inside have no network at all."""
        return bool(self.prefix)

    def around(self, command: Command) -> Command:
        """Given a command, return the one that runs it inside."""
        argv = [*_hiding(command), *command.argv]
        if not self.prefix:
            return replace(command, argv=argv)
        if command.user is not None:
            uid, gid = command.user
            # Only root may unshare and become somebody else, in this order.
            argv = [f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--", *argv]
        else:
            argv = ["--", *argv]
        # The parent is unshare; changing the user forgets the death signal that unshare has set.
        dies = ["--pdeathsig=KILL"] if "--fork" in self.prefix else []
        return replace(command, argv=[*self.prefix, "setpriv", "--no-new-privs", *dies, *argv], user=None)


def _hiding(command: Command) -> list[str]:
    allowed = {*_PASSED_ON, *command.environment}
    hidden = [name for name in os.environ if name not in allowed and not name.startswith("LC_")]
    return ["env", *(part for name in hidden for part in ("-u", name))]


@functools.cache
def find_walls() -> Walls:
    """The best walls that this machine allows us."""
    as_user: Sequence[str] = () if os.geteuid() == 0 else _AS_USER
    for options in (_FULL, ("--net",)):
        walls = Walls(prefix=("unshare", *as_user, *options))
        if _holds(walls):
            return walls
    return Walls(prefix=())


def _holds(walls: Walls) -> bool:
    """Whether a process inside sees no network interface but a loopback of its own."""
    try:
        said = run(walls.around(Command(argv=["cat", "/proc/net/dev"], timeout_seconds=30)))
    except EngineError:
        return False
    lines = said.stdout.decode(errors="replace").splitlines()[2:]
    return {line.split(":")[0].strip() for line in lines} <= {"lo"}
