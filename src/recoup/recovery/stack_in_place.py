"""Puts all members of a stack point back where they live. The list of steps is the plan, the dry run and the run.

Everything is unpacked beside the old data before anything is replaced, the services are stopped once and started once,
and no application starts before every database is back and was looked at. What is replaced is kept aside. What has been
replaced is noted, so that the same command, given again after a kill, goes on with the rest.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from recoup.engines.engine import CopyReader, ProgressListener
from recoup.kernel import clock, ids
from recoup.kernel.errors import RecoupError, RefusedError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.recovery.in_place import Consent, DataHome, Occupant, Stack, Undo, decide


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMember:
    """A member whose data lie in a volume of the stack. ``at_once``: unpacking puts it in place as well.

    ``staged`` tells what unpacking it here has established, such as where a replay stopped.
    """

    service: str
    compose: str  #: its name in the Compose project
    what: str  #: for people: ``base 20261123-…``
    home: DataHome
    reader: CopyReader
    artefact_id: str
    identity: str | None
    at_once: bool = False
    discard: Callable[[str], None] | None = None  #: removes what was unpacked and will not be put in place
    staged: Callable[[], Sequence[Finding]] = tuple
    undo: Undo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Put:
    """What putting a member in place did."""

    kept: str | None = None
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenMember:
    """A member that is put in place by one act that may be repeated: files in a folder, a server by its address.

    ``replaces`` says what it would replace, or None; it raises ``RefusedError`` when that may not be.
    """

    service: str
    what: str
    where: str
    replaces: Callable[[], str | None]
    put: Callable[[], Put]


Member = VolumeMember | OpenMember


class Note(Protocol):
    """What is remembered of a run, so that the same command goes on."""

    @property
    def replaced(self) -> Collection[str]:
        """The services that are in place already."""
        ...

    @property
    def stopped(self) -> Sequence[str]:
        """The services that an interrupted run had stopped and was to start again."""
        ...

    def begin(self, stopped: Sequence[str]) -> None:
        """Note what is about to be stopped."""
        ...

    def done(self, service: str) -> None:
        """Note that a service is in place."""
        ...

    def end(self) -> None:
        """The run is over."""
        ...


class Act(enum.StrEnum):
    """What a step does."""

    STOP = "stop"
    UNPACK = "unpack"
    SWAP = "swap"
    PUT = "put"
    START = "start"
    RESUME = "resume"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step. ``services`` are plan names for UNPACK, SWAP and PUT, else names of the Compose project."""

    act: Act
    services: tuple[str, ...]
    text: str


def steps(members: Sequence[Member], applications: Sequence[str], replaced: Collection[str] = ()) -> tuple[Step, ...]:
    """The steps that bring ``members`` back; pure. ``replaced`` are those that an interrupted run has put in place.

    ``applications`` need one of them, in the order in which they start.
    """
    volumes = [one for one in members if isinstance(one, VolumeMember)]
    to_do = [one for one in members if one.service not in replaced]
    apart = [one for one in to_do if isinstance(one, VolumeMember) and not one.at_once]
    at_once = [one for one in to_do if isinstance(one, VolumeMember) and one.at_once]
    found: list[Step] = []
    stopping = (*reversed(applications), *(one.compose for one in reversed(volumes)))
    if stopping:
        found.append(Step(act=Act.STOP, services=stopping, text=f"stop {', '.join(stopping)}"))
    for one in apart:
        text = f"unpack {one.service} {one.what} beside the old data"
        found.append(Step(act=Act.UNPACK, services=(one.service,), text=text))
    for one in at_once:
        text = f"put {one.service} {one.what} in place; the old data are kept"
        found.append(Step(act=Act.PUT, services=(one.service,), text=text))
    for one in apart:
        text = f"set the old data of {one.service} aside and the new in place"
        found.append(Step(act=Act.SWAP, services=(one.service,), text=text))
    for other in to_do:
        if isinstance(other, OpenMember):
            text = f"put {other.service} {other.what} into {other.where}"
            found.append(Step(act=Act.PUT, services=(other.service,), text=text))
    found += [
        Step(act=Act.START, services=(one.compose,), text=f"start {one.compose} and look at its data")
        for one in volumes
    ]
    if applications:
        text = f"start {', '.join(applications)}"
        found.append(Step(act=Act.RESUME, services=tuple(applications), text=text))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class StackRestored:
    """What a run did. ``kept`` says by service where the replaced data are."""

    kept: Mapping[str, str]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    running: tuple[str, ...]
    seconds: float


