"""Frames: the independently compressed pieces of an object, each a whole number of cipher blocks long.

Sources: RFC 8878 (zstd; skippable frames in section 3.1.2), RFC 1952 (gzip; the extra field in section 2.3.1.1).
"""

from __future__ import annotations

import struct
import sys
import zlib
from typing import Final, Literal, Protocol

from recoup.kernel.errors import DamageError
from recoup.repository.seal import BLOCK, Buffer

if sys.version_info >= (3, 14):
    from compression import zstd as zstd  # named twice: index.py takes it from here
else:
    from backports import zstd as zstd

Compression = Literal["zstd", "gzip"]

#: Plain bytes of a frame, at most. Readers refuse more: it bounds what one frame can make them allocate.
MAX_FRAME_BYTES: Final = 16 << 20

_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_SKIPPABLE_MAGIC: Final = b"\x50\x2a\x4d\x18"
_GZIP_MAGIC: Final = b"\x1f\x8b\x08\x04"
# Method deflate, flag FEXTRA, no time, no hint, system unknown: the same bytes on every machine and every day.
_GZIP_HEADER: Final = _GZIP_MAGIC + b"\0\0\0\0\0\xff"
_GZIP_FIXED_BYTES: Final = len(_GZIP_HEADER) + 2 + 4 + 8


def _skippable(length: int) -> bytes:
    """A zstd frame of ``length`` bytes in all, at least eight, that every reader passes over."""
    return _SKIPPABLE_MAGIC + struct.pack("<I", length - 8) + bytes(length - 8)


def known(compression: object) -> Compression:
    """Given the name of a compression, return it. Raise ``ValueError`` when it is not one of this format."""
    if compression == "zstd":
        return "zstd"
    if compression == "gzip":
        return "gzip"
    raise ValueError(f"the compression {compression!r} is not known here")


class Packer(Protocol):
    """Compresses frames, one after the other. Not for two threads at once."""

    def pack(self, plain: Buffer, length: int) -> bytes:
        """Given ``length`` plain bytes, return the frame, padded to whole cipher blocks."""
        ...


# Level 3 for data files: pages of 8 KiB repeat whole tuples, so longer matches and smaller tables (which stay in the
# processor's cache) compress better *and* faster: see docs/decisions/0001-artefact-frames.md.
_PAGES: Final[dict[int, int]] = {
    zstd.CompressionParameter.min_match: 6,
    zstd.CompressionParameter.hash_log: 14,
    zstd.CompressionParameter.chain_log: 15,
}


class _ZstdPacker:
    def __init__(self, level: int, *, pages: bool) -> None:
        parameter = zstd.CompressionParameter
        self._compressor = zstd.ZstdCompressor(
            options={
                parameter.compression_level: level,
                parameter.checksum_flag: 1,
                parameter.content_size_flag: 1,
                **(_PAGES if pages and level == 3 else {}),
            }
        )

    def pack(self, plain: Buffer, length: int) -> bytes:
        self._compressor.set_pledged_input_size(length)
        packed = self._compressor.compress(plain, zstd.ZstdCompressor.FLUSH_FRAME)
        missing = -len(packed) % BLOCK
        if missing == 0:
            return packed
        if missing < 8:  # a skippable frame has eight bytes at least
            missing += BLOCK
        return packed + _skippable(missing)


class _GzipPacker:
    def __init__(self, level: int) -> None:
        self._level = level

    def pack(self, plain: Buffer, length: int) -> bytes:
        compressor = zlib.compressobj(self._level, zlib.DEFLATED, -zlib.MAX_WBITS)
        deflated = compressor.compress(plain) + compressor.flush()
        missing = -(_GZIP_FIXED_BYTES + len(deflated)) % BLOCK
        extra = struct.pack("<H2sH", 4 + missing, b"RC", missing) + bytes(missing)
        return b"".join((_GZIP_HEADER, extra, deflated, struct.pack("<II", zlib.crc32(plain), length)))


def new_packer(compression: Compression, level: int, *, pages: bool = False) -> Packer:
    """Given zstd and a level from 1 to 19, or gzip and one from 1 to 9, return a packer.

    ``pages`` says that most of the content is a database's data files.
    """
    if not 1 <= level <= (19 if compression == "zstd" else 9):
        raise ValueError(f"{compression} has no level {level}")
    return _ZstdPacker(level, pages=pages) if compression == "zstd" else _GzipPacker(level)


def is_packed(compression: Compression, packed: Buffer) -> bool:
    """Whether decrypted bytes begin as a frame does. If not, they were decrypted with the wrong key."""
    return bytes(memoryview(packed)[:4]) == (_ZSTD_MAGIC if compression == "zstd" else _GZIP_MAGIC)


def unpack(compression: Compression, packed: Buffer, plain_bytes: int) -> bytes:
    """Given one frame with its padding, return its plain bytes, exactly ``plain_bytes`` of them.

    Raise ``DamageError`` (without a place: the caller knows it) when it is anything else.
    """
    try:
        # One byte more than expected: the decompressor reaches its end, and a longer frame is found out.
        if compression == "zstd":
            stream = zstd.ZstdDecompressor()
            plain = stream.decompress(packed, plain_bytes + 1)
            rest = stream.unused_data
            rest_is_right = not rest or (len(rest) >= 8 and rest == _skippable(len(rest)))
            ended = stream.eof
        else:
            inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            plain = inflater.decompress(packed, plain_bytes + 1)
            rest_is_right = not inflater.unused_data
            ended = inflater.eof
    except (zstd.ZstdError, zlib.error) as failure:
        raise DamageError(f"does not decompress: {failure}") from failure
    if not ended or not rest_is_right or len(plain) != plain_bytes:
        raise DamageError(f"does not decompress to exactly {plain_bytes} bytes")
    return plain
