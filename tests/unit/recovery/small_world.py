"""A small, pure world for the executor: a step is a few operations, and a kill can come before and after each of them
and each line of the journal. What a killed run had started may go on by itself for a while, as real children do.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.executor import Agreement, Control, Outcome, begin, carry_out
from recoup.recovery.journal import Line
from recoup.recovery.step import Act, Consent, Done, Phase, Step

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
        self.who = "ops"

    @property
    def lines(self) -> Sequence[Line]:
        return tuple(self._lines)

    def append(self, event: str, **data: Any) -> Line:
        self._power.tick()
        number = len(self._lines) + 1
        line = Line(
            number=number, id=str(number), at=START + timedelta(seconds=number), clock=float(number), boot="b",
            host="h", who=self.who, event=event, data=data, digest=str(number),
        )  # fmt: skip
        self._lines.append(line)
        self._power.tick()
        return line

    def lose(self, lines: int) -> None:
        """The machine is gone: another one goes on from a copy that the last lines had not reached."""
        keep = max(1, len(self._lines) - lines)
        del self._lines[keep:]


def step(name: str, consent: Consent = Consent.NONE, **more: Any) -> Step:
    return Step(id=name, title=name, meaning="", act=Act.RESTORE, phase=Phase.RECOVER, consent=consent, **more)


@dataclass
class World:
    """What the steps change: the operations of each step, in order. ``survivors`` go on after their run was killed."""

    operations: dict[str, int]
    power: Power
    effects: dict[str, int] = field(default_factory=dict)  #: how far each step's work has come
    survivors: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)  #: how often each step will still fail, half done

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
            if self.failures.get(one.id, 0):
                self.failures[one.id] -= 1
                self.survivors.remove(one.id)
                raise EngineError("the network went away")
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


def agree(_step: Step) -> Agreement | None:
    return Agreement(how="yes")


def run_until_end(operations: dict[str, int], kills: Iterator[tuple[int, int]]) -> tuple[World, MemoryLog, Outcome]:
    """Run, killed as ``kills`` says (after so many instants; then survivors do so much), resumed until it ends."""
    power = Power()
    world, log = World(operations=operations, power=power), MemoryLog(power)
    steps = [step(name, Consent.TYPED if at == 1 else Consent.NONE) for at, name in enumerate(operations)]
    control = Control(approve=agree)
    for after, goes_on in itertools.chain(kills, itertools.repeat((None, 0))):
        power.left = after
        try:
            begin(log, run="r", situation="database-corruption", steps=steps, facts={})
            return world, log, carry_out(log, steps, world, control)
        except KilledError:
            world.survive(goes_on)
    raise AssertionError


@dataclass(frozen=True)
class Kill:
    """After so many instants; then what survived does so much more, and so many lines of the journal are lost."""

    after: int
    goes_on: int = 0
    lost: int = 0


def run_in_bad_weather(
    operations: dict[str, int], failures: dict[str, int], attempts: int, kills: Sequence[Kill]
) -> tuple[World, MemoryLog, Outcome]:
    """As ``run_until_end``; steps fail, too, are tried again by themselves, and then by whoever calls again."""
    power = Power()
    world, log = World(operations=operations, power=power, failures=dict(failures)), MemoryLog(power)
    steps = [
        step(name, Consent.TYPED if at == 1 else Consent.NONE, attempts=attempts) for at, name in enumerate(operations)
    ]
    control = Control(approve=agree, pause=lambda _seconds: power.tick())
    coming = list(kills)
    for _ in range(len(kills) + sum(failures.values()) + 1):
        kill = coming.pop(0) if coming else None
        power.left = None if kill is None else kill.after
        try:
            begin(log, run="r", situation="database-corruption", steps=steps, facts={})
            outcome = carry_out(log, steps, world, control)
        except KilledError:
            assert kill is not None
            world.survive(kill.goes_on)
            log.lose(kill.lost)
            continue
        if outcome.finished:
            return world, log, outcome
    raise AssertionError("it does not come to an end")


def carry(
    world: World, log: MemoryLog, names: Sequence[str], *, dangerous: str = "", attempts: int = 1, **wishes: Any
) -> Outcome:
    steps = [step(one, Consent.TYPED if one in dangerous else Consent.NONE, attempts=attempts) for one in names]
    begin(log, run="r", situation="data-loss", steps=steps, facts={})
    return carry_out(log, steps, world, Control(**{"approve": agree, **wishes}))
