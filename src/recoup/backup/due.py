"""What is due now, and what runs next and when: decided from schedules, copies and records, without asking anyone.

The newest copy in the repositories says when a service was last copied. The first moment of its schedule after that
copy is when the next one is due; however many moments went by meanwhile, they are caught up by one run. Records of
runs on this machine only delay: what failed is tried again after a pause that grows to an hour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Final, Literal, Protocol

from recoup.backup.run_records import WHOLE_PLAN, TaskRecord
from recoup.kernel.errors import Exit

FIRST_PAUSE: Final = timedelta(minutes=1)
LONGEST_PAUSE: Final = timedelta(hours=1)
#: A copy that ended well and was then found bad is taken again so often before the next scheduled time.
SECOND_CHANCES: Final = 2
#: A copy that says it was begun this much later than now was begun while a clock was wrong.
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
#: What begins this much too late is called missed.
_LATE: Final = timedelta(minutes=15)
#: Jitter never takes more than this part of the time between two runs.
_SHARE_OF_INTERVAL: Final = 10

#: ``first``: there is no copy at all. ``missed``: its time has gone by. ``retry``: the last run failed. ``asked``: a
#: worker needs it now.
Reason = Literal["first", "scheduled", "missed", "retry", "asked"]


class Repeating(Protocol):
    """A schedule of the plan."""

    @property
    def every(self) -> timedelta | None:
        """The interval from one run to the next, for a schedule without a calendar."""
        ...

    def next_after(self, instant: datetime, zone: tzinfo) -> datetime:
        """The first moment strictly later than ``instant``, in UTC; calendar words are meant in ``zone``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """One task of the plan and what is known of it.

    ``last`` is when the newest copy was begun, or for a task that leaves no copy, when it last ran through. ``when`` is
    None for a kind that the plan does not schedule; it runs when it is ``asked`` for, and not before.
    """

    service: str
    kind: str
    when: Repeating | None
    last: datetime | None
    record: TaskRecord | None
    asked: datetime | None = None  #: since when a run is wanted outside of the schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The next run of a task. ``slot`` is the moment of the schedule it is for; ``at`` has jitter and pauses in it."""

    service: str
    kind: str
    at: datetime
    slot: datetime | None
    reason: Reason

    def is_due(self, now: datetime) -> bool:
        """Whether it should begin."""
        return self.at <= now


def agenda(
    tasks: Sequence[Scheduled],
    *,
    zone: tzinfo,
    jitter: timedelta,
    system: str,
    now: datetime,
    awake_since: datetime | None = None,
) -> tuple[Run, ...]:
    """The next run of every task, in the order in which they should begin.

    What is due comes first: retries after the rest, so that what fails does not hold up what works. ``tasks`` are in
    the plan's order, which decides between equals. ``system`` is the plan's name: with it, jitter is a fixed delay for
    each task and differs between systems. Who decides all along says since when (``awake_since``): a run that was
    interrupted before that delays nothing, one that was interrupted later is made up for after a minute.
    """
    wanted = [task for task in tasks if task.when is not None or _is_asked(task)]
    awake = awake_since or now
    runs = [_next_run(task, zone=zone, jitter=jitter, system=system, now=now, awake_since=awake) for task in wanted]
    places = {(task.service, task.kind): place for place, task in enumerate(tasks)}

    def order(run: Run) -> tuple[bool, bool, datetime, int]:
        due = run.is_due(now)
        return (not due, due and run.reason == "retry", run.at, places[run.service, run.kind])

    return tuple(sorted(runs, key=order))


def newest(begun: Iterable[datetime], now: datetime) -> datetime | None:
    """The newest of the instants at which copies were begun, without those of a clock that was ahead."""
    return max((one for one in begun if one <= now + CLOCK_TOLERANCE), default=None)


def delay_of(system: str, service: str, kind: str, longest: timedelta) -> timedelta:
    """The jitter of a task: always the same part of ``longest``, spread evenly over systems and tasks."""
    digest = hashlib.sha256("\0".join((system, service, kind)).encode()).digest()
    return longest * (int.from_bytes(digest[:6]) / (1 << 48))


def pause_after(failures: int, interval: timedelta) -> timedelta:
    """How long to wait after so many failures in a row: 1, 2, 4 minutes and so on, to an hour or the interval."""
    longest = max(FIRST_PAUSE, min(LONGEST_PAUSE, interval))
    return min(FIRST_PAUSE * (1 << min(max(failures, 1) - 1, 10)), longest)


def _next_run(
    task: Scheduled, *, zone: tzinfo, jitter: timedelta, system: str, now: datetime, awake_since: datetime
) -> Run:
    slot, at, interval = None, now, LONGEST_PAUSE
    reason: Reason = "first"
    if _is_asked(task):
        assert task.asked is not None
        slot = at = min(task.asked, now)
        reason = "asked"
    elif task.last is not None and task.last <= now + CLOCK_TOLERANCE:  # what is of the future would wait for it
        assert task.when is not None, "only what is scheduled or asked for has a next run"
        slot = task.when.next_after(task.last, zone)
        interval = task.when.next_after(slot, zone) - slot
        at = slot
        if task.when.every is None:
            at += delay_of(system, task.service, task.kind, min(jitter, interval / _SHARE_OF_INTERVAL))
        reason = "missed" if now - at > _LATE else "scheduled"
    not_before = _not_before(task, slot, interval, now, awake_since)
    if not_before is not None:
        at, reason = max(at, not_before), "retry"
    elif _deserves_second_chance(task, at, now):
        assert task.record is not None
        assert task.record.ended is not None
        at, reason = min(task.record.ended, now) + pause_after(task.record.failures, interval), "retry"
    return Run(service=task.service, kind=task.kind, at=at, slot=slot, reason=reason)


def _is_asked(task: Scheduled) -> bool:
    return task.asked is not None and (task.last is None or task.last < task.asked)


def _not_before(
    task: Scheduled, slot: datetime | None, interval: timedelta, now: datetime, awake_since: datetime
) -> datetime | None:
    """The end of the pause after a run for this very moment that did not succeed."""
    record = task.record
    if record is None or record.ended is None or (slot is not None and record.started < slot):
        return None
    ended = min(record.ended, now)
    if record.outcome == "interrupted" and record.ended >= awake_since:  # also: somebody else had the lease
        return ended + FIRST_PAUSE
    if record.outcome in ("failed", "unknown"):
        return ended + pause_after(record.failures, interval)
    return None


def _deserves_second_chance(task: Scheduled, at: datetime, now: datetime) -> bool:
    """Whether the newest copy is one that was found bad right after it was taken, and few tries were made."""
    record = task.record
    return (
        at > now
        and task.service != WHOLE_PLAN  # to verify the same once more makes nothing better
        and record is not None
        and record.outcome == "failed"
        and record.exit_code == Exit.BAD
        and record.ended is not None
        and task.last is not None
        and record.started <= task.last <= record.ended
        and record.failures <= SECOND_CHANCES
    )
