"""Positions in the write-ahead log, and the names of the files that hold them.

Rules: PostgreSQL documentation, "WAL Internals"; src/include/access/xlog_internal.h (XLogFileName).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SHAPE = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})")
_LARGEST = (1 << 64) - 1


@dataclass(frozen=True, slots=True, order=True)
class Lsn:
    """A byte position in the WAL. Compares by position; ``str`` gives PostgreSQL's own ``16/B374D848``."""

    value: int

    def __post_init__(self) -> None:
        if not 0 <= self.value <= _LARGEST:
            raise ValueError(f"not a WAL position: {self.value}")

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Given ``16/B374D848``, return the position. Raise ``ValueError`` for any other shape."""
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise ValueError(f"not a WAL position: {text!r} (PostgreSQL writes 16/B374D848)")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self.value >> 32:X}/{self.value & 0xFFFFFFFF:X}"

    def segment(self, segment_bytes: int) -> int:
        """The number of the WAL segment that holds the byte at this position."""
        return self.value // check_segment_bytes(segment_bytes)


def check_segment_bytes(segment_bytes: int) -> int:
    """Return a valid WAL segment size (a power of two, 1 MiB to 1 GiB); raise ``ValueError`` otherwise."""
    if not (1 << 20 <= segment_bytes <= 1 << 30 and segment_bytes & (segment_bytes - 1) == 0):
        raise ValueError(f"not a WAL segment size: {segment_bytes}")
    return segment_bytes


def segment_name(timeline: int, segment: int, segment_bytes: int) -> str:
    """The file name of a WAL segment: timeline, then the number in two parts, eight hexadecimal digits each."""
    per_id = (1 << 32) // check_segment_bytes(segment_bytes)
    return f"{timeline:08X}{segment // per_id:08X}{segment % per_id:08X}"


def parse_segment_name(name: str, segment_bytes: int) -> tuple[int, int] | None:
    """Given a file name, return (timeline, segment number), or None when it is not a whole segment's name."""
    match = _SEGMENT.fullmatch(name)
    per_id = (1 << 32) // check_segment_bytes(segment_bytes)
    if match is None or int(match[3], 16) >= per_id:
        return None
    return int(match[1], 16), int(match[2], 16) * per_id + int(match[3], 16)


def segments_between(begin: Lsn, end: Lsn, segment_bytes: int) -> Iterator[int]:
    """The numbers of the segments that hold ``[begin, end)``, which are what a base backup needs to start."""
    last = Lsn(max(end.value - 1, begin.value)).segment(segment_bytes)
    yield from range(begin.segment(segment_bytes), last + 1)
