"""The way of flows into the sandbox of a Compose stack. Implements ``drill.reach.Reach``."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from recoup.assembly.postgres import postgres_place
from recoup.assembly.stack import Stack
from recoup.assembly.system import System
from recoup.drill.http import request
from recoup.drill.reach import LIMIT_BYTES, LIMIT_ROWS, Ended, Response, Rows
from recoup.engines.compose.addresses import Addresses
from recoup.engines.compose.enter_network import inside_network
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.process import Command, failure_of, open_child
from recoup.plan.services import PostgresService

_NULL: Final = "\x01null"
_PIECE: Final = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeReach:
    """``system`` and ``stack`` are the sandbox's. ``addresses`` is asked anew each time: containers may restart."""

    system: System
    stack: Stack
    published: Mapping[int, tuple[str, int]]

    def http(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Response:
        """See ``Reach``. The request is made from inside the network of the container that it is for."""
        addresses = self.addresses()
        containers = {one.addresses[0]: one.id for one in self.stack.client.containers() if one.addresses}
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
        return inside_network(self.stack.client.source, containers[found[0]], found[0], ask)

    def addresses(self) -> Addresses:
        """Where the services are now. Raise ``EngineError``."""
        running = [one for one in self.stack.client.containers() if one.running and one.addresses]
        found = {one.service: one.addresses[0] for one in running}
        for name, one in self.system.plan.services.items():
            inside = getattr(one, "compose", None)
            if inside in found:
                found.setdefault(name, found[inside])
        return Addresses(services=found, published=self.published)

    def sql(self, service: str | None, database: str | None, query: str, *, timeout_seconds: float) -> Rows:
        """See ``Reach``."""
        access = postgres_place(self.system, self._postgres(service)).access
        arguments = ("-X", "-q", "--csv", "-v", "ON_ERROR_STOP=1", "-P", f"null={_NULL}", "-c", query)
        ended, errors = _bounded(access.command("psql", *arguments, database=database), timeout_seconds)
        if ended.exit_status != 0:
            raise EngineError(f"the query was refused: {errors}")
        if not ended.whole:
            raise UncheckedError(f"the answer is larger than {LIMIT_BYTES >> 20} MiB", hint="Ask for less.")
        said = list(csv.reader(io.StringIO(ended.output.decode(errors="replace"))))
        rows = [tuple(None if cell == _NULL else cell for cell in row) for row in said[1 : LIMIT_ROWS + 1]]
        return Rows(columns=tuple(said[0]) if said else (), rows=tuple(rows))

    def command(self, service: str, argv: Sequence[str], *, timeout_seconds: float) -> Ended:
        """See ``Reach``."""
        described = self.system.plan.services.get(service)
        inside = getattr(described, "compose", None) or service
        if inside not in self.stack.project.services:
            raise UncheckedError(f"there is no service {service} in the sandbox", hint="Correct the flow in the plan.")
        runner = self.stack.client.runner(inside)
        ended, errors = _bounded(runner.wrap(Command(argv=argv)), timeout_seconds)
        if ended.exit_status in (126, 127):
            raise UncheckedError(f"{argv[0]} cannot be run in {service}: {errors}")
        return ended

    def _postgres(self, service: str | None) -> str:
        known = [name for name, one in self.system.plan.services.items() if isinstance(one, PostgresService)]
        if service is not None and service in known:
            return service
        if service is None and len(known) == 1:
            return known[0]
        raise UncheckedError(
            f"{service} is no PostgreSQL service" if service is not None else "which PostgreSQL service is meant?",
            hint=f"Name one in the flow: {', '.join(known) or 'the plan has none'}.",
        )


def _bounded(command: Command, seconds: float) -> tuple[Ended, str]:
    """Run it and read at most so much of what it says. Raise ``EngineError`` when it takes longer than ``seconds``."""
    deadline = clock.monotonic() + seconds
    held: list[bytes] = []
    size = 0
    with open_child(command) as child:
        # A thread that waits for the deadline: reading a pipe has no limit of its own.
        watch = threading.Timer(seconds, child.end)
        watch.daemon = True
        watch.start()
        try:
            while size <= LIMIT_BYTES and (piece := child.stdout.read1(_PIECE)):  # type: ignore[attr-defined]
                held.append(piece)
                size += len(piece)
        finally:
            watch.cancel()
        if clock.monotonic() >= deadline:
            raise EngineError(f"no answer within {seconds:g} s")
        whole = size <= LIMIT_BYTES
        if not whole:
            child.end()
        completed = child.wait(max(1.0, deadline - clock.monotonic()))
    failure = failure_of(completed).message if completed.exit_status else ""
    output = b"".join(held)[:LIMIT_BYTES]
    return Ended(exit_status=completed.exit_status if whole else 0, output=output, whole=whole), failure
