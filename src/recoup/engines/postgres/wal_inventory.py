"""Which WAL there is, as facts: segments, pieces of segments, histories, known gaps; and the runs without a hole.

Pure: nothing here reads a repository or a server.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from recoup.engines.postgres.lsn import Lsn, segment_name
from recoup.engines.postgres.timelines import History


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPiece:
    """Bytes ``[start, end)`` of a segment that was not complete when they were archived."""

    timeline: int
    segment: int
    start: int
    end: int
    newest: datetime  #: the newest time of the server's clock in it
    of_whole: bool = False  #: cut from a whole segment, not archived as a piece


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownGap:
    """WAL ``[start, end)`` of a timeline that was recorded as lost."""

    timeline: int
    start: Lsn
    end: Lsn
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """How much of a segment there is from its beginning: all of it, or the bytes that pieces give."""

    end: int  #: offset in the segment; its size when it is whole
    newest: datetime
    pieces: tuple[HeldPiece, ...] = ()  #: in the order in which they are put together; empty for a whole segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """WAL without a hole along one history: segments ``first`` to ``last``, up to the byte ``end``."""

    history: History
    first: int
    last: int
    end: Lsn
    newest: tuple[datetime, ...]  #: for each segment the newest time up to and in it; never goes back

    @property
    def end_time(self) -> datetime:
        """The newest time of the server's clock in it."""
        return self.newest[-1]

    def segment_at(self, instant: datetime) -> int:
        """The first segment whose newest time is past ``instant`` (the last one when none is)."""
        return min(self.first + bisect_right(self.newest, instant), self.last)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalInventory:
    """The WAL of one cluster, as far as repositories hold it."""

    segment_bytes: int
    segments: Mapping[tuple[int, int], datetime]  #: (timeline, segment number): newest time in it
    pieces: Mapping[tuple[int, int], tuple[HeldPiece, ...]] = field(default_factory=dict)
    histories: Mapping[int, History] = field(default_factory=dict)
    gaps: tuple[KnownGap, ...] = ()

    @property
    def timelines(self) -> tuple[int, ...]:
        """Every timeline of which there is WAL or a history file, in order."""
        known = {timeline for timeline, _ in (*self.segments, *self.pieces)}
        return tuple(sorted(known | set(self.histories)))

    def history(self, timeline: int) -> History:
        """The history of a timeline; without its file it has no ancestors that anything could be read of."""
        return self.histories.get(timeline) or History(timeline=timeline)

    def held(self, timeline: int, segment: int) -> Held | None:
        """What there is of a segment under the name of ``timeline``; None when its beginning is missing."""
        newest = self.segments.get((timeline, segment))
        if newest is not None:
            return Held(end=self.segment_bytes, newest=newest)
        found = self.pieces.get((timeline, segment))
        return assemble(found) if found else None

    def held_on(self, history: History, segment: int) -> Held | None:
        """What there is of a segment for a server that follows ``history``.

        The segment of a switch may not have been archived under the new timeline's name yet. Up to the switch it is
        the same as the old timeline's, so that much of it is taken from there.
        """
        held = self.held(history.owner(segment, self.segment_bytes), segment)
        begin = segment * self.segment_bytes
        for switch in reversed(history.switches):
            cut = switch.at.value - begin
            if not 0 < cut < self.segment_bytes or (held is not None and held.end >= cut):
                continue
            old = self.held(switch.timeline, segment)
            if old is not None and old.end >= cut:
                pieces = old.pieces or (
                    HeldPiece(
                        timeline=switch.timeline, segment=segment, start=0, end=cut, newest=old.newest, of_whole=True
                    ),
                )
                # How old the last byte before the switch is cannot be told: what was written after it is in the stamp.
                known = self.segments.get((switch.timeline, segment - 1))
                return Held(end=cut, newest=min(old.newest, known or old.newest), pieces=pieces)
        return held

    def runs(self, history: History) -> tuple[Run, ...]:
        """The runs without a hole along a history, in order."""
        mine = set(history.timelines)
        runs: list[Run] = []
        begun: int | None = None
        newest: list[datetime] = []
        for segment in sorted({segment for timeline, segment in (*self.segments, *self.pieces) if timeline in mine}):
            held = self.held_on(history, segment)
            if held is None:
                continue
            if begun is None or segment != begun + len(newest):
                if begun is not None:
                    runs.append(self._run(history, begun, newest, self.segment_bytes))
                begun, newest = segment, []
            newest.append(max(newest[-1], held.newest) if newest else held.newest)
            if held.end < self.segment_bytes:
                runs.append(self._run(history, begun, newest, held.end))
                begun, newest = None, []
        if begun is not None:
            runs.append(self._run(history, begun, newest, self.segment_bytes))
        return tuple(runs)

    def _run(self, history: History, first: int, newest: list[datetime], end: int) -> Run:
        last = first + len(newest) - 1
        return Run(
            history=history,
            first=first,
            last=last,
            end=Lsn(last * self.segment_bytes + end),
            newest=tuple(newest),
        )

    def name(self, timeline: int, segment: int) -> str:
        """PostgreSQL's file name of a segment."""
        return segment_name(timeline, segment, self.segment_bytes)


def assemble(pieces: Iterable[HeldPiece]) -> Held | None:
    """Put pieces of one segment together from its beginning; None when none begins there."""
    left = sorted(pieces, key=lambda piece: (piece.start, piece.end))
    at, used, position = 0, [], 0
    while True:
        best: HeldPiece | None = None
        while position < len(left) and left[position].start <= at:
            if left[position].end > (best.end if best is not None else at):
                best = left[position]
            position += 1
        if best is None:
            break
        used.append(best)
        at = best.end
    if not used:
        return None
    return Held(end=at, newest=max(piece.newest for piece in used), pieces=tuple(used))
