"""The way of flows and health addresses to production, after a recovery. Implements ``drill.reach.Reach``.

It is the stack and nothing else: its services by their names inside, what is published on this machine, and the hosts
that the plan itself names as health addresses. A flow that would ask somebody outside is *unknown*, as in a drill.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Final
from urllib.parse import urlsplit

from recoup.assembly.stack import Stack, open_stack
from recoup.assembly.stack_reach import addresses_of, ask_sql, run_inside, the_postgres
from recoup.assembly.system import System
from recoup.drill.http import request
from recoup.drill.reach import Ended, Response, Rows
from recoup.engines.compose.addresses import LOOPBACK

_WHERE: Final = "the stack"
#: Whatever a query does: in production it only reads.
_READ_ONLY: Final = ("SET default_transaction_read_only = on",)


class ProductionReach:
    """Containers are asked for anew each time, since they may restart, and only when an address leads to one."""

    def __init__(self, system: System) -> None:
        self._system = system
        addresses = [one.health for one in system.plan.services.values() if one.health is not None]
        #: The hosts that the plan itself names as health addresses.
        self._hosts = {urlsplit(system.resolver.text(one)).hostname for one in addresses}

    @cached_property
    def _stack(self) -> Stack | None:
        return None if self._system.plan.compose is None else open_stack(self._system)

    def http(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Response:
        """See ``Reach``. The request is made from this machine."""
        return request(
            method, url, self._find, headers=headers, body=body, timeout_seconds=timeout_seconds, where=_WHERE
        )

    def sql(self, service: str | None, database: str | None, query: str, *, timeout_seconds: float) -> Rows:
        """See ``Reach``. Read-only."""
        name = the_postgres(self._system, service)
        return ask_sql(self._system, name, database, query, timeout_seconds, first=_READ_ONLY)

    def command(self, service: str, argv: Sequence[str], *, timeout_seconds: float) -> Ended:
        """See ``Reach``."""
        return run_inside(self._system, self._stack, service, argv, timeout_seconds, where=_WHERE)

    def _find(self, host: str, port: int) -> tuple[str, int] | None:
        """Where an address is, as seen from this machine; None for what is neither of the stack nor of this machine."""
        if host.lower() in LOOPBACK:
            return host, port
        if self._stack is not None and (name := self._compose_name(host)) in self._stack.project.services:
            return self._published(name, port) or addresses_of(self._system, self._stack, {}).find(host, port)
        return (host, port) if host in self._hosts else None

    def _compose_name(self, host: str) -> str:
        return getattr(self._system.plan.services.get(host), "compose", None) or host

    def _published(self, name: str, port: int) -> tuple[str, int] | None:
        """Where this machine publishes a port of a service: containers themselves cannot be reached everywhere."""
        assert self._stack is not None, "the caller has a stack"
        for one in self._stack.project.services[name].ports:
            if one.target == port and one.protocol == "tcp" and one.published is not None:
                return one.nearby, one.published
        return None
