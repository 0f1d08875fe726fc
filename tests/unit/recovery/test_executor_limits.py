"""What ends a step that does not end, who has to agree to one, and when it is tried again."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel import clock
from recoup.kernel.errors import BusyError, EngineError, RecoupError, RefusedError, UsageError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.limits import LimitReached, Watch
from recoup.recovery import progress as written
from recoup.recovery.executor import Agreement, Control, Outcome, begin, carry_out
from recoup.recovery.progress import read_progress
from recoup.recovery.step import Act, Consent, Done, Step
from tests.unit.recovery.small_world import KilledError, MemoryLog, Power, World, agree, carry, step


@pytest.fixture
def power() -> Power:
    return Power()


def events(log: MemoryLog) -> list[str]:
    return [line.event for line in log.lines]


# -- time ----------------------------------------------------------------------------------------------------------


class Hanging(World):
    """The step b waits for something that never comes; what it started would go on."""

    fenced: list[str]

    def act(self, one: Step) -> Done:
        if one.id != "b":
            return super().act(one)
        self.survivors.append("b")
        threading.Event().wait(_LONG)
        raise AssertionError("it was not stopped")

    def fence(self, one: Step) -> None:
        self.fenced = [*getattr(self, "fenced", []), one.id]
        super().fence(one)


#: What a step would take that is not stopped.
_LONG = 300.0


def hang(world: World, log: MemoryLog, *, seconds: float = 0.3, **wishes: object) -> Outcome:
    steps = [step("a"), step("b", seconds=seconds, attempts=3), step("c")]
    begin(log, run="r", situation="data-loss", steps=steps, facts={})
    return carry_out(log, steps, world, Control(**{"approve": agree, **wishes}))  # type: ignore[arg-type]


def test_a_step_whose_time_is_over_is_stopped_and_its_children_are_ended(power: Power) -> None:
    world, log = Hanging(operations={"a": 1, "b": 1, "c": 1}, power=power), MemoryLog(power)
    begun = clock.monotonic()
    outcome = hang(world, log)
    assert clock.monotonic() - begun < _LONG
    assert (outcome.verdict, outcome.finished) == (Verdict.FAILED, False)
    assert "the step b was stopped: it took longer than" in outcome.detail
    assert world.survivors == []
    assert events(log)[-1] == written.STEP_FAILED, "what takes too long is not tried again by itself"
    assert world.effects == {"a": 1}


def test_a_person_may_take_as_long_as_they_take(power: Power) -> None:
    class Slow(World):
        def act(self, one: Step) -> Done:
            clock.pause(0.4)
            return super().act(one)

    world, log = Slow(operations={"a": 1}, power=power), MemoryLog(power)
    asked = replace(step("a", seconds=0.1), act=Act.ASK)
    begin(log, run="r", situation="data-loss", steps=[asked], facts={})
    assert carry_out(log, [asked], world, Control(approve=agree)).finished


def test_a_run_that_somebody_else_has_now_stops_in_mid_step_and_writes_nothing_more(power: Power) -> None:
    world, log = Hanging(operations={"a": 1, "b": 1, "c": 1}, power=power), MemoryLog(power)

    def lost() -> str | None:
        return "bob has taken this run over" if "b" in world.survivors else None

    with pytest.raises(BusyError, match="bob has taken this run over"):
        hang(world, log, seconds=50, lost=lost)
    assert events(log)[-1] == written.STEP_BEGUN


def test_limits_can_be_nested_and_each_ends_its_own_work() -> None:
    class OuterLimit(BaseException):
        pass

    def forever() -> None:
        threading.Event().wait(_LONG)

    said: list[str] = []

    def work() -> None:
        with pytest.raises(LimitReached, match="inner"), inner.interrupting():
            forever()
        said.append("the inner limit ended the inner work only")
        outer._deadline = clock.monotonic()  # now, and not while the inner one had its turn
        try:
            with Watch(deadline=clock.monotonic() + _LONG).interrupting():
                forever()
        finally:
            said.append("clearing up")
            forever()  # which hangs, too

    outer = Watch(deadline=clock.monotonic() + _LONG, time_over="outer")
    inner = Watch(deadline=clock.monotonic() + 0.1, time_over="inner")
    with pytest.raises(OuterLimit), outer.interrupting(raising=OuterLimit, again_seconds=1):
        work()
    assert said == ["the inner limit ended the inner work only", "clearing up"]


# -- again ---------------------------------------------------------------------------------------------------------


class Failing(World):
    """The step b fails so often, for that reason."""

    left: int
    why: RecoupError

    def act(self, one: Step) -> Done:
        if one.id == "b" and self.left:
            self.left -= 1
            raise self.why
        return super().act(one)


def failing(power: Power, times: int, why: RecoupError) -> Failing:
    world = Failing(operations={"a": 1, "b": 1}, power=power)
    world.left, world.why = times, why
    return world


@given(st.integers(0, 5), st.integers(1, 4))
def test_a_step_is_tried_as_often_as_it_may_be_with_growing_pauses(failures: int, attempts: int) -> None:
    power = Power()
    world, log = failing(power, failures, EngineError("nobody answered")), MemoryLog(power)
    pauses: list[float] = []
    outcome = carry(world, log, "ab", attempts=attempts, pause=pauses.append)
    assert outcome.finished == (failures < attempts)
    assert pauses == [2.0, 4.0, 8.0][: min(failures, attempts - 1)]
    found = read_progress(log.lines)
    assert found is not None
    assert found.steps["b"].attempts == min(failures + 1, attempts)
    assert found.steps["b"].standing == ("done" if outcome.finished else "failed")


@pytest.mark.parametrize("why", [RefusedError("it is not the same cluster"), UsageError("no such file")])
def test_what_trying_again_cannot_change_is_not_tried_again(power: Power, why: RecoupError) -> None:
    world = failing(power, 9, why)
    assert carry(world, MemoryLog(power), "ab", attempts=3, pause=lambda _seconds: None).detail == why.message
    assert world.left == 8


def test_a_look_that_is_not_good_at_first_is_tried_again_too(power: Power) -> None:
    class Late(World):
        looks = 0

        def after(self, one: Step) -> Sequence[Finding]:
            self.looks += 1
            verdict = Verdict.OK if self.looks > 1 else Verdict.FAILED
            return [Finding(check="it answers", subject=one.id, verdict=verdict)]

    world, log = Late(operations={"a": 1}, power=power), MemoryLog(power)
    assert carry(world, log, "a", attempts=2, pause=lambda _seconds: None).verdict is Verdict.OK


def test_a_kill_between_two_attempts_goes_on_with_the_next(power: Power) -> None:
    world, log = failing(power, 1, EngineError("nobody answered")), MemoryLog(power)

    def killed(_seconds: float) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        carry(world, log, "ab", attempts=2, pause=killed)
    assert carry(world, log, "ab", attempts=2).verdict is Verdict.OK


# -- people --------------------------------------------------------------------------------------------------------


def test_with_the_rule_of_two_people_who_began_the_run_cannot_agree_to_what_replaces_production(power: Power) -> None:
    world, log = World(operations={"a": 1, "b": 1}, power=power), MemoryLog(power)
    log.who = "alice"
    with pytest.raises(RefusedError, match="alice began this run") as refused:
        carry(world, log, "ab", dangerous="b", two_people=True)
    assert "--as NAME" in str(refused.value.hint)
    assert world.effects == {"a": 1}
    with pytest.raises(RefusedError, match="alice began this run"):
        carry(world, log, "ab", dangerous="b", two_people=True, approve=lambda _step: Agreement(by="alice"))
    assert carry(world, log, "ab", dangerous="b", two_people=True, approve=lambda _step: Agreement(by="bob")).finished
    approved = [line for line in log.lines if line.event == written.APPROVED]
    assert [(line.who, line.data["by"]) for line in approved] == [("alice", "bob")]


def test_a_word_that_was_given_alone_does_not_count_once_the_plan_asks_for_two(power: Power) -> None:
    world, log = World(operations={"a": 1, "b": 1}, power=power), MemoryLog(power)
    steps = [step("a"), step("b", Consent.TYPED)]
    begin(log, run="r", situation="data-loss", steps=steps, facts={})
    log.append(written.APPROVED, step="b", by="ops", how="typed")
    with pytest.raises(RefusedError, match="another person"):
        carry_out(log, steps, world, Control(approve=agree, two_people=True))


def test_a_word_that_was_not_given_is_written_down_too(power: Power) -> None:
    log = MemoryLog(power)
    with pytest.raises(RefusedError):
        carry(World(operations={"a": 1}, power=power), log, "a", dangerous="a", approve=lambda _step: None)
    assert events(log)[-1] == written.DECLINED


# -- children ------------------------------------------------------------------------------------------------------


def test_what_a_killed_step_left_at_work_is_ended_also_when_the_step_is_left_out_now(power: Power) -> None:
    world, log = World(operations={"a": 3, "b": 1}, power=power), MemoryLog(power)
    steps = [step("a"), step("b")]
    power.left = 8
    begin(log, run="r", situation="data-loss", steps=steps, facts={})
    with pytest.raises(KilledError):
        carry_out(log, steps, world, Control(approve=agree))
    assert world.survivors == ["a"]
    outcome = carry(world, log, "ab", skip={"a": "it was done by hand"})
    assert (outcome.finished, outcome.verdict, world.survivors) == (True, Verdict.UNKNOWN, [])
