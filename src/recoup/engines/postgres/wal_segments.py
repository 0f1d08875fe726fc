"""Cutting the WAL as it arrives into segments, and checking that it is what its place and name say."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from recoup.engines.postgres.lsn import Lsn, segment_name
from recoup.engines.postgres.wal_pages import PAGE_MAGIC
from recoup.kernel.errors import EngineError, RefusedError

_PAGE: Final = 8192
# XLogLongPageHeaderData, src/include/access/xlog_internal.h: magic, info, timeline, address, rem_len, padding, system
# identifier, segment size, block size; the first 16 bytes are on every page.
_SHORT: Final = struct.Struct("<HHIQ")
_LONG: Final = struct.Struct("<HHIQI4xQII")
_LONG_HEADER: Final = 0x0002


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What every segment of a cluster must say."""

    system_identifier: str
    major: int
    segment_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledSegment:
    """A whole segment. ``data`` is handed over: nobody else changes it any more."""

    name: str
    timeline: int
    begin: Lsn
    data: bytearray
    newest: datetime


def check_segment(cluster: Cluster, name: str, begin: Lsn, data: bytes | bytearray | memoryview) -> None:
    """Check the headers of all pages of a segment, or of its first bytes, against the cluster and the name.

    Pages behind a switch to the next segment are zero to the end. Raise ``RefusedError`` for anything else: WAL of
    another cluster, of a later timeline or of another place must never be archived.
    """
    timeline = int(name[:8], 16)
    magic = PAGE_MAGIC.get(cluster.major)
    for offset in range(0, len(data) - _SHORT.size + 1, _PAGE):
        found, info, written_on, address = _SHORT.unpack_from(data, offset)
        here = begin.value + offset
        if found == 0 and offset and bytes(data[offset:]).count(0) == len(data) - offset:
            return
        if address != here or (magic is not None and found != magic):
            raise _wrong(name, f"has no page of WAL of PostgreSQL {cluster.major} at {Lsn(here)}")
        if written_on > timeline:
            raise _wrong(name, f"holds WAL of timeline {written_on} at {Lsn(here)}")
        if offset == 0 and len(data) >= _LONG.size:
            if not info & _LONG_HEADER:
                raise _wrong(name, "has no long header on its first page")
            *_, system, segment_bytes, _block = _LONG.unpack_from(data)
            if str(system) != cluster.system_identifier:
                raise _wrong(name, f"is of cluster {system}, not of {cluster.system_identifier}")
            if segment_bytes != cluster.segment_bytes:
                raise _wrong(name, f"says that segments have {segment_bytes} bytes")


def _wrong(name: str, what: str) -> RefusedError:
    return RefusedError(
        f"the WAL that came as segment {name} {what}",
        hint="It was not archived. Another server may answer at this address, or its WAL is damaged: see its log.",
    )


class SegmentBuffer:
    """Collects one timeline's WAL from a segment boundary on. Holds one segment at a time."""

    def __init__(self, cluster: Cluster, *, timeline: int, start: Lsn, known: bytes = b"") -> None:
        """``known`` is what the archive already holds of the first segment: what comes must begin with it."""
        if start.value % cluster.segment_bytes:
            raise ValueError(f"{start} is not where a segment begins")
        self.cluster, self.timeline = cluster, timeline
        self._known = known
        self._begin = start.value
        self._data = bytearray(cluster.segment_bytes)
        self.filled = 0
        self.newest = datetime(2000, 1, 1, tzinfo=UTC)

    @property
    def name(self) -> str:
        """The name of the segment that is being filled."""
        return segment_name(self.timeline, self._begin // self.cluster.segment_bytes, self.cluster.segment_bytes)

    @property
    def begin(self) -> Lsn:
        """Where that segment begins."""
        return Lsn(self._begin)

    @property
    def end(self) -> Lsn:
        """Where the next bytes belong."""
        return Lsn(self._begin + self.filled)

    def take(self, position: Lsn, data: memoryview, sent: datetime) -> Iterator[FilledSegment]:
        """Add bytes; yield each segment they complete, checked.

        Raise ``EngineError`` when they do not follow what came before, ``RefusedError`` when they are not this
        cluster's WAL or differ from what the archive holds.
        """
        if position != self.end:
            raise EngineError(f"the server sent WAL at {position} where {self.end} was expected")
        self.newest = max(self.newest, sent)
        at = 0
        while at < len(data):
            part = data[at : at + self.cluster.segment_bytes - self.filled]
            self._compare(part)
            first = self.filled < _LONG.size
            self._data[self.filled : self.filled + len(part)] = part
            self.filled += len(part)
            at += len(part)
            if first and self.filled >= _LONG.size:
                check_segment(self.cluster, self.name, self.begin, memoryview(self._data)[: min(self.filled, _PAGE)])
            if self.filled == self.cluster.segment_bytes:
                yield self._complete()

    def piece(self, start: int, end: int) -> bytes:
        """The bytes ``[start, end)`` of the segment that is being filled, which came already."""
        assert 0 <= start <= end <= self.filled
        return bytes(memoryview(self._data)[start:end])

    def _complete(self) -> FilledSegment:
        check_segment(self.cluster, self.name, self.begin, self._data)
        done = FilledSegment(
            name=self.name, timeline=self.timeline, begin=self.begin, data=self._data, newest=self.newest
        )
        self._begin += self.cluster.segment_bytes
        self._data = bytearray(self.cluster.segment_bytes)
        self.filled = 0
        self._known = b""
        return done

    def _compare(self, part: memoryview) -> None:
        if self.filled >= len(self._known):
            return
        held = self._known[self.filled : self.filled + len(part)]
        if part[: len(held)] != held:
            raise RefusedError(
                f"the archive already holds the beginning of segment {self.name} with other content",
                hint="Two servers write WAL of the same name: a copy of the cluster that runs on, or a server that was "
                "set back to an earlier state. Stop the one that is not production. Nothing was replaced.",
            )
