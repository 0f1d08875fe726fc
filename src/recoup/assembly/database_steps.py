"""What the steps of a runbook do to a Compose stack: the same in a drill's sandbox and in production.

Who calls them says first whether it may be done here: a drill holds its destination against production, a recovery asks
for the word of a person.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.drill.record import Outcome
from recoup.assembly.postgres import postgres_place
from recoup.assembly.protect.heartbeats import Beat, in_postgres, in_redis
from recoup.assembly.prove_stack import ServerOfPlan
from recoup.assembly.redis import redis_place
from recoup.assembly.restore.homes import IDENTITY
from recoup.assembly.restore.recovered_home import RecoveredHome
from recoup.assembly.restore.runs import StackRun
from recoup.assembly.restore.stack import FoundStack, StackJob, place_copy, place_in_folder
from recoup.assembly.restore.stack_moment import TimedMember, in_volume
from recoup.assembly.restore.surroundings import Surroundings
from recoup.assembly.stack import Stack
from recoup.assembly.system import System
from recoup.assembly.voice import Ask, Voice
from recoup.kernel import clock
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict
from recoup.plan.services import PostgresService
from recoup.recovery.in_place import Consent
from recoup.recovery.stack_in_place import Member, OpenMember, VolumeMember
from recoup.recovery.step import Done, Step

#: How long a database may take until it is well: it may have to work through a crash first.
WELL_SECONDS: Final = 180.0


def place_member(
    member: Found | TimedMember,
    opened: Readable,
    system: System,
    voice: Voice,
    scope: contextlib.ExitStack,
    consent: Consent | None = None,
) -> Member:
    """Where a database goes, as in a restore of the whole stack. ``scope`` keeps what is built on the way.

    Raise ``UsageError`` when the plan has no place for it.
    """
    if isinstance(member, TimedMember):
        return in_volume(member, opened, system, voice.say, voice.on_progress, scope, consent)
    run = StackRun(opened.state_folder, "step", "where the services live")
    return place_copy(_job(member, opened, voice, consent), system, member, run)


def place_beside(member: Found | TimedMember, opened: Readable, voice: Voice, folder: Path) -> OpenMember:
    """Where a database goes whose server a person will let use ``folder``."""
    return place_in_folder(_job(member, opened, voice, None), member, folder)


def _job(member: Found | TimedMember, opened: Readable, voice: Voice, consent: Consent | None) -> StackJob:
    return StackJob(
        opened=opened,
        found=FoundStack(key="step", name="step", point=None, members=(member,), without=()),
        destination=None,
        consent=consent or Consent(),
        command="",
        say=voice.say,
        on_progress=voice.on_progress,
    )


def outcome_of(member: VolumeMember) -> Outcome | None:
    """Where the recovery to an instant stopped that was staged for this member; None when there was none here."""
    home = member.home
    return home.outcome[-1] if isinstance(home, RecoveredHome) and home.outcome else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedAt:
    """What a look at the data of a database gave. ``not_compared`` could not be told, and is said as not tested."""

    findings: tuple[Finding, ...]
    not_compared: tuple[str, ...]


def compared(service: str, findings: Sequence[Finding]) -> LookedAt:
    """What a look at the data of a database that was just started says. Is it the one that was copied, whole?

    One that was in use while it was copied has no exact fingerprint: its content is not compared then. What proves the
    data are the proofs of the copy, the digest of every byte, and the plan's checks and flows.
    """
    open_ = [one for one in findings if one.verdict is Verdict.UNKNOWN and one.check != IDENTITY]
    return LookedAt(
        findings=tuple(one for one in findings if one not in open_),
        not_compared=tuple(f"{service}: {one.check}: {one.detail}" for one in open_),
    )


def beat_of(system: System, service: str) -> Beat:
    """The newest heartbeat in a database of the stack that was just started, before anything else writes to it."""
    described = system.plan.services[service]
    if not getattr(described, "heartbeat", False):
        return Beat(why="the plan asks for none")
    if isinstance(described, PostgresService):
        return in_postgres(ServerOfPlan(postgres_place(system, service)))
    return in_redis(redis_place(system, service))


def swapped(kept: str | None) -> Done:
    """What to say of data that changed places; ``kept`` is where the old ones are."""
    return Done(detail="there was nothing to set aside" if kept is None else f"set aside: {kept}")


def start_others(around: Surroundings, services: Collection[str]) -> Done:
    """Start what does not run of ``services``, in order. A job that nobody waits for may end, and end well."""
    others = around.in_order(set(services) - around.running())
    for name in others:
        try:
            around.start([name])
        except EngineError:
            # A job that nobody waits for has ended when it is looked at. Others must be well.
            ended = around.stack.client.of_service(name)
            if not ended or not all(around.stack.client.is_over(one) for one in ended):
                raise
    return Done(detail=", ".join(others) or "there is no other")


def runs_well(stack: Stack, compose: str | None, subject: str) -> Sequence[Finding]:
    """What was started must still be well when the next step begins. ``compose`` None: all of the stack."""
    client = stack.client
    found = client.of_service(compose) if compose is not None else client.containers()
    bad = [one for one in found if not one.well and not client.is_over(one)]
    return (
        Finding(
            check="it runs and is healthy",
            subject=subject or "the stack",
            verdict=Verdict.FAILED if bad or not found else Verdict.OK,
            detail=", ".join(f"{one.service} {one.state} {one.health or ''}".strip() for one in bad or found),
        ),
    )


def ask_person(step: Step, ask: Ask | None) -> Done:
    """Let a person do the step, and wait. Nobody there to ask: it is not known whether it was done."""
    began = clock.monotonic()
    answer = None if ask is None else ask(step)
    waited = clock.monotonic() - began
    verdict = {True: Verdict.OK, False: Verdict.FAILED, None: Verdict.UNKNOWN}[answer]
    said = {True: "done", False: "it could not be done", None: "nobody could be asked"}[answer]
    finding = Finding(check="the person who does it was there", subject=step.title, verdict=verdict, detail=said)
    return Done(findings=(finding,), waited=waited)
