"""Finding and ending the processes of a sandbox, knowing nothing but its id.

A process is one of the sandbox's when its environment says so (``/proc/PID/environ``, proc(5)), or when one of its
forebears is: some servers overwrite their environment with the title that ``ps`` shows.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Final

from recoup.kernel import clock
from recoup.kernel.errors import EngineError

#: In the environment of every process of a sandbox. Its value is the sandbox's id.
SANDBOX_VARIABLE: Final = "RECOUP_SANDBOX"

_POLITE_SECONDS: Final = 3.0
_LAST_SECONDS: Final = 20.0


def processes_of(identifier: str) -> list[int]:
    """The process ids of a sandbox's processes; those that have ended and wait to be reaped are not among them."""
    mark = f"{SANDBOX_VARIABLE}={identifier}".encode()
    parents: dict[int, int] = {}
    marked = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            parent = _parent(int(entry.name))
            if parent is None:
                continue
            parents[int(entry.name)] = parent
            if mark in Path(entry.path, "environ").read_bytes().split(b"\0"):
                marked.add(int(entry.name))
    return sorted(number for number in parents if number != os.getpid() and _descends(number, parents, marked))


def _descends(number: int, parents: dict[int, int], marked: set[int]) -> bool:
    seen = set()
    while number and number not in seen:
        if number in marked:
            return True
        seen.add(number)
        number = parents.get(number, 0)
    return False


def _parent(number: int) -> int | None:
    """The parent's process id, or None for a process that has ended."""
    fields = Path(f"/proc/{number}/stat").read_text(errors="replace").rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[1])


def end_processes(identifier: str) -> None:
    """End all processes of a sandbox. Raise ``EngineError`` when one is still there after a while."""
    # A server that runs without walls removes what it has outside its folder (shared memory) when it is asked.
    for number, patience in ((signal.SIGQUIT, _POLITE_SECONDS), (signal.SIGKILL, _LAST_SECONDS)):
        deadline = clock.monotonic() + patience
        asked: set[int] = set()
        while left := processes_of(identifier):
            if clock.monotonic() > deadline:
                break
            for process in left:
                if process not in asked or number is signal.SIGKILL:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(process, number)
                    asked.add(process)
            clock.pause(0.02)
        else:
            return
    raise EngineError(
        f"processes of the sandbox {identifier} do not end: {', '.join(map(str, left))}",
        hint="They wait for the disk or the network, perhaps; the next run ends them.",
    )
