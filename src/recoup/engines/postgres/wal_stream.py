"""Receiving WAL as a standby does: START_REPLICATION from a physical slot, status answers, the end of a timeline.

Protocol: PostgreSQL documentation, "Streaming Replication Protocol" (XLogData, Primary keepalive message, Standby
status update). What arrives is handed to a ``Receiver``, which says how much of it is safe. A position is never
reported as flushed before it is.
"""

from __future__ import annotations

import contextlib
import struct
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import psycopg
from psycopg.pq import ExecStatus

from recoup.engines.postgres.connection_errors import UnreachableError
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.wire import ServerError, Wire, rows_of
from recoup.kernel import clock
from recoup.kernel.errors import EngineError

_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_DATA_HEADER: Final = 25  # 'w', three 64-bit numbers
_KEEPALIVE: Final = struct.Struct("!cQqB")
_DATA: Final = struct.Struct("!cQQq")
_STATUS: Final = struct.Struct("!cQQQqB")
#: A status is sent so often, well below half of any sensible ``wal_sender_timeout`` (60 s by default).
STATUS_SECONDS: Final = 2.0
#: So often the server is asked to say something, which proves that an idle one is alive.
_ASK_SECONDS: Final = 5.0
#: A server that is asked every five seconds and says nothing for so long is gone.
SILENCE_SECONDS: Final = 30.0
#: How long reading rests when nothing more can be taken: a fraction of what storing a segment takes.
_FULL_SECONDS: Final = 0.005
_HELD_BACK_SECONDS: Final = 0.05
#: A server that shuts down waits until everything it sent is flushed. It is not kept waiting longer than this.
_SHUTDOWN_PATIENCE_SECONDS: Final = 10.0
_SHUTDOWN_QUESTIONS: Final = 5
#: One that only wants to know whether we live asks at most every few seconds.
_QUESTIONS_APART_SECONDS: Final = 2.0


