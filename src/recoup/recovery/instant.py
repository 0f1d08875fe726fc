"""Reading the instants that people write. Pure; nothing is guessed."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from recoup.kernel.errors import UsageError

_HOW = "Write 2026-11-23 14:05:00, with a zone if it is not the plan's: 2026-11-23T14:05:00Z, 2026-11-23 14:05+01:00."


def parse_instant(text: str, zone: str) -> datetime:
    """Given ISO 8601 text, return the instant in UTC; one without an offset is meant in ``zone``.

    Raise ``UsageError`` for anything else, for a day without a time of day, and for an hour that the zone's clocks
    showed twice or skipped.
    """
    try:
        instant = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{text!r} is no instant", hint=_HOW) from None
    if not any(mark in text for mark in ":T"):
        raise UsageError(f"{text!r} is a day and no instant", hint=_HOW)
    if instant.tzinfo is not None:
        return instant.astimezone(UTC)
    local = instant.replace(tzinfo=ZoneInfo(zone))
    first, second = local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)
    if first.astimezone(ZoneInfo(zone)).replace(tzinfo=None) != instant:
        raise UsageError(f"the clocks of {zone} never showed {text!r}: they were put forward over it", hint=_HOW)
    if first != second:
        raise UsageError(
            f"the clocks of {zone} showed {text!r} twice: they were put back over it",
            hint=f"Say which one: {first:%Y-%m-%dT%H:%M:%SZ} or {second:%Y-%m-%dT%H:%M:%SZ}.",
        )
    return first
