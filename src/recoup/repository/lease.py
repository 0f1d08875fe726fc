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
from recoup.kernel.errors import BusyError, RecoupError


def cannot_note(place: Path, failure: OSError) -> RecoupError:
    """The error for a state folder, or a file in it, that cannot be written."""
    return RecoupError(
        f"cannot keep notes of this run in {place}: {failure.strerror or failure}",
        hint="Recoup keeps leases and notes there: make room, correct its rights, or name another in RECOUP_STATE.",
    )


@contextlib.contextmanager
def hold_lease(state_folder: Path, name: str, purpose: str) -> Iterator[None]:
    """Hold the lease ``name`` while inside. Raise ``BusyError``, naming the holder, when another run has it.

    ``purpose`` is what the other run will be told: ``backup of postgres``. Raise ``RecoupError`` when the folder cannot
    be written.
    """
    path = state_folder / f"lease-{name}.json"
    try:
        state_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as failure:
        raise cannot_note(path, failure) from failure
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise BusyError(
                f"another run holds the lease on {name!r}: {_holder(handle)}",
                hint="Wait for it to end, or stop it; the lease ends with its process.",
            ) from held
        text = json.dumps({"pid": os.getpid(), "purpose": purpose, "since": clock.to_text(clock.now())})
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, text.encode(), 0)
        except OSError as failure:
            raise cannot_note(path, failure) from failure
        yield
    finally:
        os.close(handle)


def holder_of(state_folder: Path, name: str) -> str | None:
    """Who holds the lease ``name`` at this instant, in words; None when nobody does. Whoever asks does not wait."""
    try:
        handle = os.open(state_folder / f"lease-{name}.json", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(handle)
    else:
        return None
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    try:
        said = json.loads(os.pread(handle, 4096, 0))
        return f"{said['purpose']}, process {said['pid']}, since {said['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has not said what it does yet"