@dataclass(slots=True, kw_only=True)
class _Run:
    members: Mapping[str, Member]
    stack: Stack
    note: Note
    occupants: Mapping[str, Occupant]
    restore_ids: Mapping[str, str]
    on_progress: ProgressListener
    kept: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    unpacked: list[str] = field(default_factory=list)

    def carry_out(self, step: Step) -> None:
        match step.act:
            case Act.STOP:
                self.stack.stop(step.services)
            case Act.UNPACK:
                self._unpack(self.members[step.services[0]])
            case Act.SWAP:
                self._swap(self.members[step.services[0]])
            case Act.PUT:
                self._put(self.members[step.services[0]])
            case Act.START:
                self._start(step.services[0])
            case Act.RESUME:
                self._resume(step.services)

    def _unpack(self, member: Member) -> None:
        assert isinstance(member, VolumeMember), "only volumes are unpacked into"
        if self.occupants[member.service].unfinished is None:
            member.home.stage(member.reader, self.restore_ids[member.service], self.on_progress)
            self.unpacked.append(member.service)

    def _swap(self, member: Member) -> None:
        assert isinstance(member, VolumeMember), "only volumes are swapped"
        self._in_place(member.service, member.home.swap(self.restore_ids[member.service]))

    def _put(self, member: Member) -> None:
        if isinstance(member, VolumeMember):
            self._unpack(member)
            self.note.done(member.service)  # it is in place; the swap tells where the old data are
            kept = member.home.swap(self.restore_ids[member.service])
            self.kept |= {} if kept is None else {member.service: kept}
            return
        done = member.put()
        self.findings += done.findings
        self.notes += done.notes
        self._in_place(member.service, done.kept)

    def _in_place(self, service: str, kept: str | None) -> None:
        self.note.done(service)
        if kept is not None:
            self.kept[service] = kept

    def _start(self, compose: str) -> None:
        member = next(one for one in self.members.values() if isinstance(one, VolumeMember) and one.compose == compose)
        self.stack.start([compose])
        self.running.append(compose)
        self.findings += member.staged()
        try:
            self.findings += member.home.check(member.reader)
        except RecoupError as failure:
            self.findings.append(
                Finding(
                    check="the restored data can be looked at",
                    subject=member.service,
                    verdict=Verdict.UNKNOWN,
                    detail=failure.message,
                    hint=failure.hint,
                )
            )

    def _resume(self, applications: Sequence[str]) -> None:
        if overall(self.findings) is Verdict.FAILED:
            # Applications on wrong data would make it worse: what they write could not be told from what was lost.
            self.notes.append(f"what came back is not what was copied; not started: {', '.join(applications)}")
            return
        self.stack.start(applications)
        self.running += applications


