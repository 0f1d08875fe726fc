"""What an archive holds, where to go on, and when to let go: decided from names and numbers alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.backup.wal_held import HeldWal, Reach, held_wal, joined, newest_timeline, owner
from recoup.backup.wal_start import starts
from recoup.repository.wal_names import WalEntry, WalGap, WalHistory, WalPiece, WalSegment

SIZE = 16 << 20
STAMP = datetime(2026, 11, 23, tzinfo=UTC)
ONE = (Reach(timeline=1, end=None),)


def name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}{number // 256:08X}{number % 256:08X}"


def segment(number: int, timeline: int = 1) -> WalSegment:
    return WalSegment(key="k", stamp=STAMP, mac="m", stored_bytes=1, name=name(number, timeline))


def piece(number: int, start: int, end: int, timeline: int = 1) -> WalPiece:
    return WalPiece(key="k", stamp=STAMP, mac="m", stored_bytes=1, segment=name(number, timeline), start=start, end=end)


def gap(start: int, end: int, timeline: int = 1) -> WalGap:
    return WalGap(key="k", stamp=STAMP, mac="m", stored_bytes=1, timeline=timeline, start=start, end=end)


def test_an_empty_archive_holds_nothing() -> None:
    assert held_wal([], ONE, SIZE) is None
    assert newest_timeline([]) == 0


def test_pieces_of_the_next_segment_count_up_to_the_first_hole_and_those_of_whole_ones_are_superfluous() -> None:
    old = piece(4, 0, 100)
    entries: list[WalEntry] = [segment(3), segment(4), old, piece(5, 0, 100), piece(5, 90, 200), piece(5, 300, 400)]
    held = held_wal(entries, ONE, SIZE)
    assert held is not None
    assert (held.end, held.piece_bytes, held.safe) == (5 * SIZE, 200, 5 * SIZE + 200)
    assert held.superfluous == (old,)


def test_a_hole_near_the_end_is_where_to_go_on_unless_it_is_a_known_gap() -> None:
    held = held_wal([segment(3), segment(4), segment(6), segment(7)], ONE, SIZE)
    assert held is not None
    assert held.end == 5 * SIZE
    held = held_wal([segment(3), segment(4), gap(5 * SIZE, 6 * SIZE), segment(6), segment(7)], ONE, SIZE)
    assert held is not None
    assert held.end == 8 * SIZE


def test_a_gap_that_nothing_follows_yet_is_not_filled_again() -> None:
    held = held_wal([segment(3), gap(4 * SIZE + 9, 9 * SIZE)], ONE, SIZE)
    assert held is not None
    assert (held.end, held.piece_bytes) == (9 * SIZE, 0)


def test_a_switch_of_timelines_inside_a_segment_goes_on_with_the_new_ones_copy_of_it() -> None:
    history = (Reach(timeline=1, end=5 * SIZE + 77), Reach(timeline=2, end=None))
    held = held_wal([segment(3), segment(4), piece(5, 0, 77)], history, SIZE)
    assert held is not None
    assert (held.timeline, held.end, held.piece_bytes) == (2, 5 * SIZE, 0)
    held = held_wal([segment(3), segment(4), segment(5, 2), piece(6, 0, 9, 2)], history, SIZE)
    assert held is not None
    assert (held.timeline, held.safe) == (2, 6 * SIZE + 9)
    # What the old timeline wrote beyond the switch is not part of this history.
    held = held_wal([segment(3), segment(4), segment(5), segment(6)], history, SIZE)
    assert held is not None
    assert (held.timeline, held.end) == (2, 5 * SIZE)


def test_only_wal_and_histories_count_for_the_newest_timeline() -> None:
    history = WalHistory(key="k", stamp=STAMP, mac="m", stored_bytes=1, timeline=3)
    entries: list[WalEntry] = [segment(3), history, gap(0, 1, 9)]
    assert newest_timeline(entries) == 3


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40)), max_size=12))
def test_joined_is_the_first_byte_that_no_piece_holds(drawn: list[tuple[int, int]]) -> None:
    pieces = [piece(1, start, start + length) for start, length in drawn]
    covered = {byte for one in pieces for byte in range(one.start, one.end)}
    assert joined(pieces) == next(byte for byte in range(200) if byte not in covered)


@given(
    st.sets(st.integers(0, 40), min_size=1),
    st.lists(st.integers(1, 40 * SIZE), max_size=3, unique=True),
    st.data(),
)
def test_going_on_never_skips_a_segment_that_is_missing_at_the_end(
    numbers: set[int], ends: list[int], data: st.DataObject
) -> None:
    switches = sorted(ends)
    history = (
        *(Reach(timeline=number, end=end) for number, end in enumerate(switches, 1)),
        Reach(timeline=len(switches) + 1, end=None),
    )
    entries = [segment(number, owner(history, number, SIZE)) for number in numbers]
    strangers = [segment(number, 9) for number in data.draw(st.sets(st.integers(0, 40)))]
    held = held_wal([*entries, *strangers], history, SIZE)
    assert held is not None
    following = held.end // SIZE
    assert following not in numbers
    assert following == min(number for number in range(min(numbers), 42) if number not in numbers)
    assert held.timeline == owner(history, following, SIZE)


def held_at(position: int, pieces: int = 0) -> HeldWal:
    return HeldWal(timeline=1, end=position, piece_bytes=pieces)


def test_the_first_start_is_where_the_slot_begins() -> None:
    (only,) = starts({"a": None, "b": None}, ONE, slot_from=5 * SIZE + 9, segment_bytes=SIZE)
    assert (only.position, only.gap_from, only.behind) == (5 * SIZE, None, frozenset())


def test_starts_are_tried_from_the_archive_that_holds_least_to_a_gap() -> None:
    held = {"a": held_at(7 * SIZE, 30), "b": held_at(5 * SIZE), "new": None}
    least, most, lost = starts(held, ONE, slot_from=9 * SIZE + 1, segment_bytes=SIZE)
    assert (least.position, least.behind, least.gap_from) == (5 * SIZE, frozenset(), None)
    assert (most.position, most.behind, most.gap_from) == (7 * SIZE, frozenset({"b"}), None)
    assert (lost.position, lost.gap_from, lost.behind) == (9 * SIZE, 7 * SIZE + 30, frozenset({"b"}))


def test_no_gap_is_thought_of_while_the_slot_reaches_back_far_enough() -> None:
    found = starts({"a": held_at(7 * SIZE)}, ONE, slot_from=6 * SIZE, segment_bytes=SIZE)
    assert [one.gap_from for one in found] == [None]


@pytest.mark.parametrize("number", [4, 5, 6])
def test_the_owner_of_a_segment_is_the_newest_timeline_that_has_begun_in_it(number: int) -> None:
    history = (Reach(timeline=1, end=5 * SIZE + 1), Reach(timeline=4, end=None))
    assert owner(history, number, SIZE) == (1 if number < 5 else 4)
