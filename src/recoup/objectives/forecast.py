"""How long a disk will last: a straight line through what was used on the last days."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final

#: Fewer days say nothing of a week's rhythm of full copies.
_FEWEST_DAYS: Final = 3
_WINDOW_DAYS: Final = 30
_FARTHEST_DAYS: Final = 3650


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """``bytes_per_day`` may be negative. ``days`` is how long a time it was seen over."""

    bytes_per_day: float
    days: float


def growth(samples: Mapping[date, int]) -> Growth | None:
    """The slope of the least-squares line through one size a day of the last 30; None for fewer than three days."""
    days = sorted(samples)[-_WINDOW_DAYS:]
    if len(days) < 2 or (days[-1] - days[0]).days < _FEWEST_DAYS:
        return None
    xs = [float((day - days[0]).days) for day in days]
    ys = [float(samples[day]) for day in days]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
    return Growth(bytes_per_day=slope, days=xs[-1])


def samples_from_copies(copies: Sequence[tuple[datetime, int]], *, now: datetime) -> dict[date, int]:
    """What was used at the end of each of the last days, as the copies that are still there tell it.

    Copies that were deleted since are not seen, so this is too steep where retention is at work already; it serves
    until sizes were noted down on enough days.
    """
    result: dict[date, int] = {}
    ordered = sorted(copies)
    total, index = 0, 0
    for back in range(_WINDOW_DAYS, -1, -1):
        instant = now - timedelta(days=back)
        while index < len(ordered) and ordered[index][0] <= instant:
            total += ordered[index][1]
            index += 1
        if index:
            result[instant.astimezone(UTC).date()] = total
    return result


def days_until_full(free_bytes: int, growing: Growth | None) -> float | None:
    """How many days the free room lasts at this growth; None when it does not grow, or not within ten years."""
    if growing is None or growing.bytes_per_day <= 0:
        return None
    days = free_bytes / growing.bytes_per_day
    return days if days <= _FARTHEST_DAYS else None
