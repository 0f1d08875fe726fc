"""Choosing the base backup and the WAL for a target; refusing what cannot be reached. Pure.

Nothing is guessed: a target before the end of every base backup, beyond the WAL, in a gap, or one that two timelines
answer differently is refused, with the windows that there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recovery_target import AtLsn, AtName, AtTime, AtXid, Latest, Target
from recoup.engines.postgres.timelines import History
from recoup.engines.postgres.wal_inventory import HeldPiece, WalInventory
from recoup.engines.postgres.wal_windows import Base, Reach, Window, reach_of, show_time
from recoup.kernel.errors import RefusedError


@dataclass(frozen=True, slots=True, kw_only=True)
class WalFile:
    """One file that the server may ask for. ``pieces`` is empty for a whole segment and for a history file."""

    name: str
    segment: int | None  #: None for a history file
    timeline: int
    pieces: tuple[HeldPiece, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to restore, and what to replay.

    ``bases`` are the base backups to try, the best first: the next is for the case that the server finds the target
    before the first one's consistency. ``end_suffices`` tells that the WAL is known to be complete up to the target,
    so that its end is the target when no later record stops the replay.
    """

    target: Target
    window: Window
    bases: tuple[Base, ...]
    end_suffices: bool

    @property
    def history(self) -> History:
        """The timelines to follow."""
        return self.window.history


def choose(
    target: Target,
    inventory: WalInventory,
    bases: Sequence[Base],
    *,
    timeline: int | None = None,
    next_xid: Callable[[Base], int] | None = None,
    server_time: Callable[[Base], datetime] | None = None,
    found: Lsn | None = None,
) -> Choice:
    """Choose for ``target``; ``timeline`` is the one the user named.

    ``next_xid`` gives the first transaction id that was not assigned when a base backup began; it is needed for a
    transaction. ``server_time`` is when a base backup began or later, by the server's own clock; without it, the clock
    of the machine that took the backup has to do. ``found`` is where a named restore point lies, which is needed for a
    name. Raise ``RefusedError`` with the reason and the windows when the target cannot be reached, or not without
    doubt.
    """
    reach = reach_of(inventory, bases)
    windows = reach.windows if timeline is None else tuple(one for one in reach.every if one.timeline == timeline)
    if not windows:
        on = "" if timeline is None else f" on timeline {timeline}"
        raise _refused(f"no instant can be recovered to{on}", reach)
    match target:
        case Latest():
            window = max(windows, key=lambda one: (one.timeline, one.end))
            return Choice(target=target, window=window, bases=tuple(reversed(window.bases)), end_suffices=True)
        case AtTime():
            return _by_time(target, windows, reach, inventory, server_time)
        case AtLsn():
            return _by_lsn(target, target.lsn, windows, reach)
        case AtName():
            assert found is not None, "a restore point is looked for before the choice"
            return _by_lsn(target, found, windows, reach)
        case AtXid():
            assert next_xid is not None, "a transaction needs the counters of the base backups"
            return _by_xid(target, windows, reach, next_xid)


def _by_time(
    target: AtTime,
    windows: Sequence[Window],
    reach: Reach,
    inventory: WalInventory,
    server_time: Callable[[Base], datetime] | None,
) -> Choice:
    if all(target.time > window.end_time for window in windows):
        newest = max(window.end_time for window in windows)
        raise _refused(f"{target} is beyond the WAL that is archived, which ends at {show_time(newest)}", reach)
    if all(target.time < window.begin_time for window in windows):
        oldest = min(window.begin_time for window in windows)
        raise _refused(f"{target} is before the end of the oldest base backup, {show_time(oldest)}", reach)

    def fits(window: Window) -> bool:
        return window.begin_time <= target.time <= window.end_time

    def owner(window: Window) -> int:
        # Under whose name the segment is where it happened. Within the segment of a switch it cannot be told on which
        # side it was: then the windows differ, and the user is asked.
        return window.history.owner(window.run.segment_at(target.time), inventory.segment_bytes)

    window = _one_of(windows, fits, owner, target, reach)
    bases = [base for base in reversed(window.bases) if base.time <= target.time]
    # A server that begins after the target finds no commit before it, and stops at the first one that it sees: too
    # late, and without a word. So the clock that wrote the commits has to agree.
    while server_time is not None and bases and server_time(bases[0]) > target.time:
        bases.pop(0)
    if not bases:
        raise _refused(f"by the server's own clock, {target} is before the oldest base backup there is for it", reach)
    return Choice(target=target, window=window, bases=tuple(bases), end_suffices=True)


def _by_lsn(target: AtLsn | AtName, lsn: Lsn, windows: Sequence[Window], reach: Reach) -> Choice:
    if all(lsn > window.end for window in windows):
        raise _refused(f"{target} is beyond the WAL that is archived", reach)
    if all(lsn < window.begin for window in windows):
        raise _refused(f"{target} is before the end of the oldest base backup", reach)

    def fits(window: Window) -> bool:
        return window.begin <= lsn <= window.end

    window = _one_of(windows, fits, lambda one: _owner_at_lsn(one, lsn), target, reach)
    bases = tuple(base for base in reversed(window.bases) if base.end <= lsn)
    return Choice(target=target, window=window, bases=bases, end_suffices=isinstance(target, AtLsn))


