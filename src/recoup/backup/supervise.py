"""Keeps workers running: each in a thread of its own, started again after growing pauses when it ends.

Everything here happens in the thread that calls ``Supervisor.tick``, so there is nothing to lock. A worker that hangs
holds up no other; only Python itself ends it, with the process.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from recoup.backup.run_records import WorkerRecord, forget_workers, record_supervision
from recoup.backup.worker import Worker
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError
from recoup.kernel.log import Level, Log

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
#: A worker that ran so long was well: its next pause is the first one again.
WELL_AFTER_SECONDS: Final = 120.0


def pause_after(failures: int) -> float:
    """Seconds to wait before a worker is started again that failed so often in a row: 1, 2, 4 and so on to 60."""
    return min(FIRST_PAUSE_SECONDS * float(1 << min(max(failures, 1) - 1, 10)), LONGEST_PAUSE_SECONDS)


class _Attempt(threading.Thread):
    """One call of ``Worker.run``."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(name=worker.name, daemon=True)
        self.stop = threading.Event()
        self.problem: str | None = None
        self._worker = worker

    def run(self) -> None:
        try:
            self._worker.run(self.stop)
        except RecoupError as failure:
            self.problem = failure.message
        finally:
            fault = sys.exc_info()[1]
            if fault is not None:  # its text may hold anything, a password too
                self.problem = f"this is a bug in Recoup: {type(fault).__qualname__}"


@dataclass(slots=True, kw_only=True)
class _Post:
    """A worker's place: who works there, since when, and who comes after."""

    worker: Worker
    attempt: _Attempt | None = None
    begun: float = 0.0
    failures: int = 0
    restarts: int = 0
    error: str | None = None
    next_attempt: float = 0.0
    leaving: bool = False
    successor: Worker | None = None
    recorded: WorkerRecord | None = field(default=None, repr=False)


class Supervisor:
    """The workers of a plan. Not for use from several threads."""

    def __init__(self, state_folder: Path, log: Log) -> None:
        self._state_folder = state_folder
        self._log = log
        self._posts: dict[str, _Post] = {}

    def employ(self, workers: Sequence[Worker]) -> None:
        """From now on these are the workers. Those of before drain first; none runs twice at once."""
        wanted = {worker.name: worker for worker in workers}
        for name, post in self._posts.items():
            post.leaving, post.successor = True, wanted.pop(name, None)
            if post.attempt is not None:
                post.attempt.stop.set()
        for name, worker in wanted.items():
            self._posts[name] = _Post(worker=worker)
        forget_workers(self._state_folder, keep=frozenset(self._posts))

    def retire(self) -> None:
        """Ask every worker to drain and end. ``tick`` until nobody is ``busy``."""
        self.employ(())

    @property
    def busy(self) -> tuple[str, ...]:
        """The names of the workers whose thread runs."""
        return tuple(name for name, post in self._posts.items() if post.attempt is not None)

    def tick(self) -> None:
        """Notice who ended, start who should run. Call it about once a second. Never raises ``RecoupError``."""
        for name, post in list(self._posts.items()):
            if post.attempt is not None and not post.attempt.is_alive():
                self._ended(post, post.attempt)
            if post.attempt is None and post.leaving:
                self._record(post, "stopped")
                if post.successor is None:
                    del self._posts[name]
                    continue
                post = self._posts[name] = _Post(worker=post.successor, restarts=post.restarts)
            if post.attempt is None and clock.monotonic() >= post.next_attempt:
                post.attempt, post.begun = _Attempt(post.worker), clock.monotonic()
                post.attempt.start()
                self._log(Level.INFO, f"{name}: started")
                self._record(post, "running")
            elif post.attempt is not None and post.failures and clock.monotonic() - post.begun > WELL_AFTER_SECONDS:
                post.failures, post.error = 0, None
                self._record(post, "running")

    def _ended(self, post: _Post, attempt: _Attempt) -> None:
        name = post.worker.name
        post.attempt = None
        if attempt.stop.is_set() and attempt.problem is None:
            self._log(Level.INFO, f"{name}: stopped")
            return
        if clock.monotonic() - post.begun > WELL_AFTER_SECONDS:
            post.failures = 0
        post.failures += 1
        post.error = attempt.problem or "it ended without being asked to"
        if post.leaving:
            self._log(Level.WARNING, f"{name}: did not drain: {post.error}")
            return
        post.restarts += 1
        pause = pause_after(post.failures)
        post.next_attempt = clock.monotonic() + pause
        self._log(Level.ERROR, f"{name}: {post.error}; started again in {pause:g} s")
        self._record(post, "waiting", clock.now() + timedelta(seconds=pause))

    def _record(
        self, post: _Post, state: Literal["running", "waiting", "stopped"], next_attempt: datetime | None = None
    ) -> None:
        record = WorkerRecord(
            name=post.worker.name,
            facts={},
            said=None,
            state=state,
            since=clock.now(),
            restarts=post.restarts,
            error=post.error,
            next_attempt=next_attempt,
        )
        try:
            record_supervision(self._state_folder, record)
        except RecoupError as failure:
            self._log(Level.WARNING, str(failure))


def silence_excepthook(log: Log) -> None:
    """Let no thread print a traceback: what it ended with is in the records, a bug by its type and name."""

    def note(ended: threading.ExceptHookArgs) -> None:
        if not isinstance(ended.thread, _Attempt):
            name = ended.thread.name if ended.thread is not None else "a thread"
            log(Level.ERROR, f"{name}: this is a bug in Recoup: {ended.exc_type.__qualname__}")

    threading.excepthook = note
