"""People in a drill: what chance chooses, who may not help, and that a plan's drills are scheduled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.assembly.drill.people import channels_of, choose_by_chance, participants, require_roles, who_does_it
from recoup.assembly.protect.agenda import DRILL, upkeep_scheduled
from recoup.assembly.protect.task_child import arguments_of
from recoup.assembly.system import System
from recoup.backup.due import Run
from recoup.kernel.errors import UsageError
from recoup.plan.load import load
from recoup.recovery.runbook import REHEARSED
from recoup.recovery.windows import ServiceWindows, Window

_NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_PLAN = """\
recoup: 1
system: Shop
services: {postgres: {engine: postgres, url: postgresql://shop@127.0.0.1/shop}}
repositories: {local: {path: backups}}
key: {env: KEY}
drill: {schedule: first monday 04:00, secrets: {STRIPE: "${STRIPE_TEST}"}}
team:
  lead: {name: Anna, deputy: second}
  second: {name: Ben}
channels: {ops: ["mailto://ops@example.org"], all: ["mailto://all@example.org"]}
communication: {critical: {notify: [ops]}, updates: {to: [all]}}
"""


@pytest.fixture
def system(tmp_path: Path) -> System:
    (tmp_path / "recoup.yaml").write_text(_PLAN)
    return System(load(tmp_path / "recoup.yaml"))


def _windows(service: str, engine: str, *spans: tuple[int, int]) -> ServiceWindows:
    hours = [(_NOW - timedelta(hours=begin), _NOW - timedelta(hours=end)) for begin, end in spans]
    windows = tuple(Window(begin=begin, end=end, copies=()) for begin, end in hours)
    return ServiceWindows(service=service, engine=engine, windows=windows, points=())


@given(seed=st.integers(min_value=0, max_value=1 << 30))
def test_a_surprise_can_be_repeated_and_every_database_reaches_its_instant(seed: int) -> None:
    windows = [
        _windows("postgres", "postgres", (30, 20), (10, 1)),
        _windows("redis", "redis", (25, 5)),
        _windows("configuration", "files"),
    ]
    one, again = (choose_by_chance(seed, ["data-loss"], windows, ["lead", "second"], _NOW) for _ in range(2))
    assert one == again
    assert one.situation == "data-loss"
    assert one.absent in ("lead", "second")
    assert one.instant is not None
    ago = (_NOW - one.instant) / timedelta(hours=1)
    assert 20 <= ago <= 25 or 5 <= ago <= 10


def test_without_a_log_of_every_database_the_newest_is_rehearsed() -> None:
    windows = [_windows("postgres", "postgres", (10, 1)), _windows("redis", "redis")]
    assert choose_by_chance(1, [], windows, [], _NOW).instant is None
    assert choose_by_chance(1, ["security-breach"], windows, [], _NOW).situation in REHEARSED


def test_a_deputy_does_it_and_when_nobody_is_left_nobody_is_asked(system: System) -> None:
    team = system.plan.team
    assert who_does_it(team, ()) == "Anna (lead)"
    assert who_does_it(team, ("lead",)) == "Ben (second, for lead)"
    assert who_does_it(team, ("lead", "second")) is None
    parts = {one.role: one.part for one in participants(team, ("lead",), asked=True)}
    assert parts["lead"] == "absent; second takes over"
    with pytest.raises(UsageError, match="has no role 'cook'"):
        require_roles(system.plan, ("cook",))


def test_those_who_would_hear_of_a_disaster_hear_of_the_drill(system: System) -> None:
    assert channels_of(system.plan) == ("ops", "all")


def test_a_plans_drill_is_scheduled_as_a_command_of_its_own(system: System) -> None:
    assert str(upkeep_scheduled(system)[DRILL]) == "first monday 04:00"
    run = Run(service="", kind=DRILL, at=_NOW, slot=None, reason="scheduled")
    assert arguments_of(system, run)[:1] == ["drill"]
