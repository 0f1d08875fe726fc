"""Which conditions somebody is told of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recoup.kernel.finding import Verdict
from recoup.objectives.alarms import Alarm, Delivery, Facts, RepositoryFacts, Run, ServiceFacts, alarms
from recoup.objectives.freshness import CoverageFacts, Latest, Renewal, best
from recoup.objectives.objective import Objective
from recoup.objectives.standing import Point, Proof, Stream, standing

_NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
_HOUR, _MINUTE = timedelta(hours=1), timedelta(minutes=1)
_GIB = 1 << 30


def _service(
    *ages: float,
    runs: tuple[Run, ...] = (),
    streams: tuple[Stream, ...] = (),
    proofs: dict[str, Proof] | None = None,
    silent: bool = False,
    rpo: float = 24,
) -> ServiceFacts:
    points = tuple(
        Point(id=f"p{age:g}", kind="base", at=_NOW - age * _HOUR, usable=_NOW - age * _HOUR + _MINUTE) for age in ages
    )
    objective = Objective(rpo=rpo * _HOUR)
    stands = standing(objective, points, proofs or {}, streams, now=_NOW, silent=silent)
    return ServiceFacts(
        name="postgres", engine="postgres", tier=None, objective=objective, points=points, proofs=proofs or {},
        streams=streams, runs=runs, standing=stands,
    )  # fmt: skip


def _alarms(*services: ServiceFacts, **more: Any) -> list[Alarm]:
    facts = Facts(now=_NOW, services=services, repositories=(), lag_limit=5 * _MINUTE, daemon="running")
    return list(alarms(replace(facts, **more)))


def _one(found: list[Alarm]) -> tuple[str, str, str]:
    (alarm,) = found
    assert alarm.hint.endswith((".", "?"))
    return alarm.key, alarm.severity, alarm.verdict.value


def test_a_young_copy_is_no_alarm() -> None:
    assert _alarms(_service(3, runs=(Run(kind="base", due=_NOW + 20 * _HOUR, outcome="ok"),))) == []


def test_an_old_copy_breaks_the_rpo_at_once_unless_a_run_that_renews_it_is_on() -> None:
    (alarm,) = _alarms(_service(25))
    assert _one([alarm]) == ("rpo:postgres", "critical", "failed")
    assert (alarm.since, alarm.hold) == (_NOW - _HOUR, timedelta(0))
    (curing,) = _alarms(_service(25, runs=(Run(kind="base", outcome="running", started=_NOW - _MINUTE),)))
    assert curing.hold == 30 * _MINUTE


def test_the_rpo_is_at_risk_only_when_no_run_is_in_sight_that_would_renew_it_in_time() -> None:
    assert _one(_alarms(_service(20))) == ("rpo:postgres", "warning", "failed")
    assert _alarms(_service(20, runs=(Run(kind="base", due=_NOW + 4 * _HOUR, outcome="ok"),))) == []
    late = Run(kind="base", due=_NOW + 9 * _HOUR, outcome="ok")
    assert [one.key for one in _alarms(_service(20, runs=(late,)))] == ["rpo:postgres"]
    failing = Run(kind="base", due=_NOW, outcome="failed", failures=2, error="no room")
    assert {one.key for one in _alarms(_service(20, runs=(failing,)))} == {"rpo:postgres", "run:postgres:base"}


def test_what_is_not_known_is_an_alarm_that_says_so() -> None:
    assert _one(_alarms(_service(silent=True))) == ("rpo:postgres", "warning", "unknown")


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (Run(kind="base", outcome="failed", failures=1, error="no room"), ("run:postgres:base", "critical", "failed")),
        (Run(kind="base", outcome="unknown", failures=1), ("run:postgres:base", "critical", "unknown")),
        (Run(kind="base", outcome="ok", due=_NOW - 16 * _MINUTE), ("run:postgres:base", "critical", "failed")),
        (Run(kind="base", outcome="ok", due=_NOW - 14 * _MINUTE), None),
        (Run(kind="base", outcome="running", due=_NOW - 3 * _HOUR), None),
        (Run(kind="base", outcome="interrupted", due=_NOW + _HOUR), None),
    ],
)
def test_a_run_that_failed_or_is_overdue(run: Run, expected: tuple[str, str, str] | None) -> None:
    found = _alarms(_service(3, runs=(run,)))
    assert (_one(found) if found else None) == expected


def _stream(**more: Any) -> Stream:
    return Stream(**{"kind": "wal", "state": "running", "as_of": _NOW - timedelta(seconds=3), **more})


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, None),
        ({"as_of": _NOW - 6 * _MINUTE}, ("stream:postgres:wal", "warning", "failed")),
        ({"as_of": _NOW - 21 * _MINUTE}, ("stream:postgres:wal", "critical", "failed")),
        ({"as_of": None}, ("stream:postgres:wal", "critical", "unknown")),
        ({"state": "waiting", "error": "refused"}, ("stream:postgres:wal", "critical", "failed")),
        ({"gap": "the slot was lost"}, ("gap:postgres:wal", "critical", "failed")),
        ({"slot": "lost"}, ("slot:postgres", "critical", "failed")),
        ({"slot_bytes": 6 * _GIB, "slot_limit_bytes": 10 * _GIB}, ("slot:postgres", "warning", "failed")),
        ({"slot_bytes": 9 * _GIB, "slot_limit_bytes": 10 * _GIB}, ("slot:postgres", "critical", "failed")),
        ({"slot_bytes": 1 * _GIB, "slot_limit_bytes": 10 * _GIB}, None),
    ],
)  # fmt: skip
def test_a_stream_that_is_behind_down_broken_or_holds_too_much(
    more: dict[str, Any], expected: tuple[str, str, str] | None
) -> None:
    found = _alarms(_service(3, streams=(_stream(**more),)))
    assert (_one(found) if found else None) == expected


def test_a_copy_that_failed_its_verification_is_an_alarm_while_it_is_the_newest() -> None:
    bad = {"p3": Proof(grade=None, verdict=Verdict.FAILED, when=_NOW)}
    assert _one(_alarms(_service(3, 5, proofs=bad))) == ("unproven:postgres:base", "critical", "failed")
    assert _alarms(_service(1, 3, proofs=bad)) == []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"error": "refused"}, ("repository:far", "critical", "unknown")),
        ({"error": "no folder", "missing": True}, ("repository:far", "critical", "failed")),
        ({"error": "no folder", "missing": True, "expected": False}, ("repository:far", "critical", "unknown")),
        ({"problems": ("x: its MAC does not match",)}, ("manifests:far", "critical", "failed")),
        ({"disk_bytes": 100 * _GIB, "free_bytes": 9 * _GIB}, ("disk:far", "warning", "failed")),
        ({"disk_bytes": 100 * _GIB, "free_bytes": 4 * _GIB}, ("disk:far", "critical", "failed")),
        ({"disk_bytes": 100 * _GIB, "free_bytes": 50 * _GIB, "days_until_full": 5}, ("disk:far", "warning", "failed")),
        ({"disk_bytes": 100 * _GIB, "free_bytes": 50 * _GIB, "days_until_full": 50.0}, None),
    ],
)  # fmt: skip
def test_a_repository_that_is_away_changed_or_full(more: dict[str, Any], expected: tuple[str, str, str] | None) -> None:
    found = _alarms(repositories=(RepositoryFacts(name="far", address="s3://far", **more),))
    assert (_one(found) if found else None) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"key_error": "the key is missing"}, ("key", "critical", "failed")),
        ({"daemon": "silent"}, ("daemon", "critical", "failed")),
        ({"daemon": "stopped"}, None),  # nothing runs without end: cron may do the rest
        ({"daemon": "never"}, None),
        ({"plan_fault": "line 3"}, ("plan", "warning", "failed")),
        ({"skews": {"far": timedelta(seconds=61)}}, ("clock:far", "warning", "failed")),
        ({"skews": {"far": timedelta(seconds=-59)}}, None),
        ({"undelivered": (Delivery(name="ping backup", error="404", since=_NOW),)},
         ("undelivered:ping backup", "warning", "failed")),
    ],
)  # fmt: skip
def test_the_machine_itself(more: dict[str, Any], expected: tuple[str, str, str] | None) -> None:
    found = _alarms(**more)
    assert (_one(found) if found else None) == expected


def test_streams_without_a_daemon_are_one_alarm_and_not_one_for_each() -> None:
    for daemon in ("stopped", "never"):
        found = _alarms(_service(3, streams=(_stream(state="unknown", as_of=_NOW),)), daemon=daemon)
        assert [one.key for one in found] == ["daemon"]


def test_the_worst_comes_first() -> None:
    found = _alarms(_service(25), repositories=(RepositoryFacts(name="far", address="", error="refused"),),
                    skews={"far": _HOUR})  # fmt: skip
    assert [one.key for one in found] == ["rpo:postgres", "repository:far", "clock:far"]


def test_a_proof_that_the_plan_wants_renewed_and_is_too_old_is_a_warning_since_it_was_due() -> None:
    fresh = Renewal(kind="base", grade="boots", last=_NOW - _HOUR, due=_NOW + _MINUTE)
    assert _alarms(replace(_service(3), renewals=(fresh,))) == []
    late = replace(fresh, last=_NOW - 300 * _HOUR, due=_NOW - _HOUR)
    (alarm,) = _alarms(replace(_service(3), renewals=(late,)))
    assert _one([alarm]) == ("proof:postgres:base:boots", "warning", "unknown")
    assert (alarm.since, "12 d 12 h ago" in alarm.what) == (_NOW - _HOUR, True)
    (never,) = _alarms(replace(_service(3), renewals=(replace(late, last=None),)))
    assert "never was" in never.what


def test_bytes_that_were_not_read_for_as_long_as_the_plan_wants_are_a_warning() -> None:
    read = CoverageFacts(total_bytes=9, oldest=_NOW - 50 * _HOUR, where="local:a, byte 7", within=60 * _HOUR)
    assert _alarms(_service(3), coverage=read) == []
    late = replace(read, oldest=_NOW - 70 * _HOUR, late_bytes=2048)
    (alarm,) = _alarms(_service(3), coverage=late)
    assert _one([alarm]) == ("coverage", "warning", "unknown")
    assert ("local:a, byte 7" in alarm.what, alarm.since) == (True, _NOW - 10 * _HOUR)


def test_the_highest_grade_whose_proof_still_holds_is_the_best() -> None:
    def latest(grade: str, rank: int, hours: float, life: float) -> Latest:
        when = _NOW - hours * _HOUR
        return Latest(kind="base", grade=grade, rank=rank, id="a", when=when, expires=when + life * _HOUR)

    same, boots, intact = latest("same", 4, 90, 80), latest("boots", 2, 30, 80), latest("intact", 1, 1, 80)
    assert best([same, boots, intact], _NOW) == boots
    assert best([same], _NOW) is None
