"""The index beside an object: every frame's place and digest, and every tar member.

Its bytes are described in ``docs/repository-format.md``. An index is parsed only after its own digest matched the
authenticated manifest, and is checked all the same: nothing in it can make the reader allocate, loop or recurse
without limit.
"""

from __future__ import annotations

import contextlib
import json
import math
import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Self, cast

from recoup.engines.engine import Content, Member
from recoup.kernel.errors import DamageError, UnknownFormatError
from recoup.repository.frames import MAX_FRAME_BYTES, Compression, known, zstd
from recoup.repository.seal import BLOCK, HEADER_BYTES, SALT_BYTES, Key, seal

MAGIC: Final = b"RCPINDX1"
ROW: Final = struct.Struct(">II32s")
_LENGTH: Final = struct.Struct(">I")
_HEADER_LIMIT_BYTES: Final = 4096
_FRAMES_LIMIT: Final = 1 << 25  # 8 TiB at 256 KiB; 1.3 GB of rows
_LINE_LIMIT_BYTES: Final = 1 << 20
_ZSTD_FRAMES_LIMIT: Final = 16  # the writer makes two
_STRIDE: Final = 1024  # rows between two remembered offsets
_PIECE_BYTES: Final = 1 << 20
_KINDS: Final = frozenset({"file", "directory", "symlink", "hardlink", "other"})


class Frame(NamedTuple):
    """One row of an index with its running sums. All are bytes.

    ``cipher_start`` counts from the first byte of ciphertext, so it is also where the IV block begins in the object.
    """

    number: int
    plain_start: int
    plain_bytes: int
    cipher_start: int
    cipher_bytes: int
    digest: bytes


class IndexWriter:
    """Collects an index while its object is written. Members are kept compressed, as they will be stored."""

    def __init__(self) -> None:
        self._rows = bytearray()
        self._lines = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
        self._packed: list[bytes] = []
        self._members = 0

    def add_frame(self, plain_bytes: int, cipher_bytes: int, digest: bytes) -> None:
        """The next frame in the order of the object."""
        self._rows += ROW.pack(plain_bytes, cipher_bytes, digest)

    def add_member(self, member: Member) -> None:
        """The next member in the order of the stream."""
        line = json.dumps(_as_row(member), separators=(",", ":"), ensure_ascii=True)
        packed = self._lines.compress(line.encode("ascii") + b"\n")
        self._members += 1
        if packed:
            self._packed.append(packed)

    def finish(
        self, *, frame_bytes: int, plain_bytes: int, cipher_bytes: int, compression: Compression, content: Content,
        salt: bytes,
    ) -> tuple[int, bytes]:  # fmt: skip
        """Return the number of frames and the index as it is before encryption."""
        frames = len(self._rows) // ROW.size
        header = json.dumps(
            {
                "frames": frames,
                "members": self._members,
                "frame_bytes": frame_bytes,
                "plain_bytes": plain_bytes,
                "cipher_bytes": cipher_bytes,
                "compression": compression,
                "content": str(content),
                "salt": salt.hex(),
            },
            sort_keys=True,
        ).encode("ascii")
        head = zstd.compress(
            MAGIC + _LENGTH.pack(len(header)) + header + self._rows,
            options={zstd.CompressionParameter.checksum_flag: 1},
        )
        self._packed.append(self._lines.flush())
        return frames, b"".join((head, *self._packed))


