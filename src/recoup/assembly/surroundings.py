"""The services around the one that is restored, as the in-place restore sees them (``recovery.in_place.Stack``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recoup.assembly.stack import Stack
from recoup.plan.model import Plan
from recoup.plan.services import ComposeService


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
        that is stopped was stopped on purpose, and stays so.
        """
        running = {one.service for one in self.stack.client.containers() if one.running}
        needs = self._needs()
        found: list[str] = []
        grown = True
        while grown:
            grown = False
            for name, wanted in needs.items():
                if name not in found and name != service and wanted & {service, *found}:
                    found.append(name)
                    grown = True
        planned = {one.compose or name for name, one in self.plan.services.items() if isinstance(one, ComposeService)}
        chosen = [name for name in found if name in running or (name in planned and service not in running)]
        return _ordered(chosen, needs)

    def stop(self, services: Sequence[str]) -> None:
        """See ``recovery.in_place.Stack``."""
        self.stack.client.stop(services)

    def start(self, services: Sequence[str]) -> None:
        """See ``recovery.in_place.Stack``. What a service needs and does not run is started before it."""
        needs = self._needs()
        for service in services:
            running = {one.service for one in self.stack.client.containers() if one.running}
            missing = [name for name in _closure(service, needs) if name not in running]
            self.stack.client.start([*_ordered(missing, needs), service])

    def _needs(self) -> dict[str, set[str]]:
        """For each Compose service, the Compose services it needs."""
        project = self.stack.project
        needs = {name: {one.service for one in body.depends_on} for name, body in project.services.items()}
        names = {name: getattr(one, "compose", None) or name for name, one in self.plan.services.items()}
        for name, one in self.plan.services.items():
            if names[name] in needs:
                needs[names[name]] |= {names[other] for other in one.after if names[other] in needs}
        return needs


def _closure(service: str, needs: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    frontier = [service]
    while frontier:
        for name in needs.get(frontier.pop(), ()):
            if name not in found:
                found.add(name)
                frontier.append(name)
    return found - {service}


def _ordered(names: Sequence[str], needs: dict[str, set[str]]) -> list[str]:
    """``names``, each after those of them that it needs. Compose refuses cycles, so there are none."""
    ordered: list[str] = []
    left = sorted(names)
    while left:
        free = [name for name in left if not (_closure(name, needs) & set(left))] or left[:1]
        ordered += free
        left = [name for name in left if name not in free]
    return ordered
