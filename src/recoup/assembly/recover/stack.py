"""The step that makes the containers, networks and volumes of the stack from its configuration, and starts nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from recoup.assembly.drill.compose import taking_part
from recoup.assembly.recover.context import Recovery
from recoup.assembly.stack import Stack, open_stack
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict
from recoup.plan.services import ComposeService
from recoup.recovery.step import Done, Step

#: What Compose says when something is not there that it does not make itself, and what makes it.
_WAYS_OUT: Final = (
    (r'volume "?([^" ]+)"? declared as external, but could not be found', "docker volume create {0}"),
    (r'network "?([^" ]+)"? declared as external, but could not be found', "docker network create {0}"),
    (r"pull access denied for ([^,\s]+)|manifest for (\S+) not found", "docker login, or docker build its source"),
)


def stack(recovery: Recovery, step: Step) -> Done:  # noqa: ARG001
    """Make what the Compose file describes. What is there stays, but for containers of an application whose files went.

    Raise ``EngineError`` in Compose's own words.
    """
    found = open_stack(recovery.system)
    services = taking_part(recovery.system.plan, found.project)
    anew = _without_their_files(recovery, found)
    try:
        found.client.create(services)
        found.client.replace(anew)
    except EngineError as failure:
        raise _with_way_out(failure) from failure
    return Done(findings=tuple(_findings(found, services)), detail=f"project {found.project.name}", data={"anew": anew})


def _without_their_files(recovery: Recovery, found: Stack) -> list[str]:
    """Applications that were made before their files came back.

    A container keeps the folder that it was started with, also when that was removed and there is a new one of the same
    name: it would see nothing of what came back. Databases have theirs in volumes, and stay.
    """
    if recovery.wish.situation != "application-loss":
        return []
    applications = {
        one.compose or name for name, one in recovery.system.plan.services.items() if isinstance(one, ComposeService)
    }
    there = {one.service: one for one in found.client.containers()}
    return [
        name for name, one in there.items() if name in applications and any(each.kind == "bind" for each in one.mounts)
    ]


def _findings(found: Stack, services: Sequence[str]) -> list[Finding]:
    there = {one.service for one in found.client.containers()}
    return [
        Finding(
            check="every service has its container",
            subject=name,
            verdict=Verdict.OK if name in there else Verdict.FAILED,
            hint=None if name in there else f"docker compose -p {found.project.name} create {name} says why.",
        )
        for name in services
    ]


def _with_way_out(failure: EngineError) -> EngineError:
    for pattern, way in _WAYS_OUT:
        match = re.search(pattern, failure.message)
        if match is not None:
            named = [one for one in match.groups() if one]
            return EngineError(failure.message, hint=f"{way.format(*named)}; then the same command goes on.")
    return failure
