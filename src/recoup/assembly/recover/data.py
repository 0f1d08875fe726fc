"""The steps of a recovery that stop, replace and start what runs. Each of them can be repeated after a kill.

What one step tells another is in the journal: which copy was chosen (``choose-SERVICE``), under which id it is put in
place (``restore-SERVICE``, ``swap-SERVICE``), where the old data are kept. The place itself says how far it came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from recoup.assembly.access import Found
from recoup.assembly.database_steps import (
    WELL_SECONDS,
    ask_person,
    beat_of,
    compared,
    outcome_of,
    place_member,
    runs_well,
    start_others,
    swapped,
)
from recoup.assembly.drill.compose import taking_part
from recoup.assembly.drill.members import what_of
from recoup.assembly.drill.record import Newest, by_heartbeat, newest_of
from recoup.assembly.protect import hold as holds
from recoup.assembly.recover.another import choosing_another
from recoup.assembly.recover.clock_look import clock_finding
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.elsewhere import look_at_server, restore_beside
from recoup.assembly.recover.member import member_of
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.assembly.restore.surroundings import Surroundings
from recoup.assembly.stack import Stack, open_stack
from recoup.drill.codec import decode
from recoup.engines.compose.one_off import remove_leftovers
from recoup.engines.postgres.volume_script import BACK
from recoup.kernel import clock
from recoup.kernel.errors import RefusedError, UnknownFormatError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.attained import runbook_of
from recoup.recovery.in_place import Consent, Occupant, decide
from recoup.recovery.progress import has_replaced, nothing_chosen
from recoup.recovery.runbook import Database, Facts, lost_of
from recoup.recovery.stack_in_place import Member, OpenMember, VolumeMember
from recoup.recovery.step import Act, Done, Step
from recoup.repository.lease import hold_lease

#: How long a database whose data are replaced may take to stop: enough to send its last WAL to who reads it.
_LOST_SECONDS: Final = 20
#: Acts that have containers of their own in the engine.
_IN_THE_STACK: Final = (Act.RESTORE, Act.SWAP, Act.START)


def hold_name(run: str) -> str:
    """The hold of a run, in every repository until the run is closed."""
    return f"recovery-{run}"


def ask(recovery: Recovery, step: Step) -> Done:
    """A person does it, and says so."""
    if step.subject and nothing_chosen(recovery.progress, step.subject):
        return _left(step.subject)
    folder = recovery.learned(f"restore-{step.subject}").get("folder")
    told = step if folder is None else replace(step, meaning=f"{step.meaning} The restored folder is {folder}.")
    return ask_person(told, recovery.voice.ask)


def hold(recovery: Recovery, step: Step) -> Done:  # noqa: ARG001
    """Nothing expires in a repository that answers, until the run is closed."""
    name = hold_name(recovery.run)
    outcome = holds.hold(recovery.system, name, reason=f"recovery from {recovery.wish.situation}", since=None)
    failed = {where: failure for where, failure in outcome.items() if failure is not None}
    if len(failed) == len(outcome):
        raise next(iter(failed.values()))
    findings = tuple(
        Finding(
            check="nothing expires while the recovery lasts",
            subject=where,
            verdict=Verdict.OK if failure is None else Verdict.UNKNOWN,
            detail=f"held by {name}" if failure is None else failure.message,
            hint=None if failure is None else f"When it answers again: recoup hold {name} --reason recovery.",
        )
        for where, failure in outcome.items()
    )
    # A wrong clock is seen here, before anything is done by it: what expires, and which copy is the newest.
    findings += (clock_finding(recovery.opened, recovery.system),)
    return Done(findings=findings, detail=f"held by {name}", data={"hold": name})


def stop(recovery: Recovery, step: Step) -> Done:  # noqa: ARG001
    """Stop what must not write, the applications first."""
    facts = facts_of_run(recovery)
    services = facts.stopped
    for one in lost_of(recovery.wish.situation, facts):
        _require_place(recovery, one)
    lost = {facts.compose_name(one.service) for one in lost_of(recovery.wish.situation, facts)}
    client = open_stack(recovery.system).client
    client.stop([one for one in services if one not in lost])
    # What a damaged server has not written by then it never will, and its data are set aside as they are.
    client.stop([one for one in services if one in lost], grace_seconds=_LOST_SECONDS)
    return Done(detail=f"stopped: {', '.join(services)}")


def all_stopped(recovery: Recovery) -> bool:
    """Whether everything stands still that has to."""
    stopped = facts_of_run(recovery).stopped
    found = [one for one in open_stack(recovery.system).client.containers() if one.service in stopped]
    return all(one.state in ("created", "exited", "dead") for one in found)  # one that is restarting comes again


def restore(recovery: Recovery, step: Step) -> Done:
    """Unpack the copy beside the old data. One that was cut off begins anew: nothing of it counts before its end."""
    if nothing_chosen(recovery.progress, step.subject):
        return _left(step.subject)
    if by_hand(recovery, step.subject):
        with choosing_another(recovery, step.subject):
            return restore_beside(recovery, step.subject, _chosen(recovery, step.subject))
    with _reading(recovery, step), _alone(recovery, step):
        chosen, member = _placed(recovery, step.subject)
        assert isinstance(member, VolumeMember), "what is put in place by one act has no such step"
        _stand_still(recovery)
        occupant = member.home.look()
        placement = recovery.placement(member.artefact_id)
        if occupant.placed == placement:
            # The journal lacks its last lines: the swap was done. Unpacked again, it would be swapped with itself, and
            # there is one place for what a placement sets aside.
            newest = newest_of(chosen, outcome_of(member), came_back=True)
            return Done(detail="it is in place already", data={"placement": placement, **_newest(newest)})
        begun_before = recovery.progress.steps[step.id].attempts > 1
        if begun_before and occupant.unfinished is None and member.discard is not None:
            member.discard(placement)  # half a copy takes the room that the whole one needs
            occupant = member.home.look()
        _require_account(recovery, member, occupant, placement)
        if occupant.unfinished is None:  # else it is complete, and was about to be put in place
            member.home.stage(member.reader, placement, recovery.voice.on_progress)
        newest = newest_of(chosen, outcome_of(member), came_back=True)
        return Done(
            findings=tuple(member.staged()),
            detail=member.what,
            data={"placement": occupant.unfinished or placement, **_newest(newest)},
        )


def swap(recovery: Recovery, step: Step) -> Done:
    """Set the old data aside and the new in place. One that was done already is not done again."""
    if nothing_chosen(recovery.progress, step.subject):
        return _left(step.subject)
    chosen, member = _placed(recovery, step.subject)
    if isinstance(member, OpenMember):
        with choosing_another(recovery, step.subject):
            return _put(member)
    with _reading(recovery, step) if member.at_once else contextlib.nullcontext(), _alone(recovery, step):
        _stand_still(recovery)
        placement = str(recovery.learned(f"restore-{step.subject}").get("placement", ""))
        placement = placement or recovery.placement(member.artefact_id)
        occupant = member.home.look()
        if occupant.placed != placement:
            _require_account(recovery, member, occupant, placement)
            ours = placement in (occupant.unfinished, occupant.begun)
            if occupant.what is not None and not ours and not step.replaces and not recovery.wish.force:
                raise RefusedError(
                    f"{occupant.place} holds {occupant.what}, and when the run began there was nothing to replace",
                    hint="Look what it is. If it may be set aside, say --force, or begin a new run.",
                )
            if member.at_once:
                member.home.stage(member.reader, placement, recovery.voice.on_progress)
        kept = member.home.swap(placement)
        data = {"placement": placement, "kept": kept}
        if member.at_once:
            data |= _newest(newest_of(chosen, None, came_back=True))
        return replace(swapped(kept), data=data)


def start(recovery: Recovery, step: Step) -> Done:
    """Start a database, and look whether it holds what was put there, before an application sees it."""
    service = step.subject
    if not _has_address(recovery, service):
        open_stack(recovery.system).client.start([_compose_name(recovery, service)], seconds=WELL_SECONDS)
    if nothing_chosen(recovery.progress, service):
        return _left(service)
    if not recovery.learned(f"choose-{service}"):
        return Done(detail="its data were not lost")
    if by_hand(recovery, service):
        chosen = _chosen(recovery, service)
        seen, what = compared(service, look_at_server(recovery, service, chosen)), what_of(chosen)
    else:
        member = _placed(recovery, service)[1]
        looked = member.home.check(member.reader) if isinstance(member, VolumeMember) else ()
        seen, what = compared(service, looked), member.what
    newest = by_heartbeat(
        _known(recovery, service),
        recovery.system.plan.services[service],
        beat_of(recovery.system, service),
    )
    data = {"not_compared": list(seen.not_compared), **_newest(newest)}
    return Done(findings=seen.findings, detail=what, data=data)


def application(recovery: Recovery, step: Step) -> Done:
    """Start an application; without a subject, everything else that ran before."""
    stack = open_stack(recovery.system)
    around = Surroundings(plan=recovery.system.plan, stack=stack)
    if step.subject:
        around.start([_compose_name(recovery, step.subject)])
        return Done()
    return start_others(around, _others(recovery, stack))


def after(recovery: Recovery, step: Step) -> Sequence[Finding]:
    """Look at what a step did: what was stopped stands still, what was started is well."""
    if step.act is Act.STOP:
        still = all_stopped(recovery)
        return (
            Finding(
                check="none of them runs",
                subject="the stack",
                verdict=Verdict.OK if still else Verdict.FAILED,
                detail="all stand still" if still else "something starts them again",
                hint=None if still else "Look for a supervisor or a second Compose project.",
            ),
        )
    if step.act not in (Act.START, Act.APPLICATION) or _has_address(recovery, step.subject):
        return ()
    stack = open_stack(recovery.system)
    if step.subject:
        return runs_well(stack, _compose_name(recovery, step.subject), step.subject)
    wanted = {*_others(recovery, stack)}
    return [one for name in sorted(wanted) for one in runs_well(stack, name, name)]


def fence(recovery: Recovery, step: Step) -> None:
    """End what an earlier process of this run left in the container engine: two must not write the same data."""
    if step.act in _IN_THE_STACK:
        fence_stack(recovery)


def fence_run(recovery: Recovery) -> None:
    """As ``fence``, for all steps at once; where none of them has used a container engine, none is needed."""
    begun = {name for name, one in recovery.progress.steps.items() if one.attempts}
    try:
        used = any(one.id in begun and one.act in _IN_THE_STACK for one in runbook_of(recovery.journal.lines))
    except UnknownFormatError:  # a newer Recoup has begun it, with steps that are not known here: they may have
        used = bool(begun)
    if used:
        fence_stack(recovery)


def fence_stack(recovery: Recovery) -> None:
    """Remove the containers that earlier processes of this or another run have left beside the services."""
    if recovery.system.plan.compose is not None:
        remove_leftovers(open_stack(recovery.system).client)


def facts_of_run(recovery: Recovery) -> Facts:
    """What the run's list of steps rests on, as it was when the run began."""
    return decode(Facts, recovery.frozen("facts"))


