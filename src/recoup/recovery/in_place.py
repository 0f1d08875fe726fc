"""Puts a copy back where the service lives, inside its stack. One procedure; read it from top to bottom.

The old data are never overwritten: they are set aside in the same place and kept. Until the swap they are untouched,
and any failure before it starts again what was stopped. A run that dies in the swap is finished by the same command.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from recoup.engines.engine import CopyReader, ProgressListener
from recoup.kernel import clock, ids
from recoup.kernel.errors import EngineError, RecoupError, RefusedError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.kernel.units import show_size

#: How the id of a placement begins that is a recovery to a moment, and not the copy of one artefact.
MOMENT: Final = "moment-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupant:
    """What is where the copy shall go."""

    place: str  #: for people: ``volume of postgres (/var/lib/postgresql/data)``
    identity: str | None  #: what identifies the data: a system identifier; None when it cannot be told
    what: str | None  #: a short description, or None when the place is empty
    unfinished: str | None  #: the id of a placement that had begun to move data and did not finish
    free_bytes: int
    placed: str | None = None  #: the id of the last placement that was finished
    begun: str | None = None  #: as ``unfinished``; also where the same placement simply begins anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """What the user allowed. ``ask`` puts a question and returns the answer; None when nobody is there to answer."""

    force: bool = False
    yes: bool = False
    ask: Callable[[str], bool] | None = None


class DataHome(Protocol):
    """Where one service keeps its data. Every method may be repeated."""

    def look(self) -> Occupant:
        """What is there now."""
        ...

    def needs_bytes(self, reader: CopyReader) -> int:
        """How much free space placing the copy takes."""
        ...

    def stage(self, reader: CopyReader, restore_id: str, on_progress: ProgressListener) -> None:
        """Bring the copy beside the old data. The service is stopped; the old data stay untouched."""
        ...

    def swap(self, restore_id: str) -> str | None:
        """Set the old data aside and the new in place; where the old data are kept, or None if there were none."""
        ...

    def check(self, reader: CopyReader) -> Sequence[Finding]:
        """The service runs again: does it hold what was put there?"""
        ...


class Undo(Protocol):
    """Takes a placement back, or what it kept away. Every method may be repeated."""

    def put_back(self, restore_id: str) -> str | None:
        """Put back what the placement set aside; where what it had placed is kept, None when it had found nothing.

        The service is stopped. Raise ``EngineError`` when the data in place are not those of that placement.
        """
        ...

    def forget(self, restore_id: str) -> Sequence[str]:
        """Remove what the placement, or its undoing, has set aside; what was removed. The service may run."""
        ...


class Stack(Protocol):
    """The services around it. Names are the stack's own."""

    def dependents(self, service: str) -> Sequence[str]:
        """Running services that need ``service``, in the order in which they are started."""
        ...

    def stop(self, services: Sequence[str]) -> None:
        """Stop services, in the order given. Stopping what is stopped is fine."""
        ...

    def start(self, services: Sequence[str]) -> None:
        """Start services, in the order given, and wait until each is healthy, within its limit."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What an in-place restore did."""

    place: str
    kept: str | None  #: where the replaced data are
    findings: tuple[Finding, ...]
    restarted: tuple[str, ...]
    seconds: float


def decide(occupant: Occupant, *, identity: str | None, artefact_id: str, needed_bytes: int, consent: Consent) -> None:
    """May this copy replace what is there? Returns when it may; raises ``RefusedError`` with the reason when not.

    An empty place is free. Data with the same identity need a yes; data that cannot be accounted for need ``--force``.
    """
    if occupant.unfinished is not None:
        other = occupant.unfinished.partition(".")[0]
        if other == artefact_id:
            return
        raise RefusedError(
            f"{occupant.place}: putting {other} in place was interrupted in the middle",
            hint=f"Finish it first: {_again(other)}. The old data are there as well.",
        )
    if needed_bytes > occupant.free_bytes:
        raise RefusedError(
            f"{occupant.place}: the copy needs {show_size(needed_bytes)} beside the old data, which are kept, and "
            f"{show_size(occupant.free_bytes)} are free",
            hint="Make room on that disk, and give the same command again. A folder on another disk can take the copy "
            "as well: recoup restore --destination FOLDER.",
        )
    if occupant.what is None or consent.force:
        return
    if occupant.identity is None or identity is None or occupant.identity != identity:
        raise RefusedError(
            f"{occupant.place} holds {occupant.what}, which is not what this copy was taken of",
            hint="If it may be replaced (it is kept aside), say --force.",
        )
    question = f"{occupant.place} holds {occupant.what}. It will be set aside and replaced. Go on?"
    if consent.yes or (consent.ask is not None and consent.ask(question)):
        return
    raise RefusedError(
        f"{occupant.place} holds {occupant.what}; nobody agreed to replace it",
        hint="Answer the question with yes, or say --yes. What is replaced is kept aside.",
    )


