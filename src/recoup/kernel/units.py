"""Durations and sizes, as people write and read them."""

from __future__ import annotations

import re
from datetime import timedelta

_DURATION = re.compile(
    r"(\d+(?:\.\d+)?)\s*(ms|sec(?:ond)?s?|min(?:ute)?s?|hours?|days?|weeks?|s|m|h|d|w)", re.IGNORECASE
)
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?", re.IGNORECASE)


def parse_duration(text: str) -> timedelta:
    """Given ``15m``, ``24h``, ``1h30m``, ``7d`` or ``2 weeks``, return it. Raise ``ValueError`` otherwise."""
    rest, seconds, seen = text.strip(), 0.0, False
    while rest:
        match = _DURATION.match(rest)
        if match is None:
            raise ValueError(f"not a duration: {text!r} (write 15m, 24h, 7d or 2 weeks)")
        unit = match[2].lower()
        seconds += float(match[1]) * _SECONDS[unit if unit == "ms" else unit[0]]
        rest, seen = rest[match.end() :].lstrip(), True
    if not seen:
        raise ValueError("an empty text is not a duration (write 15m, 24h, 7d or 2 weeks)")
    return timedelta(seconds=seconds)


def show_duration(duration: timedelta | float) -> str:
    """Two leading units at most: ``340 ms``, ``4.2 s``, ``12 min 5 s``, ``3 h 20 min``, ``2 d 4 h``."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    if seconds < 0:
        return "-" + show_duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {name}" if rest else "")
    raise AssertionError("unreachable: a duration of a minute or more has a unit")


def parse_size(text: str) -> int:
    """Given ``64MiB``, ``1.5 GB`` or ``4096``, return bytes. Raise ``ValueError`` otherwise."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a size: {text!r} (write 64MiB, 10GB or 4096)")
    power = " kmgtp".index(match[2].lower() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def show_size(size_bytes: int) -> str:
    """``812 B``, ``4.0 KiB``, ``1.3 GiB``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"