# -- parts -------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(recovery: Recovery, step: Step) -> Iterator[None]:
    """No copy of the service is taken, and no other restore goes on, while its data are replaced."""
    with hold_lease(recovery.opened.state_folder, step.subject, f"recovery of {step.subject}"):
        yield


@contextlib.contextmanager
def _reading(recovery: Recovery, step: Step) -> Iterator[None]:
    """What was chosen is unpacked; where it is damaged another is chosen, unless its data may be in place by now."""
    swapped_before = step.act is Act.RESTORE and has_replaced(recovery.progress, step.subject)
    with contextlib.nullcontext() if swapped_before else choosing_another(recovery, step.subject):
        yield


def _left(service: str) -> Done:
    """Who leaves the choice out means this database: the others come back. The run as a whole is *unknown* then."""
    return Done(detail=f"nothing was chosen that {service} could go back to: its data stay as they are")


def _chosen(recovery: Recovery, service: str) -> Found | TimedMember:
    """What was chosen for a service. Raise ``RefusedError`` when nothing was."""
    chosen: Any = recovery.learned(f"choose-{service}")
    if not chosen:
        raise RefusedError(
            f"nothing was chosen that {service} could go back to",
            hint=f"The step choose-{service} was left out. Begin a new run, and let it choose.",
        )
    return member_of(recovery.opened, chosen)


