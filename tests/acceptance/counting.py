"""An application that writes the same number into PostgreSQL and then into Redis, and remembers when."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from recoup.kernel import clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One number. It was written at some time between these two: a busy machine hears of it late."""

    sent: datetime
    answered: datetime


@dataclass(slots=True, kw_only=True)
class Counting:
    """What was written when, by number."""

    database: list[Written] = field(default_factory=list)
    redis: list[Written] = field(default_factory=list)

    def apart(self, in_database: int, in_redis: int) -> timedelta:
        """Given the newest numbers that came back, how far apart in time the two states are at least."""
        one, other = state(self.database, in_database), state(self.redis, in_redis)
        return max(one.sent - other.answered, other.sent - one.answered, timedelta(0))


def state(numbers: Sequence[Written], newest: int) -> Written:
    """Between which times a state was there that has the number ``newest`` and not the next one."""
    return Written(sent=numbers[newest].sent, answered=numbers[newest + 1].answered)


def write(into: list[Written], act: Callable[[int], object]) -> None:
    """Write the next number, and note it when it is acknowledged."""
    sent = clock.now()
    act(len(into))
    into.append(Written(sent=sent, answered=clock.now()))


@contextlib.contextmanager
def counting(commit: Callable[[int], object], set_number: Callable[[int], object]) -> Iterator[Counting]:
    """Count while inside; at least one number is written before."""
    written, stop, begun = Counting(), threading.Event(), threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        try:
            while not stop.is_set():
                write(written.database, commit)
                write(written.redis, set_number)
                begun.set()
        except Exception as failure:  # noqa: BLE001 - shown by the test
            failures.append(failure)
            begun.set()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        assert begun.wait(30)
        yield written
    finally:
        stop.set()
        thread.join(30)
    assert not failures, failures
