"""The numbers of drills: against what was promised, against earlier drills, and what to expect of the next. Pure.

Bounds, all of them: an earlier drill counts for the trend when it is of the same situation and measured the number;
the newest six count. A number is *worse* when it is both beyond the given factor of their median and a minute more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from recoup.drill.model import DrillRecord, Rpo, Rto
from recoup.kernel.finding import Verdict, worst
from recoup.kernel.units import show_duration
from recoup.objectives.objective import Objective
from recoup.recovery.forecast import Forecast as Forecast
from recoup.recovery.forecast import forecast_of, percentile
from recoup.recovery.forecast import forecast_whole as forecast_whole

#: How many earlier drills a number is compared with, and how many there must be.
COMPARED: Final = 6
FEWEST: Final = 1
#: From which factor of their median on, and from how much more on, a number is worse.
FACTOR: Final = {"RTO": 1.25, "machine time": 1.25, "RPO": 2.0}
LEAST: Final = timedelta(minutes=1)

Number = Literal["RTO", "machine time", "RPO"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """What was promised for a service, and the tier that says so."""

    objective: Objective
    tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierResult:
    """How a tier's promises were kept: the recovery time of the stack, and the worst lost data of its services."""

    tier: str
    rto_objective: timedelta | None
    rto: timedelta | None
    rto_verdict: Verdict
    rpo_objective: timedelta | None
    rpo: timedelta | None
    rpo_verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """A number that is worse than it was."""

    number: Number
    measured: timedelta
    before: timedelta  #: the median of the drills that were compared
    drills: int

    def __str__(self) -> str:
        return (
            f"{self.number} is {show_duration(self.measured)}; it was {show_duration(self.before)} "
            f"(median of {self.drills} earlier drills)"
        )


def measure_rto(
    declared: datetime,
    healthy: datetime | None,
    promised: Mapping[str, Promised],
    *,
    waiting: timedelta = timedelta(0),
    clock_jumped: timedelta = timedelta(0),
) -> Rto:
    """The recovery time of the whole stack, against the strictest promise of its services."""
    limits = [one.objective.rto for one in promised.values() if one.objective.rto is not None]
    tiers: dict[str, timedelta] = {}
    for one in promised.values():
        if one.tier is not None and one.objective.rto is not None:
            tiers[one.tier] = min(one.objective.rto, tiers.get(one.tier, one.objective.rto))
    return Rto(
        declared=declared, healthy=healthy, objective=min(limits, default=None), waiting=waiting,
        clock_jumped=clock_jumped, tiers=tiers,
    )  # fmt: skip


def measure_rpo(service: str, declared: datetime, newest: datetime | None, promised: Promised, *, how: str) -> Rpo:
    """The lost data of a service: from its newest surviving record to the declaration. ``how``: how it is known."""
    return Rpo(
        service=service, measured=None if newest is None else declared - newest, objective=promised.objective.rpo,
        how=how, tier=promised.tier, newest=newest,
    )  # fmt: skip


def tiers(record: DrillRecord) -> tuple[TierResult, ...]:
    """How the promises of each tier were kept."""
    names = list(dict.fromkeys([*record.rto.tiers, *(one.tier for one in record.rpo if one.tier is not None)]))
    found = []
    for name in names:
        limit = record.rto.tiers.get(name)
        parts = [one for one in record.rpo if one.tier == name]
        known = [one.measured for one in parts if one.measured is not None]
        objectives = [one.objective for one in parts if one.objective is not None]
        rto = Rto(declared=record.rto.declared, healthy=record.rto.healthy, objective=limit)
        found.append(
            TierResult(
                tier=name,
                rto_objective=limit,
                rto=rto.measured,
                rto_verdict=rto.verdict,
                rpo_objective=min(objectives, default=None),
                rpo=max(known) if known and len(known) == len(parts) else None,
                rpo_verdict=worst(one.verdict for one in parts),
            )
        )
    return tuple(found)


def comparable(record: DrillRecord, records: Sequence[DrillRecord]) -> tuple[DrillRecord, ...]:
    """The drills before this one that it may be compared with, the newest first."""
    earlier = [
        one
        for one in records
        if one.system == record.system and one.situation == record.situation and one.declared < record.declared
    ]
    return tuple(sorted(earlier, key=lambda one: (one.declared, one.id), reverse=True))


def numbers(record: DrillRecord) -> dict[Number, timedelta | None]:
    """The numbers of a drill that have a trend."""
    return {"RTO": record.rto.measured, "machine time": record.rto.machine, "RPO": record.lost}


def regressions(record: DrillRecord, records: Sequence[DrillRecord]) -> tuple[Regression, ...]:
    """Which numbers of a drill are worse than those of the comparable drills before it."""
    before = comparable(record, records)
    found = []
    for number, measured in numbers(record).items():
        known = [value for one in before if (value := numbers(one)[number]) is not None][:COMPARED]
        if measured is None or len(known) < FEWEST:
            continue
        median = percentile(known, 0.5)
        if measured > median * FACTOR[number] and measured - median >= LEAST:
            found.append(Regression(number=number, measured=measured, before=median, drills=len(known)))
    return tuple(found)


def forecast(records: Sequence[DrillRecord]) -> dict[str, Forecast]:
    """How long each step is likely to take, by its key, from the times it went well."""
    taken: dict[str, list[timedelta]] = {}
    for record in records:
        for step in record.steps:
            if step.verdict is Verdict.OK and (took := step.took) is not None:
                taken.setdefault(step.key, []).append(took)
    return {key: forecast_of(times) for key, times in taken.items()}
