"""One connection's worth of archiving WAL: who is there, where to go on, receive until it ends.

The repositories are the truth: nothing that this machine remembers decides where to go on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from recoup.assembly.protect.wal_receiver import ArchivingReceiver
from recoup.backup.wal_held import HeldWal, Reach, held_wal, newest_timeline
from recoup.backup.wal_shipper import Target, WalShipper
from recoup.backup.wal_start import Start, starts
from recoup.engines.postgres.access import ServerAccess
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.server_facts import parse_setting_size
from recoup.engines.postgres.slot import SlotFacts, create_slot, drop_slot, look_at_slot, read_history
from recoup.engines.postgres.timelines import parse_history
from recoup.engines.postgres.wal_segments import Cluster, SegmentBuffer
from recoup.engines.postgres.wal_stream import NextTimeline, WalStream
from recoup.engines.postgres.wire import ServerError, SystemIdentity, Wire
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, EngineError, RefusedError
from recoup.kernel.units import show_size
from recoup.repository.repository import Repository
from recoup.repository.wal_archive import MAX_SEGMENT_BYTES, WalArchive
from recoup.repository.wal_names import WalEntry, WalPiece

#: The server removed a segment, or the slot is no good any more (58P01, 55000).
_GONE: Final = frozenset({"58P01", "55000"})
_DRAIN_SECONDS: Final = 20.0


class SlotGoneError(EngineError):
    """The server no longer has the WAL that the archive needs next."""

    may_retry = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to archive, and where. ``known_system`` is the cluster that earlier copies were taken of, if any."""

    service: str
    slot: str
    known_system: str | None
    repositories: tuple[tuple[Repository, bool], ...]  #: with whether each is required
    every_seconds: float


