"""The WAL archive of a repository: its names, and what they prove."""

from __future__ import annotations

import hashlib
import hmac
import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.kernel.errors import DamageError, RecoupError, RefusedError
from recoup.repository import named_objects, wal_names
from recoup.repository.repository import Repository, create_repository
from recoup.repository.seal import Key
from recoup.repository.wal_archive import (
    MAX_SEGMENT_BYTES,
    WalArchive,
    clusters_in,
    seal_wal,
)
from recoup.repository.wal_names import WalGap, WalHistory, WalPiece, WalSegment
from recoup.storage.memory import MemoryStore
from tests.unit.repository.sealed import KEY, OTHER_KEY

SYSTEM = "7412345678901234567"
NAME = "0000000100000000000000A3"
STAMP = datetime(2026, 11, 23, 2, 0, 0, 123_999, UTC)
PLAIN = b"WAL " * 5000


def repository(key: Key = KEY) -> Repository:
    return create_repository("local", MemoryStore(), key)


def archive(service: str = "postgres", system: str = SYSTEM) -> WalArchive:
    return WalArchive(repository(), service, system)


def test_a_segment_comes_back_and_its_key_says_all_that_a_listing_needs() -> None:
    wal = archive()
    stored = wal.put_segment(NAME, PLAIN, STAMP)
    assert stored.key == (f"wal/postgres/{SYSTEM}/0000000100000000/{NAME}-20261123T020000123Z-{stored.mac}.zst.enc")
    assert [*wal.entries()] == [stored]
    assert (stored.timeline, stored.name, stored.number(16 << 20)) == (1, NAME, 0xA3)
    assert stored.stamp == datetime(2026, 11, 23, 2, 0, 0, 123_000, UTC)
    assert stored.stored_bytes == wal.repository.store.stat(stored.key).size_bytes
    assert wal.read(stored) == PLAIN


def test_the_mac_in_the_name_is_what_a_stock_hmac_computes() -> None:
    wal = archive()
    stored = wal.put_segment(NAME, PLAIN, STAMP)
    bound = stored.key.removesuffix(f"-{stored.mac}.zst.enc")
    message = f"recoup wal v1\n{bound}\n".encode() + wal.repository.store.get(stored.key)
    assert hmac.new(KEY.authentication_key, message, hashlib.sha256).hexdigest()[:32] == stored.mac


def test_all_four_kinds_are_told_apart_and_listed_in_the_order_of_the_wal() -> None:
    wal = archive()
    late = wal.put_segment("000000020000000000000005", PLAIN, STAMP)
    history = wal.put_history(2, b"1\t0/4000000\tno recovery target\n", STAMP)
    gap = wal.put_gap(1, 1 << 24, 3 << 24, "the server removed it", STAMP)
    piece = wal.put_piece("000000010000000000000004", 8192, PLAIN, STAMP)
    first = wal.put_segment("000000010000000000000003", PLAIN, STAMP)
    assert [*wal.entries()] == [gap, first, piece, history, late]
    assert isinstance(gap, WalGap)
    assert isinstance(piece, WalPiece)
    assert isinstance(history, WalHistory)
    assert (piece.start, piece.end, piece.segment, piece.timeline) == (
        8192,
        8192 + len(PLAIN),
        first.name[:-1] + "4",
        1,
    )
    assert (gap.start, gap.end, gap.timeline, wal.reason(gap)) == (1 << 24, 3 << 24, 1, "the server removed it")
    assert (history.name, wal.read(history)) == ("00000002.history", b"1\t0/4000000\tno recovery target\n")
    assert [*wal.entries("00000002")] == [history, late]
    assert [*wal.entries("000000010000000000000003")] == [first]
    assert clusters_in(wal.repository) == [("postgres", SYSTEM)]
    wal.delete(piece)
    wal.delete(piece)
    assert piece not in [*wal.entries()]


def test_the_same_bytes_again_are_a_success_and_change_nothing() -> None:
    wal = archive()
    stored = wal.put_segment(NAME, PLAIN, STAMP)
    again = wal.put_segment(NAME, PLAIN, STAMP + timedelta(seconds=5))
    assert again == stored
    assert [*wal.entries()] == [stored]


def test_other_bytes_under_the_same_name_are_refused() -> None:
    wal = archive()
    stored = wal.put_segment(NAME, PLAIN, STAMP)
    with pytest.raises(RefusedError, match=f"already holds {NAME}"):
        wal.put_segment(NAME, PLAIN[:-1] + b"!", STAMP)
    assert wal.read(stored) == PLAIN