def _placed(recovery: Recovery, service: str) -> tuple[Found | TimedMember, Member]:
    """What was chosen for a service, and where it goes."""
    member = _chosen(recovery, service)
    consent = Consent(force=recovery.wish.force)
    place = place_member(member, recovery.opened, recovery.system, recovery.voice, recovery.scope, consent)
    return member, place


def by_hand(recovery: Recovery, service: str) -> bool:
    """Whether a person puts what is restored of a service in place."""
    return any(one.by_hand for one in facts_of_run(recovery).databases if one.service == service)


def _has_address(recovery: Recovery, service: str) -> bool:
    return getattr(recovery.system.plan.services.get(service), "url", None) is not None


def place_of(recovery: Recovery, service: str) -> Member:
    """Where what was chosen for a service goes. Raise ``RefusedError`` when nothing was chosen."""
    return _placed(recovery, service)[1]


def _require_account(recovery: Recovery, member: VolumeMember, occupant: Occupant, placement: str) -> None:
    """What is there must be accounted for. That it may be replaced was asked for, or will be before it is."""
    if occupant.unfinished is not None and occupant.unfinished.endswith(BACK):
        raise RefusedError(
            f"{occupant.place}: putting the old data back was interrupted in the middle",
            hint="Finish that first: recoup recover --rollback. Old and new data are both there.",
        )
    decide(
        occupant,
        identity=member.identity,
        artefact_id=placement.partition(".")[0],
        needed_bytes=member.home.needs_bytes(member.reader) if _stages(recovery, member) else 0,
        consent=Consent(force=recovery.wish.force, yes=True),
    )


