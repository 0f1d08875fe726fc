"""Reading an RDB file from its first byte to its last: every record, every value, the checksum, nothing behind it.

Formats of Redis 3 to 8.2 (RDB versions 6 to 12). Source: Redis, src/rdb.c and src/rdb.h. Records come one at a time;
the elements of a value come in batches, so that memory does not grow with the file or with one big key. Text,
numbers and packed encodings come out alike: as the bytes a client would read.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from recoup.engines.redis.packed import intset, listpack, ziplist, zipmap
from recoup.engines.redis.rdb_source import RdbSource
from recoup.engines.redis.rdb_stream import read_stream
from recoup.kernel.errors import DamageError, UnknownFormatError

OLDEST_VERSION = 6
NEWEST_VERSION = 12
_BATCH = 512
_DATABASES_LIMIT = 1 << 31


class Kind(enum.StrEnum):
    """What a key holds, in the words of the ``TYPE`` command."""

    STRING = "string"  #: elements: pieces of the value, in order
    LIST = "list"  #: elements: bytes, in order
    SET = "set"  #: elements: bytes
    ZSET = "zset"  #: elements: (member, score)
    HASH = "hash"  #: elements: (field, value, expiry in ms since 1970 or None)
    STREAM = "stream"  #: elements: canonical records, in order; see ``rdb_stream``
    MODULE = "module"  #: elements: the module's own serialisation, in order


Element = bytes | tuple[bytes, float] | tuple[bytes, bytes, int | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first record. ``version`` is the RDB version, not that of the server."""

    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Auxiliary:
    """A remark of the server that wrote the file: ``redis-ver``, ``ctime``, ``used-mem`` …"""

    name: bytes
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many keys the file says the database holds, and how many of those expire."""

    database: int
    keys: int
    expiring: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A library of functions: its code."""

    code: bytes