class WalSession:
    """Streams on one connection. ``identity``, ``receiver`` and ``shipper`` are for whoever shows how it goes."""

    def __init__(self, wanted: Wanted, wire: Wire, access: ServerAccess, *, on_gap: Callable[[str], None]) -> None:
        self._wanted, self._wire, self._access = wanted, wire, access
        self._on_gap = on_gap
        self.identity: SystemIdentity = wire.identify()
        self.receiver: ArchivingReceiver | None = None
        self.shipper: WalShipper | None = None
        self.slot_lost_because: str | None = None
        self.abandoned = False  #: end at once: what is not stored by now is given up
        self.missing: frozenset[str] = frozenset()  #: required repositories that could not be opened
        segment_bytes = parse_setting_size(wire.show("wal_segment_size"))
        if segment_bytes > MAX_SEGMENT_BYTES:
            raise EngineError(
                f"WAL segments of {show_size(segment_bytes)} are not archived",
                hint=f"Segments of up to {show_size(MAX_SEGMENT_BYTES)} are; PostgreSQL's own default is 16 MiB.",
            )
        self.cluster = Cluster(
            system_identifier=self.identity.system_identifier, major=wire.major, segment_bytes=segment_bytes
        )

    def run(self, stop: threading.Event) -> None:
        """Stream until ``stop`` is set, then store what came. Raise ``RecoupError`` when it cannot go on."""
        self._check_cluster()
        history = self._history(self.identity.timeline)
        archives = {repository.name: self._archive(repository) for repository, _ in self._wanted.repositories}
        entries = {name: list(archive.entries()) for name, archive in archives.items()}
        held = {name: held_wal(found, history, self.cluster.segment_bytes) for name, found in entries.items()}
        self._check_not_set_back(entries, held)
        facts = self._slot()
        assert facts.restart is not None
        reason = self.slot_lost_because or "the server had removed the WAL before it was archived"
        for start in starts(held, history, slot_from=facts.restart.value, segment_bytes=self.cluster.segment_bytes):
            try:
                self._stream(start, archives, held, reason, stop)
            except ServerError as failure:
                # A later place may still be there. Once anything was received, the next connection decides anew.
                if (
                    failure.sqlstate not in _GONE
                    or self.receiver is None
                    or self.receiver.buffer.end.value != start.position
                ):
                    raise
                self._close()
                continue
            return
        raise SlotGoneError(
            f"the server at {self._wire.address} no longer has the WAL that follows the archive",
            hint="A new slot is made and the gap recorded at the next attempt.",
        )

    # -- before ----------------------------------------------------------------------------------------------------

    def _archive(self, repository: Repository) -> WalArchive:
        return WalArchive(repository, self._wanted.service, self.identity.system_identifier)

    def _check_cluster(self) -> None:
        known = self._wanted.known_system
        if known is not None and known != self.identity.system_identifier:
            raise RefusedError(
                f"{self._wire.address} is cluster {self.identity.system_identifier}, and the copies of "
                f"{self._wanted.service} are of cluster {known}",
                hint="Correct the address. If the cluster was replaced on purpose, take its first base backup with "
                f"`recoup backup {self._wanted.service} --kind base --other-cluster`.",
            )

    def _history(self, timeline: int) -> tuple[Reach, ...]:
        if timeline == 1:
            return (Reach(timeline=1, end=None),)
        parsed = parse_history(timeline, read_history(self._wire, timeline))
        return (
            *(Reach(timeline=one.timeline, end=one.at.value) for one in parsed.switches),
            Reach(timeline=timeline, end=None),
        )

    def _check_not_set_back(self, entries: Mapping[str, list[WalEntry]], held: Mapping[str, HeldWal | None]) -> None:
        for name, found in entries.items():
            newest = newest_timeline(found)
            if newest > self.identity.timeline:
                raise RefusedError(
                    f"{self._wire.address} is on timeline {self.identity.timeline}, and the archive in {name} already "
                    f"follows timeline {newest}",
                    hint="This is a former primary, or a server that was restored without a new timeline. Give the "
                    "plan the address of the server that is production now.",
                )
            here = held[name]
            if here is None or here.timeline != self.identity.timeline:
                continue
            if here.safe > self.identity.position.value:
                raise RefusedError(
                    f"{self._wire.address} is at {self.identity.position}, before {Lsn(here.safe)}, up to which {name} "
                    "holds its WAL",
                    hint="The server was set back to an earlier state (a snapshot, a copied folder) without a new "
                    "timeline, so its WAL would contradict the archive. Take a base backup under a new service name.",
                )

    def _slot(self) -> SlotFacts:
        facts = look_at_slot(self._access, self._wanted.slot)
        if facts.lost:
            self.slot_lost_because = "the server gave up the slot, because more WAL was held than it allows"
            drop_slot(self._wire, self._wanted.slot)
        if not facts.exists or facts.lost:
            create_slot(self._wire, self._wanted.slot)
            facts = look_at_slot(self._access, self._wanted.slot)
        if facts.restart is None:
            raise EngineError(f"the slot {self._wanted.slot} at {self._access.place} keeps no WAL")
        return facts

    # -- receiving -------------------------------------------------------------------------------------------------

    def _stream(
        self, start: Start, archives: Mapping[str, WalArchive], held: Mapping[str, HeldWal | None], reason: str,
        stop: threading.Event,
    ) -> None:  # fmt: skip
        if start.gap_from is not None:
            self._record_gap(start, archives, reason)
        targets = []
        for repository, required in self._wanted.repositories:
            before = held[repository.name]
            joins = start.gap_from is not None and repository.name not in start.behind
            targets.append(Target(archive=archives[repository.name], required=required, held=None if joins else before))
        known, shipped = self._known(start, archives, held)
        self.shipper = WalShipper(
            targets, key=targets[0].archive.repository.key, begin=start.position,
            segment_bytes=self.cluster.segment_bytes, missing=bool(self.missing),
        )  # fmt: skip
        buffer = SegmentBuffer(self.cluster, timeline=start.timeline, start=Lsn(start.position), known=known)
        self.receiver = ArchivingReceiver(
            buffer, self.shipper, every_seconds=self._wanted.every_seconds, shipped=shipped
        )
        if self.identity.timeline > 1:
            self._ship_history(self.identity.timeline)
        try:
            self._follow(start, stop)
        finally:
            self._close()

    def _follow(self, start: Start, stop: threading.Event) -> None:
        assert self.receiver is not None
        timeline, position = start.timeline, start.position
        while True:
            stream = WalStream(self._wire, self.receiver)
            following = stream.run(self._wanted.slot, Lsn(position), timeline, stop)
            self.receiver.ship_rest(clock.monotonic())
            if following is None:
                self._drain()
                stream.finish()
                return
            timeline, position = self._turn(following)

    def _turn(self, following: NextTimeline) -> tuple[int, int]:
        """Go on with the next timeline, from where its first segment begins: the server copied that one's head."""
        assert self.receiver is not None
        if following.timeline > self.identity.timeline:
            self.identity = self._wire.identify()
        self._ship_history(following.timeline)
        position = following.begin.value // self.cluster.segment_bytes * self.cluster.segment_bytes
        self.receiver.turn(SegmentBuffer(self.cluster, timeline=following.timeline, start=Lsn(position)))
        return following.timeline, position

    def _ship_history(self, timeline: int) -> None:
        assert self.shipper is not None
        self.shipper.ship_history(timeline, read_history(self._wire, timeline), clock.now())

    def _known(
        self, start: Start, archives: Mapping[str, WalArchive], held: Mapping[str, HeldWal | None]
    ) -> tuple[bytes, int]:
        """What the archives hold of the first segment (of the one that holds most), and how much all of them hold."""
        there = {
            name: one
            for name, one in held.items()
            if one is not None and one.end == start.position and one.timeline == start.timeline
        }
        if not there or start.gap_from is not None:
            return b"", 0
        most = max(there, key=lambda name: there[name].piece_bytes)
        data = bytearray(there[most].piece_bytes)
        for piece in there[most].pieces:
            if piece.start < len(data):
                data[piece.start : piece.end] = self._read_piece(archives[most], piece)
        least = min((there[name].piece_bytes if name in there else 0) for name in held)
        return bytes(data), least

    @staticmethod
    def _read_piece(archive: WalArchive, piece: WalPiece) -> bytes:
        try:
            return archive.read(piece)
        except DamageError as damage:
            # The server still has these bytes. Without the damaged piece, the next connection sends them anew.
            archive.delete(piece)
            raise EngineError(f"{damage.message}; it was removed and is archived anew") from damage

    def _record_gap(self, start: Start, archives: Mapping[str, WalArchive], reason: str) -> None:
        assert start.gap_from is not None
        assert start.gap_timeline is not None
        for name, archive in archives.items():
            if name not in start.behind:
                archive.put_gap(start.gap_timeline, start.gap_from, start.position, reason, clock.now())
        self._on_gap(f"WAL from {Lsn(start.gap_from)} to {Lsn(start.position)} is lost: {reason}")

    def _drain(self) -> None:
        """Wait until what came is stored, but not for ever: what is not stays on the server."""
        assert self.shipper is not None
        until = clock.monotonic() + _DRAIN_SECONDS
        while not self.abandoned and not self.shipper.drained() and clock.monotonic() < until:
            clock.pause(0.05)

    def _close(self) -> None:
        if self.shipper is not None:
            self.shipper.close()
