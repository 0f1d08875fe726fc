"""A run can be killed at any instant, and the same command ends it as if nothing had happened."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.kernel.errors import EngineError, InterruptedRunError, RefusedError, UncheckedError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery import progress as written
from recoup.recovery.executor import Agreement
from recoup.recovery.progress import read_progress
from recoup.recovery.step import Done, Step
from tests.unit.recovery.small_world import Kill, MemoryLog, Power, World, carry, run_in_bad_weather, run_until_end

OPERATIONS = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(
    lambda sizes: {f"step{number}": size for number, size in enumerate(sizes)}
)
KILLS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=8)


@settings(max_examples=600)
@given(OPERATIONS, KILLS)
def test_a_run_killed_at_any_instants_ends_as_an_uninterrupted_one(
    operations: dict[str, int], kills: list[tuple[int, int]]
) -> None:
    world, log, outcome = run_until_end(operations, iter(kills))
    assert outcome.finished
    assert outcome.verdict is Verdict.OK
    assert world.effects == operations
    assert world.violations == []
    assert world.survivors == []
    found = read_progress(log.lines)
    assert found is not None
    assert found.ended == "ok"
    assert [line.event for line in log.lines].count(written.RUN_ENDED) == 1


WEATHER = st.lists(
    st.builds(Kill, after=st.integers(0, 50), goes_on=st.integers(0, 3), lost=st.integers(0, 4)), max_size=8
)


@settings(max_examples=400)
@given(OPERATIONS, st.lists(st.integers(0, 2), min_size=5, max_size=5), st.integers(1, 3), WEATHER)
def test_killed_failing_and_gone_on_with_from_copies_that_are_behind_nothing_is_done_twice(
    operations: dict[str, int], failing: list[int], attempts: int, kills: list[Kill]
) -> None:
    failures = dict(zip(operations, failing, strict=False))
    world, log, outcome = run_in_bad_weather(operations, failures, attempts, kills)
    assert (outcome.finished, outcome.verdict) == (True, Verdict.OK)
    assert world.effects == operations
    assert world.violations == []
    assert world.survivors == []
    assert [line.event for line in log.lines].count(written.RUN_ENDED) == 1


def test_every_single_kill_of_a_run_of_four_steps_is_survived() -> None:
    operations = {"stop": 1, "restore": 3, "start": 1, "check": 2}
    power_used = run_until_end(operations, iter([]))[0].power.instants
    assert power_used > 30
    for first in range(power_used):
        for second in (0, 3, 9):
            world, _, outcome = run_until_end(operations, iter([(first, 1), (second, 0)]))
            assert outcome.verdict is Verdict.OK
            assert world.effects == operations
            assert world.violations == [], f"killed after {first}, then {second} instants"


@pytest.fixture
def power() -> Power:
    return Power()


def test_a_step_that_fails_ends_the_run_and_the_same_command_tries_it_again(power: Power) -> None:
    class Failing(World):
        broken = True

        def act(self, one: Step) -> Done:
            if one.id == "b" and self.broken:
                raise EngineError("the disk is full", hint="Make room.")
            return super().act(one)

    world, log = Failing(operations={"a": 1, "b": 1, "c": 1}, power=power), MemoryLog(power)
    outcome = carry(world, log, "abc")
    assert (outcome.verdict, outcome.finished, outcome.hint) == (Verdict.FAILED, False, "Make room.")
    assert outcome.stopped_at is not None
    assert outcome.stopped_at.id == "b"
    assert world.effects == {"a": 1}
    world.broken = False
    assert carry(world, log, "abc").verdict is Verdict.OK
    attempts = read_progress(log.lines)
    assert attempts is not None
    assert {name: one.attempts for name, one in attempts.steps.items()} == {"a": 1, "b": 2, "c": 1}


def test_a_look_that_finds_something_wrong_stops_the_run_before_the_next_step(power: Power) -> None:
    class Wrong(World):
        def after(self, one: Step) -> Sequence[Finding]:
            return [
                Finding(check="rows", subject=one.id, verdict=Verdict.FAILED, detail="3 instead of 4", hint="Look.")
            ]

    world = Wrong(operations={"a": 1, "b": 1}, power=power)
    outcome = carry(world, MemoryLog(power), "ab")
    assert (outcome.verdict, outcome.detail) == (Verdict.FAILED, "rows: a: 3 instead of 4")
    assert "b" not in world.effects


def test_what_could_not_be_looked_at_is_remembered_over_a_kill_and_is_never_ok(power: Power) -> None:
    class Blind(World):
        def after(self, one: Step) -> Sequence[Finding]:
            verdict = Verdict.UNKNOWN if one.id == "a" else Verdict.OK
            return [Finding(check="it is done", subject=one.id, verdict=verdict)]

    world, log = Blind(operations={"a": 1, "b": 1}, power=power), MemoryLog(power)
    assert not carry(world, log, "ab", pause_before="b").finished
    outcome = carry(world, log, "ab")  # this call has only seen the good one
    assert (outcome.finished, outcome.verdict) == (True, Verdict.UNKNOWN)


def test_a_step_left_out_on_purpose_is_named_with_its_reason_and_the_run_is_not_ok(power: Power) -> None:
    world, log = World(operations={"a": 1, "b": 1}, power=power), MemoryLog(power)
    outcome = carry(world, log, "ab", skip={"a": "the volume is on its way by post"})
    assert (outcome.finished, outcome.verdict) == (True, Verdict.UNKNOWN)
    found = read_progress(log.lines)
    assert found is not None
    assert (found.steps["a"].standing, found.steps["a"].detail) == ("skipped", "the volume is on its way by post")


def test_nothing_is_done_that_nobody_agreed_to_and_the_same_command_asks_again(power: Power) -> None:
    world, log = World(operations={"a": 1, "b": 1}, power=power), MemoryLog(power)
    with pytest.raises(RefusedError, match="nobody agreed to the step b"):
        carry(world, log, "ab", dangerous="b", approve=lambda _step: None)
    assert world.effects == {"a": 1}
    asked: list[str] = []

    def ask(one: Step) -> Agreement:
        asked.append(one.id)
        return Agreement()

    assert carry(world, log, "ab", dangerous="b", approve=ask).verdict is Verdict.OK
    assert asked == ["b"]
    found = read_progress(log.lines)
    assert found is not None
    assert found.steps["b"].approved_by == "ops"


def test_a_run_whose_steps_would_be_others_now_is_not_continued(power: Power) -> None:
    world, log = World(operations={"a": 1, "b": 1}, power=power), MemoryLog(power)
    carry(world, log, "ab", pause_before="b")
    for others in ("ba", "abc", "a"):
        with pytest.raises(RefusedError, match="would not be the same any more") as refused:
            carry(world, log, others)
        assert refused.value.hint is not None
        assert "--abandon r" in refused.value.hint


def test_a_run_begun_by_a_version_that_orders_otherwise_is_not_continued(
    power: Power, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, log = World(operations={"a": 1, "b": 1}, power=power), MemoryLog(power)
    carry(world, log, "ab", pause_before="b")
    monkeypatch.setattr(written, "ORDER", written.ORDER + 1)
    with pytest.raises(RefusedError, match="orders steps otherwise"):
        carry(world, log, "ab")


def test_what_could_not_be_done_either_way_is_unknown_and_not_failed(power: Power) -> None:
    class Silent(World):
        def act(self, one: Step) -> Done:
            raise UncheckedError("nobody answered")

    assert carry(Silent(operations={"a": 1}, power=power), MemoryLog(power), "a").verdict is Verdict.UNKNOWN


def test_an_interrupted_step_stays_begun_and_is_looked_at_again(power: Power) -> None:
    class Interrupted(World):
        once = True

        def act(self, one: Step) -> Done:
            done = super().act(one)
            if self.once:
                self.once = False
                raise InterruptedRunError("interrupted")
            return done

    world, log = Interrupted(operations={"a": 2}, power=power), MemoryLog(power)
    with pytest.raises(InterruptedRunError):
        carry(world, log, "a")
    assert log.lines[-1].event == written.RUN_INTERRUPTED
    assert carry(world, log, "a").verdict is Verdict.OK
    assert [line.data.get("detail") for line in log.lines if line.event == written.STEP_DONE] == ["it was done already"]


def test_a_line_that_arrives_twice_counts_once(power: Power) -> None:
    world, log = World(operations={"a": 1}, power=power), MemoryLog(power)
    carry(world, log, "a")
    assert read_progress([*log.lines, *log.lines]) == read_progress(log.lines)
