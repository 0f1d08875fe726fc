"""How flows and health addresses reach a Compose stack: the parts that a sandbox and production have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from recoup.assembly.drill.psql import bounded, rows_of
from recoup.assembly.postgres import postgres_place
from recoup.assembly.stack import Stack
from recoup.assembly.system import System
from recoup.drill.reach import Ended, Rows
from recoup.engines.compose.addresses import Addresses
from recoup.kernel.errors import UncheckedError
from recoup.kernel.process import Command
from recoup.plan.services import PostgresService

#: What the shell and the engine say when a program is not there, or may not be run.
_CANNOT_RUN: Final = (126, 127)


def addresses_of(system: System, stack: Stack | None, published: Mapping[int, tuple[str, int]]) -> Addresses:
    """Where the services of a stack are now, by their Compose names and by those of the plan. Raise ``EngineError``."""
    if stack is None:
        return Addresses(services={}, published={})
    running = [one for one in stack.client.containers() if one.running and one.addresses]
    found = {one.service: one.addresses[0] for one in running}
    for name, one in system.plan.services.items():
        inside = getattr(one, "compose", None)
        if inside in found:
            found.setdefault(name, found[inside])
    return Addresses(services=found, published=published)


def the_postgres(system: System, service: str | None) -> str:
    """The PostgreSQL service that a flow means; None is the only one. Raise ``UncheckedError`` when it is not clear."""
    known = [name for name, one in system.plan.services.items() if isinstance(one, PostgresService)]
    if service is not None and service in known:
        return service
    if service is None and len(known) == 1:
        return known[0]
    raise UncheckedError(
        f"{service} is no PostgreSQL service" if service is not None else "which PostgreSQL service is meant?",
        hint=f"Name one in the flow: {', '.join(known) or 'the plan has none'}.",
    )


def ask_sql(
    system: System, name: str, database: str | None, query: str, seconds: float, *, first: Sequence[str] = ()
) -> Rows:
    """One query of a PostgreSQL service, by ``psql``. ``first`` is what is said to the server before it.

    Raise as ``drill.reach.Reach`` does.
    """
    access = postgres_place(system, name).access
    before = [word for one in first for word in ("-c", one)]
    return rows_of(lambda *words: access.command("psql", *before, *words, database=database), query, seconds)


def run_inside(
    system: System, stack: Stack | None, service: str, argv: Sequence[str], seconds: float, *, where: str
) -> Ended:
    """Run a program where ``service`` runs, without a shell. ``where`` names the stack, for people.

    Raise as ``drill.reach.Reach`` does.
    """
    inside = getattr(system.plan.services.get(service), "compose", None) or service
    if stack is None or inside not in stack.project.services:
        raise UncheckedError(f"there is no service {service} in {where}", hint="Correct the flow in the plan.")
    ended, errors = bounded(stack.client.runner(inside).wrap(Command(argv=argv)), seconds)
    if ended.exit_status in _CANNOT_RUN:
        raise UncheckedError(f"{argv[0]} cannot be run in {service}: {errors}")
    return ended
