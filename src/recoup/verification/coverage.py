"""Which stored bytes were read and matched last, and when; and which are read next. Pure.

An artefact is looked at as one row of bytes: each of its objects followed by its index, in the order of the manifest.
A new copy was read back whole before it counted, so the moment of its end stands for every byte nothing else is noted
of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

#: Of the time within which every byte is to be read, so much is planned for; the rest makes up for missed days.
_PLANNED_SHARE: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """The stored bytes of one artefact in one repository (its identity). ``written``: when it was read back last."""

    repository: str
    artefact: str
    size_bytes: int
    written: datetime


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes ``begin`` up to but without ``end`` were read and matched at ``moment``."""

    begin: int
    end: int
    moment: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Bytes to read: ``begin`` up to but without ``end`` of an artefact."""

    area: Area
    begin: int
    end: int

    @property
    def length(self) -> int:
        """How many they are."""
        return self.end - self.begin


@dataclass(frozen=True, slots=True, kw_only=True)
class Oldest:
    """The byte that nobody has read for the longest time."""

    area: Area
    offset: int
    moment: datetime


#: What was read, by repository and artefact.
Ledger = Mapping[tuple[str, str], Sequence[Span]]


def spans_of(area: Area, known: Iterable[Span]) -> list[Span]:
    """All bytes of an area in order, without holes or overlaps, given what is noted of it in any order.

    Of several notes the latest counts. What lies beyond the area is left out.
    """
    whole = [Span(0, area.size_bytes, area.written)] if area.size_bytes else []
    notes = list(known)
    if not notes:
        return whole
    for span in sorted(notes, key=lambda one: one.moment):
        whole = overlaid(whole, span)
    return [one for one in whole if one.begin < area.size_bytes]


def overlaid(spans: Sequence[Span], new: Span) -> list[Span]:
    """Spans in order, with ``new`` over them. Bytes before the first or after the last of ``spans`` are not added."""
    if len(spans) == 1 and new.begin <= spans[0].begin and new.end >= spans[0].end:
        return [Span(spans[0].begin, spans[0].end, new.moment)]  # as most copies are: read whole, in one go
    limit = spans[-1].end if spans else 0
    begin, end = max(new.begin, spans[0].begin if spans else 0), min(new.end, limit)
    if begin >= end:
        return list(spans)
    result: list[Span] = []
    for span in (
        *(Span(one.begin, min(one.end, begin), one.moment) for one in spans if one.begin < begin),
        Span(begin, end, new.moment),
        *(Span(max(one.begin, end), one.end, one.moment) for one in spans if one.end > end),
    ):
        if result and result[-1].moment == span.moment and result[-1].end == span.begin:
            result[-1] = Span(result[-1].begin, span.end, span.moment)
        else:
            result.append(span)
    return result


def next_slice(areas: Sequence[Area], ledger: Ledger, size_bytes: int) -> list[Piece]:
    """Which bytes to read, at most ``size_bytes``: those that were not read for the longest time.

    Of bytes that were read at the same moment, the first of the first area come first, so that a slice is a few long
    reads and not many short ones.
    """
    left, chosen = size_bytes, []
    for _, number, span in sorted(_all_spans(areas, ledger), key=lambda one: one[0]):
        if left <= 0:
            break
        end = min(span.end, span.begin + left)
        chosen.append(Piece(area=areas[number], begin=span.begin, end=end))
        left -= end - span.begin
    return _joined(chosen)


def _all_spans(areas: Sequence[Area], ledger: Ledger) -> Iterator[tuple[tuple[datetime, int, int], int, Span]]:
    for number, area in enumerate(areas):
        for span in spans_of(area, ledger.get((area.repository, area.artefact), ())):
            yield (span.moment, number, span.begin), number, span


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """In the order in which they were chosen, with neighbours in one."""
    joined: list[Piece] = []
    for piece in pieces:
        last = joined[-1] if joined else None
        if last is not None and last.area == piece.area and last.end == piece.begin:
            joined[-1] = Piece(area=last.area, begin=last.begin, end=piece.end)
        else:
            joined.append(piece)
    return joined


def oldest(areas: Sequence[Area], ledger: Ledger) -> Oldest | None:
    """The byte that nobody has read for the longest time; None when there are none at all."""
    first: Oldest | None = None
    for area in areas:
        for span in spans_of(area, ledger.get((area.repository, area.artefact), ())):
            if first is None or span.moment < first.moment:
                first = Oldest(area=area, offset=span.begin, moment=span.moment)
    return first


def unread_since(areas: Sequence[Area], ledger: Ledger, instant: datetime) -> int:
    """How many bytes were last read before ``instant``."""
    return sum(
        span.end - span.begin
        for area in areas
        for span in spans_of(area, ledger.get((area.repository, area.artefact), ()))
        if span.moment < instant
    )


def slice_bytes(total_bytes: int, within: timedelta, since_last: timedelta) -> int:
    """How much to read now so that every byte is read again ``within`` that time; ``since_last`` there was a slice.

    A fifth of the time is left for days that are missed; after a pause the slice is larger, at most everything.
    """
    share = max(since_last, timedelta(days=1)) / (within * _PLANNED_SHARE)
    return min(total_bytes, max(1, round(total_bytes * share + 0.5))) if total_bytes else 0
