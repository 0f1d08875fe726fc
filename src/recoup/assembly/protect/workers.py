"""Which workers a plan needs, and what it asks for that this version cannot do."""

from __future__ import annotations

from recoup.assembly.protect.redis_stream import stream_workers
from recoup.assembly.protect.wal import wal_workers
from recoup.assembly.system import System
from recoup.assembly.watch.alarms import alarm_workers
from recoup.backup.worker import Worker


def workers_of(system: System) -> list[Worker]:
    """Everything that runs without end. Raise ``RecoupError`` for what the plan says and cannot be."""
    return [*wal_workers(system), *stream_workers(system), *alarm_workers(system)]


def cannot_do(system: System) -> list[str]:
    """What the plan wants and nobody will do: said when the daemon begins, so that nobody relies on it."""
    remarks = []
    if system.plan.drill is not None and system.plan.drill.schedule is not None:
        remarks.append("drill.schedule: this version runs no drills")
    if not any(service.schedules() for service in system.plan.services.values()):
        remarks.append("no service has a schedule: no copies are taken")
    return remarks
