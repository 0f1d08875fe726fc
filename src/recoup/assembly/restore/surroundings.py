"""The services around the one that is restored, as the in-place restore sees them (``recovery.in_place.Stack``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recoup.assembly.stack import Stack
from recoup.engines.compose.client import Container
from recoup.inventory.order import dependants, start_order
from recoup.plan.model import Plan
from recoup.plan.services import ComposeService

#: What its own health check has given up on is given so long again, in seconds.
_UNHEALTHY_SECONDS: Final = 15.0


#: How a container ends that is done, or was stopped: of itself, by SIGKILL, by SIGTERM (128 and the signal's number).
_ON_PURPOSE: Final = (0, 137, 143)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Compose services by their Compose names, ordered by the plan's ``after`` and the project's ``depends_on``."""

    plan: Plan
    stack: Stack

    def dependents(self, service: str) -> Sequence[str]:
        """See ``recovery.in_place.Stack``.

        Applications of the plan that need ``service``, directly or through others, and every other service of the
        project that says so with ``depends_on`` and runs. When ``service`` itself does not run, the applications of
        the plan count as wanted whether they run or not: the stack is down, and is to come back. When it runs, one
        that is stopped was stopped on purpose, and stays so; one that failed, or starts again and again, was not.
        """
        containers = self.stack.client.containers()
        running = {one.service for one in containers if one.running}
        failing = {one.service for one in containers if _failing(one)}
        planned = {one.compose or name for name, one in self.plan.services.items() if isinstance(one, ComposeService)}
        needing = reversed(dependants([service], self._needs()))
        wanted = planned if service not in running else planned & failing
        return [name for name in needing if name in running or name in wanted]

    def running(self) -> set[str]:
        """The services of which a container runs."""
        return {one.service for one in self.stack.client.containers() if one.running}

    def in_order(self, services: Collection[str]) -> tuple[str, ...]:
        """Services in the order in which they start."""
        return tuple(name for name in start_order(self._needs()) if name in services)

    def stop(self, services: Sequence[str]) -> None:
        """See ``recovery.in_place.Stack``."""
        self.stack.client.stop(services)

    def start(self, services: Sequence[str]) -> None:
        """See ``recovery.in_place.Stack``. What a service needs and does not run is started before it."""
        needs = self._needs()
        order = start_order(needs)
        for service in services:
            running = {one.service for one in self.stack.client.containers() if one.running}
            wanted = _needed_by(service, needs) - running
            for name in (*(one for one in order if one in wanted), service):
                # A database may replay its log for as long as it needs; an application that is unhealthy is broken.
                patience = None if name in self._databases() else _UNHEALTHY_SECONDS
                self.stack.client.start([name], unhealthy_seconds=patience)

    def _databases(self) -> set[str | None]:
        return {one.compose for one in self.plan.databases().values()}

    def _needs(self) -> dict[str, list[str]]:
        """For each Compose service, the Compose services it needs: by ``depends_on``, and by the plan's ``after``."""
        project = self.stack.project
        needs = {name: [one.service for one in body.depends_on] for name, body in project.services.items()}
        names = {name: getattr(one, "compose", None) or name for name, one in self.plan.services.items()}
        for name, one in self.plan.services.items():
            if names[name] in needs:
                needs[names[name]] += [names[other] for other in one.after if names[other] in needs]
        return needs


def _failing(container: Container) -> bool:
    """Whether it does not run, and nobody wanted that: it is started again and again, or ended with an error."""
    if container.state == "restarting":
        return True
    return container.state == "exited" and container.exit_status not in _ON_PURPOSE


def _needed_by(service: str, needs: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    frontier = [service]
    while frontier:
        for name in needs.get(frontier.pop(), ()):
            if name not in found:
                found.add(name)
                frontier.append(name)
    return found - {service}
