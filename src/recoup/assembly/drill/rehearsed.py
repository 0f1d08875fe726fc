"""What the repositories know of the drills of a plan, for status and alarms."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from recoup.assembly.system import System
from recoup.drill.book import Book, read_book
from recoup.drill.state import SKEW, missed
from recoup.kernel.finding import Verdict
from recoup.objectives.rehearsal import Rehearsed
from recoup.repository.repository import Repository

#: A drill counts for the moment of its schedule when it is held at most so much before or after it.
GRACE: Final = timedelta(days=1)
#: How many of the newest records of each repository are read: several systems may share one.
_READ: Final = 4


def drills_of(system: System, opened: Sequence[Repository]) -> Book | None:
    """The newest drills of the plan; None when it has no section ``drill``. Never raises for what is wrong."""
    if system.plan.drill is None:
        return None
    return read_book(opened, system=system.plan.system, newest=_READ)


def rehearsed(system: System, book: Book | None, opened: Sequence[Repository], now: datetime) -> Rehearsed | None:
    """How they stand. Until the first drill, one is due from when the oldest repository was made.

    A drill of the future was held by a clock that was ahead: it proves nothing until then, and none is due by it.
    """
    drill = system.plan.drill
    if drill is None or book is None:
        return None
    last = next((one for one in book.records if one.declared <= now + SKEW), None)
    due = None
    begun = min((one.created for one in opened), default=None) if last is None else last.declared + GRACE
    # A repository that did not answer may hold the drill that seems to be missing.
    if drill.schedule is not None and begun is not None and not (book.failed and last is None):
        due = drill.schedule.next_after(begun, ZoneInfo(system.plan.timezone))
    until = None if last is None else last.declared + drill.expires
    return Rehearsed(
        drill=None if last is None else last.id,
        declared=None if last is None else last.declared,
        verdict=None if last is None else last.verdict.value,
        until=until,
        missed=due if missed(due, book.records, now, grace=GRACE) else None,
        expired=until is not None and now > until,
        unbelievable=tuple(
            f"{one.repository}: {one.key}: {one.what}" for one in book.problems if one.verdict is Verdict.FAILED
        ),
    )
