"""Series of kills in a recovery on a real stack: one engine for every situation, for the orchestrator or its machine.

First nobody kills it: its journal is the list of boundaries, its time the measure of the random instants, its end state
what every other run has to come to. Then production is lost again and again, and the recovery is killed and called
again until it has ended.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recoup.assembly.recover.fence import mark_of
from recoup.kernel import clock
from recoup.kernel.marked import processes_of
from recoup.recovery import progress as written
from recoup.recovery.journal import Line
from tests.acceptance.recover_place import journals, kill
from tests.acceptance.workplace import RECOUP, killed_at
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine

#: How long one call may take.
_LONGEST_SECONDS: Final = 300
#: One run is not called more often before it is left to end.
_MOST_CALLS: Final = 40
_KILLED: Final = -signal.SIGKILL
#: What an engine may do that lost its power, in the words in which Recoup asks people to start it again.
_KEPT_PORT: Final = "the engine kept it from a start that was cut off"
_TABLES: Final = ("clients", "contractors", "orders", "payments", "messages")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where a situation is caused again and again. ``looks`` is the end state, without what depends on when it was."""

    machine: Machine
    folder: Path
    environment: Mapping[str, str]
    state: Path
    log: Path
    command: tuple[str, ...]  #: after ``recoup recover``; the same goes on
    lose: Callable[[], None]
    looks: Callable[[], Mapping[str, object]]
    cut_power: Callable[[subprocess.Popen[bytes]], None] | None = None  #: None: only the orchestrator is killed

    def begin(self, *boundary: str) -> subprocess.Popen[bytes]:
        """Call it. With a boundary, it ends there."""
        program = killed_at(*boundary) if boundary else [RECOUP]
        with open(self.log, "ab") as log:
            return subprocess.Popen(
                self.machine.inside([*program, "recover", *self.command], self.folder),
                env=self.machine.environment_inside(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self, process: subprocess.Popen[bytes], chance: random.Random) -> None:
        """End what is killed in this series, if it is not dead; of an orchestrator, its children too, or not."""
        if self.cut_power is not None:
            self.cut_power(process)
            return
        if process.poll() is None:
            kill(process)
        found = journals(self.state)
        if found and found[-1] and chance.random() < 0.5:
            for number in processes_of(mark_of(found[-1][0].data["run"])):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)

    def carry_on(self, process: subprocess.Popen[bytes], seconds: float = _LONGEST_SECONDS) -> int:
        """Wait for its end. Where it asks for another start of the engine, do that, as people would, and call it again.

        Raise ``TimeoutExpired``.
        """
        code = process.wait(seconds)
        if code and self.cut_power is not None and _KEPT_PORT in self.log.read_text().rsplit(" goes on with ", 1)[-1]:
            print("the engine kept a port that no container has, and was started again", flush=True)
            self.cut_power(process)
            return self.begin().wait(_LONGEST_SECONDS)
        return code

    def end_state(self) -> dict[str, object]:
        """What the newest run has come to; for one that nobody killed and one that was killed it is the same."""
        lines = journals(self.state)[-1]
        done = Counter(str(one.data["step"]) for one in lines if one.event == written.STEP_DONE)
        return {
            "steps": tuple(lines[0].data["steps"]),
            "done": done,
            "outcomes": [one.data["outcome"] for one in lines if one.event == written.RUN_ENDED],
            "survivors": processes_of(mark_of(lines[0].data["run"])),
            **self.looks(),
        }

    def story(self) -> str:
        """For whoever reads that a test failed."""
        lines = [f"{one.number} {one.event} {dict(one.data)}"[:300] for one in journals(self.state)[-1]]
        return "\n".join([*lines, self.log.read_text()[-6000:]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """The run that nobody killed."""

    boundaries: tuple[tuple[str, str, str], ...]  #: event, step, and whether it is killed before or after that line
    seconds: float
    code: int
    end: Mapping[str, object]


def uninterrupted(ground: Ground) -> Whole:
    """Lose production, and let it come back."""
    ground.lose()
    began = clock.monotonic()
    code = ground.begin().wait(_LONGEST_SECONDS)
    seconds = clock.monotonic() - began
    end = ground.end_state()
    assert len(end["outcomes"]) == 1, ground.story()  # type: ignore[arg-type]
    assert end["survivors"] == []
    return Whole(boundaries=_boundaries(journals(ground.state)[-1]), seconds=seconds, code=code, end=end)


def _boundaries(lines: tuple[Line, ...]) -> tuple[tuple[str, str, str], ...]:
    """After every line; and before the line that a step is done, when its effect is there and nobody knows."""
    found: dict[tuple[str, str, str], None] = {}
    for line in lines:
        step = str(line.data.get("step", "-"))
        if line.event == written.STEP_DONE:
            found[line.event, step, "before"] = None
        found[line.event, step, "after"] = None
    return tuple(found)


def kill_at_boundaries(ground: Ground, whole: Whole, chance: random.Random, most: int | None) -> int:
    """Kill one run at every boundary, one after the other, or at so many at ``most``; how many kills that were."""
    ground.lose()
    before = len(journals(ground.state))
    chosen: Sequence[int] = range(len(whole.boundaries))
    if most is not None:
        chosen = sorted(chance.sample(chosen, min(most, len(chosen))))
    for boundary in (whole.boundaries[number] for number in chosen):
        process = ground.begin(*boundary)
        code = process.wait(_LONGEST_SECONDS)
        assert code == _KILLED, f"{boundary}: ended with {code}\n{ground.story()}"
        ground.end(process, chance)
    _require_the_same_end(ground, whole, before)
    return len(chosen)


def kill_at_random_instants(ground: Ground, whole: Whole, chance: random.Random, wanted: int) -> int:
    """Lose production and kill its recoveries at any instant, so many times at least; how many kills that were."""
    kills = 0
    while kills < wanted:
        ground.lose()
        before = len(journals(ground.state))
        for _ in range(_MOST_CALLS):
            if _has_ended(ground, before):
                break
            process = ground.begin()
            try:
                code = ground.carry_on(process, whole.seconds * chance.random() ** 2)
            except subprocess.TimeoutExpired:
                ground.end(process, chance)
                kills += 1
            else:
                assert code == whole.code, ground.story()
        _require_the_same_end(ground, whole, before)
    return kills


def _has_ended(ground: Ground, before: int) -> bool:
    found = journals(ground.state)
    return len(found) > before and any(one.event == written.RUN_ENDED for one in found[-1])


def _require_the_same_end(ground: Ground, whole: Whole, before: int) -> None:
    if not _has_ended(ground, before):
        code = ground.carry_on(ground.begin())
        assert code == whole.code, ground.story()
    try:
        end = ground.end_state()
    except AssertionError as failure:
        raise AssertionError(f"{failure}\n{ground.story()}") from failure
    assert end == whole.end, f"{_differences(end, whole.end)}\n{ground.story()}"
    assert len(journals(ground.state)) == before + 1, "it was one run all the time"


def _differences(end: object, wanted: object, where: str = "") -> str:
    """Where two end states are not the same, a line each."""
    if not (isinstance(end, Mapping) and isinstance(wanted, Mapping)):
        return "" if end == wanted else f"{where}: {end!r}, and of the run that nobody killed: {wanted!r}\n"
    names = sorted({*end, *wanted}, key=str)
    return "".join(_differences(end.get(one), wanted.get(one), f"{where} {one}".strip()) for one in names)


def look_at(stack: Stack) -> dict[str, object]:
    """The stack as its users see it, every row and every key, what runs, and what only a run needs."""
    rows = {
        one: stack.sql(f"select count(*), md5(string_agg(t::text, '|' order by t::text)) from {one} t")
        for one in _TABLES
    }
    client = ("exec", "-T", "-e", "REDISCLI_AUTH=redis-example-4711", "redis", "redis-cli", "--no-auth-warning")
    keys = {one for one in stack.compose(*client, "keys", "*").split() if one != "later"}  # that is the test's own
    names = '{{.Label "com.docker.compose.service"}} {{.Image}}'
    return {
        "answers": stack.answers(),
        "rows": rows,
        "keys": {one: stack.compose(*client, "--no-raw", "dump", one) for one in sorted(keys)},
        "runs": sorted(stack.machine.docker("ps", "--format", names).splitlines()),
        "one-off": stack.machine.docker("ps", "--all", "--quiet", "--filter", "label=recoup.one-off.project"),
    }
