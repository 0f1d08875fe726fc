"""When something happens: calendar words (``daily 02:00``, ``first monday 04:00``), ``every 6h``, or a cron expression.

Cron expressions have the five fields of Debian's cron and are computed by cronsim, which follows Debian in what
happens when clocks change: a fixed time that does not exist that day happens right after it would have, and one that
exists twice happens once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

from recoup.kernel.units import parse_duration

EXAMPLES = ("daily 02:00", "weekdays 22:30", "sunday 03:00", "first monday 04:00", "every 6h", "15 2 * * *")

_DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_PLACES = {"first": "#1", "second": "#2", "third": "#3", "fourth": "#4", "last": "L"}
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "hourly": "0 * * * *",
}
_SHORTEST = timedelta(minutes=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A repeating moment. Exactly one of ``cron`` and ``every`` is set. ``text`` is how it was written."""

    text: str
    cron: str | None = None  #: five fields
    every: timedelta | None = None  #: counted from the last time it was done

    def __str__(self) -> str:
        return self.text

    def next_after(self, instant: datetime, zone: tzinfo = UTC) -> datetime:
        """Given an aware instant (of the last time, for ``every``), return the next moment, strictly later.

        Calendar words are meant in ``zone``. The answer is in UTC.
        """
        if self.every is not None:
            return (instant + self.every).astimezone(UTC)
        assert self.cron is not None
        # In the hour that is there twice cronsim goes by the face of the clock, and may name a moment gone by.
        moments = (moment.astimezone(UTC) for moment in CronSim(self.cron, instant.astimezone(zone)))
        return next(moment for moment in moments if moment > instant)


def parse_schedule(text: str) -> Schedule:
    """Given words or a cron expression, return the schedule. Raise ``ValueError`` that says what can be written."""
    words = text.strip().lower().split()
    cron = _from_words(words)
    if cron is not None:
        return Schedule(text=text.strip(), cron=_checked(cron, text))
    if words[:1] == ["every"] and len(words) > 1:
        return Schedule(text=text.strip(), every=_interval(" ".join(words[1:]), text))
    if len(words) == 6 and not words[0].isalpha():
        raise ValueError(f"cron with six fields is not read, seconds have no place here: {text!r}")
    if len(words) == 5:
        return Schedule(text=text.strip(), cron=_checked(" ".join(words), text))
    raise ValueError(f"not a schedule: {text!r} (write {', '.join(EXAMPLES[:-1])} or cron such as {EXAMPLES[-1]!r})")


def parse_time_of_day(text: str) -> str:
    """Given ``3:00`` or ``03:00``, return ``03:00``. Raise ``ValueError`` otherwise."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a time of day: {text!r} (write it as in 03:00 or 22:30)")
    return f"{int(match[1]):02}:{match[2]}"


def daily_at(time_of_day: str) -> Schedule:
    """Given ``03:00``, return the schedule ``daily 03:00``."""
    return parse_schedule(f"daily {time_of_day}")


def _from_words(words: list[str]) -> str | None:
    """The cron expression that calendar words mean, or None when they are not calendar words."""
    if len(words) == 1:
        return _ALIASES.get(words[0])
    time = _TIME.fullmatch(words[-1]) if words else None
    if time is None:
        return None
    at = f"{int(time[2])} {int(time[1])}"
    match words[:-1]:
        case ["daily"]:
            return f"{at} * * *"
        case ["weekdays"]:
            return f"{at} * * 1-5"
        case ["weekly"]:
            return f"{at} * * 0"
        case ["monthly"]:
            return f"{at} 1 * *"
        case [day] if day in _DAYS:
            return f"{at} * * {_DAYS.index(day)}"
        case [place, day] if place in _PLACES and day in _DAYS:
            return f"{at} * * {_DAYS.index(day)}{_PLACES[place]}"
        case ["last", "day"]:
            return f"{at} L * *"
    return None


def _interval(words: str, text: str) -> timedelta:
    if words in ("minute", "hour", "day", "week"):
        words = f"1 {words}"
    try:
        every = parse_duration(words)
    except ValueError as wrong:
        raise ValueError(f"not a schedule: {text!r} (write every 15m, every 6h or every 2 days)") from wrong
    if every < _SHORTEST:
        raise ValueError(f"too often: {text!r} (the shortest is every 1m)")
    return every


def _checked(cron: str, text: str) -> str:
    try:
        next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)))
    except CronSimError as wrong:
        raise ValueError(f"not a cron expression: {text!r} ({str(wrong).lower()})") from wrong
    except StopIteration:
        raise ValueError(f"never happens: {text!r} (no day within 50 years matches)") from None
    return cron