@dataclass(slots=True, kw_only=True)
class Entry:
    """One key. ``batches`` may be read once, before the next record is asked for; what is left is skipped."""

    database: int
    key: bytes
    kind: Kind
    expires_ms: int | None  #: ms since 1970
    batches: Iterator[list[Element]] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The last record. ``checksum_stated`` is False for a file written with ``rdbchecksum no``: nothing proves it."""

    checksum_stated: bool
    size_bytes: int


Record = Header | Auxiliary | Sizes | Function | Entry | End


def read_rdb(chunks: Iterable[bytes]) -> Iterator[Record]:
    """Given the bytes of an RDB file, yield its records; the last is ``End``.

    Raise ``DamageError`` when the file is truncated, inconsistent, has a wrong checksum or bytes behind its end, and
    ``UnknownFormatError`` for a version, record or type that is not known here.
    """
    source = RdbSource(chunks)
    magic = source.take(9)
    if magic[:5] != b"REDIS" or not magic[5:].isdigit():
        raise DamageError("this is no RDB file: it does not begin with REDIS and a version")
    version = int(magic[5:])
    if not OLDEST_VERSION <= version <= NEWEST_VERSION:
        raise UnknownFormatError(
            f"RDB version {version} is not known (known: {OLDEST_VERSION} to {NEWEST_VERSION})",
            hint="Use a newer Recoup for copies of this server.",
        )
    yield Header(version=version)
    yield from _records(source)
    yield _read_end(source)


def _records(source: RdbSource) -> Iterator[Record]:
    database = 0
    expires: int | None = None
    while True:
        code = source.byte()
        if code in _READERS:
            kind, reader = _READERS[code]
            key = source.string()
            batches = _guarded(source, reader(source))
            yield Entry(database=database, key=key, kind=kind, expires_ms=expires, batches=batches)
            for _ in batches:
                pass
            expires = None
        elif code == 252:
            expires = int.from_bytes(source.take(8), "little", signed=True)
        elif code == 253:
            expires = int.from_bytes(source.take(4), "little", signed=True) * 1000
        elif code == 255:
            if expires is not None:
                raise source.damage("the file ends after an expiry, before its key")
            return
        elif code == 254:
            database = source.length()
            if database >= _DATABASES_LIMIT:
                raise source.damage(f"database number {database}")
        elif code == 251:
            yield Sizes(database=database, keys=source.length(), expiring=source.length())
        elif code == 250:
            yield Auxiliary(name=source.string(), value=source.string())
        elif code == 249:
            source.byte()  # how often used (LFU)
        elif code == 248:
            source.length()  # seconds since last use (LRU)
        elif code == 247:
            source.length()  # the module's id
            for _ in _module_tokens(source):
                pass
        elif code == 245:
            yield Function(code=source.string())
        elif code == 244:
            for _ in range(3):  # a slot of a cluster: its number, keys, expiring keys
                source.length()
        else:
            raise UnknownFormatError(
                f"the RDB holds a record of the unknown kind {code} at byte {source.offset - 1}",
                hint="Use a newer Recoup for copies of this server, or look whether the file is damaged.",
            )


def _read_end(source: RdbSource) -> End:
    computed = source.checksum()
    stated = source.unsigned(8)
    if stated not in (0, computed):
        raise DamageError(f"the RDB's checksum is wrong: {computed:016x} computed, {stated:016x} stated")
    size = source.offset
    if not source.at_end():
        raise DamageError(f"bytes follow the end of the RDB at byte {size}")
    return End(checksum_stated=stated != 0 or computed == 0, size_bytes=size)


def _guarded(source: RdbSource, batches: Iterator[list[Element]]) -> Iterator[list[Element]]:
    """Say where in the file a packed value was damaged."""
    try:
        yield from batches
    except DamageError as wrong:
        if wrong.message.startswith("the RDB"):
            raise
        raise source.damage(wrong.message) from wrong


def _read_string(source: RdbSource) -> Iterator[list[Element]]:
    for piece in source.string_pieces():
        yield [piece]


def _read_elements(source: RdbSource) -> Iterator[list[Element]]:
    left = source.length()
    while left:
        now = min(left, _BATCH)
        yield [source.string() for _ in range(now)]
        left -= now


def _packed(unpack: Callable[[bytes], list[bytes]]) -> Callable[[RdbSource], Iterator[list[Element]]]:
    def read(source: RdbSource) -> Iterator[list[Element]]:
        yield list(unpack(source.string()))

    return read


def _read_quicklist(source: RdbSource) -> Iterator[list[Element]]:
    for _ in range(source.length()):
        yield list(ziplist(source.string()))


def _read_quicklist_2(source: RdbSource) -> Iterator[list[Element]]:
    for _ in range(source.length()):
        container = source.length()
        if container == 1:
            yield [source.string()]
        elif container == 2:
            yield list(listpack(source.string()))
        else:
            raise source.damage(f"a list node of the unknown kind {container}")


def _read_zset(source: RdbSource) -> Iterator[list[Element]]:
    """Scores as text: one byte for its length, with three lengths for not-a-number and the infinities."""
    for _ in range(source.length()):
        member = source.string()
        size = source.byte()
        special = {253: float("nan"), 254: float("inf"), 255: float("-inf")}
        yield [(member, special[size] if size in special else _score(source.take(size)))]


def _read_zset_2(source: RdbSource) -> Iterator[list[Element]]:
    left = source.length()
    while left:
        now = min(left, _BATCH)
        yield [(source.string(), struct.unpack("<d", source.take(8))[0]) for _ in range(now)]
        left -= now


def _packed_zset(unpack: Callable[[bytes], list[bytes]]) -> Callable[[RdbSource], Iterator[list[Element]]]:
    def read(source: RdbSource) -> Iterator[list[Element]]:
        flat = unpack(source.string())
        if len(flat) % 2:
            raise source.damage("a sorted set has a member without a score")
        yield [(flat[i], _score(flat[i + 1])) for i in range(0, len(flat), 2)]

    return read


def _score(text: bytes) -> float:
    try:
        return float(text)
    except ValueError as wrong:
        raise DamageError(f"a score is not a number: {text[:20]!r}") from wrong


def _read_hash(source: RdbSource) -> Iterator[list[Element]]:
    left = source.length()
    while left:
        now = min(left, _BATCH)
        yield [(source.string(), source.string(), None) for _ in range(now)]
        left -= now


def _packed_hash(unpack: Callable[[bytes], list[bytes]]) -> Callable[[RdbSource], Iterator[list[Element]]]:
    def read(source: RdbSource) -> Iterator[list[Element]]:
        flat = unpack(source.string())
        if len(flat) % 2:
            raise source.damage("a hash has a field without a value")
        yield [(flat[i], flat[i + 1], None) for i in range(0, len(flat), 2)]

    return read


def _read_hash_with_expiries(source: RdbSource) -> Iterator[list[Element]]:
    """Redis 7.4 and newer. Expiries are relative to the earliest one, plus one; 0 means none."""
    earliest = source.unsigned(8)
    left = source.length()
    while left:
        now = min(left, _BATCH)
        batch: list[Element] = []
        for _ in range(now):
            relative = source.length()
            batch.append((source.string(), source.string(), earliest + relative - 1 if relative else None))
        yield batch
        left -= now


def _read_packed_hash_with_expiries(source: RdbSource) -> Iterator[list[Element]]:
    """Redis 7.4 and newer: field, value, absolute expiry (0: none), repeated."""
    source.unsigned(8)  # the earliest expiry
    flat = listpack(source.string())
    if len(flat) % 3:
        raise source.damage("a hash with expiring fields is incomplete")
    batch: list[Element] = []
    for i in range(0, len(flat), 3):
        if not flat[i + 2].isdigit() or len(flat[i + 2]) > 20:
            raise source.damage("the expiry of a hash's field is not a number")
        batch.append((flat[i], flat[i + 1], int(flat[i + 2]) or None))
    yield batch


def _read_module(source: RdbSource) -> Iterator[list[Element]]:
    yield [b"module %d" % source.length()]
    for token in _module_tokens(source):
        yield [token]


def _module_tokens(source: RdbSource) -> Iterator[bytes]:
    """A module's value, in the self-describing form that can be read without the module."""
    while code := source.length():
        if code in (1, 2):
            yield b"int %d" % source.length()
        elif code == 3:
            yield b"float " + source.take(4)
        elif code == 4:
            yield b"double " + source.take(8)
        elif code == 5:
            yield b"text " + source.string()
        else:
            raise source.damage(f"a module's value holds an item of the unknown kind {code}")


