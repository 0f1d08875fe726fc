"""The reader of RDB files: what it gives, and what it does with files that are damaged or made to harm."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recoup.engines.redis.crc64 import crc64
from recoup.engines.redis.fingerprint import fingerprint_rdb
from recoup.engines.redis.rdb import Auxiliary, End, Entry, Header, Kind, Record, Sizes, read_rdb
from recoup.engines.redis.seal import RdbSeal, newest_loadable, require_loadable, sealed_pieces
from recoup.kernel.errors import DamageError, RecoupError, RefusedError, UnknownFormatError


def text(value: bytes) -> bytes:
    """A string with a one-byte or four-byte length."""
    return bytes([len(value)]) + value if len(value) < 64 else b"\x80" + struct.pack(">I", len(value)) + value


def rdb(*records: bytes, version: bytes = b"0011") -> bytes:
    """A file of these records, with its end and checksum."""
    data = b"REDIS" + version + b"".join(records) + b"\xff"
    return data + crc64(data).to_bytes(8, "little")


def entry(kind: int, key: bytes, value: bytes) -> bytes:
    return bytes([kind]) + text(key) + value


SMALL = rdb(
    b"\xfa" + text(b"redis-ver") + text(b"7.2.4"),
    b"\xfe\x00\xfb\x05\x01",
    entry(0, b"a", text(b"value")),
    b"\xfc" + struct.pack("<q", 4_102_444_800_000) + entry(0, b"n", b"\xc1\x39\x30"),
    entry(1, b"l", b"\x02" + text(b"x") + text(b"y")),
    b"\xf8\x05" + entry(4, b"h", b"\x01" + text(b"f") + text(b"v")),
    b"\xf9\x07" + entry(5, b"z", b"\x01" + text(b"m") + struct.pack("<d", 1.5)),
)


def elements(data: bytes) -> dict[bytes, list[object]]:
    found: dict[bytes, list[object]] = {}
    for record in read_rdb([data]):
        if isinstance(record, Entry):
            found[record.key] = [element for batch in record.batches for element in batch]
    return found


def test_every_record_comes_out_in_order() -> None:
    records = list(read_rdb([SMALL]))
    assert records[0] == Header(version=11)
    assert records[1] == Auxiliary(name=b"redis-ver", value=b"7.2.4")
    assert records[2] == Sizes(database=0, keys=5, expiring=1)
    keys = [(r.key, r.kind, r.expires_ms) for r in records if isinstance(r, Entry)]
    assert keys == [
        (b"a", Kind.STRING, None),
        (b"n", Kind.STRING, 4_102_444_800_000),
        (b"l", Kind.LIST, None),
        (b"h", Kind.HASH, None),
        (b"z", Kind.ZSET, None),
    ]
    assert records[-1] == End(checksum_stated=True, size_bytes=len(SMALL))
    assert elements(SMALL)[b"n"] == [b"12345"]
    assert elements(SMALL)[b"h"] == [(b"f", b"v", None)]


def test_the_cut_of_the_stream_into_pieces_does_not_matter() -> None:
    def comparable(records: Iterator[Record]) -> list[object]:
        found: list[object] = []
        for record in records:
            if isinstance(record, Entry):
                found.append((record.key, [element for batch in record.batches for element in batch]))
            else:
                found.append(record)
        return found

    whole = comparable(read_rdb([SMALL]))
    for size in (1, 2, 3, 7, 50):
        pieces = (SMALL[i : i + size] for i in range(0, len(SMALL), size))
        assert comparable(read_rdb(pieces)) == whole


def test_a_file_cut_at_any_byte_is_truncated() -> None:
    for size in range(len(SMALL)):
        with pytest.raises(DamageError):
            list(read_rdb([SMALL[:size]]))


def test_any_flipped_bit_is_found() -> None:
    for position in range(len(SMALL)):
        for bit in range(8):
            data = bytearray(SMALL)
            data[position] ^= 1 << bit
            with pytest.raises((DamageError, UnknownFormatError)):
                list(read_rdb([bytes(data)]))


def test_bytes_behind_the_end_are_found() -> None:
    with pytest.raises(DamageError, match="bytes follow the end"):
        list(read_rdb([SMALL, b"x"]))


def test_a_file_without_a_checksum_is_read_and_called_unproven() -> None:
    data = SMALL[:-8] + bytes(8)
    *_, end = read_rdb([data])
    assert isinstance(end, End)
    assert not end.checksum_stated


@pytest.mark.parametrize("version", [b"0005", b"0013", b"9999"])
def test_an_unknown_version_is_unknown_and_not_damage(version: bytes) -> None:
    with pytest.raises(UnknownFormatError):
        list(read_rdb([rdb(version=version)]))


@pytest.mark.parametrize("code", [8, 22, 23, 26, 200, 243, 246])
def test_an_unknown_record_is_unknown_and_not_damage(code: int) -> None:
    with pytest.raises(UnknownFormatError, match=f"unknown kind {code}"):
        list(read_rdb([rdb(bytes([code]))]))


@pytest.mark.parametrize(
    "record",
    [
        entry(0, b"k", b"\x81" + struct.pack(">Q", 1 << 60)),  # a string of an exabyte
        entry(0, b"k", b"\x80\xff\xff\xff\xff"),
        entry(0, b"k", b"\xc3\x05\x81" + struct.pack(">Q", 1 << 62) + b"abcde"),  # that unpacks to more
        entry(1, b"k", b"\x81" + struct.pack(">Q", (1 << 64) - 1)),  # a list of as many elements
        entry(4, b"k", b"\x80\xff\xff\xff\xff" + text(b"f")),
        entry(15, b"k", b"\x81" + struct.pack(">Q", (1 << 64) - 1)),
        b"\xfe\x81" + struct.pack(">Q", (1 << 64) - 1),  # a database of that number
        b"\xfc" + bytes(8),  # an expiry of nothing
        entry(18, b"k", b"\x01\x09" + text(b"x")),
        entry(16, b"k", text(b"not a listpack")),
        entry(7, b"k", b"\x01\x09"),
    ],
)
def test_claims_that_the_bytes_do_not_keep_are_damage_and_cost_no_memory(record: bytes) -> None:
    with pytest.raises((DamageError, UnknownFormatError), match="byte"):
        list(read_rdb([rdb(record)]))


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400))
@example(b"\x13\x01k\x00\x00")
def test_any_bytes_are_read_or_refused_with_an_error_of_ours(body: bytes) -> None:
    with contextlib.suppress(RecoupError):
        fingerprint_rdb([rdb(body)], at_ms=0)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=6))
def test_a_file_with_any_bytes_changed_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SMALL)
    for position, value in changes:
        data[position] = value
    try:
        list(read_rdb([bytes(data)]))
    except RecoupError:
        return
    assert bytes(data) == SMALL or data[-8:] == bytes(8)


def test_the_fingerprint_does_not_depend_on_order_nor_encoding() -> None:
    one = rdb(entry(2, b"s", b"\x02" + text(b"1") + text(b"2")), entry(0, b"n", b"\xc0\x07"))
    packed = struct.pack("<II2h", 2, 2, 1, 2)
    other = rdb(entry(0, b"n", text(b"7")), entry(11, b"s", text(packed)), version=b"0009")
    assert fingerprint_rdb([one], at_ms=0) == fingerprint_rdb([other], at_ms=0)


def test_two_equal_elements_do_not_cancel_out_in_the_fingerprint() -> None:
    twice = rdb(entry(1, b"l", b"\x02" + text(b"x") + text(b"x")))
    never = rdb(entry(1, b"l", b"\x00"))
    assert fingerprint_rdb([twice], at_ms=0) != fingerprint_rdb([never], at_ms=0)


def test_minus_zero_is_zero_as_a_score() -> None:
    scores = [rdb(entry(5, b"z", b"\x01" + text(b"m") + struct.pack("<d", score))) for score in (0.0, -0.0)]
    assert fingerprint_rdb([scores[0]], at_ms=0) == fingerprint_rdb([scores[1]], at_ms=0)


def test_the_seal_accepts_what_the_reader_accepts_and_finds_what_it_finds() -> None:
    for size in (1, 8, 9, 10, 1000):
        seal = RdbSeal()
        for start in range(0, len(SMALL), size):
            seal.write(SMALL[start : start + size])
        assert seal.finish() is True
        assert seal.version() == 11
    for position in range(len(SMALL)):
        data = bytearray(SMALL)
        data[position] ^= 1
        with pytest.raises(DamageError):
            list(sealed_pieces([bytes(data)], RdbSeal()))


def test_a_damaged_copy_is_not_handed_on_to_its_last_byte() -> None:
    data = bytearray(SMALL)
    data[20] ^= 1
    handed = bytearray()
    pieces = sealed_pieces((bytes(data[i : i + 10]) for i in range(0, len(data), 10)), RdbSeal())
    with pytest.raises(DamageError):
        handed.extend(b"".join(map(_noting(handed), pieces)))
    assert 0 < len(handed) < len(data)


def _noting(seen: bytearray) -> Callable[[bytes], bytes]:
    def note(piece: bytes) -> bytes:
        seen.extend(piece)
        return b""

    return note


@pytest.mark.parametrize(
    ("server", "newest"), [("6.2.14", 9), ("7.0.15", 10), ("7.2.0", 11), ("7", 12), ("8.2.3", 12), ("6", 9)]
)
def test_what_each_server_loads(server: str, newest: int) -> None:
    assert newest_loadable(server) == newest
    require_loadable(newest, server)
    with pytest.raises(RefusedError):
        require_loadable(newest + 1, server)
