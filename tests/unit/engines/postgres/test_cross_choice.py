"""Choosing what a base backup is held against."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.postgres.cross_choice import Crossing, NotCrossed, choose_crossing
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.timelines import History, Switch
from recoup.engines.postgres.wal_inventory import WalInventory
from recoup.engines.postgres.wal_windows import Base

SIZE = 16 << 20
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def base(name: str, segment: int) -> Base:
    """One that began and ended inside a segment."""
    begin = segment * SIZE
    return Base(id=name, timeline=1, begin=Lsn(begin + 40), end=Lsn(begin + 400), time=NOON + timedelta(hours=segment))


def wal(*segments: int) -> WalInventory:
    return WalInventory(segment_bytes=SIZE, segments={(1, one): NOON + timedelta(hours=one) for one in segments})


def chosen(inventory: WalInventory, *bases: Base, **chains: tuple[str, ...]) -> Crossing | NotCrossed:
    return choose_crossing(inventory, bases, bases[-1], {one.id: chains.get(one.id, (one.id,)) for one in bases})


def test_the_newest_base_backup_before_it_is_taken_and_both_stop_at_its_end() -> None:
    found = chosen(wal(*range(1, 9)), base("a", 1), base("b", 3), base("c", 6))
    assert isinstance(found, Crossing)
    assert (found.older.bases[0].id, found.newer.bases[0].id) == ("b", "c")
    assert found.older.target == found.newer.target
    assert found.lsn == Lsn(6 * SIZE + 400)
    assert found.replayed_bytes == 3 * SIZE + 360
    assert found.shared == ()


def test_one_that_shares_nothing_is_preferred_and_what_is_shared_is_said() -> None:
    inventory = wal(*range(1, 9))
    found = chosen(inventory, base("a", 1), base("b", 3), base("c", 6), c=("b", "c"))
    assert isinstance(found, Crossing)
    assert (found.older.bases[0].id, found.shared) == ("a", ())
    found = chosen(inventory, base("b", 3), base("c", 6), c=("b", "c"))
    assert isinstance(found, Crossing)
    assert (found.older.bases[0].id, found.shared) == ("b", ("b",))


def test_a_hole_between_is_broken_and_every_missing_segment_is_named() -> None:
    found = chosen(wal(1, 2, 5, 6, 7), base("a", 1), base("b", 6))
    assert isinstance(found, NotCrossed)
    assert found.broken
    names = "000000010000000000000003 and 000000010000000000000004"
    assert found.why == f"from a on, WAL segment {names} is missing"


def test_no_wal_at_all_between_is_nothing_to_check() -> None:
    found = chosen(wal(6, 7), base("a", 1), base("b", 6))
    assert found == NotCrossed(why="no WAL between a and it is archived", broken=False)
    assert chosen(wal(1, 2), base("a", 1)) == NotCrossed(why="there is no base backup before it", broken=False)


def test_wal_that_is_not_archived_yet_is_broken_until_it_is() -> None:
    found = chosen(wal(1, 2, 3), base("a", 1), base("b", 4))
    assert isinstance(found, NotCrossed)
    assert found.broken
    assert "000000010000000000000004" in found.why


def test_a_base_backup_of_before_a_promotion_leads_over_to_the_new_timeline() -> None:
    switch = Switch(timeline=1, at=Lsn(4 * SIZE + 5000), reason="promoted")
    held = {(1, 1): 1, (1, 2): 2, (1, 3): 3, (1, 4): 4, (2, 4): 4, (2, 5): 5, (2, 6): 6, (2, 7): 7}
    inventory = WalInventory(
        segment_bytes=SIZE,
        segments={place: NOON + timedelta(hours=hour) for place, hour in held.items()},
        histories={2: History(timeline=2, switches=(switch,))},
    )
    found = chosen(inventory, base("a", 2), replace(base("b", 6), timeline=2))
    assert isinstance(found, Crossing)
    assert (found.older.bases[0].id, found.older.history.timeline, found.newer.history.timeline) == ("a", 2, 2)


@given(st.sets(st.integers(1, 8)))
def test_it_is_made_exactly_when_every_segment_from_the_one_to_the_other_is_there(segments: set[int]) -> None:
    found = chosen(wal(*segments), base("a", 2), base("b", 6))
    assert isinstance(found, Crossing) is segments.issuperset(range(2, 7))
    if isinstance(found, NotCrossed):
        assert found.broken is bool(segments & set(range(2, 6)))
