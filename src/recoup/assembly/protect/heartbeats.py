"""The heartbeat row and key that protection writes into a server where the plan asks for it (``heartbeat: true``).

Drills and recoveries read it from what came back: its age is what was lost. The row of PostgreSQL is written by the
one who watches its slot (``wal_watch``) and before each base backup; the key of Redis by a thread here, and before each
RDB copy.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from recoup.assembly.postgres import postgres_place
from recoup.assembly.redis import RedisPlace, redis_address, redis_place
from recoup.assembly.system import System
from recoup.engines.postgres import heartbeat as postgres_heartbeat
from recoup.engines.postgres.prepare import plan_heartbeat
from recoup.engines.postgres.restored_server import RestoredServer
from recoup.engines.redis import heartbeat as redis_heartbeat
from recoup.engines.redis.connection import connect
from recoup.engines.redis.plan_checks import AskedRedis
from recoup.kernel.errors import EngineError, RecoupError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_duration
from recoup.plan.services import PostgresService, RedisService

#: How often the key of a Redis is written. As often as PostgreSQL's row, by default.
REDIS_SECONDS: Final = 60.0
#: A heartbeat older than so many of its intervals has stopped.
_MISSED: Final = 5

CHECK: Final = "the heartbeat is written"


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """The newest heartbeat in what came back. ``at`` None: there is none, and ``why``."""

    at: datetime | None = None
    why: str = "none came back"


def in_postgres(server: RestoredServer) -> Beat:
    """The row of a restored PostgreSQL. Never raises: what cannot be read did not come back."""
    try:
        if postgres_heartbeat.DATABASE not in server.databases():
            return Beat()
        with server.session(postgres_heartbeat.DATABASE) as session:
            return Beat(at=postgres_heartbeat.newest_beat(session))
    except EngineError as failure:
        return Beat(why=f"it could not be read: {failure.message}")


def in_redis(server: AskedRedis | RedisPlace) -> Beat:
    """The key of a restored Redis. Never raises: what cannot be read did not come back."""
    try:
        if isinstance(server, RedisPlace):
            return Beat(at=newest_of(server))
        with server.connect(redis_heartbeat.DATABASE) as connection:
            return Beat(at=redis_heartbeat.newest_beat(connection))
    except EngineError as failure:
        return Beat(why=f"it could not be read: {failure.message}")


def newest_of(place: RedisPlace) -> datetime | None:
    """When the key of a Redis of the plan was written. Raise ``EngineError``."""
    if place.url is not None:
        with connect(place.url, database=redis_heartbeat.DATABASE) as connection:
            return redis_heartbeat.newest_beat(connection)
    assert place.program is not None, "a place has an address or a program"
    return redis_heartbeat.newest_beat_by_program(place.program)


class RedisBeats:
    """Writes the key of a Redis again and again, over a connection of its own. ``problem``: why it could not."""

    def __init__(self, system: System, service: str, *, seconds: float = REDIS_SECONDS) -> None:
        self._system, self._service, self._seconds = system, service, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat-{service}", daemon=True)
        self.problem: str | None = None

    @classmethod
    @contextlib.contextmanager
    def running(cls, system: System, service: str) -> Iterator[RedisBeats | None]:
        """Inside, the key is written. None: the plan does not ask for it."""
        described = system.plan.services[service]
        if not isinstance(described, RedisService) or not described.heartbeat:
            yield None
            return
        beats = cls(system, service)
        beats._thread.start()
        try:
            yield beats
        finally:
            beats._over.set()
            beats._thread.join(10)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                with connect(redis_address(self._system, self._service), database=redis_heartbeat.DATABASE) as one:
                    redis_heartbeat.beat(one)
                self.problem = None
            except RecoupError as failure:
                self.problem = failure.message
            self._over.wait(self._seconds)


def heartbeat_findings(system: System, name: str, now: datetime) -> Iterator[Finding]:
    """What ``recoup check`` says of a service whose plan asks for a heartbeat. Raise ``EngineError``."""
    service = system.plan.services[name]
    if isinstance(service, PostgresService) and service.heartbeat:
        access = postgres_place(system, name).access
        if plan_heartbeat(access):
            yield Finding(
                check=CHECK, subject=name, verdict=Verdict.FAILED, detail="there is no table for it",
                hint="Make it: recoup check --prepare. Until then drills go by the last commit that came back.",
            )  # fmt: skip
            return
        with access.session(postgres_heartbeat.DATABASE) as session:
            at = postgres_heartbeat.newest_beat(session)
        yield _written(name, at, now, service.wal_heartbeat if service.wal is not None else None)
    elif isinstance(service, RedisService) and service.heartbeat:
        at = newest_of(redis_place(system, name))
        yield _written(name, at, now, timedelta(seconds=REDIS_SECONDS) if service.stream is not None else None)


def _written(name: str, at: datetime | None, now: datetime, every: timedelta | None) -> Finding:
    """``every`` None: only copies write it, so its age says nothing."""
    if at is None:
        said = "not yet; beside no other key a Redis gets none" if every is None else "never"
    else:
        said = f"{show_duration(max(now - at, timedelta(0)))} ago"
    late = every is not None and (at is None or now - at > _MISSED * every)
    return Finding(
        check=CHECK,
        subject=name,
        verdict=Verdict.UNKNOWN if late else Verdict.OK,
        detail=said,
        hint="The daemon writes it: is it running, may its role write, and is there anything else in it?"
        if late
        else None,
    )
