"""The words of ``recoup status``, for the screen and for the page. Not known is always said, never left empty."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from recoup.kernel import clock
from recoup.kernel.units import show_duration, show_size

UNKNOWN: Final = "?"
NEVER: Final = "never"


def duration(seconds: float | None) -> str:
    """A duration in two units at most."""
    return UNKNOWN if seconds is None else show_duration(seconds)


def size(size_bytes: float | None) -> str:
    """A size."""
    return UNKNOWN if size_bytes is None else show_size(round(size_bytes))


def since(then: str, at: str) -> str:
    """How long ago an instant was."""
    return show_duration(max((_instant(at) - _instant(then)).total_seconds(), 0))


def ago(point: dict[str, Any] | None, at: str, verdict: str) -> str:
    """How long ago a copy was begun, and its kind."""
    return _none(verdict) if point is None else f"{since(point['begun'], at)} ago ({point['kind']})"


def proven(point: dict[str, Any] | None, at: str, verdict: str) -> str:
    """How long ago the copy that was proven last was begun, and to which grade."""
    return _none(verdict) if point is None else f"{since(point['begun'], at)} ago ({point['grade']})"


def best(proof: dict[str, Any] | None, at: str) -> str:
    """The highest grade whose proof still holds, of which kind of copy, and how old the proof is."""
    return "none" if proof is None else f"{proof['grade']} {since(proof['proven_at'], at)} ago ({proof['kind']})"


def coverage(said: dict[str, Any] | None, at: str) -> str | None:
    """When the stored bytes of the copies were read last, as a sentence without its stop. None: there are none."""
    if said is None or said["oldest_read"] is None:
        return None
    wanted = said["every_byte_within_seconds"]
    late = (
        f"; {size(said['late_bytes'])} are later than the {duration(wanted)} that the plan wants"
        if (said["late_bytes"])
        else ""
    )
    return f"every byte proven within {since(said['oldest_read'], at)}; oldest unproven byte: {said['oldest_in']}{late}"


def rehearsal(said: dict[str, Any] | None, at: str) -> str | None:
    """How the plan stands by its drills, as a sentence without its stop. None: it has no drills."""
    if said is None:
        return None
    why = f": {'; '.join(said['reasons'])}" if said["reasons"] else ""
    last = "" if said["declared"] is None else f", last drill {since(said['declared'], at)} ago ({said['drill']})"
    return f"plan: {said['state']}{why}{last}"


def ahead(instants: Iterable[str | None], at: str) -> str:
    """In how much time the first of some instants is."""
    known = [one for one in instants if one is not None]
    if not known:
        return "none planned"
    left = (_instant(min(known)) - _instant(at)).total_seconds()
    return "now" if left <= 0 else f"in {show_duration(left)}"


def _none(verdict: str) -> str:
    return UNKNOWN if verdict == "unknown" else NEVER


def _instant(text: str) -> datetime:
    return clock.from_text(text)
