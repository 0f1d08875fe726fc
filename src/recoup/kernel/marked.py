"""Finding and ending processes by a mark in their environment, when nobody remembers having started them.

A process carries a mark when its environment says so (``/proc/PID/environ``, proc(5)), or when one of its forebears
does: some servers overwrite their environment with the title that ``ps`` shows.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recoup.kernel import clock
from recoup.kernel.errors import EngineError
from recoup.kernel.presence import stat_fields

_POLITE_SECONDS: Final = 3.0
_LAST_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A variable of the environment, and its value. ``what`` is marked by it, for people: ``the sandbox 1f``."""

    variable: str
    value: str
    what: str


def processes_of(mark: Mark, *, strangers_only: bool = False) -> list[int]:
    """The process ids of what carries the mark; what has ended and waits to be reaped is not among them.

    This process never is. ``strangers_only`` leaves out what it has started itself, and its own forebears.
    """
    text = f"{mark.variable}={mark.value}".encode()
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
            if text in Path(entry.path, "environ").read_bytes().split(b"\0"):
                marked.add(int(entry.name))
    spared = {os.getpid()}
    if strangers_only:
        spared |= {number for number in parents if os.getpid() in _line(number, parents)}
        spared |= _line(os.getpid(), parents)
    return sorted(number for number in parents if number not in spared and _line(number, parents) & marked)


def _line(number: int, parents: Mapping[int, int]) -> set[int]:
    """A process and its forebears."""
    seen: set[int] = set()
    while number and number not in seen:
        seen.add(number)
        number = parents.get(number, 0)
    return seen


def _parent(number: int) -> int | None:
    """The parent's process id, or None for a process that has ended."""
    fields = stat_fields(number)
    return None if fields[0] in "ZX" else int(fields[1])


def end_processes(mark: Mark, *, first: signal.Signals = signal.SIGTERM, strangers_only: bool = False) -> int:
    """End what carries the mark; return how many there were. ``first`` is the signal that asks, before it is killed.

    Raise ``EngineError`` when one is still there after a while.
    """
    ended: set[int] = set()
    left: list[int] = []
    for number, patience in ((first, _POLITE_SECONDS), (signal.SIGKILL, _LAST_SECONDS)):
        deadline = clock.monotonic() + patience
        asked: set[int] = set()
        while left := processes_of(mark, strangers_only=strangers_only):
            if clock.monotonic() > deadline:
                break
            for process in left:
                if process not in asked or number is signal.SIGKILL:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(process, number)
                    asked.add(process)
            ended |= asked
            clock.pause(0.02)
        else:
            return len(ended)
    raise EngineError(
        f"processes of {mark.what} do not end: {', '.join(map(str, left))}",
        hint="They wait for the disk or the network, perhaps; the next run ends them.",
    )


@contextlib.contextmanager
def marking(mark: Mark) -> Iterator[None]:
    """While inside, everything that this process starts carries the mark."""
    before = os.environ.get(mark.variable)
    os.environ[mark.variable] = mark.value
    try:
        yield
    finally:
        if before is None:
            del os.environ[mark.variable]
        else:
            os.environ[mark.variable] = before
