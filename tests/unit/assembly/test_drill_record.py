"""What a drill records of lost data: the age of the heartbeat that came back, and what went before it when none did."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.assembly.drill import record as drill_record
from recoup.assembly.drill.members import Chosen
from recoup.assembly.drill.record import Newest, not_past, rpo_of
from recoup.assembly.protect.heartbeats import Beat
from recoup.kernel.finding import Verdict
from recoup.objectives.objective import Objective
from recoup.plan.services import PostgresService, RedisService

DECLARED = datetime(2026, 11, 2, 9, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def rpo(monkeypatch: pytest.MonkeyPatch, known: Newest, beat: Beat | None, *, asked: bool = True, engine: str = "pg"):  # type: ignore[no-untyped-def]
    monkeypatch.setattr(drill_record, "newest_of", lambda *_, **__: known)
    monkeypatch.setattr(drill_record, "service_of", lambda _: "db")
    kind: Any = PostgresService if engine == "pg" else RedisService
    service = kind.model_construct(heartbeat=asked, tier=None)
    plan = SimpleNamespace(services={"db": service}, objective=lambda _: Objective(rpo=5 * MINUTE, rto=None))
    chosen = Chosen(instant=None, files=(), databases=(cast(Any, object()),))
    (found,) = rpo_of(chosen, {}, {} if beat is None else {"db": beat}, DECLARED, cast(Any, plan), ["db"])
    return found


KNOWN = Newest(at=DECLARED - MINUTE, how="last commit that was replayed")


def test_the_heartbeat_counts_where_it_came_back_and_the_later_commit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rpo(monkeypatch, KNOWN, Beat(at=DECLARED - 2 * MINUTE))
    assert found.measured == 2 * MINUTE
    assert found.how == "heartbeat row; last commit that was replayed: 2026-11-02T08:59:00.000000Z"
    assert rpo(monkeypatch, KNOWN, Beat(at=DECLARED), engine="redis").how == "heartbeat key"


def test_without_a_heartbeat_it_says_what_it_went_by_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    for beat in (Beat(), None):
        found = rpo(monkeypatch, KNOWN, beat)
        assert found.measured == MINUTE
        assert found.how == "last commit that was replayed, for want of a heartbeat row: none came back"
    assert rpo(monkeypatch, KNOWN, Beat(), asked=False).how == "last commit that was replayed"


def test_what_was_not_brought_back_has_lost_an_unknown_amount_whatever_its_heartbeat(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = rpo(monkeypatch, Newest(at=None, how="it was not brought back"), Beat(at=DECLARED))
    assert (found.measured, found.verdict) == (None, Verdict.UNKNOWN)


def test_a_heartbeat_from_after_the_instant_that_was_asked_for_fails_the_drill() -> None:
    to = Chosen(instant=DECLARED, files=(), databases=())
    beats = {"before": Beat(at=DECLARED - MINUTE), "after": Beat(at=DECLARED + MINUTE), "none": Beat()}
    assert [(one.subject, one.verdict) for one in not_past(to, beats)] == [
        ("before", Verdict.OK), ("after", Verdict.FAILED),
    ]  # fmt: skip
    assert not_past(Chosen(instant=None, files=(), databases=()), beats) == ()
