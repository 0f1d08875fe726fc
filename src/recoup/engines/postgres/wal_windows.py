"""To which instants a cluster can be brought back: windows, points, and the gaps between them with their reasons.

A window begins at the *end* of a base backup, before which its pages are not consistent, and lasts as long as the WAL
after it has no hole along one history of timelines. Pure.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.timelines import History
from recoup.engines.postgres.wal_inventory import Run, WalInventory


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base backup, as far as recovery needs to know it."""

    id: str
    timeline: int
    begin: Lsn
    end: Lsn
    time: datetime  #: when it was complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Every instant and position from ``begin`` to ``end`` can be recovered to, on ``history``."""

    history: History
    bases: tuple[Base, ...]  #: usable in it, the oldest first
    run: Run

    @property
    def timeline(self) -> int:
        """The timeline that it ends on."""
        return self.history.timeline

    @property
    def begin(self) -> Lsn:
        """The end of its oldest base backup."""
        return self.bases[0].end

    @property
    def begin_time(self) -> datetime:
        """When its oldest base backup was complete."""
        return self.bases[0].time

    @property
    def end(self) -> Lsn:
        """The last byte of WAL there is, exclusive."""
        return self.run.end

    @property
    def end_time(self) -> datetime:
        """The newest time of the server's clock in its WAL. Never before its beginning."""
        return max(self.run.end_time, self.begin_time)

    def __str__(self) -> str:
        return (
            f"{show_time(self.begin_time)} to {show_time(self.end_time)} "
            f"({self.begin} to {self.end} on timeline {self.timeline})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Positions that cannot be reached on a timeline, between two windows or after the last one; and why."""

    timeline: int
    begin: Lsn
    end: Lsn | None  #: None: up to the present
    begin_time: datetime | None
    end_time: datetime | None
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """All of it. ``points`` are base backups that no window holds: one goes back to their very end, nothing else."""

    windows: tuple[Window, ...]
    points: tuple[Base, ...]
    gaps: tuple[Gap, ...]
    every: tuple[Window, ...]  #: those as well that a later timeline's window leads through

    def describe(self) -> str:
        """One line for a refusal."""
        said = [str(window) for window in self.windows]
        said += [f"the base backup {base.id} alone, {show_time(base.time)} ({base.end})" for base in self.points]
        return "; ".join(said) or "nothing at all: there is no base backup"


def reach_of(inventory: WalInventory, bases: Sequence[Base]) -> Reach:
    """What the base backups and the WAL of a cluster allow."""
    windows: list[Window] = []
    gaps: list[Gap] = []
    known = sorted({*inventory.timelines, *(base.timeline for base in bases)})
    for timeline in known:
        history = inventory.history(timeline)
        runs = inventory.runs(history)
        usable = sorted((base for base in bases if history.holds(base.timeline, base.end)), key=lambda base: base.end)
        found = [window for run in runs if (window := _window(inventory, history, run, usable)) is not None]
        windows += found
        gaps += _gaps(inventory, history, runs, usable)
    distinct = [one for one in windows if not any(_within(one, other) for other in windows)]
    held = {base.id for window in windows for base in window.bases}
    points = tuple(sorted((base for base in bases if base.id not in held), key=lambda base: (base.time, base.id)))
    return Reach(windows=tuple(distinct), points=points, gaps=tuple(gaps), every=tuple(windows))


def _window(inventory: WalInventory, history: History, run: Run, usable: Sequence[Base]) -> Window | None:
    inside = tuple(
        base for base in usable if run.first <= base.end.segment(inventory.segment_bytes) and base.end <= run.end
    )
    # The server asks for what lies before the end of the backup as well; that much is in the backup itself.
    return Window(history=history, bases=inside, run=run) if inside and inside[0].end < run.end else None


def _within(one: Window, other: Window) -> bool:
    """Whether the other leads through the whole of the one: a timeline that ended where the next began."""
    if one is other or one.timeline == other.timeline or one.timeline not in other.history.timelines:
        return False
    ended = other.history.end_of(one.timeline)
    return ended is not None and one.end <= ended and one.begin >= other.begin and one.end <= other.end


def _gaps(inventory: WalInventory, history: History, runs: Sequence[Run], usable: Sequence[Base]) -> list[Gap]:
    gaps: list[Gap] = []
    owned = history.begin_of(history.timeline)
    for run, following in itertools.pairwise(runs):
        next_begin = following.first * inventory.segment_bytes
        if next_begin <= owned.value:
            continue  # the ancestor's own list has it
        again = next((base for base in usable if base.end.value >= next_begin), None)
        gaps.append(
            Gap(
                timeline=history.timeline,
                begin=run.end,
                end=again.end if again is not None else None,
                begin_time=run.end_time,
                end_time=again.time if again is not None else None,
                why=_why(inventory, history, run, following, again),
            )
        )
    return gaps


def _why(inventory: WalInventory, history: History, run: Run, following: Run, again: Base | None) -> str:
    first, last = run.end.value // inventory.segment_bytes, following.first - 1
    name = inventory.name(history.owner(first, inventory.segment_bytes), first)
    if last > first:
        name += f" to {inventory.name(history.owner(last, inventory.segment_bytes), last)}"
    part = run.end.value % inventory.segment_bytes
    what = f"{name} is missing" if last <= first else f"{name} are missing"
    if part:
        what += f" (of the first only {part} bytes are there)"
    span = (run.end.value, following.first * inventory.segment_bytes)
    reasons = {
        gap.reason
        for gap in inventory.gaps
        if gap.timeline in history.timelines and gap.start.value < span[1] and gap.end.value > span[0]
    }
    why = f"WAL segment {what}" + (f": {'; '.join(sorted(reasons))}" if reasons else "")
    return why if again is not None else f"{why}; and there is no base backup after it"


def show_time(instant: datetime) -> str:
    """An instant for people: UTC, to the second (rounded down, so that what it names can be reached)."""
    return instant.strftime("%Y-%m-%d %H:%M:%SZ")
