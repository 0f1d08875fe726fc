"""What shows that a stack is back: its health, the plan's questions, what users do. In a sandbox as in production."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from recoup.assembly.system import System
from recoup.drill.flows import FlowSpec, Lookup, run_flow
from recoup.drill.model import FlowResult
from recoup.drill.reach import Reach
from recoup.engines.compose.answers import Answer, wait_until_answers
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict
from recoup.plan.services import PostgresService
from recoup.plan.template import Template

if TYPE_CHECKING:
    from recoup.assembly.postgres import PostgresPlace
    from recoup.engines.postgres.session import Session
    from recoup.engines.redis.connection import Connection
    from recoup.kernel.secret import Secret

#: How long a service may take until it is well, once it was started.
WELL_SECONDS: Final = 120.0
FLOW: Final = "users can do it"
_ASK_SECONDS: Final = 5.0


def wait_until_well(system: System, service: str, reach: Reach, *, seconds: float = WELL_SECONDS) -> float:
    """Ask the health address of a service until its answer is good; how many seconds that took.

    Raise ``EngineError`` with the last answer when it is not within ``seconds``, ``UncheckedError`` when the address
    cannot be asked at all.
    """
    described = system.plan.services[service].health
    assert described is not None, "only services with an address are asked"
    url = system.resolver.text(described)

    def look() -> Answer:
        try:
            answer = reach.http("GET", url, headers={}, body=None, timeout_seconds=_ASK_SECONDS)
        except EngineError as failure:
            return Answer(well=False, said=failure.message)
        return Answer(well=200 <= answer.status < 300, said=f"status {answer.status}")

    return wait_until_answers(look, seconds=seconds, what=service)


def ask_postgres(system: System, service: str, *, on_nothing: bool) -> tuple[Finding, ...]:
    """Ask the plan's questions of a PostgreSQL where the plan says that it is.

    ``on_nothing``: also whether they prove anything, with the tables emptied in between; never in production.
    """
    from recoup.assembly.postgres import postgres_place
    from recoup.assembly.prove.live_postgres import checks_of
    from recoup.engines.postgres.plan_checks import check_plan

    server = ServerOfPlan(postgres_place(system, service))
    return tuple(check_plan(server, checks_of(system, service), on_nothing=on_nothing))


def ask_redis(system: System, service: str, address: Secret, *, on_nothing: bool) -> tuple[Finding, ...]:
    """Ask the plan's questions of a Redis at an address, each by a command that only reads.

    ``on_nothing``: also whether they prove anything, by asking a database of it that holds nothing. Where it has none,
    what holds is unknown.
    """
    from recoup.assembly.prove.live_redis import checks_of
    from recoup.engines.redis.plan_checks import check_plan

    empty = functools.partial(_empty_database, address) if on_nothing else None
    return tuple(check_plan(_Redis(address), checks_of(system, service), empty))


def ask_production(system: System, service: str) -> tuple[Finding, ...]:
    """Ask the plan's questions of a service of production. Nothing is written, and no table is locked for long."""
    from recoup.assembly.redis import redis_address

    if isinstance(system.plan.services[service], PostgresService):
        return ask_postgres(system, service, on_nothing=False)
    return ask_redis(system, service, redis_address(system, service), on_nothing=False)


def do_flow(
    flow: FlowSpec, reach: Reach, lookup: Lookup, *, stopping: Callable[[], bool] = lambda: False
) -> FlowResult:
    """Do what a user does. ``stopping`` is asked before it is tried again."""

    def expand(text: str, look: Callable[[str], str | None]) -> str:
        return Template.parse(text).expand(look)

    return run_flow(flow, reach, expand, lookup, stopping=stopping)


def flow_findings(results: Sequence[FlowResult]) -> tuple[Finding, ...]:
    """What flows came to, one finding each."""
    findings = []
    for one in results:
        bad = next((part for part in one.steps if part.verdict is not Verdict.OK), None)
        detail = f"{len(one.steps)} acts" if bad is None else f"{bad.what}: {bad.detail}"
        hint = None if bad is None else bad.hint
        findings.append(Finding(check=FLOW, subject=one.name, verdict=one.verdict, detail=detail, hint=hint))
    return tuple(findings)


@dataclass(frozen=True, slots=True)
class ServerOfPlan:
    """A PostgreSQL where the plan says that it is. Implements ``engines.postgres.restored_server.RestoredServer``."""

    place: PostgresPlace

    def session(self, database: str = "postgres") -> Session:
        """See ``RestoredServer``."""
        return self.place.access.session(database)

    def databases(self) -> list[str]:
        """See ``RestoredServer``."""
        from recoup.engines.postgres.access import connectable

        return connectable(self.place.access)


@dataclass(frozen=True, slots=True)
class _Redis:
    """Implements ``engines.redis.plan_checks.AskedRedis``. ``only``: whichever database is asked for, this one."""

    address: Secret
    only: int | None = None

    def connect(self, database: int = 0) -> Connection:
        from recoup.engines.redis.connection import connect

        return connect(self.address, database=database if self.only is None else self.only)


@contextlib.contextmanager
def _empty_database(address: Secret) -> Iterator[_Redis]:
    """A database of a Redis that holds no key. Raise ``EngineError`` when it has no more databases than it uses."""
    from recoup.engines.redis.connection import connect, read_info, read_keyspace

    with connect(address, database=0) as connection:
        held = read_keyspace(read_info(connection, "keyspace"))
    free = next(number for number in range(len(held) + 1) if number not in held)
    connect(address, database=free).close()
    yield _Redis(address, only=free)
