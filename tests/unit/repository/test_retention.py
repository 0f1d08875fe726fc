"""Which copies stay, rule by rule. The *never* list over years is in ``test_retention_machine.py``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from recoup.repository.retention import Copy, Decision, Hold, Proof, Rules, Snapshot, decide, removal_order

BERLIN = ZoneInfo("Europe/Berlin")
DAY = timedelta(days=1)


def _copy(begun: datetime, *, service: str = "postgres", kind: str = "dump", **more: object) -> Copy:
    values = {"id": f"{begun.astimezone(UTC):%Y%m%d-%H%M%S}-{service[:3]}{kind[:3]}", "proof": Proof.GOOD, **more}
    return Copy(service=service, kind=kind, begun=begun, ended=begun + timedelta(minutes=5), **values)  # type: ignore[arg-type]


def _nightly(last: datetime, nights: int) -> list[Copy]:
    """One copy each night at 02:00 of Berlin, whatever its offset that night."""
    return [_copy(datetime.combine((last - n * DAY).date(), last.timetz()).astimezone(UTC)) for n in range(nights)]


def _decide(copies: Iterable[Copy], counts: dict[str, int], **more: object) -> dict[str, Decision]:
    listed = list(copies)
    rules = more.pop("rules", None) or Rules(counts=counts, minimum=1, zone=BERLIN)
    now = more.pop("now", max(copy.begun for copy in listed) + timedelta(hours=1))
    snapshot = Snapshot(copies=listed, rules={"postgres": rules}, now=now, **more)  # type: ignore[arg-type,dict-item]
    return {one.copy.id: one for one in decide(snapshot)}


def _kept(decisions: dict[str, Decision]) -> list[datetime]:
    return sorted((one.copy.begun for one in decisions.values() if one.keep), reverse=True)


def test_thirty_daily_fifty_two_weekly_and_eighty_four_monthly_keep_seven_years() -> None:
    last = datetime(2026, 11, 23, 2, 0, tzinfo=BERLIN)
    copies = _nightly(last, 10 * 365)
    decisions = _decide(copies, {"daily": 30, "weekly": 52, "monthly": 84})
    kept = _kept(decisions)
    assert kept[:30] == [copy.begun for copy in copies[:30]], "each of the last thirty days"
    weeks = {begun.astimezone(BERLIN).isocalendar()[:2] for begun in kept}
    months = {(begun.astimezone(BERLIN).year, begun.astimezone(BERLIN).month) for begun in kept}
    assert len(months) == 84
    assert kept[-1].astimezone(BERLIN).date() == datetime(2019, 12, 31).date(), "84 months, this one included"
    for number in range(52):
        assert (last - timedelta(weeks=number)).isocalendar()[:2] in weeks
    # 30 days; the 47 or 48 Sundays that are none of them; the last days of months that are neither
    assert 30 + 47 + 70 <= len(kept) <= 30 + 48 + 83
    after = _decide([copy for copy in copies if decisions[copy.id].keep], {"daily": 30, "weekly": 52, "monthly": 84})
    assert all(one.keep for one in after.values()), "what was decided once is decided the same again"


def test_what_is_kept_by_several_rules_says_all_of_them() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, 0, tzinfo=BERLIN), 40)
    newest = _decide(copies, {"last": 1, "daily": 3, "weekly": 2, "monthly": 2, "yearly": 1})[copies[0].id]
    assert newest.reasons == (
        "the newest good one",
        "last 1 of 1",
        "daily 1 of 3 (2026-11-30)",
        "weekly 1 of 2 (2026-W49)",
        "monthly 1 of 2 (2026-11)",
        "yearly 1 of 1 (2026)",
    )


def test_what_expires_says_which_rules_did_not_keep_it() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, 0, tzinfo=BERLIN), 3)
    decision = _decide(copies, {"daily": 2})[copies[2].id]
    assert (decision.keep, decision.reasons) == (False, ("no rule keeps it: daily 2",))


def test_the_week_that_two_years_share_is_one_week() -> None:
    copies = [_copy(datetime(2020, 12, 28, 2, tzinfo=BERLIN) + n * DAY) for n in range(14)]
    kept = _kept(_decide(copies, {"weekly": 5}))
    assert [begun.astimezone(BERLIN).date().isoformat() for begun in kept] == ["2021-01-10", "2021-01-03"]
    reasons = [one.reasons[-1] for one in _decide(copies, {"weekly": 5}).values() if one.keep]
    assert reasons == ["weekly 1 of 5 (2021-W01)", "weekly 2 of 5 (2020-W53)"]


def test_a_leap_day_is_a_day() -> None:
    copies = _nightly(datetime(2028, 3, 1, 2, 0, tzinfo=BERLIN), 3)
    kept = _kept(_decide(copies, {"daily": 2}))
    assert [begun.astimezone(BERLIN).date().isoformat() for begun in kept] == ["2028-03-01", "2028-02-29"]


def test_days_are_those_of_the_plan_s_time_zone() -> None:
    late, early = datetime(2026, 6, 1, 22, 30, tzinfo=UTC), datetime(2026, 6, 1, 21, 30, tzinfo=UTC)
    assert len(_kept(_decide([_copy(late), _copy(early)], {"daily": 5}))) == 2, "two days in Berlin, one in UTC"
    in_utc = Rules(counts={"daily": 5}, minimum=1)
    assert len(_kept(_decide([_copy(late), _copy(early)], {}, rules=in_utc))) == 1


def test_the_hour_that_an_autumn_night_has_twice_is_two_hours() -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)  # 02:30 summer time; an hour later it is 02:30 again
    copies = [_copy(first + n * timedelta(minutes=30)) for n in range(4)]
    kept = _kept(_decide(copies, {"hourly": 5}))
    assert kept == [first + timedelta(minutes=90), first + timedelta(minutes=60), first]


def test_hourly_copies_hide_no_daily_ones() -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    copies = [_copy(start + n * timedelta(hours=1)) for n in range(24 * 10)]
    days = {begun.astimezone(BERLIN).date() for begun in _kept(_decide(copies, {"hourly": 24, "daily": 7}))}
    assert len(days) == 7


def test_periods_without_a_copy_are_not_counted() -> None:
    copies = [_copy(datetime(2026, 1, 1, 2, tzinfo=UTC) + n * 10 * DAY) for n in range(5)]
    assert len(_kept(_decide(copies, {"daily": 5}))) == 5, "an outage of the backups makes nothing expire"


def test_without_any_rule_nothing_expires() -> None:
    decisions = _decide(_nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 5), {})
    assert all(one.keep for one in decisions.values())
    assert "the plan has no rule after which it would expire" in decisions[min(decisions)].reasons


def test_an_age_replaces_the_counts_and_is_measured_from_the_newest() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 120)
    rules = Rules(counts={"monthly": 84}, keep=90 * DAY, minimum=1)
    years_later = datetime(2036, 1, 1, tzinfo=UTC)
    kept = _kept(_decide(copies, {}, rules=rules, now=years_later))
    # the ninety-first is 90 days and an hour old: summer time ended in between
    assert len(kept) == 90, "a clock that is wrong, or backups that stopped, make nothing old"


def test_a_chain_stays_as_long_as_a_link_of_it_does() -> None:
    full, *rest = reversed(_nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 4))
    middle = replace(rest[0], depends_on=(full.id,))
    newest = replace(rest[2], depends_on=(middle.id,))
    decisions = _decide([full, middle, rest[1], newest], {"daily": 1})
    assert {one.copy.id for one in decisions.values() if not one.keep} == {rest[1].id}
    assert decisions[full.id].reasons == (f"{middle.id} depends on it",)
    assert decisions[middle.id].reasons == (f"{newest.id} depends on it",)


def test_a_chain_goes_from_its_end() -> None:
    full, middle, late, newest = reversed(_nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 4))
    middle = replace(middle, depends_on=(full.id,))
    late = replace(late, depends_on=(middle.id, full.id))
    order = removal_order(_decide([full, middle, late, newest], {"daily": 1}).values())
    assert [copy.id for copy in order] == [late.id, middle.id, full.id]


@pytest.mark.parametrize(("proof", "word"), [(Proof.BAD, "damaged"), (Proof.UNPROVEN, "not proven")])
def test_nothing_expires_while_the_newest_copy_is_failed_or_unproven(proof: Proof, word: str) -> None:
    newest, *older = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 10)
    decisions = _decide([replace(newest, proof=proof), *older], {"daily": 2})
    assert all(one.keep for one in decisions.values())
    assert f"the newest, {newest.id}, is {word}" in decisions[older[-1].id].reasons


def test_another_kind_s_trouble_does_not_keep_this_one() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 3)
    bad = replace(_copy(copies[0].begun, kind="base"), proof=Proof.BAD)
    decisions = _decide([*copies, bad], {"daily": 1})
    assert [one.copy.kind for one in decisions.values() if one.keep] == ["dump", "base"]


def test_a_damaged_copy_takes_no_place_from_a_good_one() -> None:
    newest, second, third = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 3)
    decisions = _decide([newest, replace(second, proof=Proof.BAD), third], {"daily": 2})
    assert decisions[third.id].keep
    assert decisions[second.id].reasons == ("no rule keeps it: daily 2; it was found damaged",)


def test_a_copy_from_the_future_stops_its_kind() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 5)
    decisions = _decide(copies, {"daily": 2}, now=copies[0].begun - DAY)
    assert all(one.keep for one in decisions.values())
    assert f"{copies[0].id} is dated in the future: a clock is wrong" in decisions[copies[4].id].reasons


def test_a_service_that_the_plan_does_not_have_and_a_kind_unknown_here_stay() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 3)
    others = [replace(copy, service="old", id=copy.id + "o") for copy in copies]
    kinds = [replace(copy, kind="stream", id=copy.id + "s") for copy in copies]
    decisions = _decide([*copies, *others, *kinds], {"daily": 1})
    assert all(decisions[copy.id].keep for copy in [*others, *kinds])
    assert decisions[others[2].id].reasons == ("the plan has no service 'old'",)
    assert decisions[kinds[2].id].reasons == ("this version does not know when copies of kind 'stream' expire",)


def test_copies_of_what_restores_replaced_are_counted_apart() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 3)
    replaced = _copy(copies[0].begun + timedelta(minutes=30), replaced=True)
    decisions = _decide([*copies, replaced], {"daily": 2})
    assert decisions[copies[0].id].keep, "it is the newest of its day, among its own"
    assert [decisions[copy.id].keep for copy in [*copies, replaced]] == [True, True, False, True]


def test_a_hold_without_a_beginning_keeps_everything() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 5)
    hold = Hold(name="breach", begins=None, reason="being looked into")
    decisions = _decide(copies, {"daily": 1}, holds=(hold,))
    assert decisions[copies[4].id].reasons == ("hold breach: being looked into",)


def test_a_hold_keeps_what_it_takes_to_go_back_to_its_beginning() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 6)
    noon = datetime(2026, 11, 28, 12, tzinfo=UTC)
    decisions = _decide(copies, {"daily": 1}, holds=(Hold(name="h", begins=noon, reason="why"),))
    assert [decisions[copy.id].keep for copy in copies] == [True, True, True, False, False, False]
    assert decisions[copies[2].id].reasons == ("hold h: why (2026-11-28T12:00:00Z is reached from it)",)


def test_the_copy_from_which_replay_begins_stays() -> None:
    copies = [replace(copy, kind="base") for copy in _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 10)]
    reach = datetime(2026, 11, 25, 12, tzinfo=UTC)
    decisions = _decide(copies, {"daily": 1}, reach={("postgres", "base"): reach})
    assert [decisions[copy.id].keep for copy in copies] == [True] + [False] * 4 + [True] + [False] * 4
    assert decisions[copies[5].id].reasons == ("every instant from 2026-11-25T12:00:00Z on is reached from it",)


def test_the_minimum_stays_whatever_the_rules_say() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 6)
    rules = Rules(counts={"yearly": 1}, minimum=3)
    assert len(_kept(_decide(copies, {}, rules=rules))) == 3
    assert len(_kept(_decide(copies, {}, rules=replace(rules, minimum=0)))) == 1, "there is always a last good one"


def test_a_locked_copy_stays_with_what_it_depends_on() -> None:
    newest, second, third = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 3)
    second = replace(second, depends_on=(third.id,))
    until = {second.id: datetime(2026, 12, 24, tzinfo=UTC)}
    decisions = _decide([newest, second, third], {"daily": 1}, locked=until)
    assert decisions[second.id].reasons == ("locked by the store until 2026-12-24T00:00:00Z",)
    assert decisions[third.id].reasons == (f"{second.id} depends on it",)


def test_whatever_is_frozen_or_blocked_stays_and_says_why() -> None:
    copies = _nightly(datetime(2026, 11, 30, 2, tzinfo=BERLIN), 3)
    frozen = _decide(copies, {"daily": 1}, frozen="hold x cannot be believed")
    blocked = _decide(copies, {"daily": 1}, blocked={("postgres", "dump"): "the last backup failed"})
    assert frozen[copies[2].id].reasons == ("hold x cannot be believed",)
    assert blocked[copies[2].id].reasons == ("the last backup failed",)
