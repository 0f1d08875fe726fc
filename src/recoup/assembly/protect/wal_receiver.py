"""Joins the two halves of archiving WAL: what arrives from the server, and where it is stored."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final

from recoup.backup.wal_shipper import WalShipper
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.wal_segments import SegmentBuffer
from recoup.kernel import clock

#: So many pieces of one segment are merged into one: a quiet server fills a segment in hours.
_MERGE_AT: Final = 32
#: Marks of how far the server's WAL went and when, for the lag in seconds. One a second, an hour's worth.
_MARKS: Final = 3600


class ArchivingReceiver:
    """A ``Receiver`` that ships whole segments at once and the rest every few seconds. One thread uses it."""

    def __init__(self, buffer: SegmentBuffer, shipper: WalShipper, *, every_seconds: float, shipped: int = 0) -> None:
        """``shipped`` bytes of the first segment are in every archive already."""
        self.buffer = buffer
        self._shipper = shipper
        self._every = every_seconds
        self._shipped = shipped
        self._pieces = 0
        self._last_piece = clock.monotonic()
        self._last_safe = 0
        self.server_end = Lsn(0)
        self.heard_at: datetime | None = None  #: our clock, when the server last said anything
        self.server_time: datetime | None = None  #: its own clock in that message
        self.safe_until: datetime | None = None  #: whatever was written before this instant is safe
        self._marks: deque[tuple[int, datetime]] = deque(maxlen=_MARKS)

    def ready(self) -> bool:
        """See ``Receiver``."""
        return self._shipper.room()

    def heard(self, server_end: Lsn, sent: datetime) -> None:
        """See ``Receiver``."""
        self.server_end = max(self.server_end, server_end)
        self.heard_at = now = clock.now()
        self.server_time = sent
        if not self._marks or (now - self._marks[-1][1]).total_seconds() >= 1 or server_end.value <= self._last_safe:
            self._marks.append((self.server_end.value, now))
        self._look_back(self._last_safe)

    def take(self, position: Lsn, data: memoryview, sent: datetime) -> None:
        """See ``Receiver``."""
        for filled in self.buffer.take(position, data, sent):
            end = filled.begin.value + len(filled.data)
            self._shipper.ship_segment(filled.name, end, filled.data, filled.newest)
            self._shipped = self._pieces = 0
            self._last_piece = clock.monotonic()

    def tick(self, *, hurry: bool) -> None:
        """See ``Receiver``."""
        now = clock.monotonic()
        if self.buffer.filled > self._shipped and (hurry or now - self._last_piece >= self._every):
            self.ship_rest(now)
        elif self.buffer.filled == self._shipped:
            # What comes after a quiet time waits a whole interval at most, counted from when nothing was waiting.
            self._last_piece = now

    def ship_rest(self, now: float) -> None:
        """Ship what came of the present segment and was not shipped yet."""
        if self.buffer.filled <= self._shipped or not self._shipper.room():
            return
        merges = self._pieces >= _MERGE_AT
        start = 0 if merges else self._shipped
        data = self.buffer.piece(start, self.buffer.filled)
        self._shipper.ship_piece(
            self.buffer.name, start, self.buffer.end.value, data, self.buffer.newest, merges=merges
        )
        self._pieces = 1 if merges else self._pieces + 1
        self._shipped = self.buffer.filled
        self._last_piece = now

    def flushed(self) -> Lsn:
        """See ``Receiver``."""
        safe = self._shipper.safe()
        if safe != self._last_safe:
            self._last_safe = safe
            self._look_back(safe)
        return Lsn(safe)

    def turn(self, buffer: SegmentBuffer) -> None:
        """Go on with another timeline."""
        self.buffer = buffer
        self._shipped = self._pieces = 0

    def _look_back(self, safe: int) -> None:
        while self._marks and self._marks[0][0] <= safe:
            self.safe_until = self._marks.popleft()[1]
