"""A plan with one PostgreSQL and folders for repositories, and its WAL worker supervised as the daemon does it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from recoup.assembly.protect import wal
from recoup.assembly.protect.wal import WalWorker, slot_name, wal_workers
from recoup.assembly.system import System
from recoup.backup.run_records import read_workers
from recoup.backup.wal_held import HeldWal, Reach, held_wal
from recoup.demo.host import temporary_folder, wait_until
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import RecoupError, StorageError
from recoup.repository.repository import Repository
from recoup.repository.wal_archive import WalArchive
from recoup.repository.wal_names import WalEntry, WalPiece, WalSegment
from recoup.storage.decorator import StoreDecorator
from recoup.storage.object_store import ObjectInfo, ObjectStore

KEY = "00c0ffee" * 8
SEGMENT = 16 << 20


class Gate(StoreDecorator):
    """A store whose writing of WAL can be held up, or fail."""

    def __init__(self, inner: ObjectStore, switches: Switches) -> None:
        super().__init__(inner)
        self._switches = switches

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        if key.startswith("wal/"):
            assert self._switches.open.wait(500), "a test forgot a closed gate"
            if self._switches.failing:
                self._switches.refused += 1
                raise StorageError(f"no space left on device: {key}")
        return super().put(key, data, if_absent=if_absent)


@dataclass(slots=True)
class Switches:
    """What a test does to one repository. ``away``: it cannot be opened at all."""

    open: threading.Event = field(default_factory=threading.Event)
    failing: bool = False
    away: bool = False
    refused: int = 0


class GatedSystem(System):
    """A system whose stores have gates."""

    gates: dict[str, Switches]

    def store(self, name: str, *, create: bool = False) -> ObjectStore:
        if self.gates[name].away:
            raise StorageError(f"{name} does not answer")
        return Gate(super().store(name, create=create), self.gates[name])


@dataclass(slots=True)
class WalPlace:
    """The worker runs between ``start`` and ``stop``; it is started again 50 ms after a failure."""

    system: GatedSystem
    server: PostgresServer
    worker: WalWorker
    errors: list[RecoupError] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @property
    def slot(self) -> str:
        return slot_name(self.system, "pg")

    def start(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._supervise, args=(self._stop,), daemon=True)
        self._thread.start()

    def _supervise(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                self.worker.run(stop)
            except RecoupError as failure:
                self.errors.append(failure)
                stop.wait(0.05)

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(120)
            assert not self._thread.is_alive(), "the worker does not end"

    def break_off(self) -> None:
        """End the receiver as ``kill -9`` would, as far as the server and the repositories see it."""
        self.server.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL"
        )

    @property
    def facts(self) -> dict[str, Any]:
        found = [one for one in read_workers(self.system.state_folder) if one.name == self.worker.name]
        return dict(found[0].facts) if found else {}

    def repository(self, name: str = "local") -> Repository:
        (found,) = self.system.open(only=name).repositories
        return found

    def archive(self, name: str = "local") -> WalArchive:
        ((identifier,),) = self.server.execute("SELECT system_identifier::text FROM pg_control_system()")
        return WalArchive(self.repository(name), "pg", identifier)

    def entries(self, name: str = "local") -> list[WalEntry]:
        if not self.system.open(only=name).repositories:
            return []  # the worker has not made it yet
        return list(self.archive(name).entries())

    def held(self, name: str = "local", history: Sequence[Reach] = (Reach(timeline=1, end=None),)) -> HeldWal | None:
        return held_wal(self.entries(name), history, SEGMENT)

    def safe(self, name: str = "local") -> int:
        held = self.held(name)
        return 0 if held is None else held.safe

    def commit(self, text: str = "a row") -> int:
        """Commit a row that holds ``text``; the position behind its commit record."""
        with self.server.connect() as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept_by_wal (what text)")
            connection.execute("INSERT INTO kept_by_wal VALUES (%s)", [text])
            row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
        assert row is not None
        return Lsn.parse(row[0]).value

    def fill_segments(self, count: int) -> int:
        """Write ``count`` segments of WAL; the position where the last one ends."""
        with self.server.connect() as connection:
            for _ in range(count):
                connection.execute("SELECT pg_logical_emit_message(false, 'fill', repeat('x', 1000))")
                connection.execute("SELECT pg_switch_wal()")
            row = connection.execute("SELECT pg_current_wal_lsn()::text").fetchone()
        assert row is not None
        return Lsn.parse(row[0]).value // SEGMENT * SEGMENT

    def wait_safe(self, position: int, name: str = "local", *, seconds: float = 120.0) -> None:
        reached = wait_until(lambda: self.safe(name) >= position, limit_seconds=seconds, every=0.05)
        assert reached, f"{Lsn(self.safe(name))} of {Lsn(position)}; {self.facts}; {self.errors[-3:]}"

    def confirmed(self) -> int:
        """What the server believes is safe."""
        ((restart,),) = self.server.execute(
            f"SELECT restart_lsn::text FROM pg_replication_slots WHERE slot_name = '{self.slot}'"
        )
        return Lsn.parse(restart).value

    def check_against_server(self, name: str = "local") -> int:
        """Every archived byte that the server still has is the same there; how many bytes were compared."""
        compared, archive = 0, self.archive(name)
        for entry in archive.entries():
            if isinstance(entry, WalSegment | WalPiece):
                segment = entry.name if isinstance(entry, WalSegment) else entry.segment
                path = self.server.data_folder / "pg_wal" / segment
                if not path.exists():
                    continue
                theirs, ours = path.read_bytes(), archive.read(entry)
                start = entry.start if isinstance(entry, WalPiece) else 0
                assert theirs[start : start + len(ours)] == ours, entry
                compared += len(ours)
        return compared

    def no_hole(self, name: str = "local", timeline: int = 1) -> None:
        numbers = [
            one.number(SEGMENT)
            for one in self.entries(name)
            if isinstance(one, WalSegment) and one.timeline == timeline
        ]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@contextmanager
def wal_place(
    server: PostgresServer, *, more: str = "wal_every: 300ms, wal_heartbeat: 1h", repositories: str = ""
) -> Iterator[WalPlace]:
    """A place whose worker is not started yet. ``repositories`` are more lines of the plan."""
    with temporary_folder("wal") as folder:
        (folder / "recoup.key").write_text(KEY + "\n")
        (folder / "recoup.key").chmod(0o600)
        plan = folder / "recoup.yaml"
        plan.write_text(f"""
recoup: 1
system: WAL test {folder.name}
key: {{file: recoup.key}}
services:
  pg: {{engine: postgres, url: "{server.url()}", wal: continuous, {more}}}
repositories:
  local: {{path: backups}}
{repositories}
""")
        system = GatedSystem.from_file(plan)
        assert isinstance(system, GatedSystem)
        system.__dict__["state_folder"] = folder / "state"
        system.gates = {name: Switches() for name in system.plan.repositories}
        for gate in system.gates.values():
            gate.open.set()
        (worker,) = wal_workers(system)
        assert isinstance(worker, WalWorker)
        place = WalPlace(system=system, server=server, worker=worker)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(wal, "_SAY_SECONDS", 0.1)  # tests wait for what it says
                yield place
        finally:
            for gate in system.gates.values():
                gate.open.set()
            place.stop()
            if server.pid is not None:
                server.execute(
                    f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
                    f"WHERE slot_name = '{place.slot}' AND NOT active"
                )
