"""How a service stands: what would be lost if it were lost now, what at worst in the last days, and is that kept.

A recovery point is a copy whose latest verification did not fail, or the newest instant that a stream has brought into
the repositories since such a copy. Everything here is a pure function over what was found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from recoup.kernel.finding import Verdict
from recoup.objectives.objective import Measured, Objective, attainment

#: How far back the worst RPO is looked for.
WINDOW: Final = timedelta(days=30)
_ZERO: Final = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One copy that can be gone back to. ``at`` is the instant of its data, ``usable`` when it was complete."""

    id: str
    kind: str
    at: datetime
    usable: datetime
    stored_bytes: int = 0
    repositories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What the latest verification of a copy established. ``grade`` is None when not even the lowest held."""

    grade: str | None
    verdict: Verdict
    when: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """What runs without end: WAL, or a Redis's commands. ``as_of``: all up to then is in the repositories."""

    kind: str  #: ``wal`` or ``stream``
    state: str  #: ``running``, ``waiting`` (for its next attempt), ``stopped``, or ``unknown``
    as_of: datetime | None = None
    error: str | None = None
    since: datetime | None = None  #: of the state
    position: str | None = None  #: what was archived last, as the engine writes it
    slot: str | None = None  #: the server's word for the slot: ``reserved``, ``extended``, ``unreserved``, ``lost``
    slot_bytes: int | None = None  #: WAL that the slot holds on the server
    slot_limit_bytes: int | None = None  #: from which on the server lets it go
    guard: str | None = None  #: what the guard of the server's disk has to say, when it is worried
    gap: str | None = None  #: why a part is missing since the newest copy; None when nothing is
    gap_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a service stands at an instant. ``rpo_now`` None: there is nothing to go back to, or it is not known."""

    verdict: Verdict
    detail: str
    rpo_now: timedelta | None
    rpo_from: str  #: what one would go back to: ``base 2026…``, ``wal``; empty when nothing is known
    point: datetime | None  #: the instant one would go back to
    worst: timedelta | None  #: the largest that ``rpo_now`` was in the window
    worst_since: datetime | None  #: from when on that is known
    last_good: Point | None
    last_proven: Point | None


def standing(
    objective: Objective,
    points: Sequence[Point],
    proofs: Mapping[str, Proof],
    streams: Sequence[Stream],
    *,
    now: datetime,
    silent: bool,
    observed_worst: tuple[timedelta, datetime] | None = None,
) -> Standing:
    """Judge one service. ``points``: all its copies. ``silent``: a repository that takes them did not answer.

    ``observed_worst`` is the largest loss that was seen while a stream ran, and since when it is watched.
    """
    good = [one for one in points if not _refuted(proofs.get(one.id))]
    newest = max(good, key=lambda one: one.at, default=None)
    proven = [one for one in good if _proven(proofs.get(one.id))]
    at, origin = (None, "") if newest is None else (newest.at, f"{newest.kind} {newest.id}")
    for stream in streams:
        # Without a copy to begin with, and across a gap, what a stream has brought cannot be used.
        if stream.as_of is not None and at is not None and stream.gap is None and stream.as_of > at:
            at, origin = stream.as_of, stream.kind
    rpo_now = None if at is None else max(now - at, _ZERO)
    worst, worst_since = worst_loss(good, now=now)
    if streams:
        worst, worst_since = observed_worst or (rpo_now, None if rpo_now is None else now)
    elif observed_worst is not None and worst is None:
        worst, worst_since = observed_worst
    if rpo_now is not None and worst is not None:
        worst = max(worst, rpo_now)
    verdict, detail = _judged(objective, rpo_now, at, now, silent=silent)
    return Standing(
        verdict=verdict,
        detail=detail,
        rpo_now=rpo_now,
        rpo_from=origin,
        point=at,
        worst=worst,
        worst_since=worst_since,
        last_good=newest,
        last_proven=max(proven, key=lambda one: one.at, default=None),
    )


def _refuted(proof: Proof | None) -> bool:
    return proof is not None and proof.verdict is Verdict.FAILED


def _proven(proof: Proof | None) -> bool:
    return proof is not None and proof.verdict is Verdict.OK and proof.grade not in (None, "stored")


def _judged(
    objective: Objective, rpo_now: timedelta | None, at: datetime | None, now: datetime, *, silent: bool
) -> tuple[Verdict, str]:
    if at is not None and at > now + timedelta(minutes=5):
        return Verdict.UNKNOWN, "the newest copy is of the future: a clock is wrong"
    if rpo_now is None:
        if silent:
            return Verdict.UNKNOWN, "no copy was found, and a repository did not answer"
        return Verdict.FAILED, "there is no copy to go back to"
    if objective.rpo is None:
        # There is something to go back to, and nothing was promised that it could break.
        return Verdict.OK, "no RPO was promised"
    verdict = attainment(objective, Measured(lost_data=rpo_now)).rpo
    if verdict is Verdict.FAILED and silent:
        return Verdict.UNKNOWN, "what was found is too old, and a repository did not answer"
    return verdict, "" if verdict is Verdict.OK else "older than was promised"


def worst_loss(
    points: Iterable[Point], *, now: datetime, window: timedelta = WINDOW
) -> tuple[timedelta | None, datetime | None]:
    """The most that would have been lost at any instant of the window, and from when on that can be said.

    Just before a copy was complete, what would have been lost is the time since the data of the newest one before it.
    """
    begin = now - window
    worst: timedelta | None = None
    since: datetime | None = None
    newest: datetime | None = None
    for point in sorted(points, key=lambda one: one.usable):
        if newest is not None and point.usable > begin:
            loss = point.usable - newest
            worst = loss if worst is None else max(worst, loss)
        since = since or point.usable
        newest = point.at if newest is None else max(newest, point.at)
    if newest is None or since is None:
        return None, None
    loss = max(now - newest, _ZERO)
    return (loss if worst is None else max(worst, loss)), max(since, begin)


def worst_by_day(points: Iterable[Point], *, now: datetime, days: int = 30) -> list[timedelta | None]:
    """The same for each of the last ``days`` times 24 hours, the oldest first. None: nothing was there yet."""
    ordered = sorted(points, key=lambda one: one.usable)
    result: list[timedelta | None] = []
    newest: datetime | None = None
    index = 0
    for day in range(days, 0, -1):
        end = now - timedelta(days=day - 1)
        start = end - timedelta(days=1)
        worst: timedelta | None = None
        while index < len(ordered) and ordered[index].usable <= end:
            point = ordered[index]
            if newest is not None and point.usable > start:
                worst = max(worst or _ZERO, point.usable - newest)
            newest = point.at if newest is None else max(newest, point.at)
            index += 1
        if newest is not None:
            worst = max(worst or _ZERO, end - newest)
        result.append(worst)
    return result
