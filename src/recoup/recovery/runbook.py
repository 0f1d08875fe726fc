"""Which steps bring a stack back, for each situation. One pure function: dry run, runbook, drill and run use it.

A drill and a recovery have the same steps between the loss and the users at work. What surrounds them differs: a drill
first builds what the disaster would have left standing; a recovery stops what runs, sets aside what it replaces, and
takes protection up again afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from recoup.kernel.errors import UsageError
from recoup.recovery import runbook_steps as make
from recoup.recovery.step import Phase, Step, Where

Situation = Literal[
    "database-corruption", "server-loss", "data-loss", "redis-loss", "application-loss", "security-breach"
]

#: What a drill can rehearse.
REHEARSED: Final[tuple[Situation, ...]] = (
    "server-loss",
    "data-loss",
    "database-corruption",
    "redis-loss",
    "application-loss",
)
#: What ``recoup recover`` carries out.
RECOVERED: Final[tuple[Situation, ...]] = ("database-corruption", "server-loss", "redis-loss", "application-loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database. ``what`` is from what it comes back, for people; ``replaces`` what is in its place now.

    ``at_once``: its data are put in place by one act, not unpacked beside the old ones first. ``by_hand``: its server
    is not Recoup's to stop and start, so its data are unpacked into a folder, and a person lets the server use that.
    """

    service: str
    engine: str
    what: str
    replaces: str = ""
    at_once: bool = False
    by_hand: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the list of steps rests on. Everything is in the order of recovery.

    ``compose``: the stack is a Compose project. ``people``: somebody is there who can be asked. ``hurt`` are the
    databases that have to come back; empty, it follows from the situation.
    """

    files: tuple[str, ...] = ()
    databases: tuple[Database, ...] = ()
    applications: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    checked: tuple[str, ...] = ()  #: services with questions in the plan
    flows: tuple[str, ...] = ()
    compose: bool = True
    people: bool = False
    hurt: tuple[str, ...] = ()
    stopped: tuple[str, ...] = ()  #: Compose services that have to stand still, in the order in which they stop
    source: str = ""  #: what the stack's source is cloned from; empty when it has none
    images: tuple[str, ...] = ()  #: Compose services whose images were recorded
    names: Mapping[str, str] = field(default_factory=dict)  #: Compose services by their names in the plan

    def compose_name(self, service: str) -> str:
        """What the Compose project calls a service of the plan."""
        return self.names.get(service, service)


def steps_of(situation: Situation, facts: Facts, where: Where = "sandbox") -> tuple[Step, ...]:
    """The steps that bring the stack back after ``situation``, in a drill or in production.

    Raise ``UsageError`` for a situation that is not rehearsed, or not recovered from by steps.
    """
    known = REHEARSED if where == "sandbox" else RECOVERED
    if situation not in known:
        done = "rehearsed" if where == "sandbox" else "recovered from by `recoup recover`"
        option = " Say --situation." if where == "sandbox" else ""
        raise UsageError(f"{situation} cannot be {done} yet", hint=f"What can be: {', '.join(known)}.{option}")
    found = _sandbox(situation, facts) if where == "sandbox" else _production(situation, facts)
    return tuple(found)


def lost_of(situation: Situation, facts: Facts) -> tuple[Database, ...]:
    """The databases that come back in a recovery from ``situation``."""
    if facts.hurt:
        return tuple(one for one in facts.databases if one.service in facts.hurt)
    engine = {"database-corruption": "postgres", "redis-loss": "redis"}.get(situation)
    if situation == "application-loss":
        return ()
    return tuple(one for one in facts.databases if engine in (None, one.engine)) or facts.databases


def _sandbox(situation: Situation, facts: Facts) -> list[Step]:
    lost = lost_of(situation, facts)
    standing = [one for one in facts.databases if one not in lost]
    server = Phase.RECOVER if situation in ("server-loss", "application-loss") else Phase.PREPARE
    data = Phase.RECOVER if situation == "application-loss" else Phase.PREPARE
    found: list[Step] = []
    if situation == "server-loss" and facts.people:
        found.append(make.NEW_SERVER)
    found += [make.files(name, server) for name in facts.files]
    if facts.compose:
        found.append(make.stack(server))
    found += [step for one in standing for step in _database(one, facts, data)]
    if situation == "database-corruption" and facts.people:
        found.append(make.STOP_WRITING)
    found += [step for one in lost for step in _database(one, facts, Phase.RECOVER)]
    found += _applications(facts)
    found += _proof(facts)
    if situation == "server-loss" and facts.people:
        found.append(make.KNOW_HOW_TO_LET_USERS_IN)
    return found


def _production(situation: Situation, facts: Facts) -> list[Step]:
    lost = lost_of(situation, facts)
    found: list[Step] = [make.hold(situation)]
    match situation:
        case "server-loss":
            found += [make.machine(), *_project(facts)]
        case "application-loss":
            found += [make.confirm(situation), *_project(facts)]
        case _:
            found.append(make.confirm(situation))
    found += [make.choose(one.service, one.what) for one in lost]
    if facts.stopped and lost:
        found.append(make.stop(facts.stopped))
    # From what is known only when it was chosen: the newest may turn out not to be the one.
    found += [make.restore(one.service, "") for one in lost if not one.at_once]
    found += [make.place(one.service) if one.by_hand else make.swap(one.service, one.replaces) for one in lost]
    started = facts.databases if situation in ("server-loss", "application-loss") else lost
    found += [make.start(one.service, facts.compose_name(one.service)) for one in started]
    found += _applications(facts)
    found += _proof(facts)
    if situation == "server-loss":
        found.append(make.LET_USERS_IN)
    found += [make.protect(one.service, one.engine) for one in lost]
    found.append(make.checklist())
    return found


def _project(facts: Facts) -> list[Step]:
    """The application: its source, over it the kept files, its images, and its containers."""
    found = [make.source(facts.source)] if facts.source else []
    found += [make.files(name, Phase.RECOVER) for name in facts.files]
    if facts.compose and facts.images:
        found.append(make.images(facts.images))
    if facts.compose:
        found.append(make.stack(Phase.RECOVER))
    return found


def _database(one: Database, facts: Facts, phase: Phase) -> Sequence[Step]:
    swap = [make.swap(one.service, "", phase)] if facts.compose else []
    restore = [] if one.at_once else [make.restore(one.service, one.what, phase)]
    return (*restore, *swap, make.start(one.service, facts.compose_name(one.service), phase))


def _applications(facts: Facts) -> list[Step]:
    found = [make.application(name, facts.compose_name(name)) for name in facts.applications]
    return [*found, make.OTHERS] if facts.compose else found


def _proof(facts: Facts) -> list[Step]:
    found = [make.health(name) for name in facts.health]
    found += [make.checks(name) for name in facts.checked]
    return [*found, make.flows(facts.flows)] if facts.flows else found


#: What people do in a drill; when nobody can be asked, it was not tested.
PEOPLE: Final = (make.NEW_SERVER, make.STOP_WRITING, make.KNOW_HOW_TO_LET_USERS_IN)
