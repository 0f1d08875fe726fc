"""From what a drill did and saw to its record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from recoup.assembly.access import Found
from recoup.assembly.drill.members import Chosen, copies_of, service_of
from recoup.assembly.protect.heartbeats import Beat
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.drill.measure import Promised, measure_rto
from recoup.drill.model import Rpo, Rto, Step, UsedCopy
from recoup.kernel import clock
from recoup.kernel.finding import Finding, Verdict
from recoup.plan.model import Plan
from recoup.plan.services import PostgresService, Service
from recoup.recovery.step import Phase, StepRun
from recoup.repository.manifest import to_body

if TYPE_CHECKING:
    from recoup.engines.postgres.recovery_script import Reached
    from recoup.engines.postgres.wal_windows import Base


#: How far the clocks of a server and of what logs its changes may be apart.
_CLOCKS: Final = timedelta(seconds=1)
#: From which base backup a recovery to an instant began, and where it stopped.
Outcome = tuple["Base", "Reached"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Newest:
    """The newest surviving record of a service, and how that is known. ``at`` None: it is not known."""

    at: datetime | None
    how: str


def steps_of(runs: Sequence[StepRun]) -> tuple[Step, ...]:
    """The steps as they went."""
    return tuple(
        Step(
            key=one.step.id,
            title=one.step.title,
            kind=one.step.kind,
            verdict=one.verdict,
            started=one.started,
            ended=None if one.started is None else one.started + timedelta(seconds=one.seconds),
            waiting=timedelta(seconds=one.waited),
            service=one.step.subject,
            detail=one.detail,
            hint=one.hint,
        )
        for one in runs
    )


def rto_of(runs: Sequence[StepRun], declared: datetime, plan: Plan) -> Rto:
    """From the declaration to the end of the last step. Times are by a clock that nobody sets."""
    counted = [one for one in runs if one.step.phase is not Phase.PREPARE]
    promised = {
        name: Promised(objective=plan.objective(name), tier=service.tier) for name, service in plan.services.items()
    }
    done = bool(counted) and all(one.verdict is Verdict.OK for one in counted)
    began = next((one for one in counted if one.started is not None), None)
    healthy, jumped = None, timedelta(0)
    if began is not None and began.started is not None and counted[-1].ended is not None:
        took = timedelta(seconds=sum(one.seconds for one in counted))
        jumped = (counted[-1].ended - began.started) - took
        # What lies between two steps is ours, and small; a large difference means that somebody set the clock.
        jumped = jumped if abs(jumped) > timedelta(seconds=1) else timedelta(0)
        healthy = declared + took if done else None
    return measure_rto(
        declared,
        healthy,
        promised,
        waiting=timedelta(seconds=sum(one.waited for one in counted)),
        clock_jumped=jumped,
    )


def rpo_of(
    chosen: Chosen,
    outcomes: Mapping[str, Outcome],
    beats: Mapping[str, Beat],
    declared: datetime,
    plan: Plan,
    services: Sequence[str],
) -> tuple[Rpo, ...]:
    """How much of each database's data, as time, did not survive. ``services`` are those that came back.

    It is the age of the newest heartbeat in it. Where there is none, it is that of whatever else is known to be its
    newest record, and that is said.
    """
    found = []
    for one in chosen.databases:
        name = service_of(one)
        newest = newest_of(one, outcomes.get(name), came_back=name in services)
        if newest.at is not None:
            newest = by_heartbeat(newest, plan.services[name], beats.get(name, Beat()))
        until = declared if chosen.instant is None else chosen.instant
        measured = None if newest.at is None else max(until - newest.at, timedelta(0))
        how = newest.how if chosen.instant is None else f"{newest.how}; counted to the instant that was asked for"
        found.append(
            Rpo(
                service=name,
                measured=measured,
                objective=plan.objective(name).rpo,
                how=how,
                tier=plan.services[name].tier,
                newest=newest.at,
            )
        )
    return tuple(found)


def by_heartbeat(known: Newest, service: Service, beat: Beat) -> Newest:
    """The newest record of a service as its heartbeat says, where the plan asks for one; else as it is known."""
    if not getattr(service, "heartbeat", False):
        return known
    what = "row" if isinstance(service, PostgresService) else "key"
    if beat.at is None:
        return Newest(at=known.at, how=f"{known.how}, for want of a heartbeat {what}: {beat.why}")
    later = "" if known.at is None or known.at <= beat.at else f"; {known.how}: {clock.to_text(known.at)}"
    return Newest(at=beat.at, how=f"heartbeat {what}{later}")


def not_past(chosen: Chosen, beats: Mapping[str, Beat]) -> tuple[Finding, ...]:
    """For databases that went back to an instant: that nothing from after it is there, by what the heartbeat says."""
    if chosen.instant is None:
        return ()
    found = []
    for name, beat in beats.items():
        if beat.at is not None:
            past = beat.at > chosen.instant + _CLOCKS
            found.append(
                Finding(
                    check="nothing from after the instant came back",
                    subject=name,
                    verdict=Verdict.FAILED if past else Verdict.OK,
                    detail=f"the newest heartbeat is of {clock.to_text(beat.at)}",
                    hint="The recovery went further than was asked; look at its log." if past else None,
                )
            )
    return tuple(found)


def newest_of(member: Found | TimedMember, outcome: Outcome | None, *, came_back: bool) -> Newest:
    """The newest record of a service that survived."""
    if not came_back:
        return Newest(at=None, how="it was not brought back")
    if isinstance(member, Found):
        return Newest(at=member.manifest.ended, how="end of the copy")
    from recoup.assembly.restore.postgres_moment import PostgresMoment
    from recoup.assembly.restore.redis_moment import RedisTarget

    if isinstance(member.moment, PostgresMoment):
        if outcome is None:
            return Newest(at=None, how="it was not brought back")
        base, reached = outcome
        if reached.last_commit is not None:
            return Newest(at=reached.last_commit, how="last commit that was replayed")
        return Newest(at=base.time, how="end of the copy; nothing was committed after it")
    target = member.moment
    assert isinstance(target, RedisTarget), "only databases have moments"
    if target.holdings.entries:
        return Newest(at=target.target, how="end of the command stream")
    return Newest(at=target.found.manifest.ended, how="end of the copy")


def used_copies(chosen: Chosen, outcomes: Mapping[str, Outcome]) -> tuple[UsedCopy, ...]:
    """The copies that were restored."""
    used = list(chosen.files)
    for one in chosen.databases:
        candidates = copies_of(one)
        outcome = outcomes.get(service_of(one))
        wanted = None if outcome is None else outcome[0].id
        used.append(next((copy for copy in candidates if copy.manifest.id == wanted), candidates[0]))
    return tuple(_used(one) for one in used)


def _used(found: Found) -> UsedCopy:
    body = json.dumps(to_body(found.manifest), sort_keys=True, separators=(",", ":")).encode()
    return UsedCopy(
        service=found.manifest.service,
        kind=found.manifest.kind,
        id=found.manifest.id,
        at=found.manifest.ended,
        digest=hashlib.sha256(body).hexdigest(),
    )


def declared_at(runs: Sequence[StepRun]) -> datetime:
    """The instant of the declaration: when the first step began that the disaster would ask for."""
    counted = (one.started for one in runs if one.step.phase is not Phase.PREPARE and one.started is not None)
    begun = (one.started for one in runs if one.started is not None)
    return next(counted, None) or next(begun, None) or clock.now()
