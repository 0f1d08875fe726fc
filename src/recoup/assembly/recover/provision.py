"""The plan's own command that makes a new server, before anything is brought there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Final

from recoup.assembly.system import System
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, run

_SECONDS: Final = 3600.0
_ADDRESS: Final = re.compile(r"ssh://\S+")


def provision_command(system: System) -> tuple[str, ...] | None:
    """What the plan wants to be run, or None."""
    described = system.plan.provision
    if described is None:
        return None
    return tuple(shlex.split(described)) if isinstance(described, str) else tuple(described)


def provision(system: System, *, situation: str, host: str, say: Callable[[str], None]) -> str:
    """Run the plan's command and return the address of the server: its last line that is one, else ``host``.

    It is run before each attempt, so it has to find what it made. Its environment: ``RECOUP_SYSTEM``, the name of the
    system; ``RECOUP_SITUATION``; ``RECOUP_HOST``, what ``--host`` says. It gets no key and no password. Raise
    ``EngineError`` with its last words when it does not end with 0 within an hour.
    """
    argv = provision_command(system)
    if argv is None:
        return host
    say(f"provision: {shlex.join(argv)}")
    environment = {"RECOUP_SYSTEM": system.plan.system, "RECOUP_SITUATION": situation, "RECOUP_HOST": host}
    try:
        done = run(Command(argv=argv, environment=environment, timeout_seconds=_SECONDS))
    except EngineError as failure:
        raise EngineError(
            f"the plan's provision command failed: {failure.message}",
            hint="Run it by hand until it ends well, or make the server yourself and leave provision: out with "
            "--no-provision.",
        ) from failure
    addresses = [line.strip() for line in done.stdout.decode(errors="replace").splitlines()]
    return next((one for one in reversed(addresses) if _ADDRESS.fullmatch(one)), host)
