"""When a base backup was stopped, which is when the state was fixed that its copy recovers to.

A server sends the files, stops the backup (``do_pg_backup_stop``: the end record, and a switch to another segment of
WAL), and only then sends the WAL up to there, in whole segments (``perform_base_backup``, basebackup.c). So the first
file under ``pg_wal/`` in ``base.tar`` says that it has been stopped, long before the last byte. A standby switches no
segment: its copy recovers to wherever the WAL reached when it was read, so its state is fixed when the WAL has come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

from recoup.engines.postgres.tar_walk import BLOCK, number_of
from recoup.kernel import clock

#: More than the buffers between a server and us hold: 6 MB of TCP's receiver and 4 MB of its sender by Linux's
#: defaults, and less than 1 MB in the pipes and sockets of a container engine. So a server had not sent a byte yet when
#: the one so far before it had not come, and it had not stopped before it had sent the last byte of its files.
_ON_THE_WAY_BYTES: Final = 16 << 20
_NOTE_EVERY_BYTES: Final = 1 << 20
_WAL: Final = b"pg_wal/"
_FILE: Final = (b"0", b"\0")
#: ``backup_label`` is the first member of base.tar, and says this in its fourth line.
_LABEL_BYTES: Final = 2 * BLOCK
_FROM_STANDBY: Final = b"\nBACKUP FROM: standby\n"


class StopSign:
    """Reads ``base.tar`` as it comes. Make it before the backup begins; ``see`` each piece, then call ``end``.

    ``tell`` is called once, as soon as the state is known to be fixed, with the earliest time at which it may have
    been. It is called between two pieces, so it must not take long. The copy may still fail afterwards.
    """

    def __init__(self, tell: Callable[[datetime], None]) -> None:
        self._tell = tell
        #: When bytes came, one entry for each MiB; the oldest is of what came ``_ON_THE_WAY_BYTES`` ago, or of the
        #: beginning. One more than that, since the newest may be of bytes behind the sign, in the same piece.
        self._times = deque([clock.now()], maxlen=_ON_THE_WAY_BYTES // _NOTE_EVERY_BYTES + 2)
        self._seen = 0
        self._note_at = _NOTE_EVERY_BYTES
        self._left = 0  # bytes before the next header
        self._header = b""
        self._label = b""
        self._looking, self._told = True, False
        self._earliest: datetime | None = None

    def see(self, data: bytes | memoryview) -> None:
        """Look at the next piece. A piece inside a file costs the same whatever its size."""
        if not self._looking:
            return
        if self._seen < _LABEL_BYTES:
            self._label += data[: _LABEL_BYTES - self._seen]
        size = len(data)
        self._seen += size
        if self._seen >= self._note_at:
            self._note_at = self._seen + _NOTE_EVERY_BYTES
            self._times.append(clock.now())
        if size <= self._left:
            self._left -= size
        else:
            self._walk(data, size)

    def end(self) -> None:
        """All of ``base.tar`` has come: tell, unless that was done."""
        if not self._told:
            self._looking, self._told = False, True
            self._tell(self._earliest or self._times[0])

    def _walk(self, data: bytes | memoryview, size: int) -> None:
        at = self._left
        while at < size:
            part = bytes(data[at : at + BLOCK - len(self._header)])
            self._header += part
            at += len(part)
            if len(self._header) == BLOCK:
                header, self._header = self._header, b""
                self._judge(header)
                if not self._looking:
                    return
                length = number_of(header[124:136]) if header[156:157] in _FILE else 0
                at += length + -length % BLOCK
        self._left = at - size

    def _judge(self, header: bytes) -> None:
        if header[257:262] != b"ustar":  # the end, or not a tar at all, which is for others to say
            self._looking = False
        # Of the folders, which come with all the others, none is a file.
        elif header.startswith(_WAL) and header[156:157] in _FILE:
            self._looking, self._earliest = False, self._times[0]
            if _FROM_STANDBY not in self._label:
                self.end()