@given(data=st.data())
@settings(max_examples=60)
def test_no_changed_byte_and_no_other_name_is_ever_decrypted(data: st.DataObject) -> None:
    wal = archive()
    stored = wal.put_segment(NAME, PLAIN[:3000], STAMP)
    sealed = wal.repository.store.get(stored.key)
    where = data.draw(st.integers(0, len(sealed) - 1))
    how = data.draw(st.sampled_from(["flip", "cut", "add", "rename", "stamp", "service", "system", "mac"]))
    key = stored.key
    match how:
        case "flip":
            sealed = sealed[:where] + bytes([sealed[where] ^ (1 << data.draw(st.integers(0, 7)))]) + sealed[where + 1 :]
        case "cut":
            sealed = sealed[:where]
        case "add":
            sealed += b"\0" * (where + 1)
        case "rename":
            key = key.replace("A3-", "A4-")
        case "stamp":
            key = key.replace("T020000", "T020001")
        case "service":
            key = key.replace("/postgres/", "/other/")
        case "system":
            key = key.replace(SYSTEM, SYSTEM[:-1] + "8")
        case "mac":
            digit = data.draw(st.integers(0, 31))
            changed = "0" if stored.mac[digit] != "0" else "1"
            key = key.replace(stored.mac, stored.mac[:digit] + changed + stored.mac[digit + 1 :])
    wal.repository.store.delete(stored.key)
    wal.repository.store.put(key, sealed)
    _, service, system, *_ = key.split("/")
    there = WalArchive(wal.repository, service, system)
    (entry,) = there.entries()
    with pytest.raises(DamageError, match=key):
        there.read(entry)


def test_bytes_sealed_with_another_key_are_not_opened() -> None:
    theirs = WalArchive(repository(OTHER_KEY), "postgres", SYSTEM)
    stored = theirs.put_segment(NAME, PLAIN, STAMP)
    ours = archive()
    ours.repository.store.put(stored.key, theirs.repository.store.get(stored.key))
    with pytest.raises(DamageError, match="sealed with another key"):
        ours.read(stored)


def test_what_recoup_did_not_name_is_passed_over() -> None:
    wal = archive()
    folder = f"wal/postgres/{SYSTEM}/"
    for name in (
        "notes.txt",
        f"{NAME}.zst.enc",
        f"{NAME}-20261123T020000123Z-{'a' * 32}.zst.enc",  # a segment outside its folder
        f"0000000100000000/{NAME}-20261399T020000123Z-{'a' * 32}.zst.enc",
        f"0000000200000000/{NAME}-20261123T020000123Z-{'a' * 32}.zst.enc",
        f"0000000100000000/{NAME}-20261123T020000123Z-{'A' * 32}.zst.enc",
        f"0000000100000000/{NAME}.00002000-00001000.partial-20261123T020000123Z-{'a' * 32}.zst.enc",
    ):
        wal.repository.store.put(folder + name, b"x")
    assert [*wal.entries()] == []
    assert clusters_in(wal.repository) == []


def test_a_missing_object_is_damage_by_name() -> None:
    wal = archive()
    stored = wal.put_segment(NAME, PLAIN, STAMP)
    wal.repository.store.delete(stored.key)
    with pytest.raises(DamageError, match=r"is missing"):
        wal.read(stored)


def test_the_largest_segment_that_does_not_compress_fits() -> None:
    plain = random.Random(1).randbytes(1 << 20) * (MAX_SEGMENT_BYTES >> 20)
    sealed = seal_wal(KEY, service="postgres", system_identifier=SYSTEM, name=NAME, stamp=STAMP, plain=plain)
    wal = archive()
    assert wal.read(wal.put(sealed)) == plain
    with pytest.raises(ValueError, match="at once"):
        wal.put_segment(NAME, plain + b"x", STAMP)


@pytest.mark.parametrize(("service", "system"), [("../x", SYSTEM), ("postgres", "0"), ("postgres", "12/3"), ("", "1")])
def test_names_that_are_no_part_of_a_key_are_refused(service: str, system: str) -> None:
    with pytest.raises(ValueError, match="cannot be part"):
        archive(service, system)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 1 << 20), st.sampled_from([1 << 20, 16 << 20, 64 << 20, 1 << 30])),
        min_size=2,
    )
)
def test_names_sort_as_timelines_and_positions_do(drawn: list[tuple[int, int, int]]) -> None:
    segment_bytes = drawn[0][2]
    per_id = (1 << 32) // segment_bytes
    names = {(t, n): f"{t:08X}{n // per_id:08X}{n % per_id:08X}" for t, n, _ in drawn}
    wal = archive()
    for name in names.values():
        wal.put_segment(name, b"x", STAMP)
    listed = [entry for entry in wal.entries() if isinstance(entry, WalSegment)]
    assert [(one.timeline, one.number(segment_bytes)) for one in listed] == sorted(names)


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_stamps_keep_the_millisecond_and_sort_as_instants(instant: datetime) -> None:
    wal = archive()
    times = [instant - timedelta(milliseconds=1), instant] if instant.year > 1970 else [instant]
    texts = [named_objects.stamp_text(one) for one in times]
    assert all(a < b for a, b in pairwise(texts))
    stored = wal.put_segment(NAME, b"x", instant)
    assert stored.stamp == instant.replace(microsecond=instant.microsecond // 1000 * 1000)
    assert [*wal.entries()] == [stored]


def test_a_stamp_without_a_zone_is_no_instant() -> None:
    with pytest.raises(ValueError, match="zone"):
        archive().put_segment(NAME, b"x", STAMP.replace(tzinfo=None))


def test_a_gap_whose_text_is_not_ours_is_damage() -> None:
    wal = archive()
    sealed = seal_wal(
        KEY, service="postgres", system_identifier=SYSTEM, name=wal_names.gap_name(1, 0, 1), stamp=STAMP, plain=b"[]"
    )
    gap = wal.put(sealed)
    assert isinstance(gap, WalGap)
    with pytest.raises(RecoupError, match="not what Recoup writes"):
        wal.reason(gap)
