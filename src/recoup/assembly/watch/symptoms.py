"""Looks at every service of a plan, and changes nothing: what answers, whose data it holds, what it says is broken."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from recoup.assembly.postgres import PostgresPlace, postgres_place
from recoup.assembly.prove.live_postgres import checks_of
from recoup.assembly.redis import redis_place
from recoup.assembly.stack import Stack, try_stack
from recoup.assembly.system import System
from recoup.assembly.watch.survey import Survey, survey
from recoup.engines.compose.answers import ask
from recoup.engines.postgres.access import open_maintenance
from recoup.engines.postgres.log_damage import damage_in_log as postgres_damage
from recoup.engines.postgres.plan_checks import PlanCheck, ask_check
from recoup.engines.postgres.session import SqlError
from recoup.engines.redis.connection import connect, read_info, read_keyspace
from recoup.engines.redis.log_damage import damage_in_log as redis_damage
from recoup.kernel.errors import RecoupError
from recoup.kernel.finding import Verdict
from recoup.objectives.alarms import ServiceFacts
from recoup.plan.services import ComposeService, FilesService, PostgresService, RedisService
from recoup.recovery.diagnosis import Data, Engine, Seen
from recoup.repository.catalog import REPLACED, Catalog, Entry
from recoup.repository.repository import Repository

#: A look must end soon, also at a server that is in trouble.
_ALLOWED_SECONDS: Final = 10
#: How much of a log is looked through for what its server says of damage.
_LOG_LINES: Final = 60
#: Errors of PostgreSQL that mean damage: data_corrupted, index_corrupted (documentation, Appendix A).
_DAMAGE: Final = ("XX001", "XX002")
#: What a check asks is not there: undefined_table, undefined_column, invalid_schema_name, undefined_function.
_GONE: Final = ("42P01", "42703", "3F000", "42883")
_CHECKSUMS: Final = """
SELECT coalesce(datname, 'shared tables'), checksum_failures FROM pg_stat_database
WHERE checksum_failures > 0 ORDER BY 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """A database service, and what is needed to look at it."""

    name: str
    engine: Engine
    compose_service: str | None
    newest: Entry | None  #: its newest copy
    repositories: tuple[Repository, ...]

    def held_keys(self) -> int:
        """How many keys the newest copy of a Redis has; 0 when that is not known."""
        for repository in self.repositories if self.newest is not None else ():
            assert self.newest is not None
            if repository.name in self.newest.repositories:
                with contextlib.suppress(RecoupError):  # another one may hold it whole
                    return sum(dict(repository.manifest(self.newest.id).facts.get("keys", {})).values())
        return 0


def look_at_services(
    system: System, now: datetime, surveyed: Survey | None = None, project: Stack | RecoupError | None = None
) -> Iterator[Seen]:
    """What is seen of each service, in the plan's order. Never raises for what is wrong: that is what is asked.

    ``surveyed`` and ``project`` are what the caller found out just now.
    """
    known, project = surveyed or survey(system, now), project or try_stack(system)
    catalog = known.catalog
    stack, trouble = (None, project) if isinstance(project, RecoupError) else (project, None)
    for name, service in system.plan.services.items():
        if isinstance(service, PostgresService):
            subject = _subject(name, "postgres", service.compose, catalog, known.opened)
            seen = _asked(subject, stack, partial(_postgres, system, subject))
        elif isinstance(service, RedisService):
            subject = _subject(name, "redis", service.compose, catalog, known.opened)
            seen = _asked(subject, stack, partial(_redis, system, subject))
        elif isinstance(service, FilesService):
            seen = _files(system, name, service)
        else:
            seen = _application(name, service, stack, trouble)
        facts = next((one for one in known.facts.services if one.name == name), None)
        yield seen if facts is None else _with_ways_back(seen, facts)


