"""The names of the objects of a WAL archive, and what they say. ``docs/repository-format.md`` specifies them.

A name says what the object holds, the newest server time in it, and the MAC that authenticates both together with the
content. One listing is therefore the whole inventory. A name alone is only a claim: reading proves it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from recoup.repository import layout
from recoup.repository.named_objects import ENDING, parse_stamp

_SEGMENT: Final = re.compile(rf"([0-9A-F]{{24}}){ENDING}")
_PIECE: Final = re.compile(rf"([0-9A-F]{{24}})\.([0-9A-F]{{8}})-([0-9A-F]{{8}})\.partial{ENDING}")
_HISTORY: Final = re.compile(rf"([0-9A-F]{{8}})\.history{ENDING}")
_GAP: Final = re.compile(rf"([0-9A-F]{{8}})\.([0-9A-F]{{16}})-([0-9A-F]{{16}})\.gap{ENDING}")
_SEGMENT_NAME: Final = re.compile(r"[0-9A-F]{24}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stored:
    key: str  #: the object key in the repository
    stamp: datetime  #: the newest time of the server's clock in it, to the millisecond
    mac: str
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalSegment(_Stored):
    """A whole segment of WAL. ``name`` is PostgreSQL's own file name, 24 hexadecimal digits."""

    name: str

    @property
    def timeline(self) -> int:
        """The timeline it belongs to."""
        return int(self.name[:8], 16)

    def number(self, segment_bytes: int) -> int:
        """Its place in the WAL, given the cluster's segment size: it begins at ``number * segment_bytes``."""
        return segment_number(self.name, segment_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalPiece(_Stored):
    """The bytes ``[start, end)`` of a segment that is not complete yet. ``segment`` is the name it will have."""

    segment: str
    start: int
    end: int

    @property
    def timeline(self) -> int:
        """The timeline its segment belongs to."""
        return int(self.segment[:8], 16)

    def number(self, segment_bytes: int) -> int:
        """The place of its segment in the WAL."""
        return segment_number(self.segment, segment_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalHistory(_Stored):
    """The history file of a timeline: the timelines before it, and where each ended."""

    timeline: int

    @property
    def name(self) -> str:
        """PostgreSQL's own file name: ``00000002.history``."""
        return f"{self.timeline:08X}.history"


@dataclass(frozen=True, slots=True, kw_only=True)
class WalGap(_Stored):
    """WAL that is known to be lost: positions ``[start, end)`` of a timeline, in bytes. The content says why."""

    timeline: int
    start: int
    end: int


WalEntry = WalSegment | WalPiece | WalHistory | WalGap


def segment_number(name: str, segment_bytes: int) -> int:
    """Given a segment's file name and the cluster's segment size, return its place in the WAL.

    Raise ``ValueError`` when there is no such segment (src/include/access/xlog_internal.h, XLogFileName).
    """
    per_id = (1 << 32) // segment_bytes
    high, low = int(name[8:16], 16), int(name[16:24], 16)
    if low >= per_id:
        raise ValueError(f"{name} is no segment of {segment_bytes} bytes")
    return high * per_id + low


def check_segment_name(name: str) -> str:
    """Return ``name`` when it is the file name of a segment; raise ``ValueError`` otherwise."""
    if not _SEGMENT_NAME.fullmatch(name):
        raise ValueError(f"not a WAL segment: {name!r}")
    return name


def piece_name(segment: str, start: int, end: int) -> str:
    """The name of a piece without stamp and MAC."""
    return f"{check_segment_name(segment)}.{start:08X}-{end:08X}.partial"


def history_name(timeline: int) -> str:
    """The name of a history file without stamp and MAC."""
    return f"{timeline:08X}.history"


def gap_name(timeline: int, start: int, end: int) -> str:
    """The name of a gap's record without stamp and MAC."""
    return f"{timeline:08X}.{start:016X}-{end:016X}.gap"


def parse(key: str, stored_bytes: int) -> WalEntry | None:
    """Given an object key and the size the store states, return what its name says; None when it is not of WAL."""
    name = layout.wal_name(key)
    if name is None:
        return None
    try:
        if match := _SEGMENT.fullmatch(name):
            return WalSegment(
                key=key, stored_bytes=stored_bytes, stamp=parse_stamp(match[2]), mac=match[3], name=match[1]
            )
        if match := _PIECE.fullmatch(name):
            start, end = int(match[2], 16), int(match[3], 16)
            if start >= end:
                return None
            return WalPiece(
                key=key, stored_bytes=stored_bytes, stamp=parse_stamp(match[4]), mac=match[5],
                segment=match[1], start=start, end=end,
            )  # fmt: skip
        if match := _HISTORY.fullmatch(name):
            return WalHistory(
                key=key,
                stored_bytes=stored_bytes,
                stamp=parse_stamp(match[2]),
                mac=match[3],
                timeline=int(match[1], 16),
            )
        if match := _GAP.fullmatch(name):
            return WalGap(
                key=key, stored_bytes=stored_bytes, stamp=parse_stamp(match[4]), mac=match[5],
                timeline=int(match[1], 16), start=int(match[2], 16), end=int(match[3], 16),
            )  # fmt: skip
    except ValueError:
        pass  # a stamp that is no instant
    return None
