"""What protecting the WAL does to production: looked at, judged, and ended before a disk fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from recoup.engines.postgres.slot import SlotFacts
from recoup.kernel.units import show_size

#: What may be held when neither the plan nor the server has a limit.
DEFAULT_LIMIT_BYTES: Final = 10 << 30
_WARN_AT: Final = 0.5
_ALARM_AT: Final = 0.8

Level = Literal["ok", "warning", "alarm", "lost", "let go"]
Protect = Literal["production", "archive"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """How it stands. ``let go`` means: stop holding WAL now. ``text`` is empty when all is well."""

    level: Level
    text: str = ""


def limit_of(facts: SlotFacts, planned_bytes: int | None) -> int:
    """How much WAL may be held on the server: the plan's word, the server's, or ten GiB."""
    return planned_bytes or facts.keep_bytes or DEFAULT_LIMIT_BYTES


def judge(facts: SlotFacts, *, planned_bytes: int | None, protect: Protect) -> Judgement:
    """Given what the server shows, say how near the limit is and whether the WAL must be let go. Pure.

    Where the server has a limit of its own and the plan has none, the server lets go by itself.
    """
    if not facts.exists:
        return Judgement(level="ok")
    if facts.lost:
        return Judgement(level="lost", text="the server gave up the slot: it removed WAL that was not archived yet")
    held, limit = facts.held_bytes, limit_of(facts, planned_bytes)
    if held is None:
        return Judgement(level="ok")
    said = f"the server holds {show_size(held)} of WAL for the archive; the limit is {show_size(limit)}"
    ours = planned_bytes is not None or facts.keep_bytes is None
    if held >= limit and ours and protect == "production":
        return Judgement(level="let go", text=said)
    if facts.wal_status == "unreserved":
        return Judgement(level="alarm", text=f"{said}; the server is about to remove it (unreserved)")
    if held >= _ALARM_AT * limit:
        return Judgement(level="alarm", text=said)
    if held >= _WARN_AT * limit:
        return Judgement(level="warning", text=said)
    return Judgement(level="ok")
