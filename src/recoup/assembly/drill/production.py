"""Production as a drill sees it: what it is known by, and what it is doing, before and after. Only looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from recoup.assembly.postgres import postgres_place
from recoup.assembly.redis import redis_place
from recoup.assembly.stack import Stack, open_stack
from recoup.assembly.system import System
from recoup.drill.model import Production as ProductionRecord
from recoup.engines.postgres.access import open_maintenance
from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import EngineError, RecoupError
from recoup.kernel.finding import Verdict
from recoup.plan.services import PostgresService, RedisService
from recoup.recovery.destination import Identity, Production

_POSTGRES = (
    "SELECT system_identifier::text, (SELECT timeline_id FROM pg_control_checkpoint())::text, "
    "CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn() END::text "
    "FROM pg_control_system()"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One service at one moment. ``position`` only grows while it is the same; None when it could not be asked."""

    service: str
    identity: str
    position: int | None
    text: str | None
    why_not: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Production at one moment. ``containers`` are ids with the time each was started."""

    identity: Identity
    services: tuple[Seen, ...]
    containers: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)  #: what each Compose service runs, by image id
    here: bool = True  #: False: nothing of it is on this machine's engine

    @property
    def production(self) -> Production:
        """What it is known by."""
        return Production(identity=self.identity)


def look_at_production(system: System | None) -> Look:
    """Look at what the plan calls production, as far as it can be reached from here. Never raises for what cannot."""
    if system is None:
        return Look(identity=Identity(), services=(), here=False)
    stack, seen, clusters = _stack(system), [], set()
    containers: dict[str, str] = {}
    images: dict[str, str] = {}
    projects: set[str] = set()
    volumes: set[str] = set()
    folders = {system.folder}
    if stack is not None:
        projects.add(stack.project.name)
        volumes |= {one.name for one in stack.project.volumes.values()}
        mounts = [mount for service in stack.project.services.values() for mount in service.mounts]
        folders |= {Path(one.source) for one in mounts if one.kind == "bind" and one.source}
        try:
            found = stack.client.containers()
        except EngineError:
            found = ()
        images = {one.service: one.image_id for one in found if one.running}
        containers = {one.id: str(one.started) for one in found if one.running}
        volumes |= {mount.name for one in found for mount in one.mounts if mount.name}
    here = bool(containers)
    for name, described in system.plan.services.items():
        if isinstance(described, PostgresService | RedisService) and (here or described.url is not None):
            one = _seen(system, name)
            seen.append(one)
            if isinstance(described, PostgresService) and one.position is not None:
                clusters.add(one.identity)
    identity = Identity(
        projects=frozenset(projects),
        volumes=frozenset(volumes),
        containers=frozenset(containers),
        folders=frozenset(folders),
        clusters=frozenset(clusters),
    )
    return Look(identity=identity, services=tuple(seen), containers=containers, images=images, here=here or bool(seen))


def untouched(before: Look, after: Look) -> tuple[ProductionRecord, ...]:
    """Compare two looks. What could not be looked at is unknown; what is not on this machine cannot be touched."""
    if not before.here and not after.here:
        detail = "nothing of production is on this machine: no container, no address; the drill has no way to it"
        return (
            ProductionRecord(
                service="production", identity="not here", before=None, after=None, verdict=Verdict.OK, detail=detail
            ),
        )
    later = {one.service: one for one in after.services}
    found = [_compared(one, later.get(one.service)) for one in before.services]
    if before.containers or after.containers:
        same = dict(before.containers) == dict(after.containers)
        found.append(
            ProductionRecord(
                service="containers",
                identity=", ".join(sorted(before.identity.projects)),
                before=f"{len(before.containers)} run",
                after=f"{len(after.containers)} run",
                verdict=Verdict.OK if same else Verdict.FAILED,
                detail="the same containers, none of them restarted" if same else _changed(before, after),
            )
        )
    return tuple(found)


def _changed(before: Look, after: Look) -> str:
    gone = sorted(one[:12] for one in set(before.containers) - set(after.containers))
    new = sorted(one[:12] for one in set(after.containers) - set(before.containers))
    again = [
        one[:12]
        for one, since in before.containers.items()
        if one in after.containers and after.containers[one] != since
    ]
    return (
        f"gone: {', '.join(gone) or 'none'}; new: {', '.join(new) or 'none'}; restarted: {', '.join(again) or 'none'}"
    )


def _compared(before: Seen, after: Seen | None) -> ProductionRecord:
    def record(verdict: Verdict, detail: str) -> ProductionRecord:
        return ProductionRecord(
            service=before.service,
            identity=before.identity,
            before=before.text,
            after=None if after is None else after.text,
            verdict=verdict,
            detail=detail,
        )

    if before.position is None or after is None or after.position is None:
        why = before.why_not or (after.why_not if after is not None else "") or "it was not looked at"
        return record(Verdict.UNKNOWN, why)
    if before.identity != after.identity:
        return record(Verdict.FAILED, f"it was {before.identity} and is {after.identity}")
    if after.position < before.position:
        return record(Verdict.FAILED, "its log went back")
    moved = after.position - before.position
    return record(Verdict.OK, "it did not move" if moved == 0 else f"its own work moved its log by {moved} bytes")


def _stack(system: System) -> Stack | None:
    if system.plan.compose is None:
        return None
    try:
        return open_stack(system)
    except RecoupError:
        return None


def _seen(system: System, name: str) -> Seen:
    try:
        if isinstance(system.plan.services[name], PostgresService):
            with open_maintenance(postgres_place(system, name).access) as session:
                identifier, timeline, lsn = (str(one) for one in session.query(_POSTGRES)[0])
            return Seen(
                service=name,
                identity=identifier,
                position=Lsn.parse(lsn).value,
                text=f"LSN {lsn} on timeline {timeline}",
            )
        return _redis(system, name)
    except RecoupError as failure:
        return Seen(service=name, identity="", position=None, text=None, why_not=failure.message)


def _redis(system: System, name: str) -> Seen:
    from recoup.engines.redis.connection import connect, info_fields, read_info

    place = redis_place(system, name)
    if place.url is not None:
        with connect(place.url) as connection:
            said = read_info(connection, "replication")
    else:
        assert place.program is not None, "a place has an address or a program"
        (answer,) = place.program.ask("INFO replication")
        if isinstance(answer, EngineError):
            raise answer
        said = dict(info_fields(answer))
    offset = int(said.get("master_repl_offset", "0"))
    return Seen(service=name, identity=said.get("master_replid", ""), position=offset, text=f"offset {offset}")
