"""What the list of steps rests on: the plan, what was copied, and the stack as it stands when the run begins.

The facts of a recovery are frozen in its journal when it begins: a run that goes on after a kill must have the same
steps, although by then the applications are stopped and new data are in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from recoup.assembly.access import Readable
from recoup.assembly.drill.flows import flow_specs
from recoup.assembly.drill.members import Chosen, choose_database, newest, service_of, what_of
from recoup.assembly.protect.stack_points import in_order_of_recovery
from recoup.assembly.recorded_images import recorded_images
from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.restore.surroundings import Surroundings
from recoup.assembly.stack import Stack, open_stack
from recoup.assembly.system import System
from recoup.assembly.watch.symptoms import volumes_of
from recoup.kernel.errors import EngineError, UsageError
from recoup.plan.services import ComposeService, FilesService, PostgresService, RedisService, Service
from recoup.recovery.instant import parse_instant
from recoup.recovery.runbook import Database, Facts, Situation, lost_of
from recoup.recovery.step import Where

#: After these nothing of the application is taken for granted: all of it is brought back and started.
_PROJECT: frozenset[Situation] = frozenset({"server-loss", "application-loss"})
#: The situations that are of one engine alone, and its product.
_OF: Final[dict[Situation, tuple[str, str]]] = {
    "database-corruption": ("postgres", "PostgreSQL"),
    "redis-loss": ("redis", "Redis"),
}


def facts_of_plan(system: System, where: Where) -> Facts:
    """What the plan alone says."""
    plan = system.plan
    order = in_order_of_recovery(plan.services)
    return Facts(
        applications=tuple(name for name in order if isinstance(plan.services[name], ComposeService)),
        health=tuple(name for name in order if _has_health(system, name, where)),
        checked=tuple(name for name in order if _has_questions(plan.services[name])),
        flows=tuple(one.name for one in flow_specs(plan)),
        compose=plan.compose is not None,
        names={name: compose for name in order if (compose := _compose_of(plan.services[name], name)) is not None},
    )


def drill_facts(system: System, chosen: Chosen, *, people: bool) -> Facts:
    """What a drill rests on: every service of the plan comes back. ``people``: somebody can be asked."""
    services = system.plan.services
    return replace(
        facts_of_plan(system, "sandbox"),
        people=people,
        files=tuple(one.manifest.service for one in chosen.files),
        databases=tuple(
            Database(service=service_of(one), engine=services[service_of(one)].engine, what=what_of(one))
            for one in chosen.databases
        ),
    )


def facts_of(opened: Readable, system: System, wish: RecoverWish) -> Facts:
    """What the list of steps of a recovery of production rests on. Changes nothing.

    Raise ``RefusedError`` naming a lost database that nothing brings back, ``UsageError`` for services that the plan
    does not have.
    """
    services = system.plan.services
    order = in_order_of_recovery(services)
    _require_databases(system, wish.services)
    _require_concerned(system, wish)
    stack = _stack_there(system, required=wish.situation not in _PROJECT)
    named = [
        Database(
            service=name,
            engine=services[name].engine,
            what="",
            at_once=isinstance(services[name], RedisService),
            by_hand=isinstance(services[name], PostgresService) and _has_address(services[name]),
        )
        for name in order
        if isinstance(services[name], PostgresService | RedisService)
    ]
    facts = replace(facts_of_plan(system, "production"), databases=tuple(named), hurt=wish.services)
    lost = {one.service for one in lost_of(wish.situation, facts)}
    facts = replace(facts, databases=tuple(_told(one, opened, system, stack, wish, lost) for one in named))
    if wish.situation in _PROJECT:
        facts = _with_project(facts, opened, system)
    return _around(facts, system, stack, wish, lost)


def _require_databases(system: System, asked: Sequence[str]) -> None:
    known = [name for name, one in system.plan.services.items() if isinstance(one, PostgresService | RedisService)]
    for name in asked:
        if name not in known:
            raise UsageError(f"the plan has no database {name!r}", hint=f"It has: {', '.join(known) or 'none'}.")


def _require_concerned(system: System, wish: RecoverWish) -> None:
    """Raise ``UsageError`` when the situation is of a database that the plan does not have: no other one is meant."""
    engine, product = _OF.get(wish.situation, (None, ""))
    if engine is not None and not wish.services and all(one.engine != engine for one in system.plan.services.values()):
        raise UsageError(
            f"the plan has no {product}, so there is nothing to do after a {wish.situation}",
            hint="`recoup diagnose` looks and says what happened.",
        )


def _told(
    one: Database, opened: Readable, system: System, stack: Stack | None, wish: RecoverWish, lost: set[str]
) -> Database:
    """A database with what it comes back from and what that replaces; one that is not lost stays as it is."""
    if one.service not in lost:
        return one
    text = wish.instant
    instant = None if text in (None, "latest") else parse_instant(str(text), system.plan.timezone)
    what = what_of(choose_database(opened, opened.catalog(), one.service, instant))
    return replace(one, what=what, replaces=_replaced(one, system, stack))


def _replaced(one: Database, system: System, stack: Stack | None) -> str:
    described = system.plan.services[one.service]
    if _has_address(described):
        return "" if one.by_hand else f"what the server of {one.service} holds"
    compose = _compose_of(described, one.service)
    if stack is None or compose is None or compose not in stack.project.services:
        return ""
    return "" if volumes_of(stack, compose) == "missing" else f"the data in the volume of {compose}"


def _with_project(facts: Facts, opened: Readable, system: System) -> Facts:
    """The application itself: its files, its source, its images, as they were recorded."""
    catalog = opened.catalog()
    names = [name for name, one in system.plan.services.items() if isinstance(one, FilesService)]
    found = {name: newest(opened, catalog, name, ("files",), None) for name in names}
    remotes = [
        str(remote[1])
        for one in found.values()
        if one is not None and isinstance(git := one.manifest.facts.get("git"), Mapping)
        for remote in git.get("remotes") or ()
    ]
    plan_source = None if system.plan.compose is None else system.plan.compose.source
    bundled = any(one is not None and one.manifest.facts.get("git") for one in found.values())
    return replace(
        facts,
        files=tuple(name for name in in_order_of_recovery(system.plan.services) if found.get(name) is not None),
        source=(plan_source or next(iter(remotes), "the kept bundle" if bundled else "")),
        images=tuple(recorded_images(opened)),
    )


def _around(facts: Facts, system: System, stack: Stack | None, wish: RecoverWish, lost: set[str]) -> Facts:
    """What has to stand still, and which applications start: those that stood still on purpose stay so."""
    if stack is None:
        return facts
    around = Surroundings(plan=system.plan, stack=stack)
    volumes = [
        facts.compose_name(one.service)
        for one in facts.databases
        if one.service in lost and not _has_address(system.plan.services[one.service])
    ]
    needing = {name for volume in volumes for name in around.dependents(volume)} - set(volumes)
    order = around.in_order(set(stack.project.services))
    stopped = tuple(name for name in reversed(order) if name in needing)
    stopped += tuple(name for name in reversed(order) if name in volumes)
    if wish.situation in _PROJECT:
        return replace(facts, stopped=stopped if around.running() else ())
    applications = tuple(name for name in facts.applications if facts.compose_name(name) in stopped)
    idle = set(facts.applications) - set(applications) - _running(facts, around)
    return replace(
        facts,
        stopped=stopped,
        applications=applications,
        health=tuple(name for name in facts.health if name not in idle),
    )


def _running(facts: Facts, around: Surroundings) -> set[str]:
    running = around.running()
    return {name for name in facts.applications if facts.compose_name(name) in running}


def _stack_there(system: System, *, required: bool) -> Stack | None:
    """The stack as far as there is one: on a blank machine neither its files nor its containers are.

    Raise as Compose does when it is ``required``.
    """
    if system.plan.compose is None:
        return None
    try:
        stack = open_stack(system)
        stack.client.containers()
    except (EngineError, UsageError):
        if required:
            raise
        return None
    return stack


def _has_health(system: System, name: str, where: Where) -> bool:
    service = system.plan.services[name]
    # The address of a service that is not in the stack is production's: a drill does not ask it.
    mine = where == "production" or (system.plan.compose is not None and not _has_address(service))
    return service.health is not None and mine


def _has_questions(service: Service) -> bool:
    return isinstance(service, PostgresService | RedisService) and bool(service.checks)


def _has_address(service: Service) -> bool:
    return getattr(service, "url", None) is not None


def _compose_of(service: Service, name: str) -> str | None:
    """What the Compose project calls a service; None for one that is not in it."""
    if isinstance(service, ComposeService):
        return service.compose or name
    return getattr(service, "compose", None)
