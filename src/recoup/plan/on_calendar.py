"""Schedules in the words of systemd timers (systemd.time(7), "Calendar Events")."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from recoup.plan.schedule import Schedule

_DAYS: Final = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY_NAMES: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_MONTH_NAMES: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


def timer_lines(schedule: Schedule, zone: str) -> list[str]:
    """The lines of a ``[Timer]`` section that mean the same as ``schedule`` in ``zone``.

    Raise ``ValueError`` for the few cron expressions that systemd has no words for.
    """
    if schedule.every is not None:
        every = _seconds(schedule.every)
        return [f"OnActiveSec={min(60, every)}s", f"OnUnitActiveSec={every}s"]
    assert schedule.cron is not None
    minute, hour, day, month, weekday = schedule.cron.upper().split()
    time = f"{_numbers(hour)}:{_numbers(minute)}:00 {zone}"
    months = _numbers(month, names=_MONTH_NAMES, first=1)
    if weekday == "*":
        dates = [_date(day, months)]
    elif day.startswith("*") or weekday.startswith("*"):
        dates = [_weekday_date(part, months, None if day == "*" else day) for part in _weekday_parts(weekday)]
    else:  # as in Debian's cron: when both days are given and neither begins with a star, either is enough
        dates = [*(_weekday_date(part, months, None) for part in _weekday_parts(weekday)), _date(day, months)]
    return [f"OnCalendar={date} {time}" for date in dates]


def _seconds(interval: timedelta) -> int:
    return max(1, round(interval.total_seconds()))


def _date(day: str, months: str) -> str:
    return f"*-{months}~01" if day == "L" else f"*-{months}-{_numbers(day)}"


def _weekday_parts(text: str) -> list[str]:
    """``MON#1,FRI`` in its parts; those without a place in the month together."""
    parts = text.split(",")
    plain = [part for part in parts if "#" not in part and not part.endswith("L")]
    return [*([",".join(plain)] if plain else []), *(part for part in parts if part not in plain)]


def _weekday_date(part: str, months: str, also: str | None) -> str:
    """A date on some days of the week; ``also`` is a day of the month that must match as well."""
    placed = "#" in part or (part.endswith("L") and part != "L")
    if placed and also is not None:
        raise ValueError(f"systemd has no words for the day {also} that is also {part}")
    if "#" in part:
        name, _, place = part.partition("#")
        first = 7 * int(place) - 6
        return f"{_day(name)} *-{months}-{first:02}..{min(first + 6, 31):02}"
    if placed:
        return f"{_day(part[:-1])} *-{months}~07/1"
    return f"{_weekdays(part)} {_date(also or '*', months)}"


def _weekdays(text: str) -> str:
    if "/" in text:
        body, _, step = text.partition("/")
        first, last = ("0", "6") if body == "*" else (body.partition("-")[0], body.partition("-")[2] or "6")
        chosen = range(_number(first, _DAY_NAMES, 0), _number(last, _DAY_NAMES, 0) + 1, int(step))
        return ",".join(_DAYS[one] for one in chosen)
    words = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        # systemd's week begins on Monday: a range that begins on Sunday is spelt day by day
        numbers = range(_number(first, _DAY_NAMES, 0), _number(last, _DAY_NAMES, 0) + 1) if dash else None
        words += [_DAYS[one] for one in numbers] if numbers is not None else [_day(first)]
    return ",".join(words)


def _day(text: str) -> str:
    return _DAYS[_number(text, _DAY_NAMES, 0)]


def _number(text: str, names: tuple[str, ...], first: int) -> int:
    return names.index(text) + first if text in names else int(text)


def _numbers(text: str, *, names: tuple[str, ...] = (), first: int = 0) -> str:
    """One field of cron: ``*``, ``*/15``, ``1-5``, ``10-50/20``, ``MAR``, lists of them."""
    return ",".join(_part(part, names, first) for part in text.split(","))


def _part(part: str, names: tuple[str, ...], first: int) -> str:
    body, slash, step = part.partition("/")
    if body == "*":
        return f"{first:02}/{int(step)}" if slash else "*"
    begin, dash, end = body.partition("-")
    low = f"{_number(begin, names, first):02}"
    if not dash:
        return f"{low}/{int(step)}" if slash else low
    high = f"{_number(end, names, first):02}"
    return f"{low}..{high}/{int(step)}" if slash else f"{low}..{high}"
