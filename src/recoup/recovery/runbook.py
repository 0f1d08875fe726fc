"""Which steps bring a stack back, for each situation. One pure function: dry run, runbook and run use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from recoup.kernel.errors import UsageError
from recoup.recovery.step import Act, Phase, Step

Situation = Literal["database-corruption", "server-loss", "data-loss", "security-breach"]

#: What a drill can rehearse.
REHEARSED: Final[tuple[Situation, ...]] = ("server-loss", "data-loss", "database-corruption")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database that comes back. ``what`` is from what, for people."""

    service: str
    engine: str
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the list of steps rests on. Everything is in the order of recovery.

    ``compose``: the stack is a Compose project. ``people``: somebody is there who can be asked.
    """

    files: tuple[str, ...] = ()
    databases: tuple[Database, ...] = ()
    applications: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()  #: services with questions in the plan
    flows: tuple[str, ...] = ()
    compose: bool = True
    people: bool = False


def steps_of(situation: Situation, facts: Facts) -> tuple[Step, ...]:
    """The steps of a drill of ``situation``. Raise ``UsageError`` for one that is not rehearsed."""
    if situation not in REHEARSED:
        raise UsageError(
            f"{situation} cannot be rehearsed yet", hint=f"What can be: {', '.join(REHEARSED)}. Say --situation."
        )
    lost = _lost(situation, facts)
    standing = [one for one in facts.databases if one not in lost]
    server = Phase.RECOVER if situation == "server-loss" else Phase.PREPARE
    found: list[Step] = []
    if situation == "server-loss" and facts.people:
        found.append(_NEW_SERVER)
    found += [_files(name, server) for name in facts.files]
    if facts.compose:
        found.append(_stack(server))
    found += [step for one in standing for step in _database(one, Phase.PREPARE)]
    if situation == "database-corruption" and facts.people:
        found.append(_STOP_WRITING)
    found += [step for one in lost for step in _database(one, Phase.RECOVER)]
    found += [_application(name) for name in facts.applications]
    if facts.compose:
        found.append(_OTHERS)
    found += _proof(facts)
    if situation == "server-loss" and facts.people:
        found.append(_LET_USERS_IN)
    return tuple(found)


def _lost(situation: Situation, facts: Facts) -> Sequence[Database]:
    if situation != "database-corruption":
        return facts.databases
    return [one for one in facts.databases if one.engine == "postgres"] or facts.databases


def _files(name: str, phase: Phase) -> Step:
    return Step(
        id=f"files-{name}",
        title=f"bring back the files of {name}",
        meaning="Configuration, secrets and whatever else is kept as files is needed before anything can start.",
        act=Act.FILES,
        phase=phase,
        subject=name,
        replaces="the folder in which the stack lives; the sandbox has one of its own",
    )


def _stack(phase: Phase) -> Step:
    return Step(
        id="stack",
        title="make the stack from its configuration",
        meaning="Containers, networks and volumes are created as the Compose file says; nothing is started.",
        act=Act.STACK,
        phase=phase,
        replaces="getting the images from their registry, unless they are not here",
    )


def _database(one: Database, phase: Phase) -> tuple[Step, Step]:
    return (
        Step(
            id=f"restore-{one.service}",
            title=f"bring back the data of {one.service} {one.what}".rstrip(),
            meaning="The newest good copy is put in place, and what was logged since is replayed.",
            act=Act.RESTORE,
            phase=phase,
            subject=one.service,
        ),
        Step(
            id=f"start-{one.service}",
            title=f"start {one.service} and look at its data",
            meaning="It must be the cluster that was copied, and hold what was copied, before an application sees it.",
            act=Act.START,
            phase=phase,
            subject=one.service,
        ),
    )


def _application(name: str) -> Step:
    return Step(
        id=f"application-{name}",
        title=f"start {name}",
        meaning="An application starts when all that it needs is back and was looked at.",
        act=Act.APPLICATION,
        phase=Phase.RECOVER,
        subject=name,
    )


def _proof(facts: Facts) -> list[Step]:
    found = [
        Step(
            id=f"health-{name}",
            title=f"ask {name} how it is",
            meaning="The address that the plan names for its health must answer well.",
            act=Act.HEALTH,
            phase=Phase.PROVE,
            subject=name,
        )
        for name in facts.health
    ]
    found += [
        Step(
            id=f"checks-{name}",
            title=f"ask the plan's questions of {name}",
            meaning="Data that came back must give the right answers.",
            act=Act.CHECKS,
            phase=Phase.PROVE,
            subject=name,
        )
        for name in facts.checked
    ]
    if facts.flows:
        found.append(
            Step(
                id="flows",
                title=f"do what users do: {', '.join(facts.flows)}",
                meaning="Recovery ends when users can work again, not when a program has started.",
                act=Act.FLOWS,
                phase=Phase.PROVE,
            )
        )
    return found


_OTHERS: Final = Step(
    id="others",
    title="start the other services of the stack",
    meaning="Proxies, workers and jobs that the plan does not name belong to what users see.",
    act=Act.APPLICATION,
    phase=Phase.RECOVER,
)
_NEW_SERVER: Final = Step(
    id="new-server",
    title="get a new server with Docker and Recoup on it, the backup key and the repository's address",
    meaning="Nothing of the old server is left. Say done when you know which server it would be and have the key.",
    act=Act.ASK,
    phase=Phase.RECOVER,
    replaces="ordering and installing a server; the drill uses this one",
)
_STOP_WRITING: Final = Step(
    id="stop-writing",
    title="stop the applications, so that nothing more is written to the damaged database",
    meaning="Say done when you know how this is done in production. Do not do it.",
    act=Act.ASK,
    phase=Phase.RECOVER,
    replaces="stopping production",
)
_LET_USERS_IN: Final = Step(
    id="let-users-in",
    title="point the users to the new server: DNS, load balancer, certificates",
    meaning="Say done when you know who changes what. Do not change it.",
    act=Act.ASK,
    phase=Phase.PROVE,
    replaces="the change of the addresses, and the time that it takes to be seen everywhere",
)

#: What people do in a recovery; when nobody can be asked, it was not tested.
PEOPLE: Final = (_NEW_SERVER, _STOP_WRITING, _LET_USERS_IN)
