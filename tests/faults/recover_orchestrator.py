"""One orchestrator of a recovery in a process of its own, to be killed: its steps are done by real, stubborn children.

A child does the three parts of its step, each once, and starts another one that leaves its family and would sleep for
long; those of one step ignore SIGTERM as well. Whatever should not happen is written into ``violations``.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from recoup.assembly.recover.context import RecoverWish, Recovery
from recoup.assembly.recover.run import Parts, RecoverControl, run_recovery
from recoup.assembly.voice import Voice
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import Command, run
from recoup.recovery.executor import Agreement
from recoup.recovery.journal import Journal, Line
from recoup.recovery.step import Done, Step
from tests.integration.recover_world import FACTS, open_place

PARTS = (1, 2, 3)
_CHILD = """
[ "$2" = swap-postgres ] && trap '' TERM HUP
exec 9>"$1/lock-$2"
flock -n 9 || { echo "two at work on $2" >>"$1/violations"; exit 1; }
setsid sleep 600 9>&- >/dev/null 2>&1 </dev/null &
for part in 1 2 3; do
  [ -e "$1/$2.$part" ] && continue
  while [ -e "$1/hold" ]; do sleep 0.02; done
  sleep 0.02
  mkdir "$1/$2.$part" || echo "part $part of $2 was done twice" >>"$1/violations"
done
kill -9 $!
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What happens to an orchestrator. ``lines``: so many lines of the journal after its beginning it is killed."""

    when: Literal["before", "after", "never"] = "never"
    lines: int = 0
    full: bool = False  #: instead of being killed, the disk is full from there on
    clock_hours: float = 0.0
    state: Path = Path()
    take_over: bool = False


@dataclass
class ChildActor:
    """Does a step by a child; complains when an earlier step is not done."""

    recovery: Recovery
    world: Path

    def fence(self, step: Step) -> None:
        """The processes are ended already."""

    def done(self, step: Step) -> bool:
        """Whether all parts are there."""
        return all((self.world / f"{step.id}.{part}").exists() for part in PARTS)

    def act(self, step: Step) -> Done:
        """Let a child do what is left."""
        run(Command(argv=["sh", "-c", _CHILD, "sh", str(self.world), step.id], timeout_seconds=400))
        return Done(detail="done")

    def after(self, step: Step) -> Sequence[Finding]:
        """Look."""
        verdict = Verdict.OK if self.done(step) else Verdict.FAILED
        return [Finding(check="it is done", subject=step.id, verdict=verdict)]


def orchestrate(plan: Path, fate: Fate) -> int:
    """Carry the recovery out, or as much of it as fate allows; the exit code."""
    os.environ["RECOUP_STATE"] = str(fate.state)
    _set_the_clock(fate.clock_hours)
    _meet(fate)
    try:
        control = RecoverControl(agree=lambda _step: Agreement(how="typed"), who="alice", take_over=fate.take_over)
        parts = Parts(
            open=open_place,
            facts=lambda _opened, _system, _wish: FACTS,
            actor=lambda recovery: ChildActor(recovery, plan.parent / "world"),
        )
        voice = Voice(say=lambda _text: None, on_progress=lambda _progress: None)
        done = run_recovery(RecoverWish(situation="database-corruption", file=plan), voice, control, parts)
        return 0 if done.outcome.finished and done.outcome.verdict is Verdict.OK else 1
    except RecoupError as failure:
        (plan.parent / "said").write_text(failure.message)
        return int(failure.exit_code)


def _set_the_clock(hours: float) -> None:
    real = clock.now
    clock.now = lambda: real() + timedelta(hours=hours)  # type: ignore[assignment]


def _meet(fate: Fate) -> None:
    """Let the journal be where fate strikes."""
    append, count = Journal.append, 0

    def appending(self: Journal, event: str, **data: Any) -> Line:
        nonlocal count
        if count == fate.lines and fate.when == "before":
            _strike(fate, self)
        count += 1
        line = append(self, event, **data)
        if count == fate.lines and fate.when == "after":
            _strike(fate, self)
        return line

    Journal.append = appending  # type: ignore[method-assign]


def _strike(fate: Fate, journal: Journal) -> None:
    if not fate.full:
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    size = journal.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20))


class Orchestrator:
    """One that was started. ``exitcode`` is None while it runs, and negative for the signal that killed it."""

    def __init__(self, number: int, said: Path) -> None:
        self._number, self._said = number, said
        try:
            self._handle = os.pidfd_open(number)
        except ProcessLookupError:
            self._handle = None

    def join(self, seconds: float) -> None:
        """Wait for its end, at most so long."""
        if self._handle is not None and select.select([self._handle], [], [], seconds)[0]:
            os.close(self._handle)
            self._handle = None

    @property
    def exitcode(self) -> int | None:
        """How it ended."""
        self.join(0)
        if self._handle is not None:
            return None
        return int(self._said.read_text()) if self._said.exists() else -signal.SIGKILL

    def kill(self) -> None:
        """Kill it, if it is still there."""
        if self._handle is not None:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            self.join(120)


class Starter:
    """Starts orchestrators. They are forked from a process that has everything loaded: that is what costs time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._count = 0

    def start(self, plan: Path, fate: Fate) -> Orchestrator:
        """One that runs from now on."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._count += 1
        code = plan.parent / f"code-{self._count}"
        wanted = {**asdict(fate), "state": str(fate.state)}
        self._process.stdin.write(json.dumps({"plan": str(plan), "code": str(code), "fate": wanted}) + "\n")
        self._process.stdin.flush()
        return Orchestrator(int(self._process.stdout.readline()), code)

    def end_of(self, plan: Path, fate: Fate) -> int:
        """Run one to its end; its exit code, negative for the signal that killed it."""
        one = self.start(plan, fate)
        one.join(120)
        if one.exitcode is None:
            one.kill()
            raise AssertionError("it does not end")
        return one.exitcode

    def close(self) -> None:
        """End it; what it started goes on."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Fork one orchestrator for each line on stdin; its process id is the answer."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    for line in sys.stdin:
        wanted = json.loads(line)
        number = os.fork()
        if number == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            fate = Fate(**{**wanted["fate"], "state": Path(wanted["fate"]["state"])})
            code = orchestrate(Path(wanted["plan"]), fate)
            Path(wanted["code"]).write_text(str(code))
            os._exit(code)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
