"""Which WAL may go. Pure, over plain values: what an archive holds of one cluster, and the base backups that stay.

A segment stays as long as some instant that must be reachable may need it: a base backup from which replay begins at
or before it, on its timeline or an earlier one. What goes is only ever the oldest side of a timeline, so that no hole
is cut; history files and whatever is not a segment are nobody's business here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from recoup.repository.retention import CLOCK_TOLERANCE

#: How far the clock of the database server may be from that of the machine that takes base backups.
_MARGIN: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalUnit:
    """A segment of WAL, a piece of one, or a known gap: what has a place in the log. ``segment`` is its last one."""

    timeline: int
    segment: int
    stamp: datetime  #: the newest time of the server's clock in it


@dataclass(frozen=True, slots=True, kw_only=True)
class WalBase:
    """A base backup of this cluster that stays. ``needs_archive``: without WAL from elsewhere it is not consistent."""

    id: str
    timeline: int
    first_segment: int
    ended: datetime
    needs_archive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WalDecision:
    """What goes, in the order in which it must go: the oldest first. ``reason`` says why the rest stays."""

    remove: tuple[WalUnit, ...]
    reason: str


def decide_wal(
    units: Sequence[WalUnit],
    bases: Sequence[WalBase],
    *,
    reach: datetime | None,
    now: datetime,
    superseded: bool = False,
    blocked: str | None = None,
) -> WalDecision:
    """Given one cluster's WAL, the base backups of it that stay, and the instant that must stay reachable.

    ``reach`` is None when nothing says how long WAL is kept: then all of it is. ``superseded``: the service has a
    newer cluster, and this one writes no more. ``blocked`` says why nothing may go.
    """
    if blocked is not None:
        return WalDecision(remove=(), reason=blocked)
    if reach is None:
        return WalDecision(remove=(), reason="the plan does not say how long WAL is kept (retention.wal)")
    if any(unit.stamp > now + CLOCK_TOLERANCE + _MARGIN for unit in units):
        return WalDecision(remove=(), reason="some of it is dated in the future: a clock is wrong")
    over = superseded and all(unit.stamp < reach - _MARGIN for unit in units)
    if not bases and not over:
        return WalDecision(remove=(), reason="there is no base backup of this cluster to replay it on")
    needed = [base for base in bases if base.needs_archive] if over else list(_starting_points(bases, reach))
    by_timeline: dict[int, list[WalUnit]] = defaultdict(list)
    for unit in units:
        by_timeline[unit.timeline].append(unit)
    going: list[WalUnit] = []
    for timeline in sorted(by_timeline):
        for unit in sorted(by_timeline[timeline], key=lambda one: (one.segment, one.stamp)):
            young = unit.stamp >= reach - _MARGIN
            if young or any(base.timeline <= timeline and unit.segment >= base.first_segment for base in needed):
                break  # the younger side stays, whatever it is
            going.append(unit)
    if not needed:
        return WalDecision(remove=tuple(going), reason="the cluster was replaced, and what is left is not old enough")
    first = min(needed, key=lambda base: (base.first_segment, base.timeline))
    why = "which does not hold the WAL it needs" if first.needs_archive else "from which replay begins"
    return WalDecision(remove=tuple(going), reason=f"needed from base backup {first.id} on, {why}")


def _starting_points(bases: Sequence[WalBase], reach: datetime) -> Sequence[WalBase]:
    """The base backups that replay may begin with: the one that ``reach`` is reached from, and all younger ones."""
    before = [base for base in bases if base.ended <= reach - _MARGIN]
    start = max(before, key=lambda base: (base.ended, base.id)) if before else None
    return [base for base in bases if base not in before or base is start or base.needs_archive]