def restore_in_place(
    service: str,
    home: DataHome,
    stack: Stack,
    reader: CopyReader,
    *,
    artefact_id: str,
    identity: str | None,
    consent: Consent,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> Restored:
    """Put a copy back where ``service`` keeps its data.

    Raise ``RefusedError`` before anything was touched, or the error of the step that failed; its hint says in which
    state the stack is.
    """
    started = clock.monotonic()
    occupant = home.look()
    decide(
        occupant,
        identity=identity,
        artefact_id=artefact_id,
        needed_bytes=home.needs_bytes(reader),
        consent=consent,
    )
    # A later restore of the same artefact must not meet what an earlier one set aside: each placement has its own id.
    # An interrupted one is finished under the id that it left in the place itself, so any machine can finish it.
    restore_id = occupant.unfinished or f"{artefact_id}.{ids.new_id(clock.now())[-6:]}"
    dependents = tuple(stack.dependents(service))
    say(f"stopping {', '.join((*reversed(dependents), service))}")
    stack.stop([*reversed(dependents), service])
    if occupant.unfinished is None:
        say(f"unpacking {artefact_id} beside the old data in {occupant.place}")
        try:
            home.stage(reader, restore_id, on_progress)
        except BaseException:
            say(f"nothing was replaced; starting again what was stopped: {', '.join((service, *dependents))}")
            _start_again(stack, [service, *dependents] if occupant.what is not None else [], say)
            raise
    say("setting the old data aside and the new data in place")
    try:
        kept = home.swap(restore_id)
    except RecoupError as failure:
        raise EngineError(
            f"{occupant.place}: putting the new data in place was interrupted: {failure.message}",
            hint=f"Nothing is lost: old and new data are both there. Run the same again: {_again(artefact_id)}.",
        ) from failure
    say(f"starting {service}")
    _start_restored(service, stack, kept)
    findings = _checked(service, home, reader)
    if overall(findings) is Verdict.FAILED:
        # Applications on wrong data would make it worse: what they write could not be told from what was lost.
        say(f"what came back is not what was copied; not starting {', '.join(dependents) or 'anything else'}")
        dependents = ()
    if dependents:
        say(f"starting {', '.join(dependents)}")
        stack.start(dependents)
    return Restored(
        place=occupant.place,
        kept=kept,
        findings=findings,
        restarted=(service, *dependents),
        seconds=clock.monotonic() - started,
    )


def _again(placement: str) -> str:
    """How a placement is finished. One of a moment has no artefact of its own to name."""
    moment = placement.startswith(MOMENT)
    return "the command that was interrupted, with its target" if moment else f"recoup restore {placement}"


def _start_restored(service: str, stack: Stack, kept: str | None) -> None:
    try:
        stack.start([service])
    except RecoupError as failure:
        old = f" The old data are kept in {kept}." if kept is not None else ""
        raise EngineError(
            f"the copy is in place, but {service} does not start on it: {failure.message}",
            hint=f"Look at its log; try an older copy with `recoup list` and `recoup restore ID`.{old}",
        ) from failure


def _checked(service: str, home: DataHome, reader: CopyReader) -> tuple[Finding, ...]:
    """What the check found; *unknown* when it could not be carried out. The service runs in any case."""
    try:
        return tuple(home.check(reader))
    except RecoupError as failure:
        return (
            Finding(
                check="the restored data can be looked at",
                subject=service,
                verdict=Verdict.UNKNOWN,
                detail=failure.message,
                hint=failure.hint,
            ),
        )


def _start_again(stack: Stack, services: Sequence[str], say: Callable[[str], None]) -> None:
    try:
        if services:
            stack.start(services)
    except RecoupError as failure:
        # The error that follows is why staging failed, which is what must be mended first. This one is said as well.
        say(f"could not start them again: {failure.message}")
