"""Shipping WAL into several repositories: order, safety, failures, catching up. Stores in memory, with faults."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.backup.wal_held import HeldWal, Reach, held_wal
from recoup.backup.wal_shipper import Target, WalShipper
from recoup.demo.host import wait_until
from recoup.kernel.errors import RefusedError, StorageError
from recoup.repository.repository import create_repository
from recoup.repository.wal_archive import SealedWal, WalArchive
from recoup.repository.wal_names import WalEntry, WalPiece, WalSegment
from recoup.storage.faults import FaultyStore
from recoup.storage.memory import MemoryStore
from tests.unit.repository.sealed import KEY

SIZE = 1 << 20
ONE = (Reach(timeline=1, end=None),)
STAMP = datetime(2026, 11, 23, tzinfo=UTC)


class AwayError(StorageError):
    """The store does not answer."""


class Moody(FaultyStore):
    """Fails writes of WAL while ``bad``, and now and then by chance."""

    def __init__(self, *, share: float = 0.0, seed: int = 0) -> None:
        super().__init__(
            MemoryStore(), share=share, seed=seed, concerns=lambda operation, key: operation == "put" and "wal/" in key
        )
        self.bad = threading.Event()

    def strike(self, operation: str, key: str, *, cut_raises: bool = True):  # type: ignore[no-untyped-def]
        if self.bad.is_set() and operation == "put":
            raise AwayError("away")
        return super().strike(operation, key, cut_raises=cut_raises)


def name(number: int) -> str:
    return f"00000001{number // 4096:08X}{number % 4096:08X}"


def content(number: int) -> bytes:
    return random.Random(number).randbytes(1000) * (SIZE // 1000) + bytes(SIZE % 1000)


def archive_of(store: Moody, label: str) -> WalArchive:
    return WalArchive(create_repository(label, store, KEY), "pg", "77")


@contextmanager
def shipping(*targets: tuple[WalArchive, bool], begin: int = 0) -> Iterator[WalShipper]:
    held: list[HeldWal | None] = [held_wal(archive.entries(), ONE, SIZE) for archive, _ in targets]
    shipper = WalShipper(
        [
            Target(archive=archive, required=required, held=one)
            for (archive, required), one in zip(targets, held, strict=True)
        ],
        key=KEY, begin=begin, segment_bytes=SIZE,
    )  # fmt: skip
    try:
        yield shipper
    finally:
        shipper.close()


def ship(shipper: WalShipper, number: int) -> None:
    assert wait_until(shipper.room, limit_seconds=120)
    shipper.ship_segment(name(number), (number + 1) * SIZE, content(number), STAMP)


def ship_part(shipper: WalShipper, number: int, start: int, end: int, *, merges: bool = False) -> None:
    data = content(number)[start:end]
    shipper.ship_piece(name(number), start, number * SIZE + end, data, STAMP, merges=merges)


def numbers(archive: WalArchive) -> list[int]:
    return [one.number(SIZE) for one in archive.entries() if isinstance(one, WalSegment)]


def test_safe_is_what_every_required_repository_has() -> None:
    first, second = Moody(), Moody()
    one, two = archive_of(first, "one"), archive_of(second, "two")
    with shipping((one, True), (two, True)) as shipper:
        second.bad.set()
        ship(shipper, 0)
        assert wait_until(lambda: numbers(one) == [0], limit_seconds=120)
        assert shipper.safe() == 0
        assert not shipper.drained()
        second.bad.clear()
        assert wait_until(lambda: shipper.safe() == SIZE, limit_seconds=120)
        assert numbers(two) == [0]


def test_nothing_is_safe_while_a_required_repository_is_missing_unless_it_is_waived() -> None:
    store = Moody()
    archive = archive_of(store, "one")
    shipper = WalShipper(
        [Target(archive=archive, required=True, held=None)], key=KEY, begin=0, segment_bytes=SIZE, missing=True
    )
    try:
        ship(shipper, 0)
        assert wait_until(shipper.drained, limit_seconds=120)
        assert shipper.safe() == 0
        shipper.waive_missing()
        assert shipper.safe() == SIZE
    finally:
        shipper.close()


def test_a_segment_replaces_its_pieces_and_a_merged_piece_those_before_it() -> None:
    archive = archive_of(Moody(), "one")
    with shipping((archive, True)) as shipper:
        for start in range(0, 500, 100):
            ship_part(shipper, 0, start, start + 100)
        ship_part(shipper, 0, 0, 700, merges=True)
        assert wait_until(lambda: shipper.safe() == 700 and len(list(archive.entries())) == 1, limit_seconds=120)
        (piece,) = archive.entries()
        assert isinstance(piece, WalPiece)
        assert archive.read(piece) == content(0)[:700]
        ship(shipper, 0)
        assert wait_until(lambda: numbers(archive) == [0] and len(list(archive.entries())) == 1, limit_seconds=120)


def test_memory_is_bounded_by_not_taking_more() -> None:
    store = Moody()
    archive = archive_of(store, "one")
    store.bad.set()
    with shipping((archive, True)) as shipper:
        shipped = 0
        while shipper.room() and shipped < 1000:
            ship(shipper, 0)
            shipped += 1
        assert shipped <= (48 << 20) // SIZE
        store.bad.clear()


def test_a_repository_that_is_not_required_copies_what_it_missed() -> None:
    good, moody = Moody(), Moody()
    one, two = archive_of(good, "one"), archive_of(moody, "two")
    with shipping((one, True), (two, False)) as shipper:
        ship(shipper, 0)
        moody.bad.set()
        for number in range(1, 6):
            ship(shipper, number)
        assert wait_until(lambda: shipper.safe() == 6 * SIZE, limit_seconds=120)
        assert wait_until(lambda: shipper.states()[1].mode == "behind", limit_seconds=120)
        moody.bad.clear()
        assert wait_until(lambda: shipper.states()[1].mode == "running", limit_seconds=120)
        ship(shipper, 6)
        assert wait_until(lambda: numbers(two) == list(range(7)), limit_seconds=120)
    for entry in two.entries():
        assert isinstance(entry, WalSegment)
        assert two.read(entry) == content(entry.number(SIZE))


def test_one_that_was_away_at_the_start_first_copies_from_the_other() -> None:
    one, two = archive_of(Moody(), "one"), archive_of(Moody(), "two")
    for number in range(5):
        one.put_segment(name(number), content(number), STAMP)
    two.put_segment(name(0), content(0), STAMP)
    one.put_gap(1, 7, 9, "a known gap", STAMP)
    with shipping((one, True), (two, True), begin=5 * SIZE) as shipper:
        ship(shipper, 5)
        assert wait_until(lambda: shipper.safe() == 6 * SIZE, limit_seconds=120)
        assert numbers(two) == list(range(6))
        assert len(list(two.entries("00000001.000"))) == 1


def test_other_content_is_raised_to_whoever_ships() -> None:
    archive = archive_of(Moody(), "one")
    archive.put_segment(name(1), b"somebody else's", STAMP)
    with shipping((archive, True)) as shipper:
        shipper.ship_segment(name(1), 2 * SIZE, content(1), STAMP + timedelta(seconds=1))
        assert wait_until(lambda: shipper.lanes[0].failure is not None, limit_seconds=120)
        with pytest.raises(RefusedError, match="already holds"):
            shipper.room()
    (held,) = archive.entries()
    assert archive.read(held) == b"somebody else's"


@pytest.mark.parametrize("ends", ["stored", "away"])
def test_a_refusal_stands_whatever_happens_to_what_was_under_way_beside_it(
    ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Moody()
    archive = archive_of(store, "one")
    asked, go_on = threading.Event(), threading.Event()
    put = WalArchive.put

    def slow(self: WalArchive, sealed: SealedWal) -> WalEntry:
        if sealed.name == name(0):
            asked.set()
            assert go_on.wait(500)
            if ends == "away":
                raise AwayError("away")
        return put(self, sealed)

    monkeypatch.setattr(WalArchive, "put", slow)
    with shipping((archive, True)) as shipper:
        ship(shipper, 0)
        assert asked.wait(120)
        archive.put_segment(name(1), b"somebody else's", STAMP)
        ship(shipper, 1)
        assert wait_until(lambda: shipper.states()[0].mode == "failed", limit_seconds=120)
        go_on.set()
        assert wait_until(
            lambda: not [one for one in threading.enumerate() if one.name.startswith("wal-one-")], limit_seconds=120
        )
        (state,) = shipper.states()
        assert state.error is not None
        assert f"already holds {name(1)}" in state.error
        with pytest.raises(RefusedError, match="already holds"):
            shipper.room()
        assert shipper.safe() == 0


@given(seed=st.integers(0, 1 << 30), share=st.sampled_from([0.1, 0.4]), count=st.integers(1, 8))
@settings(max_examples=4)
def test_whatever_fails_now_and_then_ends_whole_and_safe_never_runs_ahead(seed: int, share: float, count: int) -> None:
    stores = Moody(share=share, seed=seed), Moody(share=share, seed=seed + 1)
    archives = [archive_of(store, label) for store, label in zip(stores, ("one", "two"), strict=True)]
    with shipping((archives[0], True), (archives[1], True)) as shipper:
        for number in range(count):
            ship_part(shipper, number, 0, 300)
            ship(shipper, number)
            safe = shipper.safe()
            for archive in archives:
                held = held_wal(archive.entries(), ONE, SIZE)
                assert (0 if held is None else held.safe) >= safe
        assert wait_until(lambda: shipper.safe() == count * SIZE, limit_seconds=120)
    for archive in archives:
        assert numbers(archive) == list(range(count))
