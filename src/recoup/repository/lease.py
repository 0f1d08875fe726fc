"""Who is working on what, on this machine.

A lease is an ``flock``: the kernel ends it with its holder, however that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from recoup.kernel import clock
from recoup.kernel.errors import BusyError


@contextlib.contextmanager
def hold_lease(state_folder: Path, name: str, purpose: str) -> Iterator[None]:
    """Hold the lease ``name`` while inside. Raise ``BusyError``, naming the holder, when another run has it.

    ``purpose`` is what the other run will be told: ``backup of postgres``.
    """
    state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = state_folder / f"lease-{name}.json"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise BusyError(
                f"another run holds the lease on {name!r}: {_holder(handle)}",
                hint="Wait for it to end, or stop it; the lease ends with its process.",
            ) from held
        text = json.dumps({"pid": os.getpid(), "purpose": purpose, "since": clock.to_text(clock.now())})
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
        yield
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    try:
        said = json.loads(os.pread(handle, 4096, 0))
        return f"{said['purpose']}, process {said['pid']}, since {said['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said what it does yet"
