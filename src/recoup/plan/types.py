"""The kinds of values a plan holds, each with what it accepts, its JSON Schema and how it is written back."""

from __future__ import annotations

import re
import shlex
from datetime import date, timedelta
from typing import Annotated, Any, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, Strict, StringConstraints, WithJsonSchema

from recoup.kernel.units import parse_duration, parse_size
from recoup.plan.schedule import EXAMPLES, Schedule, parse_schedule, parse_time_of_day
from recoup.plan.template import Template, as_written

_DAY = re.compile(r"(\d{4})-(\d{2})-(\d{2})")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST = timedelta(days=36_500)
_NO_REFERENCE = "a reference has no meaning here; write the value itself"

T = TypeVar("T")
Many = Annotated[tuple[T, ...], Strict(False)]  # a YAML list; its items stay strict


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("may not be empty")
    if "${" in value:
        raise ValueError(_NO_REFERENCE)
    return value


Text = Annotated[str, BeforeValidator(as_written), AfterValidator(_text)]
RawText = Annotated[str, StringConstraints(min_length=1)]  # SQL and the like, where ${ is the user's own


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, str):
        raise ValueError(f"not a duration: {_shown(value)} (write 15m, 24h, 7d or 2 weeks)")  # noqa: TRY004 - pydantic takes ValueError
    duration = parse_duration(value)
    if duration > _LONGEST:
        raise ValueError(f"too long: {value!r} (the longest is 100 years)")
    return duration


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


def write_duration(duration: timedelta) -> str:
    """A duration as ``parse_duration`` reads it, exact to the millisecond: ``7d``, ``1h30m``, ``0m``."""
    rest, parts = round(duration.total_seconds() * 1000), []
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0m"


_DURATION_SCHEMA = WithJsonSchema({"type": "string", "examples": ["15m", "24h", "7d", "2 weeks"]})
DurationOrZero = Annotated[
    timedelta, BeforeValidator(_duration), PlainSerializer(write_duration, return_type=str), _DURATION_SCHEMA
]
Duration = Annotated[
    timedelta,
    BeforeValidator(_duration),
    AfterValidator(_positive),
    PlainSerializer(write_duration, return_type=str),
    _DURATION_SCHEMA,
]


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"not a size: {_shown(value)} (write 500MB or 10GiB)")  # noqa: TRY004 - pydantic takes ValueError
    size = value if isinstance(value, int) else parse_size(value)
    if not 0 < size < 1 << 60:
        raise ValueError(f"not a sensible size: {_shown(value)} (write 500MB or 10GiB)")
    return size


def write_size(size_bytes: int) -> str:
    """A size as ``parse_size`` reads it, exact: ``10GiB``, ``500000000``."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size_bytes % 1024**power == 0:
            return f"{size_bytes // 1024**power}{unit}"
    return str(size_bytes)


Size = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(write_size, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["500MB", "10GiB"]}),
]


def _schedule(value: Any) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if not isinstance(value, str):
        raise ValueError(f"not a schedule: {_shown(value)} (write {', '.join(EXAMPLES[:-1])} or a cron expression)")  # noqa: TRY004 - pydantic takes ValueError
    return parse_schedule(value)


When = Annotated[
    Schedule,
    BeforeValidator(_schedule),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": list(EXAMPLES)}),
]


def _time_of_day(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f'not a time of day: {_shown(value)} (write it in quotes, as in "03:00")')  # noqa: TRY004 - pydantic takes ValueError
    return parse_time_of_day(value)


TimeOfDay = Annotated[
    str, BeforeValidator(_time_of_day), WithJsonSchema({"type": "string", "examples": ["03:00", "22:30"]})
]


def _day(value: Any) -> date:
    if isinstance(value, date):
        return value
    match = _DAY.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"not a date: {_shown(value)} (write it as in 2026-12-07)")
    try:
        return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        raise ValueError(f"not a date of the calendar: {value}") from None


Day = Annotated[
    date,
    BeforeValidator(_day),
    PlainSerializer(date.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "format": "date", "examples": ["2026-12-07"]}),
]

# A service's or repository's name becomes a part of object keys and of file names.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=63)]


def _variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError("not a variable's name: letters, digits and _, without $ and braces")
    return value


Variable = Annotated[str, AfterValidator(_variable)]


def splittable(value: str) -> str:
    """A command line, checked to be one. Raise ``ValueError`` when it cannot be split, or names nothing."""
    try:
        words = shlex.split(value)
    except ValueError as wrong:
        raise ValueError(f"cannot be split into a program and its arguments: {str(wrong).lower()}") from None
    if not words:
        raise ValueError("names no program")
    return value


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"not a known time zone: {value!r} (write UTC, Europe/Berlin or America/Toronto)") from None
    return value


Zone = Annotated[str, AfterValidator(_zone)]


def _http_url(value: Template) -> Template:
    filled = value.expand(lambda _name: "1")
    if not re.fullmatch(r"https?://[^\s/?#:@]+(:[0-9]{1,5})?([/?#]\S*)?", filled):
        raise ValueError("not a web address (write http://127.0.0.1:3000/health)")
    return value


HttpUrl = Annotated[Template, AfterValidator(_http_url)]


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return repr(str(as_written(value)).lower() if isinstance(value, bool) else as_written(value))