class Receiver(Protocol):
    """Takes WAL in order and makes it safe."""

    def ready(self) -> bool:
        """Whether it can take more now. While it cannot, nothing is read from the server."""
        ...

    def take(self, position: Lsn, data: memoryview, sent: datetime) -> None:
        """The next bytes, which begin at ``position``. ``data`` is valid during the call only."""
        ...

    def tick(self, *, hurry: bool) -> None:
        """Called several times a second. ``hurry``: the server wants to know how much is safe, so send it all."""
        ...

    def flushed(self) -> Lsn:
        """Everything before this is safe in every place where it must be; 0 while that is not known."""
        ...

    def heard(self, server_end: Lsn, sent: datetime) -> None:
        """The server said something: how far its WAL goes, and what its clock showed."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NextTimeline:
    """The timeline ended at ``begin``; the server goes on with ``timeline``."""

    timeline: int
    begin: Lsn


class WalStream:
    """One START_REPLICATION. Use it from one thread."""

    def __init__(self, wire: Wire, receiver: Receiver) -> None:
        self._wire, self._receiver = wire, receiver
        self._written = 0
        self._reported = -1
        self._said = self._asked = clock.monotonic()
        self._questions, self._first_question, self._last_question = 0, 0.0, 0.0
        self._hurry = False

    def run(self, slot: str, start: Lsn, timeline: int, stop: threading.Event) -> NextTimeline | None:
        """Stream from ``start`` until ``stop`` is set (then None) or the timeline ends.

        Raise ``ServerError`` when the server refuses (a removed segment has sqlstate 58P01), ``UnreachableError`` when
        the connection or the server ends, and whatever the receiver raises.
        """
        wire = self._wire
        wire.send(f'START_REPLICATION SLOT "{slot}" PHYSICAL {start} TIMELINE {timeline}')
        try:
            first = wire.result(ExecStatus.COPY_BOTH, ExecStatus.TUPLES_OK)
        except ServerError:
            self._rest()
            raise
        assert first is not None
        if first.status == ExecStatus.TUPLES_OK:  # the timeline ended exactly where streaming was to begin
            self._rest()
            return self._next(rows_of(first))
        self._written = start.value
        if not self._receive(stop):
            return None
        return self._end_of_timeline()

    def _receive(self, stop: threading.Event) -> bool:
        """Take messages until the server ends the copy (True) or ``stop`` is set (False)."""
        get = self._wire.pgconn.get_copy_data
        try:
            while not stop.is_set():
                self._keep_up()
                if not self._receiver.ready():
                    stop.wait(_FULL_SECONDS)
                    continue
                size, data = get(1)
                if size > 0:
                    self._message(data)
                elif size == -1:
                    return True
                else:
                    self._wire.wait(SILENCE_SECONDS)
        except psycopg.Error as failure:
            raise self._wire.lost(failure) from failure
        return False

    def _message(self, data: memoryview) -> None:
        if data[0] == ord("w"):
            _, position, end, sent = _DATA.unpack_from(data)
            self._receiver.heard(Lsn(end), _instant(sent))
            self._receiver.take(Lsn(position), data[_DATA_HEADER:], _instant(sent))
            self._written = position + len(data) - _DATA_HEADER
            self._questions = 0
        elif data[0] == ord("k"):
            _, end, sent, answer = _KEEPALIVE.unpack_from(data)
            self._receiver.heard(Lsn(end), _instant(sent))
            if answer:
                self._hurry = True
                self._question()

    def _question(self) -> None:
        """The server wants an answer: now and then to see whether we live, all the time when it shuts down."""
        now = clock.monotonic()
        if now - self._last_question > _QUESTIONS_APART_SECONDS:
            self._questions, self._first_question = 0, now
        self._questions += 1
        self._last_question = now
        if self._questions > _SHUTDOWN_QUESTIONS and now - self._first_question > _SHUTDOWN_PATIENCE_SECONDS:
            raise UnreachableError(
                f"PostgreSQL at {self._wire.address} is shutting down and the archive cannot take its last WAL now",
                hint="It was let go, so that the shutdown is not held up. The WAL is kept there for the archive.",
            )

    def _keep_up(self) -> None:
        now = clock.monotonic()
        self._receiver.tick(hurry=self._hurry)
        flushed = min(self._receiver.flushed().value, self._written)
        news = flushed != self._reported and now - self._said > 0.02
        if not (news or self._hurry or now - self._said > STATUS_SECONDS):
            return
        ask = now - self._asked > _ASK_SECONDS
        self._send_status(flushed, ask=ask)
        # While the server asks again and again (it shuts down), an answer that says nothing new is held back a little.
        self._hurry = False
        if self._questions > _SHUTDOWN_QUESTIONS and not news:
            threading.Event().wait(_HELD_BACK_SECONDS)
        if ask:
            self._asked = now
        self._reported, self._said = flushed, now

    def _send_status(self, flushed: int, *, ask: bool) -> None:
        since = clock.now() - _POSTGRES_EPOCH
        micros = since // timedelta(microseconds=1)
        try:
            self._wire.pgconn.put_copy_data(_STATUS.pack(b"r", self._written, flushed, 0, micros, ask))
            self._wire.pgconn.flush()
        except psycopg.Error as failure:
            raise self._wire.lost(failure) from failure

    def finish(self) -> None:
        """Tell the server what is flushed by now, after a stop. What goes wrong here does not matter any more."""
        with contextlib.suppress(UnreachableError):
            self._send_status(min(self._receiver.flushed().value, self._written), ask=False)

    def _end_of_timeline(self) -> NextTimeline:
        wire = self._wire
        # After an ERROR there is no copy to end; the result says what it was.
        with contextlib.suppress(psycopg.Error):
            wire.pgconn.put_copy_end()
        found: NextTimeline | None = None
        try:
            while (result := wire.result(idle_seconds=SILENCE_SECONDS)) is not None:
                if result.status == ExecStatus.TUPLES_OK:
                    found = self._next(rows_of(result))
        except ServerError:
            self._rest()
            raise
        if found is None:
            raise UnreachableError(
                f"PostgreSQL at {wire.address} ended the WAL stream",
                hint="The server is probably shutting down; streaming goes on when it is back.",
            )
        return found

    def _rest(self) -> None:
        """Read the command to its end, so that the next one can begin."""
        with contextlib.suppress(EngineError):
            while self._wire.result(idle_seconds=SILENCE_SECONDS) is not None:
                pass

    @staticmethod
    def _next(rows: list[tuple[str | None, ...]]) -> NextTimeline:
        timeline, begin = rows[0][:2]
        assert timeline is not None
        assert begin is not None
        return NextTimeline(timeline=int(timeline), begin=Lsn.parse(begin))


def _instant(microseconds: int) -> datetime:
    return _POSTGRES_EPOCH + timedelta(microseconds=microseconds)
