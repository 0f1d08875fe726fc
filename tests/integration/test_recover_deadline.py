"""A step whose time is over leaves nothing at work, also not what does not want to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from recoup.assembly.recover.fence import TO_STAY, FencedActor, mark_of
from recoup.demo.host import wait_until
from recoup.kernel import clock, ids
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.marked import end_processes, marking, processes_of
from recoup.kernel.process import Command, open_child, run
from recoup.recovery.executor import Agreement, Control, begin, carry_out
from recoup.recovery.journal import Journal
from recoup.recovery.step import Act, Done, Phase, Step

#: A child that ignores being asked to end, and one of its own that has left its family and ignores it, too.
_STUBBORN = """
trap '' TERM HUP
setsid sh -c "trap '' TERM HUP; echo there; exec sleep 600" &
sleep 600
"""


class Stubborn:
    """Its step never ends."""

    def fence(self, step: Step) -> None:
        """Nothing but processes."""

    def done(self, step: Step) -> bool:
        """Never."""
        return False

    def act(self, step: Step) -> Done:
        """Wait for a child that does not end."""
        run(Command(argv=["sh", "-c", _STUBBORN]))
        return Done()

    def after(self, step: Step) -> Sequence[Finding]:
        """Nothing."""
        return ()


@pytest.fixture
def run_id() -> Iterator[str]:
    found = ids.new_id(clock.now())
    yield found
    end_processes(mark_of(found))


def test_a_child_that_ignores_being_asked_is_killed_with_all_that_it_started(tmp_path: Path, run_id: str) -> None:
    step = Step(id="slow", title="slow", meaning="", act=Act.RESTORE, phase=Phase.RECOVER, seconds=0.5, attempts=3)
    with (
        Journal(tmp_path / "journal", who="alice", host="h", boot="b") as journal,
        marking(mark_of(run_id)),
        open_child(Command(argv=["sleep", "600"])) as helper,
    ):
        begin(journal, run=run_id, situation="data-loss", steps=[step], facts={})
        begun = clock.monotonic()
        outcome = carry_out(
            journal, [step], FencedActor(Stubborn(), run_id), Control(approve=lambda _step: Agreement())
        )
        assert clock.monotonic() - begun < 600, "nobody waited for the end of its children"
        assert outcome.verdict is Verdict.FAILED
        assert "was stopped: it took longer than" in outcome.detail
        assert processes_of(mark_of(run_id)) == [helper.pid], "what this process itself keeps at hand goes on"
        assert [line.data["attempt"] for line in journal.lines if line.event == "step-begun"] == [1]


def test_only_what_carries_the_mark_of_this_run_is_ended(run_id: str) -> None:
    other = ids.new_id(clock.now())
    with marking(mark_of(other)), open_child(Command(argv=["sleep", "600"])) as stranger:
        with marking(mark_of(run_id)):
            orphan = run(Command(argv=["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"])).stdout
        assert wait_until(lambda: processes_of(mark_of(run_id)) == [int(orphan)], limit_seconds=120)
        assert end_processes(mark_of(run_id), strangers_only=True) == 1
        assert processes_of(mark_of(run_id)) == []
        assert stranger.alive()


def test_what_is_started_to_stay_is_not_ended_with_the_run(run_id: str) -> None:
    start = ["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"]
    with marking(mark_of(run_id)):
        engine = int(run(Command(argv=start, environment=TO_STAY)).stdout)
    try:
        assert processes_of(mark_of(run_id)) == []
        assert end_processes(mark_of(run_id)) == 0
        os.kill(engine, 0)
    finally:
        os.kill(engine, signal.SIGKILL)