def _stream_reader(layout: int) -> Callable[[RdbSource], Iterator[list[Element]]]:
    def read(source: RdbSource) -> Iterator[list[Element]]:
        for batch in read_stream(source, layout):
            yield list(batch)

    return read


_READERS: dict[int, tuple[Kind, Callable[[RdbSource], Iterator[list[Element]]]]] = {
    0: (Kind.STRING, _read_string),
    1: (Kind.LIST, _read_elements),
    2: (Kind.SET, _read_elements),
    3: (Kind.ZSET, _read_zset),
    4: (Kind.HASH, _read_hash),
    5: (Kind.ZSET, _read_zset_2),
    7: (Kind.MODULE, _read_module),
    9: (Kind.HASH, _packed_hash(zipmap)),
    10: (Kind.LIST, _packed(ziplist)),
    11: (Kind.SET, _packed(intset)),
    12: (Kind.ZSET, _packed_zset(ziplist)),
    13: (Kind.HASH, _packed_hash(ziplist)),
    14: (Kind.LIST, _read_quicklist),
    15: (Kind.STREAM, _stream_reader(1)),
    16: (Kind.HASH, _packed_hash(listpack)),
    17: (Kind.ZSET, _packed_zset(listpack)),
    18: (Kind.LIST, _read_quicklist_2),
    19: (Kind.STREAM, _stream_reader(2)),
    20: (Kind.SET, _packed(listpack)),
    21: (Kind.STREAM, _stream_reader(3)),
    24: (Kind.HASH, _read_hash_with_expiries),
    25: (Kind.HASH, _read_packed_hash_with_expiries),
}
