"""Beside the stream, on a connection of its own: how much WAL production holds for us, and the heartbeat."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Final

from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.heartbeat import beat
from recoup.engines.postgres.session import Session
from recoup.engines.postgres.slot import SlotFacts, slot_facts
from recoup.engines.postgres.wal_guard import Judgement, Protect, judge
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError

LOOK_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one look showed. ``trouble`` is why a look failed; then the rest is of the look before."""

    facts: SlotFacts | None = None
    judgement: Judgement = field(default_factory=lambda: Judgement(level="ok"))
    beats: int = 0
    trouble: str | None = None
    no_row: str | None = None  #: why the heartbeat is not the row that the plan asks for


class WalWatch:
    """Looks at the slot every few seconds and commits the heartbeat. ``seen`` is the latest."""

    def __init__(
        self, access: ServerAccess, slot: str, *, heartbeat_seconds: float, limit_bytes: int | None, protect: Protect,
        look_seconds: float = LOOK_SECONDS, row: bool = False,
    ) -> None:  # fmt: skip
        """``row``: the plan asks for the heartbeat as a row."""
        self._row = row
        self._access, self._slot = access, slot
        self._heartbeat_seconds, self._look_seconds = heartbeat_seconds, look_seconds
        self._limit, self._protect = limit_bytes, protect
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self._session: Session | None = None
        self._last_beat = clock.monotonic() - heartbeat_seconds
        self.seen = Seen()

    @property
    def patience_seconds(self) -> float:
        """How long the archive may stand still above the limit before the WAL is let go: three looks."""
        return 3 * min(self._look_seconds, self._heartbeat_seconds)

    def look(self) -> Seen:
        """Look now, from the calling thread. Only before ``start`` or after ``close``."""
        try:
            session = self._session = self._session or open_maintenance(self._access)
            facts = slot_facts(session, self._slot)
            judgement = judge(facts, planned_bytes=self._limit, protect=self._protect)
            beats, no_row = self.seen.beats, self.seen.no_row
            if not facts.standby and clock.monotonic() - self._last_beat >= self._heartbeat_seconds:
                self._last_beat = clock.monotonic()
                no_row = beat(session, row=self._row)
                beats += 1
            self.seen = Seen(facts=facts, judgement=judgement, beats=beats, no_row=no_row)
        except RecoupError as failure:
            self.seen = replace(self.seen, trouble=failure.message)
            self._end_session()
        return self.seen

    def start(self) -> None:
        """Look again and again, in a thread."""
        self._thread = threading.Thread(target=self._run, name=f"wal-watch-{self._slot}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(10)
        self._end_session()

    def _run(self) -> None:
        while not self._over.is_set():
            self.look()
            self._over.wait(min(self._look_seconds, self._heartbeat_seconds))

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except RecoupError:
                return
