"""Says things to a terminal from a thread of its own.

A terminal can stop taking what is written to it without being gone: a connection that died unnoticed, a screen that
somebody stopped with Ctrl-S. Work that brings production back must not wait for that.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Final

#: About so many things wait to be said; what comes then is left out.
_MOST: Final = 10_000


class Speaker:
    """Does what it is given, in order, one thing at a time. Use ``say`` for what need not be waited for."""

    def __init__(self) -> None:
        # One without a lock of Python's: an interrupt in the middle of saying something would leave that locked.
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._speak, name="speaker", daemon=True)
        self._thread.start()

    def say(self, act: Callable[[], None]) -> None:
        """Do this when everything before it was done. Never waits; what cannot be said is left out."""
        if self._queue.qsize() < _MOST:
            self._queue.put(act)

    def done(self, act: Callable[[], None], *, seconds: float) -> bool:
        """Do this after everything before it, and wait for it so long at most. Whether it was done."""
        over = threading.Event()

        def do() -> None:
            try:
                act()
            finally:
                over.set()

        self.say(do)
        return over.wait(seconds)

    def close(self, *, seconds: float) -> None:
        """Say what is still to be said, for so long at most."""
        if self._queue.qsize() < _MOST:
            self._queue.put(None)
            self._thread.join(seconds)

    def _speak(self) -> None:
        while (act := self._queue.get()) is not None:
            with contextlib.suppress(OSError, ValueError):  # the terminal is gone; the journal has it all
                act()
