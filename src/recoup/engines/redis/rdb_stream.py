"""Reading a stream value of an RDB: entries, consumer groups, pending entries.

Source: Redis, src/rdb.c (``RDB_TYPE_STREAM_LISTPACKS`` 1 to 3) and src/t_stream.c (``streamAppendItem``). The records
that come out are canonical: equal streams give equal records, whatever their layout in memory and the layout of the
file. Left out, because older layouts do not carry them and a newer server makes them up: a group's count of entries
read, and a consumer's time of last activity.
"""

from __future__ import annotations

from collections.abc import Iterator

from recoup.engines.redis.packed import listpack
from recoup.engines.redis.rdb_source import RdbSource

_DELETED = 1
_SAME_FIELDS = 2
_BATCH = 512
_WRAP = 1 << 64  # differences are stored signed, ids are unsigned


def read_stream(source: RdbSource, layout: int) -> Iterator[list[bytes]]:
    """Given the place after the key and the layout (1, 2 or 3), yield the records of the stream, in batches.

    Records: each entry (id, fields and values); the stream's counters; each group, its pending entries, and each
    consumer with the ids it has not acknowledged.
    """
    entries = 0
    for _ in range(source.length()):
        master = source.string()
        if len(master) != 16:
            raise source.damage("a stream node's id is not 16 bytes")
        batch = list(_entries(source, master, listpack(source.string())))
        entries += len(batch)
        yield batch
    length, last = source.length(), _id(source)
    deleted, added = b"0-0", length
    if layout >= 2:
        _id(source)  # the first entry's id follows from the entries
        deleted, added = _id(source), source.length()
    if length != entries:
        raise source.damage(f"a stream holds {entries} entries instead of {length}")
    yield [_join(b"stream", b"%d" % length, last, deleted, b"%d" % added)]
    for _ in range(source.length()):
        yield from _group(source, layout)


def _group(source: RdbSource, layout: int) -> Iterator[list[bytes]]:
    name, last = source.string(), _id(source)
    if layout >= 2:
        source.length()  # entries read
    yield [_join(b"group", name, last)]
    pending = source.length()
    for done in range(0, pending, _BATCH):
        yield [
            _join(b"pending", source.take(16), source.take(8), b"%d" % source.length())
            for _ in range(min(_BATCH, pending - done))
        ]
    owned = 0
    for _ in range(source.length()):
        consumer, seen = source.string(), source.take(8)
        if layout >= 3:
            source.take(8)  # last activity
        yield [_join(b"consumer", consumer, seen)]
        count = source.length()
        owned += count
        if owned > pending:
            raise source.damage("a stream's consumers own more pending entries than their group has")
        for done in range(0, count, _BATCH):
            yield [_join(b"owns", source.take(16)) for _ in range(min(_BATCH, count - done))]
    if owned != pending:
        raise source.damage("a stream has pending entries without a consumer")


def _id(source: RdbSource) -> bytes:
    return b"%d-%d" % (source.length(), source.length())


def _entries(source: RdbSource, master: bytes, flat: list[bytes]) -> Iterator[bytes]:
    """The entries of one node that were not deleted. Ids are differences from the node's; fields may be shared."""
    milliseconds, sequence = int.from_bytes(master[:8], "big"), int.from_bytes(master[8:], "big")
    try:
        count, deleted, shared_count = int(flat[0]), int(flat[1]), int(flat[2])
        if not 0 <= shared_count <= len(flat):
            raise source.damage("a stream node's field count is wrong")
        shared = flat[3 : 3 + shared_count]
        position = 3 + shared_count + 1  # a zero ends the master entry
        live = gone = 0
        while position < len(flat):
            flags = int(flat[position])
            number = b"%d-%d" % (
                (milliseconds + int(flat[position + 1])) % _WRAP,
                (sequence + int(flat[position + 2])) % _WRAP,
            )
            position += 3
            if flags & _SAME_FIELDS:
                values = flat[position : position + shared_count]
                position += shared_count
                fields = [item for pair in zip(shared, values, strict=True) for item in pair]
            else:
                size = 2 * int(flat[position])
                fields = flat[position + 1 : position + 1 + size]
                position += 1 + size
                if size < 0 or len(fields) != size:
                    raise source.damage("a stream entry is incomplete")
            int(flat[position])  # how many elements the entry takes, for reading backwards
            position += 1
            if flags & _DELETED:
                gone += 1
            else:
                live += 1
                yield _join(b"entry", number, *fields)
    except (IndexError, ValueError) as wrong:
        raise source.damage("a stream node's entries do not follow their format") from wrong
    if (live, gone) != (count, deleted):
        raise source.damage(f"a stream node holds {live} entries and {gone} deleted ones instead of {count}, {deleted}")


def _join(*parts: bytes) -> bytes:
    """One record that no other list of parts could give."""
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)
