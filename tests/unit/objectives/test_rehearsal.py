"""Which conditions of drills somebody must be told of."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from recoup.kernel.finding import Verdict
from recoup.objectives.alarms import Facts, Run, alarms
from recoup.objectives.rehearsal import Rehearsed

NOW = datetime(2026, 11, 20, tzinfo=UTC)
GOOD = {"drill": "20261102-090000-aaaaaa", "declared": NOW - timedelta(days=18), "until": NOW + timedelta(days=17)}


def keys(**changes: object) -> dict[str, Verdict]:
    said = Rehearsed(**{**GOOD, "verdict": "ok", **changes})  # type: ignore[arg-type]
    facts = Facts(now=NOW, services=(), repositories=(), lag_limit=timedelta(minutes=5), rehearsed=said)
    return {one.key: one.verdict for one in alarms(facts)}


def test_a_drill_that_passed_and_a_plan_without_drills_alarm_nobody() -> None:
    assert keys() == {}
    assert alarms(Facts(now=NOW, services=(), repositories=(), lag_limit=timedelta(minutes=5))) == ()


def test_a_missed_drill_is_an_alarm_and_says_when_it_was_due() -> None:
    missed = {"missed": datetime(2026, 11, 2, 9, tzinfo=UTC), "expired": True}
    assert keys(**missed) == {"drill:missed": Verdict.FAILED}
    facts = Facts(
        now=NOW, services=(), repositories=(), lag_limit=timedelta(minutes=5),
        rehearsed=Rehearsed(missed=datetime(2026, 11, 2, 9, tzinfo=UTC)),
    )  # fmt: skip
    (alarm,) = alarms(facts)
    assert alarm.what == "a drill was due on 2026-11-02 and was not held; none was ever held"


def test_a_failed_drill_an_expired_proof_and_forged_records_are_alarms() -> None:
    assert keys(verdict="failed") == {"drill:last": Verdict.FAILED}
    assert keys(verdict="unknown") == {"drill:last": Verdict.UNKNOWN}
    assert keys(expired=True) == {"drill:expired": Verdict.FAILED}
    assert keys(unbelievable=("local: drills/records/x: damaged",)) == {"drill:records": Verdict.FAILED}


def test_what_this_machine_knows_of_its_own_drill_is_not_said_twice() -> None:
    run = Run(kind="drill", outcome="failed", error="not ok: flows", started=NOW)
    facts = Facts(
        now=NOW, services=(), repositories=(), lag_limit=timedelta(minutes=5), runs=(run,),
        rehearsed=Rehearsed(drill="x", declared=NOW, verdict="failed", missed=NOW),
    )  # fmt: skip
    assert [one.key for one in alarms(facts)] == ["run::drill"]
