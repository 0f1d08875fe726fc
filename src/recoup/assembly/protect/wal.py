"""The WAL workers of a plan: one for each PostgreSQL with ``wal: continuous``."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from recoup.assembly.postgres import PostgresPlace, postgres_place
from recoup.assembly.postgres_address import open_stream, replication_url
from recoup.assembly.protect.copies import known_cluster
from recoup.assembly.protect.wal_session import SlotGoneError, WalSession, Wanted
from recoup.assembly.protect.wal_watch import WalWatch
from recoup.assembly.system import Opened, System
from recoup.backup.run_records import record_worker, request_run
from recoup.backup.worker import Worker
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.slot import drop_slot
from recoup.engines.postgres.wal_guard import limit_of
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, RecoupError
from recoup.plan.services import PostgresService
from recoup.repository.wal_archive import clusters_in

_SAY_SECONDS: Final = 1.0
#: A repository that could not be opened is tried again so often.
_REOPEN_SECONDS: Final = 30.0
_LONGEST_REOPEN_SECONDS: Final = 600.0
#: Our probe must notice a vanished machine soon; the server must notice ours, or the slot stays taken for hours.
_SERVER_KEEPALIVE: Final = "-c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"


def wal_workers(system: System) -> list[Worker]:
    """The workers that stream WAL. None is made for services that are not streamed."""
    return [
        WalWorker(system, name)
        for name, service in system.plan.services.items()
        if isinstance(service, PostgresService) and service.wal is not None
    ]


def slot_name(system: System, service: str) -> str:
    """The slot of a service: the same on every machine with this plan, and another for another plan's."""
    slug = re.sub(r"[^a-z0-9]+", "_", service.lower()).strip("_")[:40]
    return f"recoup_{slug}_{hashlib.sha256(f'{system.plan.system}/{service}'.encode()).hexdigest()[:8]}"


