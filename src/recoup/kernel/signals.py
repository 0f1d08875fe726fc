"""Signals as messages: they are read where a program waits, and interrupt nothing."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Iterator, Sequence


class Signals:
    """The signals that came in since the last ``wait``. Use through ``catching``."""

    def __init__(self, reading: int) -> None:
        self._reading = reading

    def wait(self, seconds: float) -> list[signal.Signals]:
        """Wait for a signal, at most so long; all that came, in order. An empty list when none did."""
        ready, _, _ = select.select([self._reading], [], [], max(0.0, seconds))
        if not ready:
            return []
        return [signal.Signals(number) for number in os.read(self._reading, 4096)]


@contextlib.contextmanager
def catching(numbers: Sequence[signal.Signals]) -> Iterator[Signals]:
    """While inside, these signals only wake ``Signals.wait``. Call it in the main thread.

    A handler may do nothing that takes a lock its own thread could hold, so it writes a byte into a pipe and no more.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    os.set_blocking(reading, False)

    def note(number: int, _frame: object) -> None:
        with contextlib.suppress(BlockingIOError):  # thousands are waiting already: one more changes nothing
            os.write(writing, bytes([number]))

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield Signals(reading)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
