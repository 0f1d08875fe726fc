"""A run can be killed at any instant, and the same command ends it as if nothing had happened.

The world here is small and pure: a step is a few operations, a kill can come before and after each of them and each
line of the journal, and what a killed run had started may go on by itself for a while, as real children do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.kernel.errors import EngineError, InterruptedRunError, RefusedError, UncheckedError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery import progress as written
from recoup.recovery.executor import Control, Outcome, begin, carry_out
from recoup.recovery.journal import Line
from recoup.recovery.progress import read_progress
from recoup.recovery.step import Act, Done, Phase, Step

START = datetime(2026, 11, 23, 3, tzinfo=UTC)


class KilledError(BaseException):
    """The power went."""


@dataclass
class Power:
    """Goes after so many instants. None: it stays."""

    left: int | None = None
    instants: int = 0

    def tick(self) -> None:
        self.instants += 1
        if self.left is not None:
            if self.left == 0:
                self.left = None
                raise KilledError
            self.left -= 1


class MemoryLog:
    """A journal without a disk. A line is there or not, as the real one's."""

    def __init__(self, power: Power) -> None:
        self._lines: list[Line] = []
        self._power = power

    @property
    def lines(self) -> Sequence[Line]:
        return tuple(self._lines)

    def append(self, event: str, **data: Any) -> Line:
        self._power.tick()
        number = len(self._lines) + 1
        line = Line(
            number=number, id=str(number), at=START + timedelta(seconds=number), clock=float(number), boot="b",
            host="h", who="ops", event=event, data=data, digest=str(number),
        )  # fmt: skip
        self._lines.append(line)
        self._power.tick()
        return line


def step(name: str) -> Step:
    return Step(id=name, title=name, meaning="", act=Act.RESTORE, phase=Phase.RECOVER)


@dataclass
class World:
    """What the steps change: the operations of each step, in order. ``survivors`` go on after their run was killed."""

    operations: dict[str, int]
    power: Power
    effects: dict[str, int] = field(default_factory=dict)  #: how far each step's work has come
    survivors: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)

    def fence(self, one: Step) -> None:
        self.power.tick()
        self.survivors = [name for name in self.survivors if name != one.id]
        self.power.tick()

    def done(self, one: Step) -> bool:
        self.power.tick()
        return self.effects.get(one.id, 0) == self.operations[one.id]

    def act(self, one: Step) -> Done:
        if one.id in self.survivors:
            self.violations.append(f"two at work on {one.id}")
        for earlier in self.operations:
            if earlier == one.id:
                break
            if self.effects.get(earlier, 0) != self.operations[earlier]:
                self.violations.append(f"{one.id} before {earlier} was done")
        self.survivors.append(one.id)  # what it starts outlives it when it is killed
        for at in range(self.operations[one.id]):
            if self.effects.get(one.id, 0) <= at:
                self.power.tick()
                self._effect(one.id, at)
                self.power.tick()
        self.survivors.remove(one.id)
        return Done(detail="done")

    def _effect(self, name: str, at: int) -> None:
        if self.effects.get(name, 0) > at:
            self.violations.append(f"operation {at} of {name} was done twice")
        self.effects[name] = at + 1

    def survive(self, steps: int) -> None:
        """The children that a kill left go on for a while."""
        for name in self.survivors:
            reached = min(self.effects.get(name, 0) + steps, self.operations[name])
            self.effects[name] = reached

    def after(self, one: Step) -> Sequence[Finding]:
        self.power.tick()
        good = self.effects.get(one.id, 0) == self.operations[one.id]
        return [Finding(check="it is done", subject=one.id, verdict=Verdict.OK if good else Verdict.FAILED)]


def agree(_step: Step) -> bool:
    return True


def run_until_end(operations: dict[str, int], kills: Iterator[tuple[int, int]]) -> tuple[World, MemoryLog, Outcome]:
    """Run, killed as ``kills`` says (after so many instants; then survivors do so much), resumed until it ends."""
    power = Power()
    world, log = World(operations=operations, power=power), MemoryLog(power)
    steps = [step(name) for name in operations]
    control = Control(approve=agree, needs_approval=frozenset(list(operations)[1:2]))
    for after, goes_on in itertools.chain(kills, itertools.repeat((None, 0))):
        power.left = after
        try:
            begin(log, run="r", situation="database-corruption", steps=steps, facts={})
            return world, log, carry_out(log, steps, world, control)
        except KilledError:
            world.survive(goes_on)
    raise AssertionError


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


def carry(world: World, log: MemoryLog, names: Sequence[str], **wishes: Any) -> Outcome:
    steps = [step(name) for name in names]
    begin(log, run="r", situation="data-loss", steps=steps, facts={})
    return carry_out(log, steps, world, Control(**{"approve": agree, **wishes}))


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
    dangerous = frozenset({"b"})
    with pytest.raises(RefusedError, match="nobody agreed to the step b"):
        carry(world, log, "ab", needs_approval=dangerous, approve=lambda _step: False)
    assert world.effects == {"a": 1}
    asked: list[str] = []

    def ask(one: Step) -> bool:
        asked.append(one.id)
        return True

    assert carry(world, log, "ab", needs_approval=dangerous, approve=ask).verdict is Verdict.OK
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
    assert carry(world, log, "a").verdict is Verdict.OK
    assert [line.data.get("detail") for line in log.lines if line.event == written.STEP_DONE] == ["it was done already"]


def test_a_line_that_arrives_twice_counts_once(power: Power) -> None:
    world, log = World(operations={"a": 1}, power=power), MemoryLog(power)
    carry(world, log, "a")
    assert read_progress([*log.lines, *log.lines]) == read_progress(log.lines)
