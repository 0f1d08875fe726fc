"""Limits of a piece of work: its time, the room it may take on a disk, the processors it may use."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Final, NamedTuple

from recoup.kernel import clock

_LOOK_SECONDS: Final = 0.25


class DiskUsage(NamedTuple):
    """The size of a disk and the room that is left on it, in bytes."""

    total: int
    free: int


class LimitReached(BaseException):
    """A limit was reached while the work was on; ``reason`` says which.

    No error: as an interrupt, it goes through what handles errors. Only who set the limit catches it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Watch:
    """What ends the work: a moment (of ``clock.monotonic``), and a question that is asked every now and then."""

    def __init__(self, *, deadline: float | None = None, time_over: str = "") -> None:
        self._deadline = deadline
        self._time_over = time_over
        self._exceeded: Callable[[], str | None] | None = None

    def also(self, exceeded: Callable[[], str | None]) -> None:
        """From now on, ``exceeded`` says as well which limit is reached, if one is; it replaces one given before."""
        self._exceeded = exceeded

    def reached(self) -> str | None:
        """The limit that is reached now, if one is."""
        if self._deadline is not None and clock.monotonic() >= self._deadline:
            return self._time_over
        return self._exceeded() if self._exceeded is not None else None

    @property
    def left_seconds(self) -> float | None:
        """How much time is left, never less than none. None: there is no limit."""
        return None if self._deadline is None else max(0.0, self._deadline - clock.monotonic())

    @contextlib.contextmanager
    def interrupting(
        self, *, raising: Callable[[str], BaseException] = LimitReached, again_seconds: float | None = None
    ) -> Iterator[None]:
        """While inside, a limit that is reached raises ``LimitReached`` here, once, wherever the work is then.

        ``raising`` makes another exception of the reason. With ``again_seconds`` it is raised again that often until
        this is left: what cleans up may hang, too. Only the main thread can be interrupted; elsewhere, as everywhere,
        ``reached`` is asked between two parts. Inside another one, both apply; give the outer one an exception of its
        own, or the inner work takes it for its own limit.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        left, pending = threading.Event(), list[str]()

        def interrupt(number: int, frame: FrameType | None) -> None:
            if pending and not left.is_set():
                raise raising(pending.pop())
            if callable(before):
                before(number, frame)  # the limit of one around this one

        def look() -> None:
            while not left.wait(_LOOK_SECONDS):
                reason = None
                with contextlib.suppress(OSError):  # the folder that is asked about has just been removed
                    reason = self.reached()
                while reason is not None:
                    pending[:] = [reason]
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGALRM)
                    if again_seconds is None or left.wait(again_seconds):
                        return

        before = signal.getsignal(signal.SIGALRM)
        signal.signal(signal.SIGALRM, interrupt)
        looking = threading.Thread(target=look, name="limits", daemon=True)
        looking.start()
        try:
            yield
        finally:
            left.set()
            looking.join()
            signal.signal(signal.SIGALRM, before)


def disk_of(folder: Path) -> DiskUsage:
    """The disk of ``folder``, or of the nearest folder above it that exists, in bytes. Raise ``OSError``."""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    usage = shutil.disk_usage(place)
    return DiskUsage(total=usage.total, free=usage.free)


def use_processors(most: int) -> None:
    """Run this process, and what it starts from now on, on so many processors at most. Never raises."""
    with contextlib.suppress(OSError):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-max(1, most) :])
