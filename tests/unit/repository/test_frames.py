"""Frames: compressed alone, whole cipher blocks, exact lengths."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.kernel.errors import DamageError
from recoup.repository.frames import Compression, is_packed, known, new_packer, unpack, zstd

COMPRESSIONS: list[Compression] = ["zstd", "gzip"]
PLAIN = st.one_of(st.binary(max_size=2000), st.binary(min_size=1, max_size=40).map(lambda part: part * 300))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@settings(max_examples=200, deadline=None)
@given(frames=st.lists(PLAIN, min_size=1, max_size=4))
def test_frames_are_whole_blocks_and_read_as_one_stream(compression: Compression, frames: list[bytes]) -> None:
    packer = new_packer(compression, 3)
    packed = [packer.pack(plain, len(plain)) for plain in frames]
    for plain, one in zip(frames, packed, strict=True):
        assert len(one) % 16 == 0
        assert is_packed(compression, one)
        assert unpack(compression, one, len(plain)) == plain
    stream = b"".join(packed)
    assert (gzip.decompress(stream) if compression == "gzip" else zstd.decompress(stream)) == b"".join(frames)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@settings(deadline=None)
@given(plain=st.binary(min_size=1, max_size=500), difference=st.integers(-5, 5).filter(bool))
def test_a_frame_of_another_length_is_refused(compression: Compression, plain: bytes, difference: int) -> None:
    packed = new_packer(compression, 3).pack(plain, len(plain))
    with pytest.raises(DamageError, match="exactly"):
        unpack(compression, packed, max(0, len(plain) + difference))


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_bomb_expands_to_what_the_index_says_and_no_further(compression: Compression) -> None:
    packed = new_packer(compression, 9).pack(bytes(16 << 20), 16 << 20)
    with pytest.raises(DamageError):
        unpack(compression, packed, 1000)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("rest", [b"x" * 16, b"\x50\x2a\x4d\x18\x08\0\0\0hidden!!", bytes(16)])
def test_anything_behind_a_frame_but_its_padding_is_refused(compression: Compression, rest: bytes) -> None:
    packed = new_packer(compression, 3).pack(b"plain" * 9, 45)
    with pytest.raises(DamageError):
        unpack(compression, packed + rest, 45)


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_cut_frame_is_refused(compression: Compression) -> None:
    packed = new_packer(compression, 3).pack(b"abcdefgh" * 99, 792)
    for length in range(len(packed) - 24):
        with pytest.raises(DamageError):
            unpack(compression, packed[:length], 792)


def test_the_same_bytes_always_give_the_same_frame() -> None:
    for compression in COMPRESSIONS:
        packer = new_packer(compression, 3)
        assert (
            packer.pack(b"one" * 50, 150)
            == packer.pack(b"one" * 50, 150)
            == new_packer(compression, 3).pack(b"one" * 50, 150)
        )


def test_an_unknown_compression_or_level_is_refused() -> None:
    with pytest.raises(ValueError, match="'lz4' is not known"):
        known("lz4")
    for compression, level in (("zstd", 0), ("zstd", 20), ("gzip", 10)):
        with pytest.raises(ValueError, match=f"no level {level}"):
            new_packer(known(compression), level)
