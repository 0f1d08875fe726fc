"""Finding where transactions commit in segments of WAL. Pure.

A record begins with its length, the transaction, the place of the record before it, the info and the resource
manager (src/include/access/xlogrecord.h); a commit is one of RM_XACT_ID (src/include/access/rmgrlist.h) with
XLOG_XACT_COMMIT or XLOG_XACT_COMMIT_PREPARED (src/include/access/xact.h). Page headers may lie inside a record, so
they are taken out before looking; that of a segment's first page says how much of it belongs to a record of the one
before (``xlp_rem_len``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.wal_screen import payload_of, place_in_segment

_RECORD: Final = struct.Struct("<IIQBBxxI")
_REMAINING: Final = struct.Struct("<16xI")
_XACT: Final = 1
_OPERATION: Final = 0x70
_COMMITS: Final = (0x00, 0x30)


class CommitSearch:
    """Looks through segments that are given in order, without a hole."""

    def __init__(self) -> None:
        self._start = b""  #: of a record whose head goes on in the next segment
        self._place = 0

    def look(self, start: Lsn, data: bytes) -> list[Lsn]:
        """Where the commit records begin whose heads end in this segment; ``start`` is where the segment begins.

        What is no chain of records any more is not read on: the next segment is.
        """
        payload = payload_of(data)
        found = []
        if self._start:
            head = self._start + payload[: _RECORD.size - len(self._start)]
            if _is_commit(*_RECORD.unpack(head)[3:5]):
                found.append(Lsn(self._place))
        self._start = b""
        (remaining,) = _REMAINING.unpack_from(data)
        for at, info, manager in self._records(start, payload, _aligned(remaining)):
            if _is_commit(info, manager):
                found.append(at)
        return found

    def _records(self, start: Lsn, payload: bytes, at: int) -> Iterator[tuple[Lsn, int, int]]:
        before: int | None = None
        while at + 4 <= len(payload):
            here = start.value + place_in_segment(at)
            if at + _RECORD.size > len(payload):
                self._start, self._place = payload[at:], here
                return
            length, _, previous, info, manager, _ = _RECORD.unpack_from(payload, at)
            if length < _RECORD.size or before not in (None, previous):
                return  # nothing was written here yet, or it is left over from an earlier use of the file
            yield Lsn(here), info, manager
            before, at = here, _aligned(at + length)


def _is_commit(info: int, manager: int) -> bool:
    return manager == _XACT and info & _OPERATION in _COMMITS


def _aligned(number: int) -> int:
    return (number + 7) // 8 * 8
