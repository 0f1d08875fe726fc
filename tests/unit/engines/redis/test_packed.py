"""The packed encodings, byte by byte, and with hostile bytes."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.redis.packed import intset, listpack, lzf_decompress, ziplist, zipmap
from recoup.kernel.errors import DamageError


def make_listpack(*elements: bytes) -> bytes:
    """A listpack of elements that are encoded already, each with its backward length."""
    body = b""
    for element in elements:
        size = len(element)
        back = b"x" * (1 if size <= 127 else 2 if size < 16383 else 3)
        body += element + back
    return struct.pack("<IH", len(body) + 7, len(elements)) + body + b"\xff"


@pytest.mark.parametrize(
    ("encoded", "plain"),
    [
        (b"\x00", b"0"),
        (b"\x7f", b"127"),
        (b"\x83abc", b"abc"),
        (b"\x80", b""),
        (b"\xc0\x80", b"128"),
        (b"\xcf\xff", b"4095"),
        (b"\xdf\xff", b"-1"),
        (b"\xd0\x00", b"-4096"),
        (b"\xe0\x46" + b"y" * 70, b"y" * 70),
        (b"\xf0" + struct.pack("<I", 5000) + b"z" * 5000, b"z" * 5000),
        (b"\xf1" + struct.pack("<h", -30000), b"-30000"),
        (b"\xf2\xff\xff\x7f", b"8388607"),
        (b"\xf3" + struct.pack("<i", -(2**31)), b"-2147483648"),
        (b"\xf4" + struct.pack("<q", 2**63 - 1), b"9223372036854775807"),
    ],
)
def test_every_element_of_a_listpack_reads_as_a_client_would_see_it(encoded: bytes, plain: bytes) -> None:
    assert listpack(make_listpack(b"\x01", encoded, b"\x82ok")) == [b"1", plain, b"ok"]


@pytest.mark.parametrize(
    ("encoded", "plain"),
    [
        (b"\x03abc", b"abc"),
        (b"\x40\x50" + b"y" * 80, b"y" * 80),
        (b"\x80" + struct.pack(">I", 20000) + b"z" * 20000, b"z" * 20000),
        (b"\xc0" + struct.pack("<h", -5), b"-5"),
        (b"\xd0" + struct.pack("<i", 70000), b"70000"),
        (b"\xe0" + struct.pack("<q", -(2**63)), b"-9223372036854775808"),
        (b"\xf0\x00\x00\x80", b"-8388608"),
        (b"\xfe\x80", b"-128"),
        (b"\xf1", b"0"),
        (b"\xfd", b"12"),
    ],
)
def test_every_element_of_a_ziplist_reads_as_a_client_would_see_it(encoded: bytes, plain: bytes) -> None:
    body = b"\x00" + encoded + b"\xfe\x00\x00\x00\x00" + b"\x02ok"
    data = struct.pack("<IIH", len(body) + 11, 0, 2) + body + b"\xff"
    assert ziplist(data) == [plain, b"ok"]


def test_an_intset_of_each_width() -> None:
    for width, kind in ((2, "h"), (4, "i"), (8, "q")):
        numbers = (-3, 0, 2 ** (8 * width - 1) - 1)
        data = struct.pack(f"<II3{kind}", width, 3, *numbers)
        assert intset(data) == [b"%d" % number for number in numbers]


def test_a_zipmap_with_free_bytes_behind_a_value() -> None:
    assert zipmap(b"\x02\x03foo\x03\x02bar--\x01a\x00\x00\xff") == [b"foo", b"bar", b"a", b""]


@pytest.mark.parametrize(
    ("compressed", "plain"),
    [
        (b"\x02abc", b"abc"),
        (b"\x00a\xe0\xf7\x00", b"a" * 257),  # an overlapping reference, the longest run but a few
        (b"\x05abcdef\x20\x05", b"abcdefabc"),
    ],
)
def test_compressed_strings_read_as_they_were(compressed: bytes, plain: bytes) -> None:
    assert lzf_decompress(compressed, len(plain)) == plain


@pytest.mark.parametrize(
    ("compressed", "length"),
    [(b"\x05ab", 6), (b"\x20\x05", 3), (b"\xe0", 100), (b"\x02abc", 4), (b"\x02abc", 2), (b"\x02abc", 1 << 40)],
)
def test_a_damaged_compressed_string_is_refused(compressed: bytes, length: int) -> None:
    with pytest.raises(DamageError):
        lzf_decompress(compressed, length)


def test_a_listpack_with_a_wrong_count_is_refused() -> None:
    data = bytearray(make_listpack(b"\x01", b"\x02"))
    data[4] = 3
    with pytest.raises(DamageError, match="2 elements instead of 3"):
        listpack(bytes(data))


@pytest.mark.parametrize("unpack", [listpack, ziplist, intset, zipmap])
@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=300), honest=st.booleans())
def test_any_bytes_are_read_or_refused_and_nothing_else(
    unpack: Callable[[bytes], list[bytes]], data: bytes, honest: bool
) -> None:
    if honest:  # a true length and end, so that the elements are reached
        data = struct.pack("<I", len(data) + 5) + data + b"\xff"
    try:
        elements = unpack(data)
    except DamageError:
        return
    assert sum(len(element) for element in elements) <= 20 * len(data)


@settings(deadline=None, max_examples=200)
@given(data=st.binary(max_size=200), length=st.integers(0, 100_000))
def test_any_compressed_bytes_are_read_or_refused(data: bytes, length: int) -> None:
    with contextlib.suppress(DamageError):
        assert len(lzf_decompress(data, length)) == length
