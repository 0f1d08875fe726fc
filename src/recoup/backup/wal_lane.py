"""One repository's part of archiving WAL: items stored in order, several at once, and how far it has got.

A *required* lane repeats what fails until it works; meanwhile nothing is confirmed to the server. Any other lane lets
go of what it cannot store, and later copies it from a lane that has it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from recoup.backup.wal_held import HeldWal
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError, StorageError
from recoup.repository.wal_archive import SealedWal, WalArchive
from recoup.repository.wal_names import WalEntry, WalPiece, WalSegment, segment_number

_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 15.0
Mode = Literal["running", "behind", "failed"]


@dataclass(slots=True, kw_only=True)
class Item:
    """Something to store. ``end`` is the position that is safe once this and all before it are stored."""

    name: str
    end: int
    segment: str | None  #: the segment it is, or belongs to
    whole: bool  #: it is the segment itself
    sealed: Future[SealedWal]
    merges: bool = False  #: a piece that holds all earlier pieces of its segment
    stored: dict[str, WalEntry] = field(default_factory=dict)  #: by repository


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneState:
    """How one repository stands, for ``recoup status``. Positions are LSNs as numbers."""

    repository: str
    required: bool
    mode: Mode
    position: int
    waiting: int  #: items that are not stored yet
    last_stored: datetime | None
    error: str | None


class Lane:
    """Stores items in one repository with a few threads. ``offer`` and the properties are safe from any thread."""

    def __init__(
        self,
        archive: WalArchive,
        *,
        required: bool,
        begin: int,
        segment_bytes: int,
        held: HeldWal | None,
        depth: int,
        threads: int = 3,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """``begin`` is where receiving begins; ``held`` what the archive holds already; ``depth`` items may wait."""
        self.archive = archive
        self.required = required
        self.name = archive.repository.name
        self._segment_bytes = segment_bytes
        self._depth = depth
        self._position = begin if held is None else held.safe
        self._pieces: list[WalPiece] = [] if held is None else list(held.pieces)
        self._line: deque[Item] = deque()
        self._done: set[int] = set()
        self._started = 0
        self._round = 0  # grows when the line is let go of, so that what is under way then does not count
        self._mode: Mode = "running"
        self._taking = True
        self._behind_until = 0
        self._error: RecoupError | None = None
        self._last_stored: datetime | None = None
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._on_change = on_change
        self.others: tuple[Lane, ...] = ()
        if held is not None:
            self._forget(held.superfluous)
            if held.safe < begin:
                self._fall_behind(begin)
        self._threads = [
            threading.Thread(target=self._work, name=f"wal-{self.name}-{number}", daemon=True)
            for number in range(threads)
        ]

    # -- what others see -----------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Everything before it is stored here."""
        with self._changed:
            return self._position

    @property
    def mode(self) -> Mode:
        """``running``, ``behind`` (it copies from another lane) or ``failed`` (see ``failure``)."""
        with self._changed:
            return self._mode

    @property
    def failure(self) -> RecoupError | None:
        """What can never work by repeating it; None while there is hope."""
        with self._changed:
            return self._error if self._mode == "failed" else None

    def room(self) -> bool:
        """Whether another item can be taken without letting go of one."""
        with self._changed:
            return not self._taking or self._mode == "failed" or len(self._line) < self._depth

    def state(self) -> LaneState:
        """For people."""
        with self._changed:
            return LaneState(
                repository=self.name,
                required=self.required,
                mode=self._mode,
                position=self._position,
                waiting=len(self._line),
                last_stored=self._last_stored,
                error=None if self._error is None else self._error.message,
            )

    def start(self, others: Iterable[Lane]) -> None:
        """Begin. ``others`` are the lanes that this one may copy from."""
        self.others = tuple(one for one in others if one is not self)
        for thread in self._threads:
            thread.start()

    def offer(self, item: Item) -> None:
        """Take an item, in order. A lane that is behind lets go of it and copies it later."""
        with self._changed:
            if self._mode == "failed":
                return
            if self._taking and len(self._line) >= self._depth and not self.required:
                self._fall_behind(item.end)
            if not self._taking:
                self._behind_until = max(self._behind_until, item.end)
                return
            self._line.append(item)
            self._changed.notify_all()

    def idle(self) -> bool:
        """Whether everything that was offered is stored (or never will be)."""
        with self._changed:
            return self._mode == "failed" or (self._mode == "running" and not self._line)

    def close(self) -> None:
        """Stop. What is under way is finished, what waits is let go of."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the threads, ``seconds`` in all at most."""
        until = clock.monotonic() + seconds
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, until - clock.monotonic()))

    # -- storing -------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while (task := self._following()) is not None:
            if task == "catch up":
                self._catch_up()
                continue
            item, round_ = task
            if self._store(item):
                self._finished(item, round_)

    def _following(self) -> tuple[Item, int] | Literal["catch up"] | None:
        with self._changed:
            while not self._closing.is_set():
                if self._mode == "failed":
                    return None
                if self._mode == "behind":
                    if threading.current_thread() is self._threads[0]:
                        return "catch up"
                elif self._started < len(self._line):
                    self._started += 1
                    return self._line[self._started - 1], self._round
                self._changed.wait()
        return None

    def _store(self, item: Item) -> bool:
        pause = _FIRST_PAUSE
        while True:
            try:
                item.stored[self.name] = self.archive.put(item.sealed.result())
            except CancelledError:
                return False  # the shipper was closed before this was sealed
            except StorageError as failure:
                if not self._go_on_after(failure):
                    return False
            except RecoupError as failure:  # other bytes under this name, a damaged object, a wrong key: no repeating
                self._fail(failure)
                return False
            else:
                return True
            if self._closing.wait(pause):
                return False
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _go_on_after(self, failure: StorageError) -> bool:
        """Note a failure; whether to try the same again."""
        with self._changed:
            if self._mode == "failed":
                return False  # by what was under way beside this: that is what must be said
            self._error = failure
            if self.required or self._mode != "running":
                return self._mode == "running"
            self._fall_behind(max((item.end for item in self._line), default=self._position))
            return False

    def _fail(self, failure: RecoupError) -> None:
        with self._changed:
            if self._mode != "failed":
                self._error, self._mode = failure, "failed"
            self._round += 1
            self._line.clear()
            self._changed.notify_all()
        self._on_change()

    def _finished(self, item: Item, round_: int) -> None:
        acknowledged: list[Item] = []
        with self._changed:
            if round_ != self._round:
                return  # let go of meanwhile; the catching up finds it stored
            self._done.add(id(item))
            while self._line and id(self._line[0]) in self._done:
                first = self._line.popleft()
                self._started -= 1
                self._done.discard(id(first))
                self._position = max(self._position, first.end)
                acknowledged.append(first)
            self._error = None
            self._last_stored = clock.now()
            gone = [piece for one in acknowledged for piece in self._replaced_by(one)]
            self._changed.notify_all()
        self._on_change()
        self._forget(gone)

    def _replaced_by(self, item: Item) -> list[WalPiece]:
        """The pieces that are of no more use once ``item`` is stored."""
        entry = item.stored[self.name]
        gone = []
        if item.whole or item.merges:
            gone = [piece for piece in self._pieces if piece.segment == item.segment and piece.key != entry.key]
            self._pieces = [piece for piece in self._pieces if piece.segment != item.segment]
        if isinstance(entry, WalPiece):
            self._pieces.append(entry)
        return gone

    def _forget(self, pieces: Iterable[WalPiece]) -> None:
        # A piece that stays costs a little room and is removed at the next start; it must not hold up anything.
        for piece in pieces:
            with contextlib.suppress(RecoupError):
                self.archive.delete(piece)

    # -- catching up ---------------------------------------------------------------------------------------------

    def _fall_behind(self, until: int) -> None:
        self._mode, self._taking = "behind", False
        self._behind_until = max(self._behind_until, until)
        self._round += 1
        self._line.clear()
        self._done.clear()
        self._started = 0
        with self._changed:
            self._changed.notify_all()

    def _catch_up(self) -> None:
        """Copy what is missing here from the lane that holds most; then take items again, and join."""
        pause = _FIRST_PAUSE
        while not self._closing.is_set():
            source = max((one for one in self.others if one.mode == "running"), key=lambda one: one.position,
                         default=None)  # fmt: skip
            if source is not None:
                try:
                    reached = source.position
                    self._copy_from(source.archive, reached)
                    if self._caught_up(reached):
                        return
                    pause = _FIRST_PAUSE
                except StorageError as failure:
                    self._note(failure)
                except RecoupError as failure:
                    self._fail(failure)
                    return
            if self._closing.wait(pause):
                return
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _note(self, failure: RecoupError) -> None:
        with self._changed:
            if self._mode != "failed":
                self._error = failure

    def _caught_up(self, reached: int) -> bool:
        """Whether there is nothing to catch up with any more; that is so after a failure too."""
        with self._changed:
            if self._mode == "failed":
                return True
            self._position = max(self._position, reached)
            self._error = None
            self._last_stored = clock.now()
            if not self._taking:
                self._taking = True  # from now on nothing is missed; what came before must still be copied
            elif reached >= self._behind_until:
                self._mode = "running"
                self._changed.notify_all()
                return True
        return False

    def _copy_from(self, source: WalArchive, reached: int) -> None:
        """Copy the entries this archive lacks and that begin before ``reached``, the oldest first."""
        first = self.position // self._segment_bytes
        here = {_name_of(entry) for entry in self.archive.entries()}
        there = list(source.entries())
        whole = {entry.name for entry in there if isinstance(entry, WalSegment)}
        for entry in there:
            if self._closing.is_set():
                return
            if _name_of(entry) in here or (isinstance(entry, WalPiece) and entry.segment in whole):
                continue
            name = entry.name if isinstance(entry, WalSegment) else getattr(entry, "segment", None)
            if name is not None:
                number = segment_number(name, self._segment_bytes)
                if number < first or number * self._segment_bytes >= reached:
                    continue
            self.archive.copy_from(source, entry)


def _name_of(entry: WalEntry) -> str:
    return entry.key.rsplit("/", 1)[-1].rsplit("-", 2)[0]
