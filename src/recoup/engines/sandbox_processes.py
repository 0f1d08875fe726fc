"""The processes of a sandbox, found by nothing but its id."""

from __future__ import annotations

import signal
from typing import Final

from recoup.kernel import marked
from recoup.kernel.marked import Mark

#: In the environment of every process of a sandbox. Its value is the sandbox's id.
SANDBOX_VARIABLE: Final = "RECOUP_SANDBOX"


def _mark(identifier: str) -> Mark:
    return Mark(variable=SANDBOX_VARIABLE, value=identifier, what=f"the sandbox {identifier}")


def processes_of(identifier: str) -> list[int]:
    """The process ids of a sandbox's processes; those that have ended and wait to be reaped are not among them."""
    return marked.processes_of(_mark(identifier))


def end_processes(identifier: str) -> None:
    """End all processes of a sandbox. Raise ``EngineError`` when one is still there after a while."""
    # A server that runs without walls removes what it has outside its folder (shared memory) when it is asked so.
    marked.end_processes(_mark(identifier), first=signal.SIGQUIT)
