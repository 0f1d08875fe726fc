"""What is due: over years of a simulated clock, in zones that change theirs in different ways."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from random import Random
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.backup import due
from recoup.backup.due import Run, Scheduled, agenda
from recoup.backup.run_records import Outcome, TaskRecord
from recoup.plan.schedule import parse_schedule

ZONES = ("Europe/Berlin", "America/Toronto", "Australia/Lord_Howe", "UTC")
MONDAY = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def _task(words: str, last: datetime | None, record: TaskRecord | None = None, service: str = "db") -> Scheduled:
    return Scheduled(service=service, kind="base", when=parse_schedule(words), last=last, record=record)


def _next(task: Scheduled, now: datetime, zone: str = "UTC", jitter: timedelta = timedelta(0)) -> Run:
    (run,) = agenda([task], zone=ZoneInfo(zone), jitter=jitter, system="Shop", now=now, awake_since=MONDAY)
    return run


def _record(started: datetime, outcome: Outcome, *, failures: int = 0, exit_code: int = 1) -> TaskRecord:
    return TaskRecord(
        service="db",
        kind="base",
        started=started,
        ended=started + MINUTE,
        outcome=outcome,
        pid=1,
        exit_code=exit_code,
        failures=failures,
    )


def test_what_ran_last_in_the_future_is_due_now() -> None:
    for ahead, due_now in ((2 * MINUTE, False), (HOUR, True), (400 * DAY, True)):
        task = _task("daily 03:00", MONDAY + ahead, _record(MONDAY + ahead, "ok", exit_code=0))
        assert _next(task, MONDAY).is_due(MONDAY) == due_now, "a clock was ahead; nothing may wait until it is right"


def _runs(words: str, zone: str, begin: date, end: date, longest: int = 90) -> list[datetime]:
    """The local times at which copies are begun by a daemon that looks each few minutes, and is not always quick."""
    chance, place = Random(1), ZoneInfo(zone)
    now = datetime(begin.year, begin.month, begin.day, tzinfo=place).astimezone(UTC) - HOUR
    last, begun = now, []
    while True:
        run = _next(_task(words, last), now, zone, jitter=2 * MINUTE)
        now = max(now, run.at) + timedelta(seconds=chance.randrange(300))
        if now.astimezone(place).date() >= end:
            return begun
        assert _next(_task(words, last), now, zone, jitter=2 * MINUTE).is_due(now)
        begun.append(now.astimezone(place))
        last = now
        now += timedelta(minutes=chance.randrange(1, longest))  # the copy takes its time


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("words", ["daily 02:00", "daily 02:30", "15 1 * * *"])
def test_each_day_of_nine_years_has_its_copy_once_whatever_the_clocks_do(words: str, zone: str) -> None:
    begin, end = date(2024, 1, 1), date(2033, 1, 1)
    days = Counter(one.date() for one in _runs(words, zone, begin, end))
    assert set(days.values()) == {1}
    assert len(days) == (end - begin).days
    assert date(2028, 2, 29) in days


@pytest.mark.parametrize("zone", ZONES)
def test_the_first_monday_comes_once_a_month(zone: str) -> None:
    begun = _runs("first monday 04:00", zone, date(2024, 1, 1), date(2034, 1, 1))
    assert len(begun) == 120
    assert {(one.weekday(), one.day <= 7, one.hour) for one in begun} == {(0, True, 4)}
    assert len({(one.year, one.month) for one in begun}) == 120


@pytest.mark.parametrize("zone", ZONES)
def test_an_hourly_copy_is_taken_in_every_hour_that_really_passes(zone: str) -> None:
    instants = [one.astimezone(UTC) for one in _runs("30 * * * *", zone, date(2026, 1, 1), date(2027, 1, 1), 20)]
    assert abs(len(instants) - 365 * 24) <= 1
    assert all(20 * MINUTE < later - earlier < 100 * MINUTE for earlier, later in pairwise(instants))


def test_a_copy_taken_by_hand_in_the_hour_that_is_there_twice_brings_no_second_one() -> None:
    # 2026-10-25 in Berlin: 02:30 comes at 00:30 UTC and again at 01:30 UTC
    scheduled, by_hand = datetime(2026, 10, 25, 0, 31, tzinfo=UTC), datetime(2026, 10, 25, 1, 10, tzinfo=UTC)
    run = _next(_task("daily 02:30", scheduled), scheduled, "Europe/Berlin")
    assert run.at == datetime(2026, 10, 26, 1, 30, tzinfo=UTC)
    assert _next(_task("daily 02:30", by_hand), by_hand, "Europe/Berlin").at == run.at


def test_a_machine_that_was_off_for_days_catches_up_once() -> None:
    task = _task("daily 02:00", MONDAY - 5 * DAY)
    run = _next(task, MONDAY)
    assert (run.is_due(MONDAY), run.reason) == (True, "missed")
    again = _next(_task("daily 02:00", MONDAY), MONDAY + HOUR)
    assert (again.is_due(MONDAY + HOUR), again.at) == (False, datetime(2026, 11, 24, 2, 0, tzinfo=UTC))


def test_a_service_without_a_copy_is_due_at_once_and_one_that_fails_does_not_hold_up_the_others() -> None:
    failed = _record(MONDAY - 10 * MINUTE, "failed", failures=1)
    tasks = [
        _task("daily 02:00", None, failed, service="failing"),
        _task("daily 02:00", MONDAY - 2 * DAY, service="late"),
        _task("daily 02:00", None, service="new"),
        _task("daily 02:00", MONDAY - HOUR, service="done"),
    ]
    runs = agenda(tasks, zone=UTC, jitter=timedelta(0), system="Shop", now=MONDAY)
    assert [(one.service, one.reason, one.is_due(MONDAY)) for one in runs] == [
        ("late", "missed", True),
        ("new", "first", True),
        ("failing", "retry", True),
        ("done", "scheduled", False),
    ]


def test_what_fails_is_tried_again_after_pauses_that_grow_to_an_hour() -> None:
    pauses = [due.pause_after(failures, DAY) for failures in range(1, 12)]
    assert pauses[:4] == [MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE]
    assert set(pauses[6:]) == {HOUR}
    assert due.pause_after(10, 5 * MINUTE) == 5 * MINUTE
    started = MONDAY
    for failures in range(1, 6):
        task = _task("daily 02:00", MONDAY - 2 * DAY, _record(started, "failed", failures=failures))
        run = _next(task, started + MINUTE)
        assert (run.at, run.reason) == (started + MINUTE + due.pause_after(failures, DAY), "retry")
        started = run.at


def test_a_failure_before_the_next_time_does_not_move_it_and_one_long_ago_does_not_delay_it() -> None:
    by_hand = _record(MONDAY - HOUR, "failed", failures=7)
    run = _next(_task("daily 14:00", MONDAY - 5 * HOUR, by_hand), MONDAY)
    assert (run.at, run.reason) == (MONDAY + 2 * HOUR, "scheduled")


def test_who_meets_another_run_of_the_service_waits_a_minute_and_it_is_no_failure() -> None:
    busy = _record(MONDAY, "interrupted", exit_code=6)
    assert _next(_task("daily 02:00", None, busy), MONDAY + MINUTE).at == MONDAY + 2 * MINUTE


def test_what_the_end_of_an_earlier_daemon_interrupted_is_made_up_for_at_once() -> None:
    given_up = _record(MONDAY - 5 * MINUTE, "interrupted", exit_code=130)
    assert _next(_task("daily 02:00", None, given_up), MONDAY).is_due(MONDAY)


def test_a_run_whose_process_died_is_made_up_for_at_once() -> None:
    died = TaskRecord(service="db", kind="base", started=MONDAY - MINUTE, outcome="running", pid=1)
    assert _next(_task("daily 02:00", MONDAY - 2 * DAY, died), MONDAY).is_due(MONDAY)


def test_a_copy_that_was_found_bad_is_taken_again_twice_before_its_next_time() -> None:
    for failures, again in ((1, True), (2, True), (3, False)):
        bad = _record(MONDAY - 5 * MINUTE, "failed", failures=failures, exit_code=3)
        run = _next(_task("daily 02:00", MONDAY - 5 * MINUTE, bad), MONDAY)
        assert (run.is_due(MONDAY), run.reason == "retry") == (again, again)
    # a copy that only one of two repositories holds counts: the other one catches up from it
    partial = _record(MONDAY - 5 * MINUTE, "failed", failures=1, exit_code=1)
    assert not _next(_task("daily 02:00", MONDAY - 5 * MINUTE, partial), MONDAY).is_due(MONDAY)


def test_a_copy_from_a_clock_that_was_ahead_does_not_stop_the_protection() -> None:
    ahead, real = MONDAY + 400 * DAY, MONDAY - 2 * DAY
    assert due.newest([ahead, real], MONDAY) == real
    assert due.newest([ahead], MONDAY) is None
    future = _record(ahead, "failed", failures=3)
    assert _next(_task("daily 02:00", real, future), MONDAY).at <= MONDAY + HOUR


def test_jitter_is_fixed_for_a_task_bounded_and_spread() -> None:
    names = [f"system {number}" for number in range(400)]
    delays = [due.delay_of(name, "db", "base", 10 * MINUTE) for name in names]
    assert delays == [due.delay_of(name, "db", "base", 10 * MINUTE) for name in names]
    assert all(timedelta(0) <= one < 10 * MINUTE for one in delays)
    quarters = Counter(int(one / (10 * MINUTE) * 4) for one in delays)
    assert all(quarters[at] > 60 for at in range(4))
    assert due.delay_of("Shop", "db", "base", timedelta(0)) == timedelta(0)


def test_jitter_takes_at_most_a_tenth_of_the_interval_and_nothing_of_every() -> None:
    run = _next(_task("*/5 * * * *", MONDAY), MONDAY, jitter=HOUR)
    assert run.slot is not None
    assert timedelta(0) <= run.at - run.slot <= 30 * timedelta(seconds=1)
    assert _next(_task("every 5m", MONDAY), MONDAY, jitter=HOUR).at == MONDAY + 5 * MINUTE


def test_what_a_worker_asks_for_is_due_at_once_until_there_is_a_newer_copy() -> None:
    asked = MONDAY - MINUTE
    task = Scheduled(service="db", kind="base", when=None, last=MONDAY - HOUR, record=None, asked=asked)
    assert (_next(task, MONDAY).at, _next(task, MONDAY).reason) == (asked, "asked")
    done = Scheduled(service="db", kind="base", when=None, last=MONDAY, record=None, asked=asked)
    assert agenda([done], zone=UTC, jitter=HOUR, system="Shop", now=MONDAY) == ()
    failed = _record(MONDAY, "failed", failures=2)
    again = Scheduled(service="db", kind="base", when=None, last=None, record=failed, asked=asked)
    assert (_next(again, MONDAY + MINUTE).at, _next(again, MONDAY + MINUTE).reason) == (MONDAY + 3 * MINUTE, "retry")


_WORDS = st.one_of(
    st.builds("daily {:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59)),
    st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23)),
    st.sampled_from(["hourly", "*/7 * * * *", "every 90m", "last day 02:30", "0 1-4 * * *", "30 2 29 2 *"]),
)
_INSTANTS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))


@settings(max_examples=300)
@given(_WORDS, _INSTANTS, st.sampled_from(ZONES))
def test_the_next_moment_is_always_later_and_none_lies_in_between(words: str, after: datetime, zone: str) -> None:
    schedule, place = parse_schedule(words), ZoneInfo(zone)
    following = schedule.next_after(after, place)
    assert following > after
    if schedule.every is None:
        halfway = after + (following - after) / 2
        assert schedule.next_after(halfway, place) == following or following - after < 2 * MINUTE


@settings(max_examples=200)
@given(
    _WORDS,
    _INSTANTS,
    st.timedeltas(timedelta(0), 40 * DAY),
    st.sampled_from(ZONES),
    st.sampled_from(["ok", "failed", "unknown", "interrupted", "running"]),
    st.integers(0, 100),
    st.integers(-5000, 5000),
)
def test_whatever_happened_a_task_is_never_put_off_for_more_than_an_hour_beyond_its_time(
    words: str, now: datetime, age: timedelta, zone: str, outcome: Outcome, failures: int, minutes: int
) -> None:
    record = _record(now + minutes * MINUTE, outcome, failures=failures)
    task = _task(words, now - age, record)
    run = _next(task, now, zone, jitter=5 * MINUTE)
    slot = parse_schedule(words).next_after(now - age, ZoneInfo(zone))
    assert run.slot == slot
    assert run.at <= max(slot + 5 * MINUTE, now + HOUR)
    assert run == _next(task, now, zone, jitter=5 * MINUTE)
