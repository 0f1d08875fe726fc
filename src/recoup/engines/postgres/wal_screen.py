"""Looks at WAL before it is replayed for what would reach outside of the restored folder.

Replaying CREATE TABLESPACE makes a link to the folder that the origin named, and the server then writes there
(``create_tablespace_directories``, src/backend/commands/tablespace.c). On a machine where the origin lives, that is the
origin's own tablespace. Base backups carry a map of their tablespaces; a record of WAL has none. So it is refused.

Record: resource manager 5, info 0, data ``xl_tblspc_create_rec``: an oid and a path that ends in a zero byte
(src/include/access/rmgrlist.h, src/include/commands/tablespace.h). Page headers inside a record are taken out first.
"""

from __future__ import annotations

import re
import struct
import threading
from typing import Final

from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import RefusedError

_PAGE: Final = 8192
_SHORT_HEADER, _LONG_HEADER = 24, 40
#: The longest record: header, block header (long form), oid, and a path of MAXPGPATH.
_LONGEST: Final = 24 + 5 + 4 + 1024
#: info, resource manager, two bytes of padding, checksum; the data's header in its short or long form.
_CREATE: Final = re.compile(
    rb"\x00\x05\x00\x00.{4}(?:\xff(?P<short>.)|\xfe(?P<long>.{4})).{4}(?P<path>/[^\x00]{0,1023})\x00", re.DOTALL
)


class WalScreen:
    """Screens the segments of one replay, in any order and from several threads.

    Only records in ``[begin, until)`` are replayed; ``until`` None: it is not known where the replay stops.
    """

    def __init__(self, segment_bytes: int, *, begin: Lsn, until: Lsn | None = None) -> None:
        self._segment_bytes = segment_bytes
        self._begin, self._until = begin, until
        self._heads: dict[int, bytes] = {}
        self._tails: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def look(self, segment: int, data: bytes) -> bytes:
        """Return ``data``, the bytes of a segment. Raise ``RefusedError`` when they make a tablespace."""
        start = segment * self._segment_bytes
        payload = payload_of(data)
        for match in _CREATE.finditer(payload):
            self._judge(match, start + place_in_segment(match.start()))
        with self._lock:
            self._heads[segment], self._tails[segment] = payload[:_LONGEST], payload[-_LONGEST:]
            joints = [one for one in (segment - 1, segment) if one in self._tails and one + 1 in self._heads]
            seams = [(one, self._tails[one] + self._heads[one + 1]) for one in joints]
        for one, seam in seams:
            for match in _CREATE.finditer(seam):
                self._judge(match, (one + 1) * self._segment_bytes)
        return data

    def _judge(self, match: re.Match[bytes], at: int) -> None:
        stated = match["short"][0] if match["short"] is not None else struct.unpack("<I", match["long"])[0]
        if stated != 4 + len(match["path"]) + 1:
            return
        if at < self._begin.value or (self._until is not None and at >= self._until.value):
            return
        path = match["path"].decode(errors="replace")
        raise RefusedError(
            f"the WAL at {Lsn(at)} makes a tablespace in {path}; the restored server would write into that very folder",
            hint="Start from a base backup that was taken after the tablespace was made, or stop before that position: "
            "--before --to-lsn.",
        )


def place_in_segment(offset: int) -> int:
    """An offset in what ``payload_of`` gives of a segment, as an offset in the segment."""
    first = _PAGE - _LONG_HEADER
    if offset < first:
        return _LONG_HEADER + offset
    pages, rest = divmod(offset - first, _PAGE - _SHORT_HEADER)
    return _PAGE * (1 + pages) + _SHORT_HEADER + rest


def payload_of(data: bytes) -> bytes:
    """The bytes of the pages of a segment without their headers."""
    view = memoryview(data)
    return b"".join(
        view[at + (_SHORT_HEADER if at else _LONG_HEADER) : at + _PAGE] for at in range(0, len(data), _PAGE)
    )
