"""A systemd timer means what the schedule means: systemd itself says when it would fire, and that is compared."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from recoup.plan.on_calendar import timer_lines
from recoup.plan.schedule import EXAMPLES, Schedule, parse_schedule
from tests.real import require

BEGIN = datetime(2026, 4, 10, 12, 0, tzinfo=UTC)
WORDS = (
    *(one for one in EXAMPLES if not one.startswith("every")),
    *(
        "weekly 03:00",
        "monthly 00:00",
        "last friday 23:59",
        "last day 06:00",
        "fourth tuesday 05:00",
        "hourly",
        "@daily",
    ),
    *("*/15 * * * *", "5-50/20 3 * * *", "0 1-5/2,22 * * *", "30 4 1,15 * *", "0 4 * mar-may mon-fri", "0 0 1 */2 *"),
    *("0 6 * * 0,3", "0 6 * * 6", "0 6 * * 0-2", "0 6 * * */2", "0 6 13 * fri"),
    *("0 6 1 * mon#2", "7 7 L * *", "0 5 * * 5l,mon#1"),
)


def _fires(lines: list[str], count: int) -> list[datetime]:
    """The first moments at which any of the lines fires, as systemd computes them."""
    expressions = [line.removeprefix("OnCalendar=") for line in lines]
    base = BEGIN.strftime("%Y-%m-%d %H:%M:%S UTC")
    done = subprocess.run(
        [require("systemd-analyze"), "calendar", f"--iterations={count}", f"--base-time={base}", *expressions],
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, f"{expressions}: {done.stderr}"
    found = re.findall(r"(?:elapse|Iter\. #\d+): \w+ (\S+ \S+) UTC", done.stdout)
    return sorted({datetime.fromisoformat(one).replace(tzinfo=UTC) for one in found})[:count]


def _expected(schedule: Schedule, zone: str, count: int) -> list[datetime]:
    moments, at = [], BEGIN
    for _ in range(count):
        at = schedule.next_after(at, ZoneInfo(zone))
        moments.append(at)
    return moments


@pytest.mark.parametrize("words", WORDS)
def test_systemd_fires_when_the_schedule_says(words: str) -> None:
    schedule = parse_schedule(words)
    for zone in ("UTC", "America/Toronto"):
        assert _fires(timer_lines(schedule, zone), 6) == _expected(schedule, zone, 6), timer_lines(schedule, zone)


def test_an_interval_counts_from_the_last_run() -> None:
    assert timer_lines(Schedule(text="every", every=timedelta(hours=6)), "UTC") == [
        "OnActiveSec=60s",
        "OnUnitActiveSec=21600s",
    ]


def test_what_systemd_has_no_words_for_is_refused_and_not_guessed() -> None:
    with pytest.raises(ValueError, match="systemd has no words"):
        timer_lines(parse_schedule("0 4 */2 * mon#1"), "UTC")
