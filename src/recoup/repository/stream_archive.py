"""The command streams of one service in one repository: segments, joins of two replication ids, known gaps.

As in the archive of WAL (``wal_archive.py``), every object is authenticated by its own name, so that one listing is
the inventory: docs/decisions/0012 says why, and ``docs/repository-format.md`` specifies the names. Offsets are
16 hexadecimal digits, so the order of the names is that of the stream.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from recoup.repository import layout
from recoup.repository.named_objects import (
    ENDING,
    fetch,
    mac_text,
    open_bytes,
    parse_reason,
    parse_stamp,
    require_authentic,
    seal_bytes,
    stamp_text,
    stored_limit,
)
from recoup.repository.repository import Repository
from recoup.repository.seal import Key
from recoup.storage.object_store import ObjectExistsError

PURPOSE: Final = "redis-stream"
#: The largest segment: it is held in memory. A command or a transaction alone is at most 64 MiB.
MAX_SEGMENT_BYTES: Final = 160 << 20
_MAX_STORED_BYTES: Final = stored_limit(MAX_SEGMENT_BYTES)
_SEGMENT: Final = re.compile(rf"([0-9a-f]{{16}})-([0-9a-f]{{16}}){ENDING}")
_JOIN: Final = re.compile(rf"([0-9a-f]{{16}})\.after-([0-9a-f]{{40}}){ENDING}")
_GAP: Final = re.compile(rf"([0-9a-f]{{16}})\.gap-([0-9a-f]{{40}})-([0-9a-f]{{16}}){ENDING}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    key: str  #: the object key in the repository
    replication_id: str
    start: int  #: the replication offset at which it begins: the bytes of the stream before it
    stamp: datetime  #: the newest time of the server's clock in it
    mac: str
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSegment(_Stored):
    """The bytes ``[start, end)`` of a stream, as a piece of an append-only file."""

    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamJoin(_Stored):
    """From ``start`` on, the stream of ``before`` goes on under ``replication_id``: nothing lies between."""

    before: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamGap(_Stored):
    """The stream of ``before`` was kept up to ``before_end``, the next from ``start`` on. The content says why."""

    before: str
    before_end: int


StreamEntry = StreamSegment | StreamJoin | StreamGap


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedStream:
    """An object of a stream, sealed once, to be stored in as many repositories of the same key as there are."""

    key: str
    data: bytes


def segment_name(start: int, end: int) -> str:
    """The name of a segment without stamp and MAC."""
    if not 0 <= start < end:
        raise ValueError(f"no segment: {start} to {end}")
    return f"{start:016x}-{end:016x}"


def join_name(start: int, before: str) -> str:
    """The name of a join without stamp and MAC."""
    return f"{start:016x}.after-{before}"


def gap_name(start: int, before: str, before_end: int) -> str:
    """The name of a gap's record without stamp and MAC."""
    return f"{start:016x}.gap-{before}-{before_end:016x}"


def seal_stream(
    key: Key, *, service: str, replication_id: str, name: str, stamp: datetime, plain: bytes, level: int = 3
) -> SealedStream:
    """Compress and seal ``plain`` under a name. Raise ``ValueError`` for too many bytes, and for impossible names."""
    if len(plain) > MAX_SEGMENT_BYTES:
        raise ValueError(f"{len(plain)} bytes of a command stream at once")
    data = seal_bytes(key, plain, level=level)
    bound = f"{layout.commands_folder(service, replication_id)}{name}-{stamp_text(stamp)}"
    return SealedStream(key=layout.commands_key(bound, mac_text(key, PURPOSE, bound, data)), data=data)


class StreamArchive:
    """The command streams of one service in one repository. Safe to use from several threads."""

    def __init__(self, repository: Repository, service: str) -> None:
        """Raise ``ValueError`` for a service that cannot be part of an object key."""
        self.repository = repository
        self.service = service
        self._folder = layout.commands_folder(service)

    def entries(self) -> Iterator[StreamEntry]:
        """What the archive holds by its names, by replication id and offset; unproven until read."""
        for info in self.repository.store.list(self._folder):
            entry = parse(info.key, info.size_bytes)
            if entry is not None:
                yield entry

    def put(self, sealed: SealedStream) -> None:
        """Store what ``seal_stream`` made with this repository's key. Returns once the store has acknowledged it.

        The same object again is a success: its key names these very bytes. Raise ``StorageError``.
        """
        if not sealed.key.startswith(self._folder):
            raise ValueError(f"{sealed.key} does not belong into {self._folder}")
        with contextlib.suppress(ObjectExistsError):
            self.repository.store.put(sealed.key, sealed.data, if_absent=True)

    def raw(self, entry: StreamEntry) -> SealedStream:
        """An entry as it is stored, proven authentic, to be put into another repository of the same key.

        Raise ``DamageError`` when it is missing, changed, renamed or cut, ``StorageError``.
        """
        data = fetch(self.repository, entry.key, limit_bytes=_MAX_STORED_BYTES)
        require_authentic(self.repository.key, PURPOSE, entry.key, entry.mac, data, f" in {self.repository}")
        return SealedStream(key=entry.key, data=data)

    def read(self, entry: StreamEntry) -> bytes:
        """The plain bytes of an entry. Nothing is decrypted before its MAC matched.

        Raise as ``raw`` does, and ``WrongKeyError`` when authentic bytes do not decrypt.
        """
        return open_bytes(self.repository.key, entry.key, self.raw(entry).data, f" in {self.repository}")

    def reason(self, gap: StreamGap) -> str:
        """Why what lies in a gap is lost, as it was recorded. Raise as ``read`` does."""
        return parse_reason(gap.key, self.read(gap))

    def delete(self, entry: StreamEntry) -> None:
        """Remove an entry. Removing what is gone is fine. Raise ``StorageError``."""
        if not entry.key.startswith(self._folder):
            raise ValueError(f"{entry.key} is not in {self._folder}")
        self.repository.store.delete(entry.key)


def parse(key: str, stored_bytes: int) -> StreamEntry | None:
    """Given an object key and the size the store states, return what its name says; None when it is of no stream."""
    parts = key.split("/")
    if len(parts) != 4 or parts[0] + "/" != layout.COMMANDS or not layout.REPLICATION_ID.fullmatch(parts[2]):
        return None
    name, line = parts[3], parts[2]
    try:
        if match := _SEGMENT.fullmatch(name):
            start, end = int(match[1], 16), int(match[2], 16)
            if start >= end:
                return None
            return StreamSegment(
                key=key, replication_id=line, start=start, stamp=parse_stamp(match[3]), mac=match[4],
                stored_bytes=stored_bytes, end=end,
            )  # fmt: skip
        if match := _JOIN.fullmatch(name):
            return StreamJoin(
                key=key, replication_id=line, start=int(match[1], 16), stamp=parse_stamp(match[3]), mac=match[4],
                stored_bytes=stored_bytes, before=match[2],
            )  # fmt: skip
        if match := _GAP.fullmatch(name):
            return StreamGap(
                key=key, replication_id=line, start=int(match[1], 16), stamp=parse_stamp(match[4]), mac=match[5],
                stored_bytes=stored_bytes, before=match[2], before_end=int(match[3], 16),
            )  # fmt: skip
    except ValueError:
        pass  # a stamp that is no instant
    return None


def services_in(repository: Repository) -> list[str]:
    """The services that the repository holds command streams of, in order. Raise ``StorageError``."""
    found = {entry.key.split("/")[1] for info in repository.store.list(layout.COMMANDS)
             if (entry := parse(info.key, info.size_bytes)) is not None}  # fmt: skip
    return sorted(found)