def _require_place(recovery: Recovery, database: Database) -> None:
    """What a restore would refuse is refused while users still have what works: nothing was stopped yet.

    A Redis is only known after its stream was replayed, which is not done twice for that; it is looked at in its swap.
    """
    if database.by_hand or database.at_once or not recovery.learned(f"choose-{database.service}"):
        return
    member = _placed(recovery, database.service)[1]
    assert isinstance(member, VolumeMember), "what is put in place by one act is not unpacked before"
    occupant, placement = member.home.look(), recovery.placement(member.artefact_id)
    if occupant.placed != placement:
        _require_account(recovery, member, occupant, placement)


def _stages(recovery: Recovery, member: VolumeMember) -> bool:
    """Whether the copy is still to be unpacked, and so needs its room."""
    return member.at_once or not recovery.learned(f"restore-{member.service}")


def _put(member: OpenMember) -> Done:
    """A server with an address takes the copy in by itself, and gives its old data back as a copy before."""
    member.replaces()
    done = member.put()
    said = "there was nothing to keep" if done.kept is None else f"kept: {done.kept}"
    return Done(findings=done.findings, detail=said, data={"kept": done.kept})


def _known(recovery: Recovery, service: str) -> Newest:
    """The newest record that came back, as the step knew it that unpacked it."""
    for step in (f"restore-{service}", f"swap-{service}"):
        said = recovery.learned(step)
        if said.get("newest") is not None:
            return Newest(at=clock.from_text(str(said["newest"])), how=str(said["how"]))
    return Newest(at=None, how="it was not brought back")


def _newest(newest: Newest) -> dict[str, Any]:
    """The newest record that came back, for the clock of the run."""
    return {} if newest.at is None else {"newest": clock.to_text(newest.at), "how": newest.how}


def _stand_still(recovery: Recovery) -> None:
    """What the run has stopped may have been started since by somebody, or by a machine that was switched on again."""
    progress = recovery.progress.steps.get("stop")
    if progress is not None and progress.standing == "done":
        open_stack(recovery.system).client.stop(facts_of_run(recovery).stopped)


def _others(recovery: Recovery, stack: Stack) -> Sequence[str]:
    """What is started last: what this run has stopped; after the loss of everything, everything."""
    if recovery.wish.situation in ("server-loss", "application-loss"):
        return taking_part(recovery.system.plan, stack.project)
    return facts_of_run(recovery).stopped


def _compose_name(recovery: Recovery, service: str) -> str:
    return facts_of_run(recovery).compose_name(service)
