"""Reading a tar stream from front to back, as ``tar -x`` would, without copying the data of large members.

PostgreSQL writes plain ustar headers, with sizes of 8 GiB and more in GNU's base-256 form (src/port/tar.c). The index
beside an object says where members lie; this reads what the bytes themselves say, for that is what stock tools see.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from recoup.kernel.errors import DamageError

BLOCK = 512
_ZERO_BLOCK = bytes(BLOCK)
_KINDS = {b"0": "file", b"\0": "file", b"5": "directory", b"2": "symlink", b"1": "hardlink"}


@dataclass(frozen=True, slots=True)
class TarEntry:
    """A member's header. ``offset`` is where its data begin in the stream."""

    path: str
    kind: str
    size_bytes: int
    mode: int
    offset: int
    link: str


class TarWalk:
    """Iterate over the entries; after each one call ``data`` for its bytes (what is not asked for is passed over)."""

    def __init__(self, pieces: Iterable[bytes], name: str) -> None:
        self._pieces = iter(pieces)
        self._name = name
        self._piece = b""
        self._at = 0  # in the current piece
        self._before = 0  # stream offset of the current piece
        self._left = 0  # bytes of the current member's data and padding not yet passed
        self._padding = 0

    def __iter__(self) -> Iterator[TarEntry]:
        while True:
            for _ in self.data():
                pass
            self._skip(self._padding)
            self._padding = 0
            block = self._take(BLOCK)
            if block == _ZERO_BLOCK:
                self._require_end()
                return
            entry = self._entry(block)
            self._left = entry.size_bytes if entry.kind == "file" else 0
            self._padding = -self._left % BLOCK
            yield entry

    def data(self) -> Iterator[bytes]:
        """The data of the current entry, in pieces. Whole pieces are handed on as they are."""
        while self._left:
            if self._at == len(self._piece):
                self._next_piece()
            end = min(self._at + self._left, len(self._piece))
            part = self._piece if self._at == 0 and end == len(self._piece) else self._piece[self._at : end]
            self._at = end
            self._left -= len(part)
            yield part

    def _next_piece(self) -> None:
        self._before += len(self._piece)
        self._at = 0
        self._piece = next(self._pieces, b"")
        if not self._piece:
            raise DamageError(f"{self._name} is cut off after {self._before} bytes")

    def _take(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            if self._at == len(self._piece):
                self._next_piece()
            part = self._piece[self._at : self._at + size - len(parts)]
            self._at += len(part)
            parts += part
        return bytes(parts)

    def _skip(self, size: int) -> None:
        self._take(size)

    def _require_end(self) -> None:
        """After the first closing block, everything to the end must be zeros."""
        rest = self._piece[self._at :]
        while True:
            if rest.count(0) != len(rest):
                raise DamageError(f"{self._name} goes on after the end of its tar stream")
            rest = next(self._pieces, b"")
            if not rest:
                return

    def _entry(self, block: bytes) -> TarEntry:
        offset = self._before + self._at
        if block[257:262] != b"ustar" or number_of(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
            raise DamageError(f"{self._name} has a damaged tar header at {offset - BLOCK}")
        # POSIX ustar puts the front of a long path into a prefix; in GNU's format that place means something else.
        prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
        path = _text(block[:100])
        return TarEntry(
            path=f"{prefix}/{path}" if prefix else path,
            kind=_KINDS.get(block[156:157], "other"),
            size_bytes=number_of(block[124:136]),
            mode=number_of(block[100:108]),
            offset=offset,
            link=_text(block[157:257]),
        )


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def number_of(field: bytes) -> int:
    """A number of a header: octal, or in GNU's base 256. -1 when it is neither."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        return -1
