"""Checking a WAL segment by its page headers: is it of this cluster and timeline, and in its right place?

Layout: src/include/access/xlog_internal.h (XLogPageHeaderData, XLogLongPageHeaderData), little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

from recoup.engines.postgres.backup_manifest import WalRange
from recoup.engines.postgres.lsn import Lsn, parse_segment_name

#: XLOG_PAGE_MAGIC of each major version.
PAGE_MAGIC = {14: 0xD10D, 15: 0xD110, 16: 0xD113, 17: 0xD116, 18: 0xD118}
_SHORT = struct.Struct("<HHIQ")
_LONG = struct.Struct("<HHIQI4xQII")
_LONG_HEADER = 0x0002
_PAGE = 8192


class WalSegmentCheck:
    """Takes the bytes of one segment and keeps what is wrong with its page headers."""

    def __init__(self, name: str, size_bytes: int, facts: Mapping[str, Any], ranges: Sequence[WalRange]) -> None:
        self._name = name
        self._facts = facts
        self._faults: list[str] = []
        self._at = 0
        self._rest = b""
        segment_bytes = int(facts.get("wal_segment_bytes", 16 << 20))
        parsed = parse_segment_name(name, segment_bytes)
        if parsed is None or size_bytes != segment_bytes:
            self._faults.append(f"segment {name} has {size_bytes} bytes instead of {segment_bytes}")
            self._until = 0
            return
        self._timeline, number = parsed
        self._start = number * segment_bytes
        ends = [needed.end.value for needed in ranges if needed.timeline == self._timeline]
        # Behind the end position lies what the file held before it was recycled.
        self._until = min(max(ends, default=0) - self._start, segment_bytes)

    def take(self, data: bytes) -> None:
        """The next bytes of the segment."""
        if self._faults or self._at >= self._until:
            return
        data = self._rest + data if self._rest else data
        whole = len(data) // _PAGE * _PAGE
        for offset in range(0, whole, _PAGE):
            if self._at >= self._until or self._faults:
                return
            self._check_page(data, offset)
            self._at += _PAGE
        self._rest = data[whole:]

    def _check_page(self, data: bytes, offset: int) -> None:
        magic, info, timeline, address = _SHORT.unpack_from(data, offset)
        expected_magic = PAGE_MAGIC.get(int(self._facts.get("major", 0)), magic)
        here = self._start + self._at
        if magic != expected_magic or address != here:
            self._fault(f"has no page of WAL at {Lsn(here)}")
        elif timeline > self._timeline:
            self._fault(f"holds WAL of timeline {timeline} at {Lsn(here)}")
        elif self._at == 0:
            if not info & _LONG_HEADER:
                self._fault("has no long header on its first page")
                return
            *_, system, segment_bytes, _block = _LONG.unpack_from(data, offset)
            if str(system) != str(self._facts.get("system_identifier", system)):
                self._fault(f"is of another cluster ({system})")
            elif segment_bytes != self._facts.get("wal_segment_bytes", segment_bytes):
                self._fault(f"says that segments have {segment_bytes} bytes")

    def _fault(self, what: str) -> None:
        self._faults.append(f"segment {self._name} {what}")

    def faults(self) -> list[str]:
        """What is wrong, once all bytes were taken."""
        if not self._faults and self._at < self._until:
            return [f"segment {self._name} ends early"]
        return self._faults


def first_page_fault(data: bytes, system_identifier: str, timeline: int, start: int) -> str | None:
    """What is wrong with the first page header of a segment that begins at ``start``; None when nothing is.

    The last pages of a segment may be older than its name says, so a timeline *before* the name's is fine: the segment
    of a switch begins with a copy of the old one.
    """
    if len(data) < _LONG.size:
        return "is too short for WAL"
    _, info, written_on, address, _, system, _, _ = _LONG.unpack_from(data)
    if not info & _LONG_HEADER or address != start:
        return f"does not begin with the page of {Lsn(start)}"
    if str(system) != system_identifier:
        return f"is of another cluster ({system})"
    return f"begins on timeline {written_on}" if written_on > timeline else None
