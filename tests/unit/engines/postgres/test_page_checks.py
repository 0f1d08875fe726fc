"""The checks of single pages: WAL page headers, all-zero pages, ``pg_control``."""

from __future__ import annotations

import struct

import pytest
from google_crc32c import value as crc32c
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.postgres.backup_manifest import WalRange
from recoup.engines.postgres.control import ClusterState, parse_control
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.wal_pages import PAGE_MAGIC, WalSegmentCheck
from recoup.engines.postgres.zero_pages import ZeroPages
from recoup.kernel.errors import DamageError, UnknownFormatError

MIB = 1 << 20
FACTS = {"major": 17, "system_identifier": "7711248585760442998", "wal_segment_bytes": MIB}
NAME = "000000010000000000000003"
RANGE = (WalRange(timeline=1, start=Lsn(3 * MIB + 40), end=Lsn(3 * MIB + 5 * 8192 + 10)),)


def segment(pages: int = 128, *, stale_from: int = 128) -> bytearray:
    data = bytearray()
    for number in range(pages):
        address = 3 * MIB + number * 8192 - (2 * MIB if number >= stale_from else 0)
        header = struct.pack("<HHIQI4x", PAGE_MAGIC[17], 2 if number == 0 else 0, 1, address, 0)
        if number == 0:
            header += struct.pack("<QII", int(FACTS["system_identifier"]), MIB, 8192)  # type: ignore[call-overload]
        data += header.ljust(8192, b"\xaa")
    return data


def faults(data: bytes, piece: int = 8192, facts: dict[str, object] = FACTS, name: str = NAME) -> list[str]:
    check = WalSegmentCheck(name, len(data), facts, RANGE)
    for at in range(0, len(data), piece):
        check.take(bytes(data[at : at + piece]))
    return check.faults()


@settings(deadline=None, max_examples=30)
@given(st.integers(100, 300_000))
def test_a_good_segment_is_good_however_it_is_cut(piece: int) -> None:
    assert faults(segment(), piece) == []


def test_what_lies_behind_the_end_does_not_matter() -> None:
    assert faults(segment(stale_from=6)) == []
    assert faults(segment(stale_from=5)) == [f"segment {NAME} has no page of WAL at 0/30A000"]


@pytest.mark.parametrize(
    ("at", "said"),
    [(0, "no page of WAL"), (2, "no long header"), (4, "timeline"), (8, "no page of WAL"), (24, "another cluster"),
     (32, "segments have"), (8192, "no page of WAL")],
)  # fmt: skip
def test_each_field_of_a_page_header_counts(at: int, said: str) -> None:
    data = segment()
    data[at] ^= 2
    (fault,) = faults(data)
    assert said in fault


def test_a_short_segment_or_a_wrong_version_is_a_fault() -> None:
    assert "instead of 1048576" in faults(segment(pages=100))[0]
    assert "no page of WAL" in faults(segment(), facts={**FACTS, "major": 16})[0]


def test_zero_pages_are_told_apart_by_where_they_are() -> None:
    census = ZeroPages()
    take = census.file("base/5/1", 8192)
    for piece in (b"x" * 8192 + bytes(4096), bytes(4096 + 8192), b"y" * 8192, bytes(3 * 8192)):
        take(piece)
    census.file("base/5/2", 8192)(bytes(8192))
    assert census.pages == 6
    assert census.inner == {"base/5/1": 2}
    assert census.text() == (
        "6 all-zero pages, 4 of them at the end of their file, where relations grow; "
        "2 between other pages: base/5/1 (2)"
    )
    assert ZeroPages().text() == "none"


def control_file(version: int = 1700) -> bytearray:
    head = struct.pack("<QIIi4xqQQII", 42, version, 202406281, 6, 0, 0x3000060, 0x3000028, 1, 1)
    body = head.ljust(208, b"\0") + struct.pack(
        "<d8I?3xI", 1234567.0, 8192, 131072, 8192, MIB, 64, 32, 1996, 2048, True, 1
    )
    body += b"\0" * 4 * (version >= 1800) + b"n" * 32
    return bytearray((body + struct.pack("<I", crc32c(body))).ljust(8192, b"\0"))


@pytest.mark.parametrize("version", [1300, 1700, 1800])
def test_pg_control_is_understood(version: int) -> None:
    control = parse_control(bytes(control_file(version)))
    assert (control.system_identifier, control.state, control.timeline) == ("42", ClusterState.IN_PRODUCTION, 1)
    assert (control.redo, control.wal_segment_bytes, control.data_checksums) == (Lsn(0x3000028), MIB, True)


@pytest.mark.parametrize("at", [0, 12, 100, 209, 230, 260, 287])
def test_a_flipped_bit_in_pg_control_is_damage(at: int) -> None:
    data = control_file()
    data[at] ^= 1
    with pytest.raises(DamageError):
        parse_control(bytes(data))


def test_a_pg_control_of_another_version_is_not_guessed_at() -> None:
    with pytest.raises(UnknownFormatError, match="version 1900"):
        parse_control(bytes(control_file(1900)))
    with pytest.raises(DamageError, match="too short"):
        parse_control(b"")
