"""The grades of a recovery point: what was proven of it. Each grade includes the ones before."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from recoup.kernel.finding import Finding, Verdict, overall


class Grade(enum.StrEnum):
    """What was proven of a recovery point. Each grade includes the ones before."""

    STORED = "stored"  #: all objects are where the manifest says, in every repository
    INTACT = "intact"  #: every byte read, matched, decrypted, decompressed; the content is what it says
    BOOTS = "boots"  #: restored into a sandbox, started there, consistent, answers
    SOUND = "sound"  #: no damage inside: checksums, indexes, catalogues, every row, constraints
    SAME = "same"  #: it holds the data that was backed up
    WORKS = "works"  #: the plan's own checks hold in it

    @property
    def rank(self) -> int:
        """Its place among the grades; a greater one includes all lesser ones."""
        return _ORDER.index(self)

    def up_to(self) -> tuple[Grade, ...]:
        """This grade and the ones it includes, the least first."""
        return _ORDER[: self.rank + 1]


_ORDER: Final = tuple(Grade)
#: Grades that need the copy restored into a sandbox and started there.
LIVE_GRADES: Final = (Grade.BOOTS, Grade.SOUND, Grade.SAME, Grade.WORKS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """What the checks of one grade established, and how long they took."""

    grade: Grade
    findings: tuple[Finding, ...]
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """Ok only when every finding is; unknown when nothing was checked."""
        return overall(self.findings)


def reached(rungs: Sequence[Rung]) -> Grade | None:
    """The highest grade that holds, with every grade below it. None when not even the lowest does."""
    verdicts = {rung.grade: rung.verdict for rung in rungs}
    best = None
    for grade in _ORDER:
        if verdicts.get(grade) is not Verdict.OK:
            break
        best = grade
    return best
