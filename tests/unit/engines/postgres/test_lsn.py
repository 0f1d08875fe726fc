from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.postgres.lsn import Lsn, parse_segment_name, segment_name, segments_between

MIB = 1 << 20
SIZES = st.integers(20, 30).map(lambda power: 1 << power)


@given(st.integers(0, (1 << 64) - 1))
def test_a_position_survives_its_text(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == Lsn(value)


def test_a_position_reads_like_postgresql_writes_it() -> None:
    assert str(Lsn(0x16B374D848)) == "16/B374D848"
    assert Lsn.parse("0/3000028").value == 0x3000028
    assert Lsn.parse("0/1") < Lsn.parse("1/0")


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/123456789", "x/1", "0/1 ", "-1/0", "1/2/3"])
def test_anything_else_is_not_a_position(text: str) -> None:
    with pytest.raises(ValueError, match="not a WAL position"):
        Lsn.parse(text)


def test_segment_names_are_postgresqls() -> None:
    # SELECT pg_walfile_name('1/2A000028') on a server with segments of 16 MiB, and of 1 GiB.
    assert segment_name(1, Lsn.parse("1/2A000028").segment(16 * MIB), 16 * MIB) == "00000001000000010000002A"
    assert segment_name(10, Lsn.parse("1/42000028").segment(1024 * MIB), 1024 * MIB) == "0000000A0000000100000001"


@given(st.integers(1, (1 << 32) - 1), st.integers(0, (1 << 33)), SIZES)
def test_a_segment_name_leads_back_to_its_segment(timeline: int, segment: int, size: int) -> None:
    assert parse_segment_name(segment_name(timeline, segment, size), size) == (timeline, segment)


@pytest.mark.parametrize(
    "name",
    [
        "00000001.history",
        "000000010000000000000003.partial",
        "0000000100000000000001FF",
        "00000001000000000000000g",
        "",
    ],
)
def test_other_files_of_pg_wal_are_not_segments(name: str) -> None:
    assert parse_segment_name(name, 16 * MIB) is None


def test_a_range_that_ends_on_a_boundary_does_not_need_the_next_segment() -> None:
    size = 16 * MIB
    assert list(segments_between(Lsn(size * 3 + 40), Lsn(size * 5), size)) == [3, 4]
    assert list(segments_between(Lsn(size * 3 + 40), Lsn(size * 5 + 1), size)) == [3, 4, 5]
    assert list(segments_between(Lsn(size * 3), Lsn(size * 3), size)) == [3]


@pytest.mark.parametrize("size", [0, 1000, 1 << 19, 1 << 31, (1 << 24) + 1])
def test_an_impossible_segment_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="not a WAL segment size"):
        segment_name(1, 1, size)
