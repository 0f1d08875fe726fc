"""Which part of a command stream may go. Pure, over plain values.

What stays must lead from a copy to every instant that must be reachable: the stream from the newest copy before that
instant on. What goes is only ever the oldest side of it, whatever history of the server it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from recoup.repository.retention import CLOCK_TOLERANCE
from recoup.repository.stream_archive import StreamEntry

#: How far the clock of the server may be from that of the machine that takes copies.
_MARGIN: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStart:
    """A copy that stays and knows its place in the stream."""

    id: str
    begun: datetime
    ended: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDecision:
    """What goes, the oldest first, and why the rest stays."""

    remove: tuple[StreamEntry, ...]
    reason: str


def decide_stream(
    entries: Sequence[StreamEntry],
    starts: Sequence[StreamStart],
    *,
    reach: datetime | None,
    now: datetime,
    blocked: str | None = None,
) -> StreamDecision:
    """Given the stream of one service, the copies of it that stay, and the instant that must stay reachable.

    ``reach`` is None when nothing says how far back: then all of it is kept. ``blocked`` says why nothing may go.
    """
    if blocked is not None:
        return StreamDecision(remove=(), reason=blocked)
    if reach is None:
        return StreamDecision(remove=(), reason="the plan does not say how long a stream is kept (retention.wal)")
    if any(entry.stamp > now + CLOCK_TOLERANCE + _MARGIN for entry in entries):
        return StreamDecision(remove=(), reason="some of it is dated in the future: a clock is wrong")
    before = [start for start in starts if start.ended <= reach - _MARGIN]
    if not before:
        return StreamDecision(remove=(), reason="no copy is older than what must be reachable")
    start = max(before, key=lambda one: (one.ended, one.id))
    # What follows a copy came after it was begun; a segment that ends before that is not needed by it or by any later.
    limit = min(start.begun, reach) - _MARGIN
    going = sorted((entry for entry in entries if entry.stamp < limit), key=lambda one: (one.stamp, one.key))
    return StreamDecision(remove=tuple(going), reason=f"needed from copy {start.id} on, from which replay begins")
