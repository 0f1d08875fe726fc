"""Which stored bytes are read next: after enough runs every byte was read, and the oldest is always named."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.verification.coverage import (
    Area,
    Span,
    next_slice,
    oldest,
    overlaid,
    slice_bytes,
    spans_of,
    unread_since,
)

_BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def at(hours: float) -> datetime:
    return _BEGAN + timedelta(hours=hours)


def area(number: int, size: int, hours: float = 0) -> Area:
    return Area(repository=f"r{number % 2}", artefact=f"a{number}", size_bytes=size, written=at(hours))


_AREAS = st.lists(st.tuples(st.integers(0, 90), st.integers(-50, 0)), min_size=1, max_size=4).map(
    lambda found: [area(number, size, hours) for number, (size, hours) in enumerate(found)]
)


@settings(max_examples=60)
@given(_AREAS, st.integers(20, 150), st.integers(1, 64))
def test_after_enough_slices_every_byte_was_read_and_the_oldest_is_reported(
    areas: list[Area], size: int, frame: int
) -> None:
    total = sum(one.size_bytes for one in areas)
    ledger: dict[tuple[str, str], list[Span]] = {}
    read: set[tuple[str, int]] = set()
    last: dict[tuple[str, int], datetime] = {
        (one.artefact, byte): one.written for one in areas for byte in range(one.size_bytes)
    }
    for run in range(1, -(-total // size) + 1):
        pieces = next_slice(areas, ledger, size)
        assert sum(piece.length for piece in pieces) == min(size, total)
        for piece in pieces:
            place = (piece.area.repository, piece.area.artefact)
            # Whole frames are read, as a real reader does
            begin, end = piece.begin // frame * frame, min(-(-piece.end // frame) * frame, piece.area.size_bytes)
            ledger[place] = overlaid(spans_of(piece.area, ledger.get(place, ())), Span(begin, end, at(run)))
            read |= {(piece.area.artefact, byte) for byte in range(begin, end)}
            last |= {(piece.area.artefact, byte): at(run) for byte in range(begin, end)}
        first = oldest(areas, ledger)
        assert (None if first is None else first.moment) == min(last.values(), default=None)
        assert first is None or last[first.area.artefact, first.offset] == first.moment
    assert len(read) == total
    assert unread_since(areas, ledger, at(1)) == 0


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 9)), max_size=12))
def test_notes_of_any_order_and_overlap_become_spans_without_hole_or_overlap(notes: list[tuple[int, int, int]]) -> None:
    whole = area(0, 50)
    known = [Span(min(a, b), max(a, b), at(hours)) for a, b, hours in notes]
    spans = spans_of(whole, known)
    assert [one.begin for one in spans] == [0, *(one.end for one in spans[:-1])]
    assert spans[-1].end == 50
    for byte in range(50):
        moments = [one.moment for one in known if one.begin <= byte < one.end]
        (span,) = (one for one in spans if one.begin <= byte < one.end)
        assert span.moment == max([whole.written, *moments])
    assert all(one.moment != other.moment for one, other in itertools.pairwise(spans))


def test_a_new_copy_was_read_when_it_was_written_and_is_not_read_first() -> None:
    old, new = area(0, 10, -100), area(1, 10, -1)
    assert [piece.area for piece in next_slice([new, old], {}, 10)] == [old]
    first = oldest([new, old], {})
    assert first is not None
    assert (first.area, first.offset, first.moment) == (old, 0, old.written)


def test_a_slice_is_large_enough_for_every_byte_to_be_read_in_time_also_after_missed_days() -> None:
    month = timedelta(days=30)
    daily = slice_bytes(3_000, month, timedelta(days=1))
    assert daily * 30 > 3_000 * 1.2, "a fifth of the days may be missed"
    assert slice_bytes(3_000, month, timedelta(0)) == daily, "at least a day's share"
    assert slice_bytes(3_000, month, timedelta(days=10)) > 9 * daily
    assert slice_bytes(3_000, month, timedelta(days=90)) == 3_000
    assert slice_bytes(0, month, timedelta(days=1)) == 0
