"""How long a proof holds, and what is proven of a copy or of a service now: pure functions over what was noted down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, Protocol

from recoup.kernel.finding import Verdict
from recoup.verification.grade import Grade

RhythmName = Literal["daily", "weekly", "monthly"]
#: From one verification of a rhythm to the next, at most.
INTERVALS: Final[Mapping[str, timedelta]] = {
    "daily": timedelta(days=1),
    "weekly": timedelta(days=7),
    "monthly": timedelta(days=31),
}
#: For a grade that the plan renews by no rhythm: a proof is as good for as long as a monthly one.
_WITHOUT_RHYTHM: Final = INTERVALS["monthly"]
#: When the plan says no grace: so much of the interval on top, for runs that are late, fail once, or wait for others.
GRACE_SHARE: Final = 0.5


class GradeProof(Protocol):
    """What is known of one grade of one copy."""

    @property
    def grade(self) -> str: ...

    @property
    def verdict(self) -> str: ...

    @property
    def held(self) -> datetime | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """How often the plan wants which grade. ``grace`` None: half of the interval."""

    grades: Mapping[str, Grade]  #: by ``daily``, ``weekly``, ``monthly``
    grace: timedelta | None = None

    def life(self, grade: Grade) -> timedelta:
        """How long a proof of ``grade`` holds.

        A grade is renewed by every rhythm that asks for it or for a higher one; the shortest of those counts. Without
        any it is a month.
        """
        intervals = [INTERVALS[name] for name, asked in self.grades.items() if asked.rank >= grade.rank]
        interval = min(intervals, default=_WITHOUT_RHYTHM)
        return interval + (interval * GRACE_SHARE if self.grace is None else self.grace)

    def wanted(self) -> tuple[Grade, ...]:
        """The grades that the plan renews, the least first."""
        return tuple(sorted(set(self.grades.values()), key=lambda grade: grade.rank))


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What is proven of one copy.

    ``grade`` is the highest that was ok when it was checked last, with all that it includes; ``since`` when that was.
    ``failed`` is the lowest grade that was found bad, ``tried`` the lowest that could not be checked and never was ok.
    """

    grade: Grade | None
    since: datetime | None
    failed: Grade | None = None
    tried: Grade | None = None

    @property
    def verdict(self) -> Verdict:
        """Failed when anything is bad, ok when something is proven, otherwise unknown."""
        if self.failed is not None:
            return Verdict.FAILED
        return Verdict.OK if self.grade is not None else Verdict.UNKNOWN

    def holds(self, grade: Grade) -> bool:
        """Whether ``grade`` is proven, and nothing is known to be bad."""
        return self.failed is None and self.grade is not None and self.grade.rank >= grade.rank


NOTHING: Final = Held(grade=None, since=None)


def held(records: Iterable[GradeProof]) -> Held:
    """Given what is known of each grade of a copy, in one repository or in several, what is proven of it.

    Of several records of one grade the best counts: one place to go back from is enough.
    """
    since: dict[Grade, datetime] = {}
    bad: set[Grade] = set()
    open_: set[Grade] = set()
    for record in records:
        if record.grade not in set(Grade):
            continue  # of another version of Recoup
        grade = Grade(record.grade)
        if record.held is not None and record.verdict != Verdict.FAILED:
            since[grade] = max(record.held, since.get(grade, record.held))
        elif record.verdict == Verdict.FAILED:
            bad.add(grade)
        else:
            open_.add(grade)
    best: Grade | None = None
    for grade in Grade:
        if grade not in since:
            break
        best = grade
    return Held(
        grade=best,
        since=None if best is None else since[best],
        failed=min(bad - set(since), key=lambda grade: grade.rank, default=None),
        tried=min(open_ - set(since) - bad, key=lambda grade: grade.rank, default=None),
    )


def expires(proof: Held, rhythm: Rhythm) -> datetime | None:
    """When the proof of a copy's grade is too old to be believed. None: there is none."""
    return None if proof.grade is None or proof.since is None else proof.since + rhythm.life(proof.grade)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCopy:
    """A copy with what is proven of it. ``ended`` is when it was complete."""

    ended: datetime
    proof: Held
    proven: Mapping[Grade, datetime]  #: when each grade was ok last


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """A proof that the plan wants renewed again and again, for one kind of copy of one service.

    ``last`` is when any copy of the kind reached the grade last, ``due`` when the next one is overdue.
    """

    kind: str
    grade: Grade
    last: datetime | None
    due: datetime


def renewals(kind: str, copies: Sequence[KnownCopy], rhythm: Rhythm, highest: Grade) -> list[Renewal]:
    """What the plan wants renewed for copies of a kind that can be proven up to ``highest``; nothing without copies.

    What was never proven is due as long after the oldest copy as a proof would have held.
    """
    if not copies:
        return []
    oldest = min(copy.ended for copy in copies)
    result: dict[Grade, Renewal] = {}
    for asked in rhythm.wanted():
        grade = min(asked, highest, key=lambda one: one.rank)
        moments = [copy.proven[grade] for copy in copies if grade in copy.proven and copy.proof.holds(grade)]
        last = max(moments, default=None)
        result[grade] = Renewal(kind=kind, grade=grade, last=last, due=(last or oldest) + rhythm.life(asked))
    return list(result.values())
