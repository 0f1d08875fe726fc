"""The way of flows into the sandbox of a Compose stack. Implements ``drill.reach.Reach``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from recoup.assembly.drill.native import NativeDatabases
from recoup.assembly.stack import Stack
from recoup.assembly.stack_reach import addresses_of, ask_sql, run_inside, the_postgres
from recoup.assembly.system import System
from recoup.drill.http import request
from recoup.drill.reach import Ended, Response, Rows
from recoup.engines.compose.addresses import Addresses
from recoup.engines.compose.enter_network import inside_network


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeReach:
    """``system`` and ``stack`` are the sandbox's. ``addresses`` is asked anew each time: containers may restart."""

    system: System
    stack: Stack | None  #: None: everything runs natively
    published: Mapping[int, tuple[str, int]]
    native: NativeDatabases | None = None

    def http(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Response:
        """See ``Reach``. The request is made from inside the network of the container that it is for."""
        stack, addresses = self.stack, self.addresses()
        if stack is None:
            return request(method, url, addresses.find, headers=headers, body=body, timeout_seconds=timeout_seconds)
        containers = {one.addresses[0]: one.id for one in stack.client.containers() if one.addresses}
        parts = urlsplit(url)
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            port = 0
        found = addresses.find(parts.hostname or "", port)

        def ask() -> Response:
            return request(method, url, addresses.find, headers=headers, body=body, timeout_seconds=timeout_seconds)

        if found is None:
            return ask()  # it says what is wrong with the address, and asks nobody
        return inside_network(stack.client.source, containers[found[0]], found[0], ask)

    def addresses(self) -> Addresses:
        """Where the services are now. Raise ``EngineError``."""
        return addresses_of(self.system, self.stack, self.published)

    def sql(self, service: str | None, database: str | None, query: str, *, timeout_seconds: float) -> Rows:
        """See ``Reach``."""
        name = the_postgres(self.system, service)
        if self.native is not None and name not in self._in_stack():
            return self.native.sql(name, database, query, timeout_seconds)
        return ask_sql(self.system, name, database, query, timeout_seconds)

    def command(self, service: str, argv: Sequence[str], *, timeout_seconds: float) -> Ended:
        """See ``Reach``."""
        return run_inside(self.system, self.stack, service, argv, timeout_seconds, where="the sandbox")

    def _in_stack(self) -> set[str]:
        """Services that run in the stack. The address of any other one is production's, and is never used."""
        return {name for name, one in self.system.plan.services.items() if getattr(one, "url", None) is None}
