"""An application that writes the same number into PostgreSQL and then into Redis, and remembers when."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from recoup.kernel import clock

#: How much later than it was an application may note what it wrote, on a busy machine; and PostgreSQL's state is fixed
#: a little before the end of its backup is told.
SLACK = timedelta(milliseconds=1500)


@dataclass(slots=True, kw_only=True)
class Counting:
    """What was written when. ``database[n]`` is when the number ``n`` was committed, ``redis[n]`` when it was set."""

    database: list[datetime] = field(default_factory=list)
    redis: list[datetime] = field(default_factory=list)

    def apart(self, in_database: int, in_redis: int) -> timedelta:
        """Given the numbers that came back, how far apart in time they were written."""
        return abs(self.redis[in_redis] - self.database[in_database])


@contextlib.contextmanager
def counting(commit: Callable[[int], object], set_number: Callable[[int], object]) -> Iterator[Counting]:
    """Count while inside; at least one number is written before."""
    written, stop, begun = Counting(), threading.Event(), threading.Event()
    failures: list[Exception] = []

    def work() -> None:
        number = 0
        try:
            while not stop.is_set():
                commit(number)
                written.database.append(clock.now())
                set_number(number)
                written.redis.append(clock.now())
                number += 1
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
