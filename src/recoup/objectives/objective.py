"""What was promised for a service, and whether something that was measured keeps the promise."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from recoup.kernel.finding import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """The longest time to recovery and the most lost data, as time. None: nothing was promised."""

    rto: timedelta | None = None
    rpo: timedelta | None = None

    def overridden(self, *, rto: timedelta | None = None, rpo: timedelta | None = None) -> Objective:
        """This objective with a service's own numbers in place of its tier's."""
        return Objective(rto=self.rto if rto is None else rto, rpo=self.rpo if rpo is None else rpo)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What a recovery, a drill or the age of a copy showed. None: it was not measured."""

    recovery_time: timedelta | None = None
    lost_data: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attainment:
    """Whether each promise was kept. ``margin`` is what was left of it; negative when it was missed."""

    rto: Verdict
    rpo: Verdict
    rto_margin: timedelta | None = None
    rpo_margin: timedelta | None = None


def attainment(objective: Objective, measured: Measured) -> Attainment:
    """Compare. What was not promised or not measured is unknown, and unknown is never ok; the limit itself is kept."""
    rto, rto_margin = _compare(objective.rto, measured.recovery_time)
    rpo, rpo_margin = _compare(objective.rpo, measured.lost_data)
    return Attainment(rto=rto, rpo=rpo, rto_margin=rto_margin, rpo_margin=rpo_margin)


def _compare(promised: timedelta | None, shown: timedelta | None) -> tuple[Verdict, timedelta | None]:
    if promised is None or shown is None:
        return Verdict.UNKNOWN, None
    if shown < timedelta(0):
        return Verdict.UNKNOWN, None  # a clock went backwards; the number means nothing
    return (Verdict.OK if shown <= promised else Verdict.FAILED), promised - shown