def _subject(
    name: str, engine: Engine, compose_service: str | None, catalog: Catalog, opened: tuple[Repository, ...]
) -> _Subject:
    copies = (one for one in catalog.entries if one.service == name and one.label != REPLACED)
    wanted = ("base", "incremental") if engine == "postgres" else ("rdb",)
    newest = next((one for one in copies if one.kind in wanted), None)
    return _Subject(name=name, engine=engine, compose_service=compose_service, newest=newest, repositories=opened)


def _with_ways_back(seen: Seen, facts: ServiceFacts) -> Seen:
    stands = facts.standing
    return replace(
        seen,
        back_to=stands.point,
        loss=stands.rpo_now,
        streamed=stands.rpo_from in ("wal", "stream"),
        kinds=frozenset(point.kind for point in facts.points),
    )


# -- databases ---------------------------------------------------------------------------------------------------------


def _asked(subject: _Subject, stack: Stack | None, look: Callable[[], Seen]) -> Seen:
    """Ask the server itself; when it cannot be asked, look at its container and its volume."""
    try:
        return look()
    except RecoupError as failure:
        return _unreachable(subject, stack, failure)


def _postgres(system: System, subject: _Subject) -> Seen:
    place = postgres_place(system, subject.name)
    with open_maintenance(place.access) as session:
        session.execute(f"SET statement_timeout = {_ALLOWED_SECONDS * 1000}")
        found = str(session.query("SELECT system_identifier FROM pg_control_system()")[0][0])
        damage = [f"{count} checksum failures in {name}" for name, count in session.query(_CHECKSUMS)]
        there = {str(name) for (name,) in session.query("SELECT datname FROM pg_database WHERE datallowconn")}
    missing = [name for name in place.databases if name not in there]
    checked = _checks(place, checks_of(system, subject.name), there)
    seen = Seen(
        service=subject.name, engine="postgres", answers=True, data="there", compose_service=subject.compose_service,
        damage=(*damage, *checked.damage), wrong=tuple(checked.wrong), unasked=tuple(checked.unasked),
    )  # fmt: skip
    if (copied := subject.newest) is not None and copied.facts.get("system_identifier", found) != found:
        made = datetime.fromtimestamp(int(found) >> 32, tz=UTC)  # initdb puts the time there (BootStrapXLOG, xlog.c)
        detail = f"cluster {found}, made {made:%Y-%m-%d %H:%M:%S} UTC"
        copies = f"and the copies are of {copied.facts['system_identifier']}"
        if made >= copied.begun.replace(microsecond=0):
            return replace(seen, data="emptied", fresh=True, detail=f"{detail}, after the newest copy")
        return replace(seen, data="foreign", detail=f"{detail}, {copies}")
    if missing:
        return replace(seen, data="emptied", detail=f"there is no database {', '.join(missing)}")
    return seen


@dataclass(slots=True)
class _Answers:
    """What the plan's checks met, other than the right answer."""

    damage: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)


def _checks(place: PostgresPlace, checks: Sequence[PlanCheck], there: set[str]) -> _Answers:
    found = _Answers()
    for check in checks:
        if check.database is not None and check.database not in there:
            continue
        name = check.subject
        try:
            with place.access.session(check.database) as session:
                verdict, said = ask_check(session, check, _ALLOWED_SECONDS)
        except SqlError as refused:
            damaged, gone = refused.sqlstate in _DAMAGE, refused.sqlstate in _GONE
            told = found.damage if damaged else found.wrong if gone else found.unasked
            told.append(f"{name}: {refused.message}")
        except RecoupError as failure:
            found.unasked.append(f"{name}: {failure.message}")
        else:
            if verdict is not Verdict.OK:
                (found.wrong if verdict is Verdict.FAILED else found.unasked).append(f"{name}: {said}")
    return found


def _redis(system: System, subject: _Subject) -> Seen:
    place = redis_place(system, subject.name)
    if place.url is not None:
        with connect(place.url) as connection:
            keys = sum(read_keyspace(read_info(connection, "keyspace")).values())
    else:
        assert place.program is not None, "a place has an address or a program"
        (said,) = place.program.ask("INFO keyspace")
        if isinstance(said, RecoupError):
            raise said
        keys = said.count("keys=")
    seen = Seen(
        service=subject.name, engine="redis", answers=True, data="there", compose_service=subject.compose_service
    )
    if keys == 0 and (held := subject.held_keys()):
        return replace(seen, data="emptied", detail=f"it has no key, and its newest copy has {held}")
    return seen


