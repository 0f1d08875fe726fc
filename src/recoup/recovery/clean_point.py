"""Which recovery point is the newest clean one: what to look at next, and when enough was seen. Pure.

A database goes back to a position in its log, from one of the copies before it. Damage comes in two ways. What was
never logged (a bit that flipped on the disk) is in every copy that was taken after it, and not in an older copy with
the log replayed on it: then nothing at all is lost. What was logged (a damaged page written out whole) comes with the
log from whatever copy: then the last position before it is looked for, by halves.

So the end of the log comes first, from the newest copy and from older ones; only when it is bad from all of them, a
position before it. What is proven already is not looked at again. Damage that is in every point there is, the oldest
as well, is older than all of them: going back would not undo it, and it does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

#: How many points are looked at, at most.
MOST_LOOKS: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A copy that a log is replayed on. ``at`` is where it ends.

    ``proven``: it is known already to be clean there (true) or damaged (false); ``because`` says from what.
    """

    id: str
    at: int
    proven: bool | None = None
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Positions that can be gone back to without a hole: up to ``end``, from any of ``starts``, the oldest first."""

    name: str
    starts: tuple[Start, ...]
    end: int
    counted: int = 0  #: in a stretch no longer than this, the changes can be counted (``Count``); 0: they cannot


@dataclass(frozen=True, slots=True, kw_only=True)
class Spot:
    """One recovery point: the position ``at`` of a line, reached from the copy ``start``."""

    line: str
    start: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look at a point showed. ``faults`` None: it could not be looked at.

    ``marker`` names the last change in it: two points with the same one hold the same data. ``usable`` false: there is
    no going back to it at all, because a stored object is damaged, say; ``faults`` has why.
    """

    spot: Spot
    faults: frozenset[str] | None
    marker: str | None = None
    usable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """This point is to be looked at."""

    spot: Spot


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Where, strictly between two positions of a line, something changed, is to be found out: see ``Changes``."""

    line: str
    low: int
    high: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The positions between two others at which something changed, in order. ``at`` None: that is not to be had."""

    line: str
    low: int
    high: int
    at: tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The choice. ``spot`` None: every point is known to be bad.

    ``proven``: it was seen to be clean, or was known to be; ``tolerated`` is what is wrong with every point.
    ``next_bad`` is the first position behind it that is known to be bad, when there is one.
    """

    spot: Spot | None
    proven: bool
    tolerated: frozenset[str] = frozenset()
    next_bad: int | None = None


def next_move(
    lines: Sequence[Line],
    seen: Sequence[Seen],
    changes: Sequence[Changes] = (),
    *,
    most_looks: int = MOST_LOOKS,
    resolution: int = 1,
) -> Look | Count | Settled:
    """Given the lines, the newest first, every look and every count so far, return what to do next.

    Positions not more than ``resolution`` apart are not told apart. A look that could not be made ends the looking: the
    next one could not be made either. So do ``most_looks``.
    """
    first = _decide(lines, _Known(seen, changes), most_looks, resolution)
    if not isinstance(first, Settled) or first.proven:
        return first
    always = _in_every_point(lines, seen)
    if not always:
        return first
    told = [replace(one, faults=one.faults - always) if one.faults and one.usable else one for one in seen]
    again = _decide(lines, _Known(told, changes), most_looks, resolution)
    return replace(again, tolerated=always) if isinstance(again, Settled) else again


def _in_every_point(lines: Sequence[Line], seen: Sequence[Seen]) -> frozenset[str]:
    """What is wrong with the oldest point that there is, when that was looked at."""
    oldest = lines[-1].starts[0] if lines else None
    for one in seen:
        if oldest is not None and one.spot == Spot(line=lines[-1].name, start=oldest.id, at=oldest.at):
            return (one.faults or frozenset()) if one.usable else frozenset()
    return frozenset()


@dataclass(frozen=True, slots=True)
class _Known:
    """Looks, ready to be asked."""

    seen: Sequence[Seen]
    changes: Sequence[Changes]
    by_spot: Mapping[Spot, Seen] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_spot", {one.spot: one for one in self.seen})

    def clean(self, spot: Spot) -> bool | None:
        """Whether a point is clean; None: it was not looked at, or could not be."""
        found = self.by_spot.get(spot)
        return None if found is None or found.faults is None else not found.faults

    def marker(self, spot: Spot) -> str | None:
        found = self.by_spot.get(spot)
        return None if found is None else found.marker

    def usable(self, spot: Spot) -> bool:
        """Whether nothing is known against going back to a point."""
        found = self.by_spot.get(spot)
        return found is None or found.usable

    def between(self, line: str, low: int, high: int) -> tuple[int, ...] | Literal["uncounted", "unknown"]:
        """Where something changed strictly between two positions."""
        for one in self.changes:
            if one.line == line and one.low <= low and high <= one.high:
                return "unknown" if one.at is None else tuple(at for at in one.at if low < at < high)
        return "uncounted"

    @property
    def blocked(self) -> bool:
        return any(one.faults is None for one in self.seen)


def _decide(lines: Sequence[Line], known: _Known, most_looks: int, resolution: int) -> Look | Count | Settled:
    over = known.blocked or len(known.seen) >= most_looks
    for line in lines:
        move = _in_line(line, known, resolution)
        if isinstance(move, Settled):
            return move
        if move is not None:
            return _best_so_far(lines, known) if over else move
    return _best_so_far(lines, known)


def _in_line(line: Line, known: _Known, resolution: int) -> Look | Count | Settled | None:
    """What to do in one line; None when nothing in it is clean."""
    ways = [one for one in reversed(line.starts) if one.proven is not False]
    for start in (ways[number] for number in _wider(len(ways))):
        spot = Spot(line=line.name, start=start.id, at=line.end)
        if (clean := known.clean(spot)) is None and _own(line, start, known) is not False:
            return Look(spot=spot)
        if clean:
            return Settled(spot=spot, proven=True)
    found = _newest_clean_start(line, known)
    return found if found is None or isinstance(found, Look) else _by_halves(line, found, known, resolution)


def _wider(count: int) -> list[int]:
    """The first, the second, then ever wider steps, and the last."""
    found, number = [], 0
    while number < count:
        found.append(number)
        number = number * 2 + 1
    return [*found, count - 1] if found and found[-1] != count - 1 else found


def _own(line: Line, start: Start, known: _Known) -> bool | None:
    """Whether a copy is clean where it ends. What a look showed counts more than what was known before."""
    looked = known.clean(_own_spot(line, start))
    if looked is not None:
        return looked
    later = any(
        (one.spot.line, one.spot.start) == (line.name, start.id) and one.faults == frozenset() for one in known.seen
    )
    return True if later else start.proven


def _newest_clean_start(line: Line, known: _Known) -> Start | Look | None:
    """The newest copy that is clean where it ends: the newest, then ever older ones, then by halves between."""
    states = [_own(line, one, known) for one in line.starts]
    if True not in states:
        order = [len(states) - 1 - back for back in _wider(len(states))]
        if not known.usable(_own_spot(line, line.starts[0])):
            order += range(len(states) - 1, -1, -1)  # that it is bad says nothing of those after it
        return next((_look_at(line, number) for number in order if states[number] is None), None)
    low = max(number for number, clean in enumerate(states) if clean)
    high = next((number for number in range(low + 1, len(states)) if states[number] is False), len(states))
    between = [number for number in range(low + 1, high) if states[number] is None]
    if high == len(states) and between:
        return _look_at(line, between[-1])  # nothing is known against the newest one
    return _look_at(line, between[len(between) // 2]) if between else line.starts[low]


def _look_at(line: Line, number: int) -> Look:
    return Look(spot=_own_spot(line, line.starts[number]))


def _own_spot(line: Line, start: Start) -> Spot:
    return Spot(line=line.name, start=start.id, at=start.at)


def _by_halves(line: Line, start: Start, known: _Known, resolution: int) -> Look | Count | Settled:
    """Given a copy that is clean where it ends, the last clean position that its log leads to."""
    end = Spot(line=line.name, start=start.id, at=line.end)
    if known.clean(end) is None and line.end > start.at:
        return Look(spot=end)
    mine = [one for one in known.seen if (one.spot.line, one.spot.start) == (line.name, start.id)]
    low = max([start.at, *(one.spot.at for one in mine if one.faults == frozenset())])
    high = min((one.spot.at for one in mine if one.faults and one.spot.at > low), default=None)
    here = replace(end, at=low)
    if high is None:
        return Settled(spot=here, proven=True)
    marker = known.marker(here)
    same = marker is not None and marker == known.marker(replace(end, at=high))
    settled = Settled(spot=here, proven=True, next_bad=high)
    if high - low <= resolution or same:
        return settled
    if high - low <= line.counted:
        between = known.between(line.name, low, high)
        if between == "uncounted":
            return Count(line=line.name, low=low, high=high)
        if between != "unknown":
            return Look(spot=replace(end, at=between[len(between) // 2])) if between else settled
    return Look(spot=replace(end, at=(low + high) // 2))


def _best_so_far(lines: Sequence[Line], known: _Known) -> Settled:
    """The looking is over: the newest point that is known to be clean, else the newest one that is not known bad.

    The end of the newest line, when nobody looked at it, comes before an older one that is proven: to lose data that
    nothing is known against is worse than to look at them after they are back.
    """
    for line in lines:
        unseen = _unseen_end(line, known)
        if unseen is not None:
            return Settled(spot=unseen, proven=False)
        clean = [_own_spot(line, one) for one in line.starts if _own(line, one, known)]
        clean += [one.spot for one in known.seen if one.spot.line == line.name and one.faults == frozenset()]
        if clean:
            best = max(clean, key=lambda spot: spot.at)
            bad = [one.spot.at for one in known.seen if one.faults and one.spot.start == best.start]
            return Settled(spot=best, proven=True, next_bad=min((at for at in bad if at > best.at), default=None))
        for start in reversed(line.starts):
            if _own(line, start, known) is None:
                return Settled(spot=_own_spot(line, start), proven=False)
    return Settled(spot=None, proven=False)


def _unseen_end(line: Line, known: _Known) -> Spot | None:
    """The end of a line, from its newest copy that is not known to be bad, unless somebody saw that end damaged."""
    ways = [one for one in reversed(line.starts) if _own(line, one, known) is not False]
    spots = [Spot(line=line.name, start=one.id, at=line.end) for one in ways]
    if not spots or any(known.clean(one) is False for one in spots):
        return None
    return spots[0]
