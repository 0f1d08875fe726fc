"""The daemon: everything that a plan wants done, by itself, for as long as it runs.

One thread decides and waits; it is woken by signals and never blocks for long. Workers have threads of their own
(``backup/supervise.py``), scheduled tasks a process each, one after another (``assembly/protect/task_child.py``), and
repositories are asked in the background. What was in hand when the daemon was killed is seen by the next one in the
repositories and the notes of begun copies, not in any state of the daemon.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from recoup.assembly.protect.agenda import Known, decide, look
from recoup.assembly.protect.task_child import TaskChild, put_in_force, remains
from recoup.assembly.protect.workers import cannot_do, workers_of
from recoup.assembly.system import System
from recoup.backup.due import Run
from recoup.backup.run_records import WHOLE_PLAN, DaemonRecord, read_requests, record_daemon
from recoup.backup.supervise import Supervisor
from recoup.kernel import clock
from recoup.kernel.errors import Exit, RecoupError
from recoup.kernel.log import Level, Log
from recoup.kernel.notify import ServiceManager
from recoup.kernel.signals import Signals
from recoup.kernel.units import show_duration

LEASE: Final = "the daemon"
_HEARTBEAT_SECONDS: Final = 15.0
#: Copies may be taken by others too: the repositories are asked again so often, and always right before a task.
_LOOK_EVERY_SECONDS: Final = 600.0
_LOOK_AGAIN_SECONDS: Final = 60.0
_FRESH_SECONDS: Final = 30.0
#: Of what a task says, so much goes into the log: pruning has a line for each of thousands of copies.
_MOST_LINES: Final = 50
#: After the grace of a drain, a copy that is given up has so long to unwind.
_UNWIND_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Duties:
    """What a daemon does: the scheduled tasks, the workers, or both."""

    tasks: bool = True
    workers: bool = True
    grace: timedelta = timedelta(minutes=1)  #: what a task in hand may still take when the daemon is to end


class _Look(threading.Thread):
    """Asks the repositories in the background: one that hangs must not make the daemon deaf."""

    def __init__(self, system: System) -> None:
        super().__init__(name="look", daemon=True)
        self.system = system
        self.known: Known | None = None
        self.failure: RecoupError | None = None

    def run(self) -> None:
        try:
            self.known = look(self.system, upkeep=True)
        except RecoupError as failure:
            self.failure = failure


class Daemon:
    """Use once: ``run`` until it returns. Hold the lease ``LEASE`` of the state folder meanwhile."""

    def __init__(
        self,
        system: System,
        *,
        duties: Duties,
        log: Log,
        signals: Signals,
        manager: ServiceManager,
        reload: Callable[[], System],
    ) -> None:
        self._system = system
        self._duties = duties
        self._log = log
        self._signals = signals
        self._manager = manager
        self._reload_plan = reload
        self._supervisor = Supervisor(system.state_folder, log)
        self._child: TaskChild | None = None
        self._lines = 0
        self._look: _Look | None = None
        self._known: Known | None = None
        self._looked = self._look_not_before = 0.0
        self._beat_at = 0.0
        self._next: Run | None = None
        self._said: set[str] = set()
        now = clock.now()
        self._record = DaemonRecord(pid=os.getpid(), started=now, alive=now, state="running", plan_loaded=now)

    def run(self) -> Exit:
        """Work until SIGTERM or SIGINT. Return ``OK`` when all that was in hand ended by itself.

        Raise ``RecoupError`` when it cannot begin: the state folder cannot be written, a worker cannot be made.
        """
        system = self._system
        remains(system.state_folder)
        put_in_force(system)
        if self._duties.workers:
            self._supervisor.employ(workers_of(system))
        for remark in cannot_do(system):
            self._log(Level.WARNING, remark)
        self._log(Level.INFO, f"protects {system.plan.system} by {system.loaded.file}")
        self._heartbeat(at_once=True)
        self._manager.tell("READY=1", "STATUS=protects " + system.plan.system)
        while True:
            self._supervisor.tick()
            if self._duties.tasks:
                self._tend_tasks()
            self._heartbeat()
            for number in self._signals.wait(self._patience()):
                if number == signal.SIGHUP:
                    self._reload()
                else:
                    return self._drain(number)

    # Tasks

    def _tend_tasks(self) -> None:
        if self._child is not None:
            self._follow(self._child)
            return
        self._take_look()
        if self._known is None:
            return
        now = clock.now()
        runs = decide(self._system, self._known, now, awake_since=self._record.started)
        self._announce(runs[0] if runs else None)
        if runs and runs[0].is_due(now):
            if clock.monotonic() - self._looked > _FRESH_SECONDS:
                self._begin_look()  # somebody may have taken it by hand meanwhile
            elif self._look is None:
                self._begin(runs[0], now)

    def _take_look(self) -> None:
        """Take over what a look in the background found; begin another when it is time."""
        looking, now = self._look, clock.monotonic()
        if looking is not None:
            if looking.is_alive():
                return
            self._look = None
            if looking.known is not None and looking.system is self._system:
                self._known, self._looked = looking.known, now
                for name, error in looking.known.silent.items():
                    self._say_once(Level.ERROR, f"{name} does not answer: {error.message}")
            elif looking.known is None:
                why = looking.failure.message if looking.failure is not None else "this is a bug in Recoup"
                self._log(Level.ERROR, f"cannot find out what is due: {why}")
                self._look_not_before = now + _LOOK_AGAIN_SECONDS
        if self._known is None or now - self._looked > _LOOK_EVERY_SECONDS or self._is_asked():
            self._begin_look()

    def _begin_look(self) -> None:
        if self._look is None and clock.monotonic() >= self._look_not_before:
            self._look = _Look(self._system)
            self._look.start()

    def _is_asked(self) -> bool:
        """Whether a worker asks for something that the last look did not know of."""
        if self._known is None:
            return True
        heard = {(one.service, one.kind): one.asked for one in self._known.tasks}
        asked = read_requests(self._system.state_folder)
        return any(one in heard and heard[one] != when for one, when in asked.items()) or bool(
            set(asked) - set(heard) and clock.monotonic() - self._looked > _LOOK_AGAIN_SECONDS
        )

    def _begin(self, run: Run, now: datetime) -> None:
        late = f", {show_duration(now - run.at)} late" if run.reason == "missed" else ""
        self._log(Level.INFO, f"{_name(run)}: begins ({run.reason}{late})")
        try:
            self._child, self._lines = TaskChild.start(self._system, run), 0
        except RecoupError as failure:
            self._log(Level.ERROR, f"{_name(run)}: {failure.message}")
            self._look_not_before = clock.monotonic() + _LOOK_AGAIN_SECONDS

    def _follow(self, child: TaskChild) -> None:
        """Pass on what the task says; when it has ended, say how."""
        alive = child.alive  # asked before its output is read, so that nothing it said is missed
        for line in child.said():
            self._lines += 1
            if self._lines <= _MOST_LINES:
                self._log(Level.INFO, f"{_name(child.run)}: {line}")
        if alive:
            return
        self._child, name = None, _name(child.run)
        if self._lines > _MOST_LINES:
            self._log(Level.INFO, f"{name}: {self._lines - _MOST_LINES} lines more")
        self._known = None  # whatever came of it, it is to be asked anew
        took = show_duration(clock.now() - child.began)
        try:
            record = child.close()
        except RecoupError as failure:
            self._log(Level.ERROR, f"{name}: ended after {took}, and that cannot be recorded: {failure.message}")
            self._look_not_before = clock.monotonic() + _LOOK_AGAIN_SECONDS
            return
        match record.outcome:
            case "ok":
                self._log(Level.INFO, f"{name}: ok after {took}")
            case "interrupted":
                self._log(Level.WARNING, f"{name}: did not run to its end: {record.error}")
            case outcome:
                times = f" ({record.failures} times in a row)" if record.failures > 1 else ""
                self._log(Level.ERROR, f"{name}: {outcome.upper()}{times} after {took}: {record.error}")

    def _announce(self, run: Run | None) -> None:
        known = self._next
        if (run is None) != (known is None) or (run and known and (run.at, run.kind) != (known.at, known.kind)):
            if run is not None and not run.is_due(clock.now()):
                self._log(Level.INFO, f"next: {_name(run)} at {clock.to_text(run.at)[:19]}Z ({run.reason})")
            self._next = run

    # The life of the daemon

    def _patience(self) -> float:
        """How long to wait for a signal before looking around again, in seconds."""
        if self._child is not None or self._look is not None:
            return 0.2
        limit = 1.0  # a request of a worker, an ended worker, and what falls due are noticed within it
        if self._known is None and self._duties.tasks and clock.monotonic() >= self._look_not_before:
            return 0.0
        if self._manager.watchdog_seconds is not None:
            limit = min(limit, self._manager.watchdog_seconds / 3)
        return limit

    def _heartbeat(self, *, at_once: bool = False) -> None:
        now = clock.monotonic()
        every = _HEARTBEAT_SECONDS
        if self._manager.watchdog_seconds is not None:
            every = min(every, self._manager.watchdog_seconds / 3)
        if not at_once and now - self._beat_at < every:
            return
        self._beat_at = now
        self._manager.tell("WATCHDOG=1")
        following = self._next
        self._record = replace(
            self._record,
            alive=clock.now(),
            next_service=following.service if following else None,
            next_kind=following.kind if following else None,
            next_at=following.at if following else None,
        )
        try:
            record_daemon(self._system.state_folder, self._record)
        except RecoupError as failure:
            self._log(Level.ERROR, failure.message)

    def _reload(self) -> None:
        """Take the plan as it is now, if it is one; otherwise go on with the one in force."""
        try:
            system = self._new_plan()
            workers = workers_of(system) if self._duties.workers else []
            put_in_force(system)
        except RecoupError as fault:
            self._log(Level.ERROR, "the new plan is refused, and the one loaded before stays in force:")
            for line in fault.message.splitlines():
                self._log(Level.ERROR, line)
            self._record = replace(self._record, plan_fault=fault.message)
        else:
            self._system, self._known = system, None
            self._said.clear()
            self._record = replace(self._record, plan_loaded=clock.now(), plan_fault=None)
            self._supervisor.employ(workers)
            self._log(Level.INFO, f"the new plan is in force: {system.loaded.file}")
            for remark in cannot_do(system):
                self._log(Level.WARNING, remark)
        self._heartbeat(at_once=True)

    def _new_plan(self) -> System:
        system = self._reload_plan()
        if system.state_folder != self._system.state_folder:
            raise RecoupError("it is the plan of another system, and its state is kept elsewhere; restart the daemon")
        return system

    def _drain(self, number: signal.Signals) -> Exit:
        """End in order: nothing new begins, what is in hand may end within the grace. A second signal ends at once."""
        grace = self._duties.grace
        self._log(Level.INFO, f"{number.name}: draining, at most {show_duration(grace)}; once more ends it at once")
        self._manager.tell("STOPPING=1", "STATUS=draining")
        self._record = replace(self._record, state="draining")
        self._heartbeat(at_once=True)
        self._supervisor.retire()
        code = Exit.OK
        if not self._wait_until_idle(grace.total_seconds()):
            code = Exit.INTERRUPTED
            self._give_up()
        self._record = replace(self._record, state="stopped", next_service=None, next_kind=None, next_at=None)
        self._next = None
        self._heartbeat(at_once=True)
        self._log(Level.INFO, "stopped")
        return code

    def _wait_until_idle(self, seconds: float) -> bool:
        deadline = clock.monotonic() + seconds
        while self._tend_what_is_left():
            left = deadline - clock.monotonic()
            if left <= 0:
                return False
            if any(one != signal.SIGHUP for one in self._signals.wait(min(0.2, left))):
                return False
        return True

    def _give_up(self) -> None:
        """The limit is over, or somebody is in a hurry: what is in hand unwinds, or is killed."""
        child = self._child
        if child is not None:
            self._log(Level.WARNING, f"{_name(child.run)}: given up; what it began is removed")
            child.ask_to_stop()
            if not self._wait_until_idle(_UNWIND_SECONDS) and self._child is not None:
                child.kill()
                self._follow_to_end(child)
        for name in self._supervisor.busy:
            self._log(Level.WARNING, f"{name}: did not drain in time")

    def _follow_to_end(self, child: TaskChild) -> None:
        while child.alive:  # killed: the kernel sees to it
            clock.pause(0.01)
        self._follow(child)

    def _tend_what_is_left(self) -> bool:
        self._supervisor.tick()
        if self._child is not None:
            self._follow(self._child)
        self._heartbeat()
        return self._child is not None or bool(self._supervisor.busy)

    def _say_once(self, level: Level, event: str) -> None:
        if event not in self._said and len(self._said) < 1000:
            self._said.add(event)
            self._log(level, event)


def _name(run: Run) -> str:
    return run.kind if run.service == WHOLE_PLAN else f"{run.service} {run.kind}"
