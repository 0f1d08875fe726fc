"""The way of flows and health addresses to production, after a recovery. Implements ``drill.reach.Reach``.

It is the stack and nothing else: its services by their names inside, what is published on this machine, and the hosts
that the plan itself names as health addresses. A flow that would ask somebody outside is *unknown*, as in a drill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from recoup.assembly.stack import Stack, open_stack
from recoup.assembly.stack_reach import addresses_of, ask_sql, run_inside, the_postgres
from recoup.assembly.system import System
from recoup.drill.http import request
from recoup.drill.reach import Ended, Response, Rows
from recoup.engines.compose.addresses import LOOPBACK

_WHERE: Final = "the stack"
_EVERYWHERE: Final = ("", "0.0.0.0", "::")  # noqa: S104 - what ports are published on, compared and never listened on
#: Whatever a query does: in production it only reads.
_READ_ONLY: Final = ("SET default_transaction_read_only = on",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductionReach:
    """``hosts`` are those of the plan's health addresses. Containers are asked for anew each time: they may restart."""

    system: System
    stack: Stack | None
    hosts: frozenset[str]

    def http(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Response:
        """See ``Reach``. The request is made from this machine."""
        return request(
            method, url, self._find, headers=headers, body=body, timeout_seconds=timeout_seconds, where=_WHERE
        )

    def sql(self, service: str | None, database: str | None, query: str, *, timeout_seconds: float) -> Rows:
        """See ``Reach``. Read-only."""
        name = the_postgres(self.system, service)
        return ask_sql(self.system, name, database, query, timeout_seconds, first=_READ_ONLY)

    def command(self, service: str, argv: Sequence[str], *, timeout_seconds: float) -> Ended:
        """See ``Reach``."""
        return run_inside(self.system, self.stack, service, argv, timeout_seconds, where=_WHERE)

    def _find(self, host: str, port: int) -> tuple[str, int] | None:
        """Where an address is, as seen from this machine; None for what is neither of the stack nor of this machine."""
        if host.lower() in LOOPBACK or host in self.hosts:
            return host, port
        return self._published(host, port) or addresses_of(self.system, self.stack, {}).find(host, port)

    def _published(self, host: str, port: int) -> tuple[str, int] | None:
        """Where this machine publishes a port of a service: containers themselves cannot be reached everywhere."""
        if self.stack is None:
            return None
        name = getattr(self.system.plan.services.get(host), "compose", None) or host
        described = self.stack.project.services.get(name)
        for one in described.ports if described is not None else ():
            if one.target == port and one.protocol == "tcp" and one.published is not None:
                return ("127.0.0.1" if one.host in _EVERYWHERE else one.host), one.published
        return None


def production_reach(system: System) -> ProductionReach:
    """The way to the stack of a plan. Raise ``EngineError`` when its Compose project cannot be read."""
    addresses = [one.health for one in system.plan.services.values() if one.health is not None]
    hosts = [urlsplit(system.resolver.text(one)).hostname for one in addresses]
    stack = None if system.plan.compose is None else open_stack(system)
    return ProductionReach(system=system, stack=stack, hosts=frozenset(one for one in hosts if one) - _names(stack))


def _names(stack: Stack | None) -> frozenset[str]:
    """Names that mean a service inside of the stack, and nothing else."""
    return frozenset() if stack is None else frozenset(stack.project.services)
