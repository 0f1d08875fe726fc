"""WAL into all repositories of a plan: sealed once, stored by each lane, safe when every required one has it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from recoup.backup.wal_held import HeldWal
from recoup.backup.wal_lane import Item, Lane, LaneState
from recoup.kernel import clock
from recoup.repository import wal_names
from recoup.repository.seal import Key
from recoup.repository.wal_archive import WalArchive, seal_wal

#: What may wait in memory for the repositories, sealed or not yet.
_WAITING_BYTES: Final = 48 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One archive and what it holds at the beginning. See ``Lane`` for ``required``."""

    archive: WalArchive
    required: bool
    held: HeldWal | None


class WalShipper:
    """Takes segments, pieces and history files in order; says how far everything is safe. For one receiving thread."""

    def __init__(
        self, targets: Sequence[Target], *, key: Key, begin: int, segment_bytes: int, missing: bool = False
    ) -> None:
        """``begin`` is the position from which on WAL is received. ``missing``: a required repository is not among the
        targets, because it could not be opened, so that nothing may be called safe.
        """
        assert targets, "WAL is shipped to one repository at least"
        first = targets[0].archive
        self._key, self._service, self._system = key, first.service, first.system_identifier
        self._missing = missing
        self._depth = max(2, _WAITING_BYTES // segment_bytes)
        self._sealers = ThreadPoolExecutor(2, "recoup-wal-seal")
        self.lanes = tuple(
            Lane(
                target.archive,
                required=target.required,
                begin=begin,
                segment_bytes=segment_bytes,
                held=target.held,
                depth=self._depth,
            )
            for target in targets
        )
        for lane in self.lanes:
            lane.start(self.lanes)

    def room(self) -> bool:
        """Whether more can be taken. Raise what a required repository can never store."""
        for lane in self.lanes:
            if lane.required and (failure := lane.failure) is not None:
                raise failure
        required = [lane for lane in self.lanes if lane.required] or self.lanes
        return all(lane.room() for lane in required)

    def safe(self) -> int:
        """Everything before this position is in every required repository (in one, when none is required).

        A lane that fails for good does not count any more unless it is required: then it holds everything up.
        """
        if self._missing:
            return 0
        required = [lane.position for lane in self.lanes if lane.required]
        return min(required) if required else max(lane.position for lane in self.lanes)

    def ship_segment(self, name: str, end: int, data: bytes | bytearray, stamp: datetime) -> None:
        """A whole segment; ``end`` is the position behind it."""
        self._offer(name, data, stamp, end=end, segment=name, whole=True)

    def ship_piece(self, segment: str, start: int, end: int, data: bytes, stamp: datetime, *, merges: bool) -> None:
        """Bytes of the present segment from offset ``start`` on; ``end`` is the position behind them."""
        name = wal_names.piece_name(segment, start, start + len(data))
        self._offer(name, data, stamp, end=end, segment=segment, merges=merges)

    def ship_history(self, timeline: int, data: bytes, stamp: datetime) -> None:
        """The history file of a timeline that begins."""
        self._offer(wal_names.history_name(timeline), data, stamp, end=0)

    def states(self) -> tuple[LaneState, ...]:
        """Each repository, in the plan's order."""
        return tuple(lane.state() for lane in self.lanes)

    def drained(self) -> bool:
        """Whether all that was taken is stored in every required repository."""
        required = [lane for lane in self.lanes if lane.required] or self.lanes
        return all(lane.idle() for lane in required)

    def waive(self, repository: str) -> None:
        """Do not wait for ``repository`` any more: it copies later what it misses now."""
        for lane in self.lanes:
            if lane.name == repository:
                lane.required = False

    def waive_missing(self) -> None:
        """Do not wait any more for the repositories that could not be opened."""
        self._missing = False

    def close(self, *, seconds: float = 10.0) -> None:
        """Stop the lanes; wait for what is under way, ``seconds`` at most."""
        for lane in self.lanes:
            lane.close()
        until = clock.monotonic() + seconds
        for lane in self.lanes:
            lane.join(max(0.0, until - clock.monotonic()))
        self._sealers.shutdown(wait=False, cancel_futures=True)

    def _offer(
        self, name: str, data: bytes | bytearray, stamp: datetime, *, end: int, segment: str | None = None,
        whole: bool = False, merges: bool = False,
    ) -> None:  # fmt: skip
        sealed = self._sealers.submit(
            seal_wal, self._key, service=self._service, system_identifier=self._system, name=name, stamp=stamp,
            plain=data,
        )  # fmt: skip
        item = Item(name=name, end=end, segment=segment, whole=whole, sealed=sealed, merges=merges)
        for lane in self.lanes:
            lane.offer(item)