class WalWorker:
    """Archives the WAL of one service for as long as it is let. Implements ``backup.worker.Worker``."""

    def __init__(self, system: System, service: str) -> None:
        self._system = system
        self._service = service
        described = system.plan.services[service]
        assert isinstance(described, PostgresService)
        self._plan = described
        self.slot = slot_name(system, service)
        self._facts: dict[str, Any] = {}
        self._failed = False  #: the last run ended with an error
        self._reopen_seconds = _REOPEN_SECONDS
        self._safe_until: datetime | None = None  #: whatever was written before is safe

    @property
    def name(self) -> str:
        """See ``Worker``."""
        return f"wal {self._service}"

    def run(self, stop: threading.Event) -> None:
        """See ``Worker``. One connection after the other, until one fails."""
        place = postgres_place(self._system, self._service)
        watch = WalWatch(
            place.access,
            self.slot,
            heartbeat_seconds=self._plan.wal_heartbeat.total_seconds(),
            limit_bytes=self._plan.wal_limit,
            protect=self._plan.protect,
            row=self._plan.heartbeat,
        )
        self._say(state="connecting")
        try:
            self._guard_alone(place, watch)
            watch.start()
            while not stop.is_set():
                self._once(place, watch, stop)
        except SlotGoneError:
            self._let_go(place, "the server had removed the WAL that the archive needed next")
            raise
        except RecoupError as failure:
            self._failed = True
            self._say(state="failed", error=failure.message)
            raise
        finally:
            watch.close()
        self._say(state="stopped")

    # -- one connection --------------------------------------------------------------------------------------------

    def _once(self, place: PostgresPlace, watch: WalWatch, stop: threading.Event) -> None:
        opened = self._system.open(kind="wal", writing=True)
        unopened = {name: failure.message for name, failure in opened.failed.items()}
        if not unopened:
            self._reopen_seconds = _REOPEN_SECONDS
        if not opened.repositories:
            raise next(iter(opened.failed.values()), None) or EngineError(
                "no repository of the plan takes WAL", hint="Add wal to a repository's copy list."
            )
        with open_stream(
            replication_url(self._system, place), application_name=f"recoup wal {self._service}"[:60],
            options=_SERVER_KEEPALIVE,
        ) as wire:  # fmt: skip
            session = WalSession(self._wanted(opened), wire, place.access, on_gap=self._note_gap)
            over = threading.Event()
            missing = [one for one in unopened if self._system.plan.repositories[one].required]
            session.missing = frozenset(missing)
            telling = threading.Thread(
                target=self._tell, args=(session, watch, stop, over, unopened), name=f"wal-tell-{self._service}",
                daemon=True,
            )  # fmt: skip
            telling.start()
            try:
                session.run(over)
            finally:
                over.set()
                telling.join(10)
        if self._facts.get("letting_go"):
            self._let_go(place, str(self._facts["letting_go"]))

    def _wanted(self, opened: Opened) -> Wanted:
        known = known_cluster(self._system, self._service, opened)
        if known is None:
            ids = {
                identifier
                for repository in opened.repositories
                for service, identifier in clusters_in(repository)
                if service == self._service
            }
            known = ids.pop() if len(ids) == 1 else None
        plan = self._system.plan
        return Wanted(
            service=self._service,
            slot=self.slot,
            known_system=known,
            repositories=tuple((one, plan.repositories[one.name].required) for one in opened.repositories),
            every_seconds=self._plan.wal_every.total_seconds(),
        )

    def _tell(
        self, session: WalSession, watch: WalWatch, stop: threading.Event, over: threading.Event,
        unopened: Mapping[str, str],
    ) -> None:  # fmt: skip
        """Every second: say how it stands, and end the session when that is asked for or needed."""
        began = moved = clock.monotonic()
        safe, first_held = 0, watch.seen.facts.held_bytes if watch.seen.facts else None
        while not over.wait(0.05 if stop.is_set() else _SAY_SECONDS):
            with contextlib.suppress(RecoupError):  # a full disk of this machine must not end the archiving
                self._report(session, watch, unopened)
            if session.shipper is not None and session.shipper.safe() > safe:
                safe, moved = session.shipper.safe(), clock.monotonic()
                self._failed = False
            if stop.is_set():
                over.set()
            elif unopened and clock.monotonic() - began > self._reopen_seconds:
                self._reopen_seconds = min(2 * self._reopen_seconds, _LONGEST_REOPEN_SECONDS)
                over.set()
            elif watch.seen.judgement.level == "let go":
                still = clock.monotonic() - moved > watch.patience_seconds
                if still or self._grows(watch, first_held):
                    self._make_room(session, watch.seen.judgement.text, over)

    def _grows(self, watch: WalWatch, first_held: int | None) -> bool:
        """Whether more is held than the limit allows by half, and more than when this connection began."""
        facts = watch.seen.facts
        if facts is None or facts.held_bytes is None:
            return False
        return facts.held_bytes > max(1.5 * limit_of(facts, self._plan.wal_limit), 1.1 * (first_held or 0))

    def _make_room(self, session: WalSession, text: str, over: threading.Event) -> None:
        """Too much is held on the server: first stop waiting for a repository that others have overtaken."""
        shipper = session.shipper
        if shipper is not None:
            safe = shipper.safe()
            best = max((state.position for state in shipper.states()), default=0)
            slow = [one.repository for one in shipper.states() if one.required and one.position <= safe]
            if best > safe and not session.missing:
                for repository in slow:
                    shipper.waive(repository)
                self._facts["waived"] = ", ".join(slow)
                return
            if session.missing and best > safe:
                session.missing = frozenset()
                shipper.waive_missing()
                return
        self._facts["letting_go"] = text
        session.abandoned = True
        over.set()

    # -- the guard ---------------------------------------------------------------------------------------------------

    def _guard_alone(self, place: PostgresPlace, watch: WalWatch) -> None:
        """Before anything else: even while no repository can be reached, production's disk must be safe."""
        seen = watch.look()
        # The first time, streaming gets a chance: it may only be that nobody listened for a while.
        if seen.judgement.level == "let go" and self._failed:
            self._let_go(place, seen.judgement.text)

    def _let_go(self, place: PostgresPlace, why: str) -> None:
        self._facts.pop("letting_go", None)
        with open_stream(replication_url(self._system, place), application_name="recoup wal guard") as wire:
            drop_slot(wire, self.slot)
        self._note_gap(f"the slot was dropped: {why}")

    def _note_gap(self, text: str) -> None:
        self._facts["gap"] = text
        self._facts["gap_at"] = clock.to_text(clock.now())
        with contextlib.suppress(RecoupError):
            self._say()
            request_run(self._system.state_folder, self._service, "base", text)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _report(self, session: WalSession, watch: WalWatch, unopened: Mapping[str, str]) -> None:
        receiver, shipper, seen = session.receiver, session.shipper, watch.seen
        facts: dict[str, Any] = {
            "system_identifier": session.identity.system_identifier,
            "timeline": session.identity.timeline,
            "beats": seen.beats,
            "no_heartbeat_row": seen.no_row,
        }
        if receiver is not None and shipper is not None:
            safe = shipper.safe()
            self._safe_until = max(
                (one for one in (receiver.safe_until, self._safe_until) if one is not None), default=None
            )
            facts |= {
                "state": "streaming",
                "received_lsn": str(receiver.buffer.end),
                "server_lsn": str(receiver.server_end),
                "safe_lsn": str(Lsn(safe)),
                "lag_bytes": max(0, receiver.server_end.value - safe),
                "safe_until": None if self._safe_until is None else clock.to_text(self._safe_until),
                "last_heard": None if receiver.heard_at is None else clock.to_text(receiver.heard_at),
                "server_clock_ahead_seconds": None
                if receiver.server_time is None or receiver.heard_at is None
                else round((receiver.server_time - receiver.heard_at).total_seconds(), 3),
                "error": None,
            }
            for state in shipper.states():
                facts |= {
                    f"archived_lsn.{state.repository}": str(Lsn(state.position)),
                    f"mode.{state.repository}": state.mode if state.required else f"{state.mode}, not waited for",
                    f"error.{state.repository}": state.error,
                }
        for name, why in unopened.items():
            facts |= {f"mode.{name}": "not opened", f"error.{name}": why}
        wrong = [f"{key[6:]}: {why}" for key, why in facts.items() if key.startswith("error.") and why]
        facts["problem"] = "; ".join(wrong) or None
        self._say(**facts, **self._watched(watch))

    def _watched(self, watch: WalWatch) -> dict[str, Any]:
        seen = watch.seen
        facts = seen.facts
        told: dict[str, Any] = {"watch_error": seen.trouble, "slot": self.slot, "protect": self._plan.protect}
        if facts is not None:
            told |= {
                "slot_status": facts.wal_status if facts.exists else "missing",
                "slot_active": facts.active,
                "held_bytes": facts.held_bytes,
                "held_limit_bytes": limit_of(facts, self._plan.wal_limit),
                "max_slot_wal_keep_bytes": facts.keep_bytes,
                "slot_safe_bytes": facts.safe_bytes,
                "wal_bytes": facts.wal_bytes,
                "guard": seen.judgement.level,
                "alarm": seen.judgement.text or None,
            }
        return told

    def _say(self, **facts: Any) -> None:
        self._facts |= facts
        if self._safe_until is not None:
            self._facts["lag_seconds"] = max(0.0, round((clock.now() - self._safe_until).total_seconds(), 3))
        record_worker(self._system.state_folder, self.name, {"service": self._service, **self._facts})
