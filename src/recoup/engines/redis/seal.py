"""The cheap proof of an RDB that streams by: its first bytes, its last bytes, its checksum. The values are not read.

And which RDB versions a server can load (Redis, src/rdb.h of each release).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from recoup.engines.redis.crc64 import Crc64
from recoup.kernel.errors import DamageError, RefusedError, UnknownFormatError

_TRAILER = 9  # the end record (255) and the checksum
_NEWEST_BY_SERVER = {(5, 0): 9, (6, 0): 9, (6, 2): 9, (7, 0): 10, (7, 2): 11, (7, 4): 12, (8, 0): 12, (8, 2): 12}


class RdbSeal:
    """Give it every piece; ``finish`` raises unless it ends with an end record and a checksum that matches."""

    def __init__(self) -> None:
        self._head = b""
        self._held = b""
        self._crc = Crc64()
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        """Take the next piece. Raise ``DamageError`` as soon as it is clear that this is no RDB."""
        if len(self._head) < _TRAILER:
            self._head = (self._head + data[:_TRAILER])[:_TRAILER]
            if len(self._head) == _TRAILER:
                self.version()
        self.size_bytes += len(data)
        held = self._held + data
        # All but the last eight bytes are under the checksum; the ninth from the end is looked at as well.
        if len(held) > _TRAILER:
            self._crc.update(held[:-_TRAILER])
            held = held[-_TRAILER:]
        self._held = held

    def version(self) -> int:
        """The RDB version, once nine bytes have come."""
        if self._head[:5] != b"REDIS" or not self._head[5:].isdigit():
            raise DamageError("this is no RDB file: it does not begin with REDIS and a version")
        return int(self._head[5:])

    def finish(self) -> bool:
        """After the last piece: whether a checksum proved it (False: written with ``rdbchecksum no``).

        Raise ``DamageError`` for a truncated or changed file.
        """
        self.version()
        if len(self._held) < _TRAILER or self._held[0] != 0xFF:
            raise DamageError(f"the RDB is truncated: its {self.size_bytes} bytes end without an end record")
        self._crc.update(self._held[:1])
        stated = int.from_bytes(self._held[1:], "little")
        self._held = b""
        computed = self._crc.value()
        if stated not in (0, computed):
            raise DamageError(f"the RDB's checksum is wrong: {computed:016x} computed, {stated:016x} stated")
        return stated != 0


def sealed_pieces(pieces: Iterable[bytes], seal: RdbSeal) -> Iterator[bytes]:
    """Yield the pieces of an RDB, the last one only after the whole has proved intact; else raise ``DamageError``.

    Whoever acts when the last byte has come can be fed from this: a damaged copy never reaches its end.
    """
    held = b""
    for piece in pieces:
        seal.write(piece)
        if piece:
            if held:
                yield held
            held = piece
    seal.finish()
    yield held


def newest_loadable(server_version: str) -> int:
    """Given ``7``, ``7.0`` or ``7.0.15``, return the newest RDB version that server loads.

    For a bare major, that of its newest minor. Raise ``UnknownFormatError`` for a text that is no version.
    """
    parts = server_version.split(".")
    if not parts[0].isdigit() or (len(parts) > 1 and not parts[1].isdigit()):
        raise UnknownFormatError(f"not a Redis version: {server_version!r}")
    wanted = (int(parts[0]), int(parts[1]) if len(parts) > 1 else 99)
    known = [release for release in _NEWEST_BY_SERVER if release <= wanted]
    return _NEWEST_BY_SERVER[max(known)] if known else 8


def require_loadable(rdb_version: int, server_version: str) -> None:
    """Raise ``RefusedError`` when a server of that version cannot load that RDB version."""
    newest = newest_loadable(server_version)
    if rdb_version > newest:
        raise RefusedError(
            f"the copy has RDB version {rdb_version}; Redis {server_version} loads up to {newest}",
            hint="Restore into the Redis version the copy was taken from, or a newer one.",
        )
