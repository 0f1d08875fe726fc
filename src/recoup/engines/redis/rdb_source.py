"""Reading the primitives of an RDB file from a stream of chunks: bytes, lengths, strings; with the checksum alongside.

Source: Redis, src/rdb.c (``rdbLoadLenByRef``, ``rdbGenericLoadStringObject``). Claimed lengths are never allocated
before the bytes have come.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from recoup.engines.redis.crc64 import Crc64
from recoup.engines.redis.packed import lzf_decompress
from recoup.kernel.errors import DamageError, UnknownFormatError

#: The longest element or packed value that is read whole. Redis itself takes none above 512 MiB unless
#: ``proto-max-bulk-len`` was raised. Plain string values are read in pieces, whatever their length.
BLOB_LIMIT = 1 << 30
_PIECE = 1 << 20


class RdbSource:
    """A cursor over the chunks of an RDB. Raises ``DamageError`` at the end of the data, wherever that is."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._position = 0
        self._before = 0  # bytes of the file before the buffer
        self._crc = Crc64()

    @property
    def offset(self) -> int:
        """How many bytes have been consumed."""
        return self._before + self._position

    def checksum(self) -> int:
        """The CRC-64 of everything consumed so far."""
        self._drop_consumed()
        return self._crc.value()

    def at_end(self) -> bool:
        """Whether nothing follows."""
        while self._position == len(self._buffer):
            self._drop_consumed()
            chunk = next(self._chunks, None)
            if chunk is None:
                return True
            self._buffer = bytes(chunk)
        return False

    def take(self, count: int) -> bytes:
        """Exactly ``count`` bytes."""
        end = self._position + count
        if end > len(self._buffer):
            self._gather(count)
            end = self._position + count
        data = self._buffer[self._position : end]
        self._position = end
        return data

    def byte(self) -> int:
        """One byte, as a number."""
        if self._position == len(self._buffer):
            self._gather(1)
        value = self._buffer[self._position]
        self._position += 1
        return value

    def unsigned(self, width: int) -> int:
        """A little-endian number of ``width`` bytes."""
        return int.from_bytes(self.take(width), "little")

    def length(self) -> int:
        """A length; raise ``DamageError`` where a specially encoded string stands instead."""
        value, special = self._length_or_kind()
        if special:
            raise self.damage("a special encoding where a length must be")
        return value

    def string(self) -> bytes:
        """A string, whole, whatever its encoding."""
        value, special = self._length_or_kind()
        if special:
            return self._special(value)
        if value > BLOB_LIMIT:
            raise self.damage(f"a string claims {value} bytes")
        return self.take(value)

    def string_pieces(self) -> Iterator[bytes]:
        """A string in pieces of at most 1 MiB, so that a huge one needs no memory."""
        value, special = self._length_or_kind()
        if special:
            yield self._special(value)
            return
        while value > _PIECE:
            yield self.take(_PIECE)
            value -= _PIECE
        yield self.take(value)

    def damage(self, what: str) -> DamageError:
        """The error for a fault at the present place."""
        return DamageError(f"the RDB is damaged at byte {self.offset}: {what}")

    def _length_or_kind(self) -> tuple[int, bool]:
        first = self.byte()
        kind = first >> 6
        if kind == 0:
            return first, False
        if kind == 1:
            return (first & 0x3F) << 8 | self.byte(), False
        if kind == 3:
            return first & 0x3F, True
        if first == 0x80:
            return int.from_bytes(self.take(4), "big"), False
        if first == 0x81:
            return int.from_bytes(self.take(8), "big"), False
        raise self.damage(f"unknown form of a length ({first:#x})")

    def _special(self, kind: int) -> bytes:
        if kind <= 2:
            return b"%d" % int.from_bytes(self.take(1 << kind), "little", signed=True)
        if kind == 3:
            compressed, plain = self.length(), self.length()
            if max(compressed, plain) > BLOB_LIMIT:
                raise self.damage(f"a compressed string claims {max(compressed, plain)} bytes")
            try:
                return lzf_decompress(self.take(compressed), plain)
            except DamageError as wrong:
                raise self.damage(wrong.message) from wrong
        raise UnknownFormatError(f"the RDB holds a string of the unknown encoding {kind} at byte {self.offset}")

    def _gather(self, count: int) -> None:
        """Make at least ``count`` bytes available after the position."""
        self._drop_consumed()
        parts, have = [self._buffer], len(self._buffer)
        while have < count:
            chunk = next(self._chunks, None)
            if chunk is None:
                raise DamageError(f"the RDB is truncated: it ends at byte {self._before + have}, in the middle")
            parts.append(bytes(chunk))
            have += len(chunk)
        self._buffer = b"".join(parts)

    def _drop_consumed(self) -> None:
        if self._position:
            self._crc.update(memoryview(self._buffer)[: self._position])
            self._buffer = self._buffer[self._position :]
            self._before += self._position
            self._position = 0
