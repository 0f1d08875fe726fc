"""A recovery that is killed goes on: nothing is done twice, nobody survives it, and its journal tells the truth.

Real orchestrators, real journals, leases and copies; their steps are cheap, and done by children that do not want to
end. With ``RECOUP_SOAK=1`` hundreds of kills instead of some.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.recover.fence import mark_of
from recoup.assembly.recover.runs import local_runs, runs_seen
from recoup.demo.host import wait_until
from recoup.kernel import clock, ids
from recoup.kernel.marked import processes_of
from recoup.recovery import progress as written
from recoup.recovery.attained import attained
from tests.faults.recover_orchestrator import PARTS, Fate, Starter
from tests.integration.recover_world import make_place, open_place

SOAK = bool(os.environ.get("RECOUP_SOAK"))
SEED = 20261123
KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    found = Starter()
    yield found
    found.close()


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    return make_place(tmp_path)


def state(plan: Path, name: str = "state") -> Path:
    return plan.parent / name


def fated(plan: Path, when: str = "never", lines: int = 0, **more: object) -> Fate:
    return Fate(**{"when": when, "lines": lines, "state": state(plan), **more})  # type: ignore[arg-type]


def require_well(plan: Path, machine: str = "state") -> None:
    """The end state is that of an uninterrupted run, and everything that was written down is true."""
    world = plan.parent / "world"
    assert not (world / "violations").exists(), (world / "violations").read_text()
    os.environ["RECOUP_STATE"] = str(state(plan, machine))
    opened, system = open_place(RecoverWish(situation="database-corruption", file=plan))
    # On two machines, one can be lost before its first line was copied: then that run was overtaken by another.
    seen = [one for one in runs_seen(opened, system.plan.system) if one.was_begun][-1]
    assert seen.damage is None
    here = [one for one in local_runs(opened.state_folder) if one.was_begun][-1]
    assert here.lines == seen.lines, "the repository's copy is whole"
    progress = seen.progress
    assert progress is not None
    assert progress.ended == "ok"
    assert {(world / f"{step}.{part}").exists() for step in progress.frozen for part in PARTS} == {True}
    events = [(line.event, line.data.get("step")) for line in seen.lines]
    assert events.count((written.RUN_ENDED, None)) == 1
    assert {events.count((written.STEP_DONE, step)) for step in progress.frozen} == {1}
    assert attained(seen.lines) is not None
    assert processes_of(mark_of(seen.run)) == []


def test_a_recovery_that_nobody_kills_is_well(starter: Starter, plan: Path) -> None:
    assert starter.end_of(plan, fated(plan)) == 0
    require_well(plan)


def test_killed_at_every_line_of_its_journal_it_ends_as_one_that_nobody_killed(starter: Starter, plan: Path) -> None:
    # Each call adds two lines for itself: killed right after them, after the third (a step is begun), before the fourth
    # (its effect is there and nobody knows) and after it, for every step in turn.
    kills = 0
    for number in range(400):
        when, lines = (("before", 2), ("after", 3), ("before", 3), ("after", 4))[number % 4]
        code = starter.end_of(plan, fated(plan, when, lines))
        if code != KILLED:
            assert code == 0
            break
        kills += 1
        if has_ended(plan):
            break
    assert kills > 40
    require_well(plan)


@pytest.mark.parametrize("machines", [1, 2])
def test_killed_at_random_instants_on_one_machine_or_two_in_turn_it_ends_well(
    starter: Starter, tmp_path: Path, machines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.Random().randrange(1 << 32) if SOAK else SEED + machines
    chance, kills, number = random.Random(seed), 0, 0
    while kills < (150 if SOAK else 5):  # the quicker the machine, the fewer kills until one has ended
        number += 1
        assert number <= 50, f"{kills} kills in 50 recoveries"
        (tmp_path / str(number)).mkdir()
        monkeypatch.setenv("RECOUP_STATE", str(tmp_path / str(number) / "state"))
        plan = make_place(tmp_path / str(number))
        killed, last = kill_at_random(starter, plan, machines, chance)
        kills += killed
        require_well(plan, last)
    print(f"\nkilled {kills} times in {number} recoveries on {machines} machines, seed {seed}")


def kill_at_random(starter: Starter, plan: Path, machines: int, chance: random.Random) -> tuple[int, str]:
    """Kill it until it has ended; how often, and on which machine it ended."""
    kills, last = 0, ""
    while True:
        before, last = last, f"state{chance.randrange(machines)}" if machines > 1 else "state"
        if before not in ("", last):
            let_runs_be_sorted(plan, before)
        process = starter.start(plan, fated(plan, state=state(plan, last), take_over=machines > 1))
        process.join(chance.uniform(0.0, 0.5 if kills < 40 else 60))
        if process.exitcode is not None:
            assert process.exitcode == 0, (plan.parent / "said").read_text()
            return kills, last
        process.kill()
        kills += 1
        if has_ended(plan):
            return kills, last
        if chance.random() < 0.3:  # with everything on that machine, as when its power goes
            power_cut(plan)


def let_runs_be_sorted(plan: Path, machine: str) -> None:
    """Wait until another run is a newer one than that of ``machine``: runs are sorted by the second of their beginning.

    Only where nothing of it was copied: another machine goes on with a run that it finds, and begins one otherwise.
    """
    known = [one.run for path in state(plan, machine).glob("*") for one in local_runs(path) if one.was_begun]
    newest = max(known, default="")
    if newest and not list((plan.parent / "repository").rglob(newest)):
        assert wait_until(lambda: ids.stamp(clock.now()) > newest[:15], limit_seconds=120)


def has_ended(plan: Path) -> bool:
    """Whether the last line is there already: then the next call would begin another run."""
    seen = [one for path in plan.parent.glob("state*/*") for one in local_runs(path) if one.progress is not None]
    newest = max((one.run for one in seen), default="")
    return any(one.progress is not None and one.progress.ended is not None for one in seen if one.run == newest)


def power_cut(plan: Path) -> None:
    for folder in plan.parent.glob("state*/*/runs/*"):
        for number in processes_of(mark_of(folder.name)):
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_while_it_goes_on_changes_nothing(starter: Starter, plan: Path, hours: float) -> None:
    assert starter.end_of(plan, fated(plan, "after", 9)) == KILLED
    assert starter.end_of(plan, fated(plan, "after", 8, clock_hours=hours)) == KILLED
    assert starter.end_of(plan, fated(plan)) == 0
    require_well(plan)


@pytest.mark.parametrize("lines", [3, 8, 14])
def test_when_the_disk_is_full_nothing_is_done_that_is_not_written_down_and_the_same_command_goes_on(
    starter: Starter, plan: Path, lines: int
) -> None:
    assert starter.end_of(plan, fated(plan, "before", lines, full=True)) == 1
    assert "cannot be written" in (plan.parent / "said").read_text()
    assert starter.end_of(plan, fated(plan)) == 0
    require_well(plan)


@pytest.mark.parametrize("other", ["state", "another-state"])
def test_of_two_orchestrators_one_is_told_that_another_is_at_it(starter: Starter, plan: Path, other: str) -> None:
    world = plan.parent / "world"
    for _ in range(10 if SOAK else 1):
        (world / "hold").touch()
        both = [starter.start(plan, fated(plan)), starter.start(plan, fated(plan, state=state(plan, other)))]
        assert wait_until(lambda: 6 in [one.exitcode for one in both], limit_seconds=120)  # noqa: B023
        (world / "hold").unlink()
        for one in both:
            one.join(120)
        assert sorted(one.exitcode or 0 for one in both) == [0, 6]
        for path in world.iterdir():
            path.rmdir() if path.is_dir() else path.unlink()


def test_who_is_taken_over_from_stops_and_its_children_are_ended(starter: Starter, plan: Path) -> None:
    world = plan.parent / "world"
    (world / "hold").touch()
    first = starter.start(plan, fated(plan))
    assert wait_until(lambda: (world / "lock-hold").exists(), limit_seconds=120)
    second = starter.start(plan, fated(plan, state=state(plan, "state-elsewhere"), take_over=True))
    first.join(120)
    assert first.exitcode == 6
    assert second.exitcode is None
    (world / "hold").unlink()
    second.join(120)
    assert second.exitcode == 0
    require_well(plan, "state-elsewhere")
