"""To which instants a Redis can be brought back, from its RDB copies and the pieces of its command stream. Pure.

An RDB copy knows its place in the stream: a replication id and an offset. What can be reached from it is every instant
as long as the pieces behind that place follow one another without a hole.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from recoup.kernel.errors import RefusedError

Place = tuple[str, int]  #: a replication id, and how many bytes of its stream lie before


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes ``[start, end)`` of the stream of a replication id. ``time``: when the last of them came."""

    key: str
    replication_id: str
    start: int
    end: int
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """The stream of ``before`` goes on at ``start`` under ``replication_id``."""

    replication_id: str
    start: int
    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is known of a gap: the stream of ``before`` ends at ``before_end``, another begins at ``start``."""

    key: str
    replication_id: str
    start: int
    before: str
    before_end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RdbBase:
    """An RDB copy and its place. ``time``: when the copy was complete."""

    id: str
    replication_id: str
    offset: int
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamWindow:
    """Every instant from ``begin_time`` to ``end_time`` can be recovered to."""

    bases: tuple[RdbBase, ...]  #: usable in it, the oldest first
    begin_time: datetime
    end_time: datetime
    begin: Place
    end: Place

    def __str__(self) -> str:
        return f"{_show(self.begin_time)} to {_show(self.end_time)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamGapBetween:
    """Instants between two windows that cannot be recovered to. ``record`` is the key of what was noted, if any."""

    begin_time: datetime
    end_time: datetime
    record: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChoice:
    """How an instant is reached: from which copy, by which pieces in this order."""

    base: RdbBase
    pieces: tuple[Piece, ...]


class Inventory:
    """The pieces and joins of a service's stream, ready to be followed."""

    def __init__(self, pieces: Iterable[Piece], joins: Iterable[Join] = (), losses: Iterable[Loss] = ()) -> None:
        self._pieces: dict[str, list[Piece]] = defaultdict(list)
        for piece in sorted(pieces, key=lambda one: (one.start, one.end, one.key)):
            self._pieces[piece.replication_id].append(piece)
        self._joins = {(join.before, join.start): join.replication_id for join in joins}
        self.losses = tuple(losses)

    def follow(self, place: Place) -> tuple[Piece, ...]:
        """The pieces that lead on from ``place`` without a hole as far as there are any, in order.

        Of pieces that overlap (whole ones, and the small ones they were made of), the fewest are taken.
        """
        line, reached = place
        chain: list[Piece] = []
        while True:
            best: Piece | None = None
            for piece in self._pieces.get(line, ()):
                if piece.start > reached:
                    if best is None:
                        break
                    chain.append(best)
                    reached, best = best.end, None
                    if piece.start > reached:
                        break
                if piece.end > (reached if best is None else best.end):
                    best = piece
            if best is not None:
                chain.append(best)
                reached = best.end
            following = self._joins.get((line, reached))
            if following is None or following == line:
                return tuple(chain)
            line = following


def _begin_time(base: RdbBase, chain: Sequence[Piece]) -> datetime:
    """From when on a copy stands for what the server held: at the latest when the piece it lies in was complete."""
    return min(base.time, chain[0].time) if chain else base.time


def windows(bases: Sequence[RdbBase], inventory: Inventory) -> tuple[StreamWindow, ...]:
    """Every window, the oldest first. Windows that overlap on one stream are one."""
    found: dict[Place, StreamWindow] = {}
    for base in sorted(bases, key=lambda one: one.time):
        chain = inventory.follow((base.replication_id, base.offset))
        if not chain:
            continue
        end = (chain[-1].replication_id, chain[-1].end)
        begin = _begin_time(base, chain)
        if chain[-1].time < begin:
            continue
        known = found.get(end)
        found[end] = StreamWindow(
            bases=(base,) if known is None else (*known.bases, base),
            begin_time=begin if known is None else min(known.begin_time, begin),
            end_time=chain[-1].time,
            begin=(base.replication_id, base.offset) if known is None else known.begin,
            end=end,
        )
    return tuple(sorted(found.values(), key=lambda one: (one.begin_time, one.end_time)))


def gaps(found: Sequence[StreamWindow], inventory: Inventory) -> tuple[StreamGapBetween, ...]:
    """What lies between the windows, with the record of why where there is one."""
    between = []
    for before, after in itertools.pairwise(found):
        if after.begin_time > before.end_time:
            record = next((one.key for one in inventory.losses if (one.before, one.before_end) == before.end), None)
            between.append(StreamGapBetween(begin_time=before.end_time, end_time=after.begin_time, record=record))
    return tuple(between)


def choose(target: datetime, bases: Sequence[RdbBase], inventory: Inventory) -> StreamChoice:
    """The newest copy from which the stream leads to ``target``, and the pieces needed.

    Raise ``RefusedError`` with the reachable windows when there is none.
    """
    for base in sorted(bases, key=lambda one: one.time, reverse=True):
        chain = inventory.follow((base.replication_id, base.offset))
        if not chain or not _begin_time(base, chain) <= target <= chain[-1].time:
            continue
        needed: list[Piece] = []
        for piece in chain:
            needed.append(piece)
            if piece.time > target:
                break  # what came at the target itself may go on in the next piece
        return StreamChoice(base=base, pieces=tuple(needed))
    reachable = windows(bases, inventory)
    said = "; ".join(str(one) for one in reachable) or "no instant at all: there is no copy with a stream behind it"
    raise RefusedError(
        f"{_show(target)} cannot be reached: the command stream does not lead there",
        hint=f"It reaches: {said}. Or restore a copy as it is: `recoup list` shows them.",
    )


def lead_to(later: RdbBase, bases: Iterable[RdbBase], inventory: Inventory) -> StreamChoice | None:
    """The nearest earlier copy from which the stream leads to the very place of ``later``, and the pieces up to it.

    None when none does: it is the first of its stream, the pieces between have expired or are not stored yet.
    """
    for base in sorted((one for one in bases if one.time < later.time), key=lambda one: one.time, reverse=True):
        if (base.replication_id, base.offset) == (later.replication_id, later.offset):
            return StreamChoice(base=base, pieces=())
        pieces: list[Piece] = []
        for piece in inventory.follow((base.replication_id, base.offset)):
            pieces.append(piece)
            if piece.replication_id == later.replication_id and piece.end >= later.offset:
                if piece.start <= later.offset:
                    return StreamChoice(base=base, pieces=tuple(pieces))
                break
    return None


def _show(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
