"""The only place that knows the time. Everything else is given a clock or calls these functions."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now() -> datetime:
    """The present instant, in UTC, with its zone."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds from an arbitrary start; never goes backwards."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Wait. Only retry and polling loops with a stated limit may call this."""
    time.sleep(seconds)


def to_text(instant: datetime) -> str:
    """Given an aware instant, return it as ISO 8601 in UTC with a ``Z``: ``2026-11-23T02:00:00.123456Z``.

    The microseconds are always there, so texts sort as the instants do.
    """
    if instant.tzinfo is None:
        raise ValueError("an instant without a zone cannot be stored")
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def to_us(instant: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


def to_ms(instant: datetime) -> int:
    """Whole milliseconds since 1970."""
    return to_us(instant) // 1000


def optional_text(instant: datetime | None) -> str | None:
    """``to_text``, and None for None."""
    return None if instant is None else to_text(instant)


def from_text(text: str) -> datetime:
    """The reverse of ``to_text``. Raise ``ValueError`` for anything without a zone."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"no time zone in {text!r}")
    return instant.astimezone(UTC)
