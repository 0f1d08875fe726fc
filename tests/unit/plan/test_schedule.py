"""Calendar words and cron expressions mean what a reader thinks."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.units import parse_duration
from recoup.plan.schedule import EXAMPLES, parse_schedule, parse_time_of_day
from recoup.plan.types import write_duration

MONDAY = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("daily 02:00", "2026-11-24 02:00"),
        ("Daily 2:00", "2026-11-24 02:00"),
        ("weekdays 11:00", "2026-11-24 11:00"),
        ("monday 13:00", "2026-11-23 13:00"),
        ("sunday 03:00", "2026-11-29 03:00"),
        ("weekly 03:00", "2026-11-29 03:00"),
        ("monthly 00:00", "2026-12-01 00:00"),
        ("first monday 04:00", "2026-12-07 04:00"),
        ("last friday 23:59", "2026-11-27 23:59"),
        ("last day 06:00", "2026-11-30 06:00"),
        ("hourly", "2026-11-23 13:00"),
        ("@daily", "2026-11-24 00:00"),
        ("15 2 * * *", "2026-11-24 02:15"),
        ("0 4 1-7 * mon", "2026-11-30 04:00"),
        ("every 6h", "2026-11-23 18:00"),
        ("every 15 minutes", "2026-11-23 12:15"),
        ("every hour", "2026-11-23 13:00"),
    ],
)
def test_the_next_time_after_a_monday_at_noon(words: str, expected: str) -> None:
    assert parse_schedule(words).next_after(MONDAY).strftime("%Y-%m-%d %H:%M") == expected


def test_words_are_meant_in_the_plans_time_zone() -> None:
    toronto = ZoneInfo("America/Toronto")
    assert parse_schedule("daily 02:00").next_after(MONDAY, toronto) == datetime(2026, 11, 24, 7, 0, tzinfo=UTC)


def test_a_time_that_the_change_of_clocks_skips_happens_once_that_day() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    schedule = parse_schedule("daily 02:30")
    first = schedule.next_after(datetime(2026, 3, 28, 12, 0, tzinfo=UTC), berlin)
    second = schedule.next_after(first, berlin)
    assert first == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert second == datetime(2026, 3, 30, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "daily",
        "02:00",
        "daily 24:00",
        "daily 2am",
        "monday",
        "fifth monday 02:00",
        "every",
        "every now",
        "every 10s",
        "* * * *",
        "0 0 30 2 *",
        "61 * * * *",
        "0 15 2 * * *",
        "@reboot",
        "continuous",
        "every -5m",
        "0 0 * * 8",
    ],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_schedule(text)


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_in_messages_and_documentation_is_one(text: str) -> None:
    assert parse_schedule(text).next_after(MONDAY) > MONDAY


@given(st.text(max_size=20))
def test_any_text_is_a_schedule_or_a_value_error(text: str) -> None:
    try:
        schedule = parse_schedule(text)
    except ValueError:
        return
    assert schedule.next_after(MONDAY) > MONDAY


def test_a_time_of_day_is_brought_to_one_form() -> None:
    assert parse_time_of_day("3:05") == "03:05"
    with pytest.raises(ValueError, match="write it as in 03:00"):
        parse_time_of_day("3")


@given(st.integers(0, 10**12))
def test_a_duration_written_back_is_the_same(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)
    assert parse_duration(write_duration(duration)) == duration