def restore_stack(
    members: Sequence[Member],
    applications: Sequence[str],
    stack: Stack,
    *,
    note: Note,
    command: str,
    consent: Consent,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> StackRestored:
    """Put ``members``, in the order of recovery, back where they live. ``command`` is what finishes it when it is cut.

    Raise ``RefusedError`` before anything was touched, or the error of the step that failed; its hint says in which
    state the stack is.
    """
    started = clock.monotonic()
    to_do = [one for one in members if one.service not in note.replaced]
    occupants = _look(to_do, consent)
    todo = steps(members, applications, note.replaced)
    run = _Run(
        members={one.service: one for one in members},
        stack=stack,
        note=note,
        occupants=occupants,
        restore_ids=_restore_ids(to_do, occupants),
        on_progress=on_progress,
    )
    fresh = not note.replaced and all(one.unfinished is None for one in occupants.values())
    note.begin(applications)
    for number, step in enumerate(todo, start=1):
        say(f"{number}/{len(todo)} {step.text}")
        try:
            run.carry_out(step)
        except BaseException as failure:
            touched = not fresh or note.replaced or _may_leave_a_part(step, failure, run.members)
            if not touched:
                _discard(members, run.restore_ids, run.unpacked, say)
                _start_again(members, applications, occupants, stack, say)
                note.end()
            elif isinstance(failure, RecoupError):
                _explain(failure, step, command)
            raise
    note.end()
    return StackRestored(
        kept=run.kept,
        findings=tuple(run.findings),
        notes=tuple(run.notes),
        running=tuple(run.running),
        seconds=clock.monotonic() - started,
    )


def _look(members: Sequence[Member], consent: Consent) -> dict[str, Occupant]:
    """What is where the members shall go; one question for all of it. Raise ``RefusedError``."""
    occupants: dict[str, Occupant] = {}
    replaced: list[str] = []
    for member in members:
        if isinstance(member, OpenMember):
            what = member.replaces()
            replaced += [] if what is None else [what]
            continue
        occupant = occupants[member.service] = member.home.look()
        decide(
            occupant,
            identity=member.identity,
            artefact_id=member.artefact_id,
            needed_bytes=member.home.needs_bytes(member.reader),
            consent=Consent(force=consent.force, yes=True),  # asked below, once for all
        )
        if occupant.what is not None and occupant.unfinished is None:
            replaced.append(f"{occupant.place} holds {occupant.what}")
    if not replaced or consent.force or consent.yes:
        return occupants
    question = f"{'; '.join(replaced)}. All of it will be set aside and replaced. Go on?"
    if consent.ask is not None and consent.ask(question):
        return occupants
    raise RefusedError(
        f"{'; '.join(replaced)}; nobody agreed to replace it",
        hint="Answer the question with yes, or say --yes. What is replaced is kept aside.",
    )


def _restore_ids(members: Sequence[Member], occupants: Mapping[str, Occupant]) -> dict[str, str]:
    # As for one service: each placement has its own id, and an interrupted one is finished under the id it left.
    return {
        one.service: occupants[one.service].unfinished or f"{one.artefact_id}.{ids.new_id(clock.now())[-6:]}"
        for one in members
        if isinstance(one, VolumeMember)
    }


def _may_leave_a_part(step: Step, failure: BaseException, members: Mapping[str, Member]) -> bool:
    """Whether a step that failed may have put something in place: piece by piece, or in a swap that was cut."""
    if step.act is Act.PUT:
        whole = isinstance(members[step.services[0]], VolumeMember) and isinstance(failure, RecoupError)
        return not whole and not isinstance(failure, RefusedError)
    return step.act not in (Act.STOP, Act.UNPACK)


def _discard(
    members: Sequence[Member], restore_ids: Mapping[str, str], unpacked: Sequence[str], say: Callable[[str], None]
) -> None:
    """What was unpacked for nothing must not fill the disk that the old data need."""
    for one in members:
        if isinstance(one, VolumeMember) and one.discard is not None and one.service in unpacked:
            try:
                one.discard(restore_ids[one.service])
            except RecoupError as failure:
                say(f"could not remove what was unpacked for {one.service}: {failure.message}")


def _start_again(
    members: Sequence[Member],
    applications: Sequence[str],
    occupants: Mapping[str, Occupant],
    stack: Stack,
    say: Callable[[str], None],
) -> None:
    had_data = [
        one.compose for one in members if isinstance(one, VolumeMember) and occupants[one.service].what is not None
    ]
    services = [*had_data, *applications] if had_data else []
    say(f"nothing was replaced; starting again what was stopped: {', '.join(services) or 'nothing'}")
    try:
        if services:
            stack.start(services)
    except RecoupError as failure:
        # The error that follows is why the step failed, which is what must be mended first. This one is said as well.
        say(f"could not start them again: {failure.message}")


def _explain(failure: RecoupError, step: Step, command: str) -> None:
    """Say at which step it stopped and how it goes on. The kind of the error, and so the exit code, stays."""
    failure.message = f"the restore of the stack stopped at the step '{step.text}': {failure.message}"
    failure.args = (failure.message,)
    failure.hint = (
        f"{failure.hint + ' ' if failure.hint else ''}Nothing is lost: what was replaced is kept aside. "
        f"Run the same again, it goes on there: {command}."
    )
