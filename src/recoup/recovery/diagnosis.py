"""What happened, judged by what can be seen, and what to type. Pure.

Most alarms at night are not disasters: a container that was stopped needs a start and no restore. So every guess is
held against its harmless neighbour, and what could not be looked at is never taken for lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from recoup.kernel.finding import Verdict

Engine = Literal["postgres", "redis", "files", "application"]

#: Where the data of a service are. ``there``: nothing is known against them. ``emptied``: a server runs without what
#: its copies hold. ``foreign``: they are not those that were copied. ``missing``: the place is gone.
Data = Literal["there", "emptied", "foreign", "missing", "unknown"]

Situation = Literal[
    "server-loss", "database-corruption", "data-loss", "redis-loss", "application-loss", "stopped", "nothing", "unknown"
]

#: Those that ``recoup recover`` knows the steps of (``recovery.runbook.RECOVERED``).
Runnable = Literal["server-loss", "database-corruption", "redis-loss", "application-loss"]

_RUN: Final = (
    "Looks once more, then asks before it stops or replaces anything; what is replaced is kept. With --plan it only "
    "shows its steps."
)
_KEPT: Final = "Nothing is overwritten: what is replaced is kept, and where is said."


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What was seen of one service. ``answers`` None: it could not be found out.

    ``state`` is its container's (``running``, ``exited``, ``missing`` …); None without Compose. ``damage`` names what
    the server itself says is broken. ``back_to`` is the newest instant one can go back to; ``loss`` its age.
    ``streamed``: what was written after the newest copy is in the repositories too. ``kinds`` are those of its copies.
    """

    service: str
    engine: Engine
    answers: bool | None
    state: str | None = None
    data: Data = "unknown"
    damage: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()  #: the plan's checks that have the wrong answer now
    unasked: tuple[str, ...] = ()  #: the plan's checks that could not be asked now
    fresh: bool = False  #: it is a cluster that was made after the newest copy, as a lost volume leaves behind
    detail: str = ""
    back_to: datetime | None = None
    loss: timedelta | None = None
    streamed: bool = False
    kinds: frozenset[str] = frozenset()
    compose_service: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Ok when it answers and nothing is known against its data."""
        if self.damage or self.wrong or self.answers is False or self.data in ("emptied", "foreign", "missing"):
            return Verdict.FAILED
        if self.answers is None or self.unasked or (self.engine in ("postgres", "redis") and self.data == "unknown"):
            return Verdict.UNKNOWN
        return Verdict.OK


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One command to type, and what it does."""

    command: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recover:
    """A run of ``recoup recover``. ``services`` are named when it is not all of those that the situation hurts."""

    situation: Runnable
    services: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """What to type."""
        return " ".join(("recoup recover", self.situation, *(f"--service {one}" for one in self.services)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The judgement. ``because`` are the symptoms it rests on, ``concerned`` the services to bring back."""

    situation: Situation
    because: tuple[str, ...]
    concerned: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()
    loss: timedelta | None = None  #: the largest of the services concerned; None when it is not known
    recover: Recover | None = None  #: the run that is among the advice, where there is one
    likely: timedelta | None = None  #: how long that run is likely to take until users are back; None: it is not known
    unmeasured: int = 0  #: how many of its steps until then were never measured, and are not in ``likely``

    @property
    def verdict(self) -> Verdict:
        """Ok when nothing is wrong, unknown when that could not be found out."""
        if self.situation == "nothing":
            return Verdict.OK
        return Verdict.UNKNOWN if self.situation == "unknown" else Verdict.FAILED


def diagnose(seen: Sequence[Seen]) -> Diagnosis:
    """Given what was seen of every service, in the order of recovery, say what happened: the widest that is true."""
    data = [one for one in seen if one.engine in ("postgres", "redis")]
    others = [one for one in seen if one not in data]
    lost = [one for one in data if one.data in ("missing", "emptied")]
    if data and all(one.data == "missing" for one in data) and all(one.state in ("missing", None) for one in seen):
        return _server_lost(data)
    if foreign := [one for one in data if one.data == "foreign"]:
        return _foreign(foreign)
    if damaged := [one for one in data if one.damage]:
        because = [f"{one.service}: {', '.join(one.damage)}" for one in damaged]
        return _restore(_damage_of(damaged), damaged, because, data)
    if lost:
        situation: Situation = "redis-loss" if all(one.engine == "redis" for one in lost) else "data-loss"
        return _restore(situation, lost, [_lost_text(one) for one in lost], data)
    if wrong := [one for one in data if one.wrong]:
        return _wrong(wrong)
    down = [one for one in data if one.answers is False]
    if broken := [one for one in down if one.data == "there" and one.state in ("restarting", "dead", "running")]:
        return _does_not_work(broken, data)
    if down:
        return _stopped(down)
    if bad := [one for one in others if one.answers is False]:
        return _application_lost(bad)
    if unknown := [one for one in seen if one.verdict is Verdict.UNKNOWN]:
        return Diagnosis(
            situation="unknown",
            because=tuple(
                f"{one.service}: {'; '.join(one.unasked) or one.detail or 'it could not be looked at'}"
                for one in unknown
            ),
            concerned=tuple(one.service for one in unknown),
        )
    return Diagnosis(situation="nothing", because=("every service answers, and its data are those that were copied",))


def _unknown_text(one: Seen) -> str:
    return "; ".join(one.unasked) or one.detail or "it could not be looked at"


def _lost_text(one: Seen) -> str:
    if one.fresh:
        return f"{one.service}: it runs on {one.detail}. A lost volume leaves that behind; so does an upgrade"
    if one.data == "emptied":
        return f"{one.service}: it runs and what was copied is not in it ({one.detail})"
    return f"{one.service}: its data are gone" + (f" ({one.detail})" if one.detail else "")


def _damage_of(damaged: Sequence[Seen]) -> Runnable:
    return "redis-loss" if all(one.engine == "redis" for one in damaged) else "database-corruption"


def _run_for(situation: Runnable, hurt: Sequence[Seen], data: Sequence[Seen]) -> Recover | None:
    """The run that brings these databases back; None where there is none for one of them.

    It needs a whole copy to go back to, and a Compose service to stop and start.
    """
    whole = {"postgres": "base", "redis": "rdb"}
    if not all(one.back_to and one.compose_service and whole[one.engine] in one.kinds for one in hurt):
        return None
    engine = "redis" if situation == "redis-loss" else "postgres"
    usual = {one.service for one in data if situation == "server-loss" or one.engine == engine}
    named = [one.service for one in hurt]
    return Recover(situation=situation, services=() if set(named) == usual else tuple(named))


def _server_lost(data: Sequence[Seen]) -> Diagnosis:
    run = _run_for("server-loss", data, data)
    stack = Advice(
        command="recoup restore --stack latest --to-time latest",
        meaning="Brings every service back in the plan's order, to the newest instant that all of them reach. "
        "Without streams leave out --to-time.",
    )
    return Diagnosis(
        situation="server-loss",
        because=("no container and no data of the stack are on this machine",),
        concerned=tuple(one.service for one in data),
        advice=(stack if run is None else Advice(command=run.command, meaning=_RUN),),
        loss=_worst(data),
        recover=run,
    )


def _foreign(foreign: Sequence[Seen]) -> Diagnosis:
    advice = (
        Advice(
            command="recoup show latest --service " + foreign[0].service,
            meaning="Shows which cluster the copies are of. Is this the right server, the right volume? If the cluster "
            "was replaced on purpose, take its first copy with --other-cluster. If not, restore with --force.",
        ),
    )
    return Diagnosis(
        situation="data-loss",
        because=tuple(f"{one.service}: its data are not those that were copied ({one.detail})" for one in foreign),
        concerned=tuple(one.service for one in foreign),
        advice=advice,
        loss=_worst(foreign),
    )


def _restore(situation: Situation, lost: Sequence[Seen], because: Sequence[str], data: Sequence[Seen]) -> Diagnosis:
    run = None
    if situation == "redis-loss" or situation == "database-corruption":
        run = _run_for(situation, lost, data)
    if run is not None:
        advice = [Advice(command=run.command, meaning=_RUN)]
    else:
        advice = [
            Advice(
                command=f"recoup hold incident --reason '{situation}'",
                meaning="Nothing expires until the incident is over.",
            )
        ]
        advice += [found for one in lost if (found := restore_of(one)) is not None]
    without = [one.service for one in lost if one.back_to is None]
    because = [*because, *(f"{name}: there is no copy to go back to that could be read" for name in without)]
    return Diagnosis(
        situation=situation,
        because=tuple(because),
        concerned=tuple(one.service for one in lost),
        advice=tuple(advice),
        loss=_worst(lost),
        recover=run,
    )


def restore_of(one: Seen) -> Advice | None:
    """The command that brings one service back as near to now as can be; None when there is nothing to go back to."""
    if one.back_to is None:
        return None
    # A server that somebody else runs is not replaced in place: its data folder is made beside it.
    elsewhere = "" if one.compose_service or one.engine == "redis" else " --destination /srv/restored"
    elsewhere += " --force" if one.fresh and one.compose_service else ""
    if one.engine == "files":
        command = f"recoup restore latest --service {one.service} --destination /srv/restored"
        return Advice(command=command, meaning="Its newest copy, to be put in place from there.")
    if one.streamed:
        command = f"recoup restore --service {one.service} --to-time latest{elsewhere}"
        return Advice(command=command, meaning=f"Its newest copy and all that was written since. {_KEPT}")
    if one.engine == "redis":
        return Advice(command=f"recoup restore latest --service {one.service}", meaning=f"Its newest copy. {_KEPT}")
    if "base" in one.kinds:
        command = f"recoup restore latest --service {one.service} --kind base{elsewhere}"
        return Advice(command=command, meaning=f"Its newest base backup. {_KEPT}")
    command = f"recoup restore latest --service {one.service} --kind dump"
    return Advice(command=command, meaning=f"Its newest dump, into a running server. {_KEPT}")


def _wrong(wrong: Sequence[Seen]) -> Diagnosis:
    """Rows are missing or changed. The newest copy may have the same fault: somebody has to say when it began."""
    advice = [Advice(command="recoup hold incident --reason data-loss", meaning="Nothing expires until this is over.")]
    for one in wrong:
        if one.streamed:
            command = f"recoup restore --service {one.service} --to-time 'BEFORE IT HAPPENED' --destination /srv/before"
            advice += [
                Advice(command="recoup windows", meaning="Every instant one can go back to."),
                Advice(command=command, meaning="As it was then, beside production, to compare and to take rows from."),
            ]
        else:
            advice.append(Advice(command=f"recoup list {one.service}", meaning="Copies from before it happened."))
    return Diagnosis(
        situation="data-loss",
        because=tuple(f"{one.service}: {text}" for one in wrong for text in one.wrong),
        concerned=tuple(one.service for one in wrong),
        advice=tuple(advice),
        loss=None,
    )


def _does_not_work(broken: Sequence[Seen], data: Sequence[Seen]) -> Diagnosis:
    """The data are there, the container is, and still it does not answer: look before anything is replaced."""
    looks = [
        Advice(
            command=f"docker compose logs --tail 50 {one.compose_service or one.service}",
            meaning="Its last words. A full disk, a wrong setting or too little memory need no restore; "
            "'invalid page', 'could not locate a valid checkpoint record' or 'Bad file format' do.",
        )
        for one in broken
    ]
    situation = _damage_of(broken)
    run = _run_for(situation, broken, data)
    if run is not None:
        restores = [Advice(command=run.command, meaning=_RUN)]
    else:
        restores = [found for one in broken if (found := restore_of(one)) is not None]
    return Diagnosis(
        situation=situation,
        because=tuple(f"{one.service}: it does not answer although it is there ({one.detail})" for one in broken),
        concerned=tuple(one.service for one in broken),
        advice=(*looks, *restores),
        loss=_worst(broken),
        recover=run,
    )


def _stopped(down: Sequence[Seen]) -> Diagnosis:
    named = " ".join(one.compose_service for one in down if one.compose_service)
    advice = (
        [Advice(command=f"docker compose up -d {named}", meaning="Starts it; nothing is restored.")] if named else []
    )
    for one in down:
        if not one.compose_service and (found := restore_of(one)) is not None:
            only = "Only when its data are gone or damaged: if its server is stopped, start it. "
            advice.append(Advice(command=found.command, meaning=only + found.meaning))
    return Diagnosis(
        situation="stopped",
        because=tuple(f"{one.service}: it does not answer ({one.detail})" for one in down),
        concerned=tuple(one.service for one in down),
        advice=tuple(advice),
    )


def _application_lost(bad: Sequence[Seen]) -> Diagnosis:
    named = " ".join(one.compose_service for one in bad if one.compose_service)
    advice = [found for one in bad if one.engine == "files" and (found := restore_of(one)) is not None]
    if named:
        advice += [
            Advice(command=f"docker compose logs --tail 50 {named}", meaning="Why it does not run."),
            Advice(command=f"docker compose up -d {named}", meaning="Makes and starts its containers again."),
        ]
    run = Recover(situation="application-loss") if named else None
    if run is not None:
        only = "When a start is not enough: its source, environment and images come back as they were recorded. "
        advice.append(Advice(command=run.command, meaning=only + _RUN))
    return Diagnosis(
        situation="application-loss",
        because=tuple(f"{one.service}: {one.detail or 'it is not healthy'}; the databases are well" for one in bad),
        concerned=tuple(one.service for one in bad),
        advice=tuple(advice),
        recover=run,
    )


def _worst(several: Sequence[Seen]) -> timedelta | None:
    known = [one.loss for one in several if one.loss is not None]
    return max(known) if known and len(known) == len(several) else None
