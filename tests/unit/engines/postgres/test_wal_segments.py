"""Cutting WAL into segments, and refusing what is not what its place says."""

from __future__ import annotations

import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.wal_segments import Cluster, FilledSegment, SegmentBuffer, check_segment
from recoup.kernel.errors import EngineError, RefusedError

SIZE, PAGE = 1 << 20, 8192
CLUSTER = Cluster(system_identifier="7412345678901234567", major=17, segment_bytes=SIZE)
STAMP = datetime(2026, 11, 23, tzinfo=UTC)
NAME = "000000020000000000000003"


def wal(number: int, *, timeline: int = 2, system: int = 7412345678901234567, zero_from: int | None = None) -> bytes:
    data = bytearray()
    for page in range(SIZE // PAGE):
        address = number * SIZE + page * PAGE
        if page == 0:
            header = struct.pack("<HHIQI4xQII", 0xD116, 2, timeline, address, 0, system, SIZE, PAGE)
        else:
            header = struct.pack("<HHIQI4x", 0xD116, 0, timeline, address, 0)
        data += header.ljust(PAGE, bytes([page % 250 + 1]))
    if zero_from is not None:
        data[zero_from:] = bytes(SIZE - zero_from)
    return bytes(data)


@given(st.lists(st.integers(1, 1 << 17), max_size=40), st.integers(0, SIZE))
@settings(max_examples=15)
def test_however_the_bytes_come_the_segments_are_the_same(cuts: list[int], known: int) -> None:
    stream = wal(3) + wal(4) + wal(5)[:5000]
    buffer = SegmentBuffer(CLUSTER, timeline=2, start=Lsn(3 * SIZE), known=wal(3)[:known])
    done: list[FilledSegment] = []
    at = 0
    for length in [*cuts, *([1 << 17] * 30)]:
        part = stream[at : at + length]
        done += buffer.take(Lsn(3 * SIZE + at), memoryview(part), STAMP)
        at += len(part)
    assert [(one.name, one.begin.value, bytes(one.data)) for one in done] == [
        (NAME, 3 * SIZE, wal(3)), (NAME[:-1] + "4", 4 * SIZE, wal(4)),
    ]  # fmt: skip
    assert buffer.piece(0, buffer.filled) == wal(5)[:5000]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (wal(3, system=1), "is of cluster 1"),
        (wal(4), "has no page of WAL"),
        (wal(3, timeline=3), "of timeline 3"),
        (wal(3)[:PAGE] + wal(3)[: SIZE - PAGE], "has no page of WAL"),
        (wal(3, zero_from=5 * PAGE)[:-1] + b"x", "has no page of WAL"),
        (bytes(SIZE), "has no page of WAL"),
    ],
)
def test_what_is_not_this_clusters_wal_of_that_place_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        check_segment(CLUSTER, NAME, Lsn(3 * SIZE), data)


def test_zeros_behind_a_switch_and_pages_of_an_earlier_timeline_are_right() -> None:
    check_segment(CLUSTER, NAME, Lsn(3 * SIZE), wal(3, zero_from=5 * PAGE))
    check_segment(CLUSTER, NAME, Lsn(3 * SIZE), wal(3, timeline=1))


def test_a_hole_in_the_stream_and_other_bytes_than_the_archive_holds_are_refused() -> None:
    buffer = SegmentBuffer(CLUSTER, timeline=2, start=Lsn(3 * SIZE), known=wal(3)[:9000])
    with pytest.raises(EngineError, match="where 0/300000 was expected"):
        list(buffer.take(Lsn(3 * SIZE + 1), memoryview(b"x"), STAMP))
    changed = bytearray(wal(3)[:9000])
    changed[8500] ^= 1
    with pytest.raises(RefusedError, match="already holds the beginning"):
        list(buffer.take(Lsn(3 * SIZE), memoryview(changed), STAMP))
