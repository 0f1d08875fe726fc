"""Waiting for repositories that do not answer at first: after a disaster the network often comes up last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from recoup.kernel import clock
from recoup.kernel.errors import StorageError
from recoup.kernel.units import show_duration

T = TypeVar("T")

#: So long a recovery waits by itself; after that a person has to look.
WAIT_SECONDS: Final = 90.0
_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 10.0


def patiently(open_: Callable[[], T], say: Callable[[str], None], *, seconds: float = WAIT_SECONDS) -> T:
    """What ``open_`` gives. While it fails with a storage error that may pass, try again, and say so once.

    Raise its last error when ``seconds`` are over, every other one at once.
    """
    deadline, pause_seconds, told = clock.monotonic() + seconds, _FIRST_PAUSE_SECONDS, False
    while True:
        try:
            return open_()
        except StorageError as failure:
            if not failure.may_retry or clock.monotonic() + pause_seconds > deadline:
                raise
            if not told:
                say(f"{failure.message}; trying again for up to {show_duration(deadline - clock.monotonic())}")
            told = True
        clock.pause(pause_seconds)
        pause_seconds = min(pause_seconds * 2, _LONGEST_PAUSE_SECONDS)
