"""Finding restore points (``pg_create_restore_point``) in segments of WAL. Pure.

A restore point is a record of the resource manager XLOG with the info XLOG_RESTORE_POINT whose data are the time and
the name in 64 bytes (src/include/access/xlog_internal.h, ``xl_restore_point``; src/include/access/xlogrecord.h). Page
headers may lie inside a record, so they are taken out before looking.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.wal_screen import payload_of, place_in_segment

_INFO_AND_MANAGER: Final = bytes((0x70, 0))  # XLOG_RESTORE_POINT of RM_XLOG_ID
_DATA: Final = bytes((255, 72))  # XLR_BLOCK_ID_DATA_SHORT, and the length of xl_restore_point
#: What is looked for: from the info on, the last 8 bytes of the header, and the data with theirs.
_PATTERN_BYTES: Final = 8 + 2 + 72
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
NAME_BYTES: Final = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePoint:
    """One that was found. ``lsn`` is within its record."""

    name: str
    lsn: Lsn
    time: datetime


class RestorePointSearch:
    """Looks through segments that are given in order, without a hole."""

    def __init__(self, name: str) -> None:
        raw = name.encode()
        self._name = name
        self._pattern = re.compile(
            re.escape(_INFO_AND_MANAGER) + rb".{6}" + re.escape(_DATA) + rb"(.{8})"
            + re.escape(raw) + b"\\0.{%d}" % (NAME_BYTES - len(raw)),  # what follows the name is whatever was in memory
            re.DOTALL,
        )  # fmt: skip
        self._tail = b""

    def look(self, start: Lsn, data: bytes) -> list[RestorePoint]:
        """The restore points of the name that end in this segment; ``start`` is where it begins."""
        payload = self._tail + payload_of(data)
        found = []
        for match in self._pattern.finditer(payload):
            end = match.end() - len(self._tail)
            found.append(
                RestorePoint(
                    name=self._name,
                    lsn=Lsn(start.value + place_in_segment(max(end - 1, 0)) + 1),
                    time=_EPOCH + timedelta(microseconds=struct.unpack("<q", match[1])[0]),
                )
            )
        self._tail = payload[-(_PATTERN_BYTES - 1) :]
        return found