class Index:
    """A parsed index. Frames are looked up by plain offset; members are decompressed as they are read."""

    def __init__(self, header: _Header, rows: bytes, packed: bytes, members_start: int) -> None:
        self.frames = header.frames
        self.frame_bytes = header.frame_bytes
        self.plain_bytes = header.plain_bytes
        self.cipher_bytes = header.cipher_bytes
        self.compression: Compression = header.compression
        self.content = header.content
        self.salt = header.salt
        self.member_count = header.members
        self._rows = rows
        self._packed = packed
        self._members_start = members_start
        self._plain_marks, self._cipher_marks = _check_rows(rows, header)

    @property
    def object_bytes(self) -> int:
        """The exact length of the object this index belongs to."""
        return HEADER_BYTES + self.cipher_bytes

    @classmethod
    def parse(cls, packed: bytes) -> Self:
        """Given a decrypted index, return it. Raise ``DamageError`` or ``UnknownFormatError`` for anything else."""
        source = _Source(packed)
        magic = source.take(len(MAGIC))
        if magic != MAGIC:
            if magic[:-1] == MAGIC[:-1]:
                raise UnknownFormatError(
                    f"an index of version {magic[-1:]!r}, which this version of Recoup does not know",
                    hint="Use the version of Recoup that wrote it, or a newer one.",
                )
            raise DamageError("not an index: it does not begin as one")
        (length,) = _LENGTH.unpack(source.take(_LENGTH.size))
        if length > _HEADER_LIMIT_BYTES:
            raise DamageError(f"the index has a header of {length} bytes")
        header = _parse_header(source.take(length))
        rows = source.take(header.frames * ROW.size)
        start = source.taken
        _check_lines(source, header.members)
        return cls(header, rows, packed, start)

    def frame_at(self, plain_offset: int) -> int:
        """The number of the frame that holds this byte, which must lie within the stream."""
        if not 0 <= plain_offset < self.plain_bytes:
            raise ValueError(f"byte {plain_offset} of {self.plain_bytes}")
        mark = bisect_right(self._plain_marks, plain_offset) - 1
        for frame in self.rows(mark * _STRIDE):
            if plain_offset < frame.plain_start + frame.plain_bytes:
                return frame.number
        raise AssertionError("unreachable: the rows add up to the length")

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
        """The frames ``start`` up to but without ``stop``, in order."""
        stop = self.frames if stop is None else min(stop, self.frames)
        number = start // _STRIDE * _STRIDE
        if number >= stop:
            return
        plain, cipher = self._plain_marks[start // _STRIDE], self._cipher_marks[start // _STRIDE]
        view = memoryview(self._rows)[number * ROW.size : stop * ROW.size]
        for plain_bytes, cipher_bytes, digest in ROW.iter_unpack(view):
            if number >= start:
                yield Frame(number, plain, plain_bytes, cipher, cipher_bytes, digest)
            number += 1
            plain += plain_bytes
            cipher += cipher_bytes

    def members(self) -> Iterator[Member]:
        """The tar members, in the order of the stream. Raise ``DamageError`` for a line that is not one."""
        source = _Source(self._packed)
        source.skip(self._members_start)
        for number, line in enumerate(source.lines()):
            yield _parse_member(line, number, self.plain_bytes)


class _Header(NamedTuple):
    frames: int
    members: int
    frame_bytes: int
    plain_bytes: int
    cipher_bytes: int
    compression: Compression
    content: Content
    salt: bytes


class _Source:
    """Decompresses a series of zstd frames piece by piece, so that a small file cannot become large memory."""

    def __init__(self, packed: bytes) -> None:
        self._input = packed
        self._stream = zstd.ZstdDecompressor()
        self._buffer = b""
        self._at = 0
        self._frames = 1
        self.taken = 0

    def _piece(self) -> bytes:
        """The next decompressed bytes; empty at the end."""
        try:
            while True:
                if self._stream.eof:
                    self._input = self._stream.unused_data
                    if not self._input:
                        return b""
                    self._frames += 1
                    if self._frames > _ZSTD_FRAMES_LIMIT:
                        raise DamageError("the index is in too many pieces")
                    self._stream = zstd.ZstdDecompressor()
                piece = self._stream.decompress(self._input, _PIECE_BYTES)
                self._input = b""
                if piece:
                    return piece
                if self._stream.needs_input and not self._stream.eof:
                    raise DamageError("the index ends too early")
        except zstd.ZstdError as failure:
            raise DamageError(f"the index does not decompress: {failure}") from failure

    def take(self, length: int) -> bytes:
        """Exactly ``length`` bytes."""
        parts: list[bytes] = []
        missing = length
        while missing:
            if self._at == len(self._buffer):
                self._buffer, self._at = self._piece(), 0
                if not self._buffer:
                    raise DamageError("the index is shorter than its header says")
            part = self._buffer[self._at : self._at + missing]
            self._at += len(part)
            missing -= len(part)
            parts.append(part)
        self.taken += length
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def skip(self, length: int) -> None:
        """Pass over ``length`` bytes."""
        while length:
            length -= len(self.take(min(length, _PIECE_BYTES)))

    def lines(self) -> Iterator[bytes]:
        """What is left, line by line."""
        rest = self._buffer[self._at :]
        while True:
            *lines, rest = rest.split(b"\n")
            yield from lines
            if len(rest) > _LINE_LIMIT_BYTES:
                raise DamageError("a member line of the index is too long")
            piece = self._piece()
            if not piece:
                break
            rest += piece
        if rest:
            raise DamageError("the index ends in the middle of a line")


def seal_index(key: Key, packed: bytes) -> bytes:
    """Given an index from ``IndexWriter.finish``, return the object to store."""
    return seal(key, packed)


def _parse_header(text: bytes) -> _Header:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as bad:
        raise DamageError("the index has a header that is not JSON") from bad
    if not isinstance(header, dict):
        raise DamageError("the index has a header that is not an object")

    def number(name: str, limit: int) -> int:
        value = header.get(name)
        if type(value) is not int or not 0 <= value <= limit:
            raise DamageError(f"the index's header has no valid {name}")
        return value

    try:
        compression, content = known(header.get("compression")), Content(str(header.get("content")))
    except ValueError as unknown:
        raise UnknownFormatError(f"an index that this version of Recoup cannot read: {unknown}") from unknown
    salt = b""
    with contextlib.suppress(TypeError, ValueError):
        salt = bytes.fromhex(cast("str", header.get("salt")))
    if len(salt) != SALT_BYTES:
        raise DamageError("the index's header has no valid salt")
    return _Header(
        frames=number("frames", _FRAMES_LIMIT),
        members=number("members", 1 << 40),
        frame_bytes=number("frame_bytes", MAX_FRAME_BYTES),
        plain_bytes=number("plain_bytes", 1 << 60),
        cipher_bytes=number("cipher_bytes", 1 << 60),
        compression=compression,
        content=content,
        salt=salt,
    )


def _check_rows(rows: bytes, header: _Header) -> tuple[array[int], array[int]]:
    """Check every length and the sums; return the plain and cipher offsets of every ``_STRIDE``-th frame."""
    plain_marks, cipher_marks = array("Q"), array("Q")
    plain = cipher = 0
    for number, (plain_bytes, cipher_bytes, _) in enumerate(ROW.iter_unpack(rows)):
        if not number % _STRIDE:
            plain_marks.append(plain)
            cipher_marks.append(cipher)
        # Incompressible data grow by less than a sixteenth and a fixed number of bytes, in either compression.
        limit = plain_bytes + plain_bytes // 16 + 4096
        if plain_bytes > header.frame_bytes or not BLOCK <= cipher_bytes <= limit or cipher_bytes % BLOCK:
            raise DamageError(f"row {number} of the index is impossible: {plain_bytes} and {cipher_bytes} bytes")
        if plain_bytes == 0 and header.frames > 1:
            raise DamageError(f"row {number} of the index is impossible: an empty frame among others")
        plain += plain_bytes
        cipher += cipher_bytes
    if header.frames == 0 or (plain, cipher) != (header.plain_bytes, header.cipher_bytes):
        raise DamageError("the rows of the index do not add up to what its header says")
    return plain_marks, cipher_marks


def _check_lines(source: _Source, expected: int) -> None:
    found = 0
    for _ in source.lines():
        found += 1
        if found > expected:
            break
    if found != expected:
        raise DamageError(f"the index does not have the {expected} members that its header says")


def _as_row(member: Member) -> list[Any]:
    return [
        member.path, member.kind, member.size_bytes, member.mode, member.uid, member.gid, member.mtime, member.offset,
        member.link,
    ]  # fmt: skip


def _parse_member(line: bytes, number: int, plain_bytes: int) -> Member:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as bad:
        raise DamageError(f"member {number} of the index is not JSON") from bad
    if not isinstance(row, list) or len(row) != 9:
        raise DamageError(f"member {number} of the index does not have nine values")
    path, kind, size, mode, uid, gid, mtime, offset, link = row
    numbers_are_right = all(type(value) is int and value >= 0 for value in (size, mode, uid, gid, offset))
    texts_are_right = isinstance(path, str) and isinstance(kind, str) and isinstance(link, str)
    if not numbers_are_right or not texts_are_right or type(mtime) not in (int, float) or kind not in _KINDS:
        raise DamageError(f"member {number} of the index has values of the wrong kind")
    if offset + (size if kind in ("file", "other") else 0) > plain_bytes:
        raise DamageError(f"member {number} of the index lies outside the stream")
    try:
        seconds = float(mtime)
    except OverflowError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise DamageError(f"member {number} of the index has an impossible time")
    return Member(
        path=path, kind=kind, size_bytes=size, mode=mode, uid=uid, gid=gid, mtime=seconds, offset=offset, link=link
    )
