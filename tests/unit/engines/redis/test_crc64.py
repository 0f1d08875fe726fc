"""The checksum of RDB files."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.redis.crc64 import Crc64, crc64


def bit_by_bit(data: bytes) -> int:
    """The definition: polynomial 0xad93d23594c935a9, reflected."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x95AC9329AC4BC9B5 if value & 1 else 0)
    return value


def test_the_check_value_of_the_definition() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


def test_nothing_has_the_checksum_zero() -> None:
    assert crc64(b"") == 0


def test_folding_gives_what_the_definition_gives_at_every_size_around_its_chunks() -> None:
    pattern = bytes((i * i + i // 7) % 256 for i in range(1 << 16)) * 20
    for size in (1, 15, 16, 1023, 4095, 4096, 4097, 64 * 4096 - 1, 64 * 4096, 65 * 4096 + 3, 256 * 4096 + 5):
        assert crc64(pattern[:size]) == bit_by_bit(pattern[:size]), size


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 9000), max_size=12), st.integers(0, 1 << 32))
def test_pieces_of_any_size_give_the_checksum_of_the_whole(sizes: list[int], seed: int) -> None:
    chance = Random(seed)
    pieces = [chance.randbytes(size) for size in sizes]
    growing = Crc64()
    for piece in pieces:
        growing.update(piece)
        growing.value()  # asking in between changes nothing
    assert growing.value() == bit_by_bit(b"".join(pieces))
