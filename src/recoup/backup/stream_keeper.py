"""Stores the objects of a command stream in every repository, in order, without ever holding the server up.

What comes is queued up to a limit of bytes. An object counts as stored when every repository that answers has
acknowledged it, and at least one. A repository that fails is *behind*: it is passed over, tried again, and brought up
from one that has what it lacks. Small segments are what a lost machine can cost; they are joined into larger ones, and
removed when those are stored.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from recoup.kernel import clock
from recoup.kernel.errors import RecoupError
from recoup.repository.seal import Key
from recoup.repository.stream_archive import (
    SealedStream,
    StreamArchive,
    StreamEntry,
    StreamSegment,
    parse,
    seal_stream,
    segment_name,
)

#: What is held in memory at most while no repository answers.
QUEUE_BYTES = 64 << 20
#: Small segments are joined when they have this many bytes together, or are this old.
JOINED_BYTES = 8 << 20
JOINED_AGE = timedelta(minutes=10)
_RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0)
_CATCH_UP_SECONDS = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One object to store. ``plain`` is its content; segments have ``end`` and are joined."""

    replication_id: str
    name: str
    start: int
    end: int | None
    stamp: datetime
    plain: bytes


class StreamKeeper:
    """One thread that stores. ``offer`` never blocks; look at ``queued_bytes`` before taking more from the server."""

    def __init__(
        self,
        archives: Sequence[StreamArchive],
        key: Key,
        service: str,
        *,
        joined_bytes: int = JOINED_BYTES,
        joined_age: timedelta = JOINED_AGE,
    ) -> None:
        self._archives = tuple(archives)
        self._key, self._service = key, service
        self._joined_bytes, self._joined_age = joined_bytes, joined_age
        self._queue: deque[Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._ended = threading.Event()
        self._pieces: list[tuple[Item, StreamSegment]] = []
        self._looked = 0.0
        self.queued_bytes = 0
        self.stored: Item | None = None  #: the newest segment that is stored
        self.stored_objects = 0
        self.behind: dict[str, str] = {}  #: repositories that lack something, and why
        self.error: str | None = None  #: why nothing can be stored anywhere just now
        self._thread = threading.Thread(target=self._work, name=f"keeper {service}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def offer(self, item: Item) -> None:
        """Queue one object."""
        with self._changed:
            self._queue.append(item)
            self.queued_bytes += len(item.plain)
            self._changed.notify_all()

    @property
    def drained(self) -> bool:
        """Whether everything that was offered is stored."""
        return not self._queue

    def wait_for_room(self, limit_bytes: int, seconds: float) -> bool:
        """Whether less than so much is queued, now or within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self.queued_bytes < limit_bytes, timeout=seconds)

    def close(self, seconds: float) -> bool:
        """Store what is queued, for so long at most, and end. Whether everything was stored."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            drained = self._changed.wait_for(lambda: not self._queue, timeout=seconds)
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(seconds)
        return drained

    def _work(self) -> None:
        attempt = 0
        while not self._ended.is_set():
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._ended.is_set(), timeout=1.0)
                item = self._queue[0] if self._queue else None
            self._catch_up()
            if item is None:
                if not self._closing:
                    self._join_if_old()
                continue
            if not self._store(item):
                self._ended.wait(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
                attempt += 1
                continue
            attempt = 0
            with self._changed:
                self._queue.popleft()
                self.queued_bytes -= len(item.plain)
                self._changed.notify_all()

    def _seal(self, item: Item) -> SealedStream:
        return seal_stream(
            self._key, service=self._service, replication_id=item.replication_id, name=item.name, stamp=item.stamp,
            plain=item.plain,
        )  # fmt: skip

    def _store(self, item: Item) -> bool:
        sealed = self._seal(item)
        if not self._put(sealed):
            return False
        self.stored_objects += 1
        entry = parse(sealed.key, len(sealed.data))
        if isinstance(entry, StreamSegment):
            self.stored = item
            last = self._pieces[-1][0] if self._pieces else None
            if last is not None and (last.replication_id, last.end) != (item.replication_id, item.start):
                self._join()
            self._pieces.append((item, entry))
            if sum(len(one.plain) for one, _ in self._pieces) >= self._joined_bytes:
                self._join()
        return True

    def _put(self, sealed: SealedStream) -> bool:
        """Into every repository that is not behind; whether one at least has it."""
        done, failure = 0, None
        for archive in self._archives:
            if archive.repository.name in self.behind:
                continue
            try:
                archive.put(sealed)
                done += 1
            except RecoupError as failed:
                failure = failed
                if len(self._archives) > 1:
                    self.behind[archive.repository.name] = failed.message
        if done:
            self.error = None
            return True
        if len(self.behind) == len(self._archives):  # nobody has it: each is tried again with the next attempt
            self.behind.clear()
        self.error = failure.message if failure is not None else "no repository answers"
        return False

    def _join_if_old(self) -> None:
        if len(self._pieces) > 1 and clock.now() - self._pieces[0][0].stamp > self._joined_age:
            self._join()

    def _join(self) -> None:
        """Store the small segments as one and remove them. A failure leaves them: they are as good."""
        pieces, self._pieces = self._pieces, []
        if len(pieces) < 2 or self.behind:
            return
        first, last = pieces[0][0], pieces[-1][0]
        assert last.end is not None, "only segments are joined"
        whole = Item(
            replication_id=first.replication_id,
            name=segment_name(first.start, last.end),
            start=first.start,
            end=last.end,
            stamp=last.stamp,
            plain=b"".join(item.plain for item, _ in pieces),
        )
        sealed = self._seal(whole)
        for archive in self._archives:
            with contextlib.suppress(RecoupError):
                archive.put(sealed)
                entry = parse(sealed.key, len(sealed.data))
                assert entry is not None, "the name was made here"
                archive.raw(entry)  # read back before anything that it stands for goes
                for _, piece in pieces:
                    archive.delete(piece)

    def _catch_up(self) -> None:
        if not self.behind or clock.monotonic() - self._looked < _CATCH_UP_SECONDS:
            return
        self._looked = clock.monotonic()
        for archive in self._archives:
            if archive.repository.name in self.behind:
                try:
                    bring_up(archive, [one for one in self._archives if one.repository.name not in self.behind])
                    del self.behind[archive.repository.name]
                except RecoupError as failure:
                    self.behind[archive.repository.name] = failure.message


def bring_up(archive: StreamArchive, others: Sequence[StreamArchive]) -> int:
    """Copy into ``archive`` what it lacks and others have; how many objects. Raise ``StorageError``, ``DamageError``.

    Segments that others have joined meanwhile are not looked for: the larger ones hold them.
    """
    held = {entry.key for entry in archive.entries()}
    brought = 0
    for other in others:
        for entry in other.entries():
            if entry.key not in held:
                archive.put(other.raw(entry))
                held.add(entry.key)
                brought += 1
    return brought


def entries_of(archives: Sequence[StreamArchive]) -> tuple[dict[str, StreamEntry], dict[str, list[StreamArchive]]]:
    """What the archives hold together, by key, and who holds each. Raise ``StorageError``."""
    entries: dict[str, StreamEntry] = {}
    holders: dict[str, list[StreamArchive]] = {}
    for archive in archives:
        for entry in archive.entries():
            entries[entry.key] = entry
            holders.setdefault(entry.key, []).append(archive)
    return entries, holders


def newest_segment(entries: Sequence[StreamEntry]) -> StreamSegment | None:
    """The segment that ends last, by the server's clock."""
    segments = [one for one in entries if isinstance(one, StreamSegment)]
    return max(segments, key=lambda one: (one.stamp, one.end), default=None)