def _unreachable(subject: _Subject, stack: Stack | None, failure: RecoupError) -> Seen:
    seen = Seen(
        service=subject.name, engine=subject.engine, answers=False, detail=failure.message,
        compose_service=subject.compose_service,
    )  # fmt: skip
    if subject.compose_service is None:
        return seen
    if stack is None:  # nothing could be asked of the container engine: it is not known whether anything is wrong
        return replace(seen, answers=None)
    try:
        state, words = _container(stack, subject.compose_service)
        data = volumes_of(stack, subject.compose_service)
        damage = _last_words(subject, stack, data)
    except RecoupError as silent:
        return replace(seen, answers=None, detail=silent.message)
    detail = f"{words}; {failure.message}" if state == "running" else words
    return replace(seen, state=state, data=data, detail=detail, damage=damage)


def _last_words(subject: _Subject, stack: Stack, data: Data) -> tuple[str, ...]:
    """What a service that does not answer said of damage. Of data that are gone nothing is said."""
    if subject.compose_service is None or data == "missing":
        return ()
    log = stack.client.logs(subject.compose_service, lines=_LOG_LINES)
    found = postgres_damage(log) if subject.engine == "postgres" else redis_damage(log)
    return tuple(f"its log says: {line}" for line in found)


# -- containers and files ----------------------------------------------------------------------------------------------


def _container(stack: Stack, compose_service: str) -> tuple[str, str]:
    """The state of a service's container, and a few words about it."""
    found = stack.client.of_service(compose_service)
    if not found:
        return "missing", "it has no container"
    worst = next((one for one in found if not one.well), found[0])
    words = worst.state if worst.health is None else f"{worst.state} and {worst.health}"
    if worst.exit_status is not None and worst.state == "exited":
        words += f" with status {worst.exit_status}"
    if worst.out_of_memory:
        words += ", out of memory"
    if worst.restarts:
        words += f", restarted {worst.restarts} times"
    return worst.state, f"its container is {words}"


def volumes_of(stack: Stack, compose_service: str) -> Data:
    """Whether the volumes that a service keeps its data in are there. Whose they are is not known by that.

    Raise ``EngineError`` when the engine cannot be asked.
    """
    project = stack.project
    mounts = [one for one in project.service(compose_service).mounts if one.kind == "volume"]
    names = [project.volumes[one.source].name for one in mounts if one.source in project.volumes]
    if not names:
        return "unknown"
    return "there" if all(stack.client.has_volume(name) for name in names) else "missing"


def _application(name: str, service: ComposeService, stack: Stack | None, trouble: RecoupError | None) -> Seen:
    compose_service = service.compose or name
    if stack is None:
        detail = "" if trouble is None else trouble.message
        return Seen(
            service=name, engine="application", answers=None, detail=detail, compose_service=compose_service
        )  # fmt: skip
    try:
        state, words = _container(stack, compose_service)
    except RecoupError as failure:
        return Seen(
            service=name, engine="application", answers=None, detail=failure.message, compose_service=compose_service
        )  # fmt: skip
    seen = Seen(
        service=name, engine="application", answers=state == "running" and "unhealthy" not in words, state=state,
        detail=words, compose_service=compose_service,
    )  # fmt: skip
    if seen.answers and service.health is not None:
        answer = ask(str(service.health))
        return replace(seen, answers=answer.well, detail=f"{service.health}: {answer.said}")
    return seen


def _files(system: System, name: str, service: FilesService) -> Seen:
    missing = [str(template) for template in service.paths if not system.resolver.path(template).exists()]
    detail = f"missing: {', '.join(missing)}" if missing else ""
    return Seen(service=name, engine="files", answers=not missing, data="unknown", detail=detail)