def _owner_at_lsn(window: Window, lsn: Lsn) -> int:
    """The timeline of a window's history that wrote the position."""
    for switch in window.history.switches:
        if lsn < switch.at:
            return switch.timeline
    return window.timeline


def _by_xid(target: AtXid, windows: Sequence[Window], reach: Reach, next_xid: Callable[[Base], int]) -> Choice:
    if len({window.timeline for window in windows}) > 1:
        said = " or ".join(f"--timeline {one}" for one in sorted({window.timeline for window in windows}))
        raise _refused(
            f"{target} may be on more than one timeline",
            reach,
            hint=f"Say which one: {said}. A number alone does not tell.",
        )
    for window in reversed(windows):
        bases = tuple(one for one in reversed(window.bases) if _full_xid(target.xid, next_xid(one)) >= next_xid(one))
        if bases:
            return Choice(target=target, window=window, bases=bases, end_suffices=False)
    raise _refused(f"{target} had begun before the oldest base backup did", reach)


def _full_xid(xid: int, near: int) -> int:
    """Given 32 bits of a transaction id, return the full one nearest to ``near``; a full one is returned as it is."""
    if xid >> 32:
        return xid
    epoch = near >> 32
    candidates = [(one << 32) | xid for one in (epoch - 1, epoch, epoch + 1) if one >= 0]
    return min(candidates, key=lambda one: abs(one - near))


def _one_of(
    windows: Sequence[Window],
    fits: Callable[[Window], bool],
    owner: Callable[[Window], int],
    target: AtTime | AtLsn | AtName,
    reach: Reach,
) -> Window:
    """The window to use. Several are fine when the target lies on what they share; else the user must say which."""
    fitting = [window for window in windows if fits(window)]
    if not fitting:
        raise _refused(f"{target} lies in a gap{_gap_text(reach, target)}", reach)
    lies_on = {owner(window) for window in fitting}
    if len(lies_on) > 1:
        said = " or ".join(f"--timeline {one}" for one in sorted({window.timeline for window in fitting}))
        raise _refused(
            f"{target} may be on more than one timeline ({', '.join(str(one) for one in sorted(lies_on))}), with "
            "different data",
            reach,
            hint=f"Say which one: {said}. The higher number is the one that began later.",
        )
    # Follow the timeline that wrote it, not one that leads through it: the server names its next timeline's parent
    # after the one it was told to follow.
    (wrote,) = lies_on
    own = [window for window in reach.every if window.timeline == wrote and fits(window)]
    return next(iter([*own, *fitting]))


def _gap_text(reach: Reach, target: AtTime | AtLsn | AtName) -> str:
    for gap in reach.gaps:
        if isinstance(target, AtLsn):
            inside = gap.begin <= target.lsn and (gap.end is None or target.lsn <= gap.end)
        elif isinstance(target, AtTime):
            inside = (gap.begin_time is None or gap.begin_time <= target.time) and (
                gap.end_time is None or target.time <= gap.end_time
            )
        else:
            inside = False
        if inside:
            until = f"to {gap.end}" if gap.end is not None else "on"
            return f" of timeline {gap.timeline}, from {gap.begin} {until}: {gap.why}"
    return " between two windows"


def _refused(why: str, reach: Reach, *, hint: str | None = None) -> RefusedError:
    there = f"What there is: {reach.describe()}."
    return RefusedError(why, hint=f"{hint} {there}" if hint else there)


def wal_files(choice: Choice, base: Base, inventory: WalInventory) -> tuple[WalFile, ...]:
    """What the server may ask for when it starts from ``base``: every history file, and the segments, in order.

    Segments before the end of the base backup that the archive does not hold are in the base backup itself.
    """
    files = [
        WalFile(name=f"{timeline:08X}.history", segment=None, timeline=timeline)
        for timeline in sorted(inventory.histories)
    ]
    run = choice.window.run
    for segment in range(base.begin.segment(inventory.segment_bytes), run.last + 1):
        timeline = choice.history.owner(segment, inventory.segment_bytes)
        held = inventory.held_on(choice.history, segment)
        if held is None or (held.pieces and segment < run.first):
            continue
        name = inventory.name(timeline, segment)
        files.append(WalFile(name=name, segment=segment, timeline=timeline, pieces=held.pieces))
    return tuple(files)


def show_choice(choice: Choice) -> Mapping[str, str]:
    """The choice in words, for a dry run."""
    return {
        "target": str(choice.target),
        "timeline": str(choice.history.timeline),
        "base": choice.bases[0].id,
        "window": str(choice.window),
    }
