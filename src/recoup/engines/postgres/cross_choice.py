"""Which earlier base backup a base backup can be held against: both lead, by the WAL, to the same position. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recovery_choice import Choice, choose
from recoup.engines.postgres.recovery_target import AtLsn
from recoup.engines.postgres.wal_inventory import WalInventory
from recoup.engines.postgres.wal_windows import Base
from recoup.kernel.errors import RefusedError

#: How many of the base backups before it are tried.
_TRIED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Two ways to the same position, ``lsn``: everything before it is replayed, and nothing else.

    ``shared`` are backups that both build on: what is wrong in those is wrong on both sides.
    """

    lsn: Lsn
    older: Choice
    newer: Choice
    shared: tuple[str, ...]

    @property
    def replayed_bytes(self) -> int:
        """How much WAL lies between the two."""
        return self.lsn.value - self.older.bases[0].begin.value


@dataclass(frozen=True, slots=True, kw_only=True)
class NotCrossed:
    """There is no second way. ``broken`` tells that there should be one: WAL is archived, and some of it is missing."""

    why: str
    broken: bool
    hint: str | None = None


def choose_crossing(
    inventory: WalInventory, bases: Sequence[Base], newer: Base, chains: Mapping[str, Sequence[str]]
) -> Crossing | NotCrossed:
    """Choose for the base backup ``newer``; ``chains`` are, by their ids, the backups that each one consists of.

    The newest of those before it that share nothing with it are tried first, then those that do.
    """
    earlier = sorted((one for one in bases if one.end < newer.end and one.id != newer.id), key=lambda one: one.end)
    if not earlier:
        return NotCrossed(why="there is no base backup before it", broken=False)
    own = set(chains[newer.id])
    earlier.reverse()
    ordered = sorted(earlier, key=lambda one: bool(own.intersection(chains[one.id])))
    target = AtLsn(lsn=newer.end, before=True)
    refusals: list[NotCrossed] = []
    for older in ordered[:_TRIED]:
        try:
            second = choose(target, inventory, [older], timeline=newer.timeline)
            first = choose(target, inventory, [newer], timeline=newer.timeline)
        except RefusedError as refused:
            refusals.append(_refused(inventory, older, newer, refused))
            continue
        shared = tuple(one for one in chains[older.id] if one in own)
        return Crossing(lsn=newer.end, older=second, newer=first, shared=shared)
    return next((one for one in refusals if one.broken), refusals[0])


def _refused(inventory: WalInventory, older: Base, newer: Base, refused: RefusedError) -> NotCrossed:
    size = inventory.segment_bytes
    first, last = older.end.segment(size), newer.begin.segment(size)
    timelines = set(inventory.history(newer.timeline).timelines)
    if not any(
        timeline in timelines and first <= number < max(last, first + 1)
        for timeline, number in (*inventory.segments, *inventory.pieces)
    ):
        return NotCrossed(why=f"no WAL between {older.id} and it is archived", broken=False)
    missing = _missing(inventory, older, newer)
    what = f"WAL segment {missing} is missing" if missing else refused.message
    return NotCrossed(
        why=f"from {older.id} on, {what}",
        broken=True,
        hint="Look into another repository for it. Take a base backup now: what comes after that can be reached again. "
        "When the WAL is only not archived yet, verify again in a moment.",
    )


def _missing(inventory: WalInventory, older: Base, newer: Base) -> str | None:
    """The name of the first segment that lacks bytes between the two, and of the last when there are more."""
    size, history = inventory.segment_bytes, inventory.history(newer.timeline)
    end = newer.end.value
    names = []
    for number in range(older.end.segment(size), (end - 1) // size + 1):
        held = inventory.held_on(history, number)
        if held is None or held.end < min(size, end - number * size):
            names.append(inventory.name(history.owner(number, size), number))
    if len(names) > 2:
        return f"{names[0]} and {len(names) - 1} more up to {names[-1]}"
    return " and ".join(names) or None
