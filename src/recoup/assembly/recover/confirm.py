"""The first step of a recovery that looks: is it what was declared, and which objects are hurt? Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from recoup.assembly.postgres import postgres_place
from recoup.assembly.recover.runs import local_runs
from recoup.assembly.restore.homes import PostgresHome
from recoup.assembly.restore.place_files import brought_to
from recoup.assembly.stack import default_files
from recoup.assembly.watch.symptoms import look_at_services
from recoup.engines.postgres.damage_look import look_for_damage
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError, UsageError
from recoup.kernel.finding import Verdict
from recoup.plan.services import PostgresService
from recoup.recovery.confirming import Hurt
from recoup.recovery.confirming import confirm as judge
from recoup.recovery.diagnosis import Seen
from recoup.recovery.step import Done, Step

if TYPE_CHECKING:
    from recoup.assembly.recover.context import Recovery
    from recoup.assembly.system import System

#: The users wait: what is hurt is named as far as that is found so soon.
_SECONDS: Final = 45.0
_INDEXES: Final = "every row is in its indexes (amcheck)"


def confirm(recovery: Recovery, step: Step) -> Done:  # noqa: ARG001
    """Look at every service, and closer at databases when one of them is said to be damaged; ``Done.data`` names what
    is hurt. What could not be looked at is unknown, and keeps nobody from going on.
    """
    situation, system = recovery.wish.situation, recovery.system
    seen = list(look_at_services(system, clock.now()))
    hurt: list[Hurt] = []
    for one in seen:
        for said in one.damage:
            recovery.voice.say(f"{one.service}: {said}")
        if situation == "database-corruption" and isinstance(system.plan.services[one.service], PostgresService):
            hurt += _looked_closer(recovery, one)
    if situation == "application-loss":
        hurt += [*_missing_files(system), *_brought_back(recovery)]
    finding = judge(situation, seen, hurt, services=recovery.wish.services)
    if recovery.wish.force and finding.verdict is Verdict.FAILED:
        # Somebody said that they know: what was seen is still told, and the run does not count as well.
        finding = replace(finding, verdict=Verdict.UNKNOWN, hint=None)
    data = {"hurt": [{"service": one.service, "what": one.what, "said": one.said} for one in hurt]}
    return Done(findings=(finding,), detail=finding.detail, data=data)


def _looked_closer(recovery: Recovery, one: Seen) -> Iterator[Hurt]:
    """What is hurt in a PostgreSQL service: by reading it while it runs, by its data folder when it does not."""
    system, service = recovery.system, one.service
    try:
        if one.answers:
            recovery.voice.say(f"reading {service} for up to {_SECONDS:.0f} s, to name what is hurt")
            yield from _named(service, system)
        elif one.compose_service is not None and one.answers is False and one.data == "there":
            yield from _folder(service, one.compose_service, system)
    except RecoupError as failure:
        recovery.voice.say(f"{service} could not be looked at more closely: {failure.message}")


def _named(service: str, system: System) -> Iterator[Hurt]:
    for found in look_for_damage(postgres_place(system, service).access, seconds=_SECONDS):
        if found.verdict is Verdict.FAILED:
            yield Hurt(service=service, what=found.subject, said=found.detail, index=found.check == _INDEXES)


def _folder(service: str, compose_service: str, system: System) -> Iterator[Hurt]:
    place = postgres_place(system, service)
    if place.stack is None:
        return
    occupant = PostgresHome(place=place, stack=place.stack, compose_service=compose_service).look()
    if occupant.identity is None:
        what = occupant.what or "nothing: it is empty"
        yield Hurt(service=service, what=occupant.place, said=f"it holds {what}")


def _brought_back(recovery: Recovery) -> Iterator[Hurt]:
    """The plan and its files, when they were gone and this recovery brought them before it looked at anything.

    That is all there may be to see: containers go on without the files that they were made from, and an engine that
    starts again makes empty folders in the place of those that it misses.
    """
    state, folder = recovery.system.state_folder, recovery.system.folder
    brought = brought_to(state, folder)
    if brought is None:
        return
    copy, at = brought
    others = (one for one in local_runs(state) if one.run != recovery.run and one.lines)
    if all(at > one.lines[-1].at for one in others):
        said = f"the plan was not there; it came from {copy} at {clock.to_text(at)[:19]}Z"
        yield Hurt(service="compose", what=str(folder), said=said)


def _missing_files(system: System) -> Iterator[Hurt]:
    """The files that make the Compose project, where they are gone: then nothing in it can be asked."""
    if system.plan.compose is None:
        return
    try:
        files = [system.resolver.path(one) for one in system.plan.compose.all_files()] or default_files(system.folder)
    except UsageError as missing:
        yield Hurt(service="compose", what=str(system.folder), said=missing.message)
        return
    for file in files:
        if not file.exists():
            yield Hurt(service="compose", what=str(file), said="it is missing")
