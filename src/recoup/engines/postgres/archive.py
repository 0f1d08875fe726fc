"""Read pg_dump's custom format (``-Fc``) as a stream: header, table of contents, and every data block to the end.

Format: src/bin/pg_dump/pg_backup_archiver.c (``ReadHead``, ``ReadToc``) and pg_backup_custom.c (``_PrintData``,
``_LoadLOs``) of PostgreSQL 14 to 18, archive versions 1.12 to 1.16. An integer is a sign byte and ``int size`` bytes,
least significant first; a string is an integer length (negative: NULL) and its bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from recoup.kernel.errors import DamageError, UnknownFormatError

MAGIC = b"PGDMP"
_CUSTOM = 1
_OLDEST, _NEWEST = (1, 12), (1, 16)
_DATA_BLOCK, _OBJECTS_BLOCK = 1, 3
_MOST_ENTRIES = 50_000_000  # a hostile count must not make a loop without end
_LONGEST_STRING = 256 << 20
_END_MARK = 5  #: bytes of "\\.\n\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the table of contents."""

    number: int
    has_data: bool
    kind: str  #: ``TABLE DATA``, ``INDEX`` ...
    schema: str
    name: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One data block. ``rows`` counts the lines before COPY's end mark; only uncompressed blocks can be counted."""

    number: int
    rows: int | None
    data_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What an archive says of itself."""

    archive_version: tuple[int, int]
    compression: int  #: 0: none
    database: str
    server_version: str
    dump_version: str
    entries: tuple[Entry, ...]


class ArchiveReader:
    """Reads one archive, once, front to back: first ``contents``, then ``blocks``."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = b""
        self._int_size = 4
        self._off_size = 8
        self._compression = 0

    def contents(self) -> Contents:
        """Read the header and the table of contents.

        Raise ``DamageError`` when it is no archive or ends early, ``UnknownFormatError`` for another version.
        """
        if self._take(5) != MAGIC:
            raise DamageError("not a pg_dump archive in the custom format: its first bytes are not PGDMP")
        major, minor, _revision, self._int_size, self._off_size, kind = self._take(6)
        version = (major, minor)
        if not _OLDEST <= version <= _NEWEST or kind != _CUSTOM or self._int_size not in (4, 8):
            raise UnknownFormatError(
                f"a pg_dump archive of version {major}.{minor}, kind {kind}; known are custom archives of "
                f"{_OLDEST[0]}.{_OLDEST[1]} to {_NEWEST[0]}.{_NEWEST[1]}",
                hint="Use a newer Recoup, or read it with pg_restore --list.",
            )
        # Since 1.15 a byte names the algorithm; before, an integer held gzip's level.
        self._compression = self._take(1)[0] if version >= (1, 15) else self._int()
        for _ in range(7):
            self._int()  # the parts of the date
        database, server, dump = (self._string() or "" for _ in range(3))
        count = self._int()
        if not 0 <= count <= _MOST_ENTRIES:
            raise DamageError(f"a pg_dump archive that claims {count} entries")
        entries = tuple(self._entry(version) for _ in range(count))
        return Contents(
            archive_version=version,
            compression=self._compression,
            database=database,
            server_version=server,
            dump_version=dump,
            entries=entries,
        )

    def blocks(self) -> Iterator[Block]:
        """Walk every data block to the end of the archive. Raise ``DamageError`` when it ends inside one."""
        while (kind := self._take(1, end_allowed=True)) != b"":
            number = self._int()
            if kind[0] == _DATA_BLOCK:
                yield self._data(number)
            elif kind[0] == _OBJECTS_BLOCK:
                size = 0
                while self._int() != 0:  # the large object's oid
                    size += self._data(number).data_bytes
                yield Block(number=number, rows=None, data_bytes=size)
            else:
                raise DamageError(f"a pg_dump archive with a block of unknown kind {kind[0]}")

    def _data(self, number: int) -> Block:
        """Walk the chunks of one block. pg_dump writes a chunk for each row, so this loop is the hot one."""
        lines, size = 0, 0
        last = b""
        header = 1 + self._int_size
        while True:
            held, position, end = self._held, 0, len(self._held)
            # Whole chunks inside the piece at hand; what the piece cuts is left to the careful way below.
            while end - position >= header:
                length = int.from_bytes(held[position + 1 : position + header], "little")
                stop = position + header + length
                if length == 0 or held[position] or stop > end:
                    break
                if self._compression == 0:
                    lines += held.count(b"\n", position + header, stop)
                    last = held[max(position + header, stop - _END_MARK) : stop]
                size += length
                position = stop
            self._held = held[position:]
            left = self._int()
            if left == 0:
                break
            if left < 0:
                raise DamageError("a pg_dump archive with a block of negative length")
            size += left
            while left:
                piece = self._some(left)
                left -= len(piece)
                if self._compression == 0:
                    lines += piece.count(b"\n")
                    last = (last + piece[-_END_MARK:])[-_END_MARK:]
        # pg_dump ends a table's rows with "\.", a line end, and two empty lines.
        counted = self._compression == 0 and last.endswith(b"\\.\n\n\n")
        return Block(number=number, rows=lines - 3 if counted else None, data_bytes=size)

    def _entry(self, version: tuple[int, int]) -> Entry:
        number, has_data = self._int(), self._int()
        self._string(), self._string()  # the catalog's oid and the object's
        name, kind = self._string(), self._string()
        self._int()  # section
        for _ in range(3):  # definition, drop statement, copy statement
            self._string()
        schema = self._string()
        self._string()  # tablespace
        if version >= (1, 14):
            self._string()  # table access method
        if version >= (1, 16):
            self._int()  # relkind
        owner = self._string()
        self._string()  # "with oids", always false
        while self._string() is not None:  # what it depends on
            pass
        self._take(1 + self._off_size)  # where its data are; not known in a stream
        return Entry(
            number=number,
            has_data=bool(has_data),
            kind=kind or "",
            schema=schema or "",
            name=name or "",
            owner=owner or "",
        )

    def _int(self) -> int:
        raw = self._take(1 + self._int_size)
        value = int.from_bytes(raw[1:], "little")
        return -value if raw[0] else value

    def _string(self) -> str | None:
        length = self._int()
        if length < 0:
            return None
        if length > _LONGEST_STRING:
            raise DamageError(f"a pg_dump archive with a name of {length} bytes")
        return self._take(length).decode("utf-8", "surrogateescape")

    def _take(self, length: int, *, end_allowed: bool = False) -> bytes:
        parts: list[bytes] = []
        left = length
        while left:
            piece = self._some(left, end_allowed=end_allowed and left == length)
            if not piece:
                return b""
            parts.append(piece)
            left -= len(piece)
        return b"".join(parts)

    def _some(self, most: int, *, end_allowed: bool = False) -> bytes:
        while not self._held:
            following = next(self._pieces, None)
            if following is None:
                if end_allowed:
                    return b""
                raise DamageError("the pg_dump archive ends before its end")
            self._held = following
        piece, self._held = self._held[:most], self._held[most:]
        return piece
