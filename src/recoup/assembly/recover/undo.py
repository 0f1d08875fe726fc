"""Taking a recovery back, and closing one: what happens to what was replaced.

Until a recovery is closed everything that it replaced is kept. Both acts are written into its journal and may be
repeated after a kill; both are carried out while nobody else works on the stack (``recover/end.py``: ``open_run``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from recoup.assembly.protect import hold as holds
from recoup.assembly.recover.after import still_open
from recoup.assembly.recover.aside import remove_aside, set_aside
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.data import by_hand, facts_of_run, fence_stack, hold_name
from recoup.assembly.recover.replaced import Replaced, replaced_in
from recoup.assembly.restore.surroundings import Surroundings
from recoup.assembly.stack import open_stack
from recoup.engines.postgres.volume_script import BACK
from recoup.kernel.errors import EngineError, RecoupError, RefusedError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery import progress as written
from recoup.recovery.in_place import Occupant
from recoup.recovery.step import Act, Consent, Phase, Step
from recoup.repository.lease import hold_lease

_ROLLBACK: Final = "rollback"
_UNPACKED: Final = "what was unpacked"
_NOT_PLACED: Final = "not put in place"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undone:
    """What was done, line by line for people, and what was seen afterwards."""

    said: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """What closing a run will do. Of some services it has ``replaced`` the data, of some only ``unpacked`` a copy.

    ``files`` are the folders in which it has set files aside.
    """

    replaced: tuple[str, ...]
    files: tuple[str, ...]
    unpacked: tuple[str, ...]
    keep: bool

    def __str__(self) -> str:
        what = " and ".join(self.what)
        if not what or self.keep:
            return f"ends the hold; {what} stays" if what else "ends the hold"
        return f"ends the hold, and removes {what}" + (
            ": no way back from there" if self.replaced or self.files else ""
        )

    @property
    def what(self) -> tuple[str, ...]:
        """What it is about, for people."""
        replaced = f"what was set aside of {', '.join(self.replaced)}" if self.replaced else ""
        files = f"what was set aside into {', '.join(self.files)}" if self.files else ""
        unpacked = f"{_UNPACKED} of {', '.join(self.unpacked)} and {_NOT_PLACED}" if self.unpacked else ""
        return tuple(filter(None, (replaced, files, unpacked)))


def rollback_step(recovery: Recovery) -> Step:
    """What putting back will do, for the one who has to agree. Raise ``RefusedError`` when nothing can be put back."""
    if _removed(recovery):
        raise RefusedError(
            f"the run {recovery.run} is closed: what it replaced is not kept any more",
            hint="`recoup list` shows the copies there are; `recoup restore` brings one back.",
        )
    services = _replaced(recovery)
    if not services:
        files = _files(recovery)
        by_hand = f" Files that it set aside are in {', '.join(files)}: put back by hand what you need."
        raise RefusedError(
            f"the run {recovery.run} has replaced {'no database' if files else 'nothing'}, so there is nothing to put "
            "back",
            hint="Go on with it: `recoup recover --resume`; or give it up: `recoup recover --abandon --because TEXT`."
            + (by_hand if files else ""),
        )
    names = ", ".join(services)
    return Step(
        id=_ROLLBACK,
        title=f"put back what the run replaced of {names}",
        meaning="The applications and the databases are stopped, the data from before the recovery take their place "
        "again, damaged as they may be, and everything is started. What the recovery brought, and what was written to "
        "it since, is set aside and kept until --close.",
        act=Act.SWAP,
        phase=Phase.AFTER,
        commands=("mv DATA DATA.back", "mv DATA.aside DATA"),
        check="the services run on their old data",
        consent=Consent.TYPED,
        replaces=f"the data of {names} that the recovery brought, and all that was written since",
    )


def roll_back(recovery: Recovery) -> Undone:
    """Put back what the run has replaced; it has then ended as rolled back. Ask ``rollback_step`` for consent first.

    Raise ``RefusedError`` when something else was restored since, ``EngineError`` when it fails; repeated, it goes on.
    """
    services = _replaced(recovery)
    said: list[str] = []
    findings: list[Finding] = []
    volumes: list[Replaced] = []
    for service in services:
        found = replaced_in(recovery, service)
        if found is not None:
            volumes.append(found)
        else:
            findings.append(_must_be_done_by_hand(recovery, service))
    # What must not be put back is found before it is written that this was begun: from there on it has to be finished.
    if volumes:
        fence_stack(recovery)
    for one in volumes:
        _require_ours(recovery, one, one.home.look())
    stopped = _to_stop(recovery, [one.compose for one in volumes]) if volumes else ()
    recovery.journal.append(written.ROLLBACK_BEGUN, services=list(services), stopped=list(stopped))
    if volumes:
        recovery.voice.say(f"stopping {', '.join(stopped)}")
        open_stack(recovery.system).client.stop(stopped)
        for one in volumes:
            recovery.voice.say(f"putting the old data of {one.service} back")
            with hold_lease(recovery.opened.state_folder, one.service, f"rollback of {one.service}"):
                how = _put_back(recovery, one)
            recovery.journal.append(written.PUT_BACK, service=one.service, how=how)
            said.append(f"{one.service}: {how}")
        findings += _start(recovery, stopped)
    said += [f"files are not put back: those that were set aside are in {one}" for one in _files(recovery)]
    recovery.journal.append(written.RUN_ENDED, outcome=written.ROLLED_BACK)
    return Undone(said=tuple(said), findings=tuple(findings))


def closing(recovery: Recovery, *, keep: bool = False) -> Closing:
    """What closing a run will do, for the one who has to agree; with ``keep`` what it set aside stays.

    Raise ``RefusedError`` when the run or its rollback is not over, or something on the list of what must be well again
    is open.
    """
    written.require_not_rolling_back(recovery.progress)
    ended = recovery.progress.ended
    if ended is None:
        raise RefusedError(
            f"the run {recovery.run} is not over",
            hint="Go on with it: `recoup recover --resume`; put back what it replaced: `recoup recover --rollback`.",
        )
    nothing = keep and _removed(recovery)  # there is nothing left of it to be kept
    found = Closing(
        replaced=() if nothing else _replaced(recovery),
        unpacked=() if nothing else _unpacked(recovery),
        files=_files(recovery),
        keep=keep,
    )
    # What was rolled back has no list: production runs on the data from before, and those are not removed. One that was
    # given up has none either, but then what it set aside may be all that is left, so that only goes by the list.
    harmless = ended == written.ABANDONED and (keep or not (found.replaced or found.files))
    listless = _closed(recovery) or ended == written.ROLLED_BACK or harmless
    left = () if listless else still_open(recovery)
    if left:
        said = "".join(f"\n  {one.finding.check}: {one.finding.detail or one.asks}" for one in left)
        hints = "".join(f"\n  {one}" for one in dict.fromkeys(one.finding.hint for one in left if one.finding.hint))
        raise RefusedError(
            f"the run {recovery.run} is not closed, because {len(left)} points of the list are open:{said}",
            hint=f"Do them, and close it again. What helps:{hints}" if hints else "Do them, and close it again.",
        )
    return found


def close(recovery: Recovery, agreed: Closing) -> Undone:
    """End the hold of a run and remove what it set aside, as ``closing`` said that it may be and somebody agreed to."""
    removed: list[str] = []
    findings: list[Finding] = []
    if not agreed.keep:
        removed += [what for service in agreed.replaced for what in _forget(recovery, service)]
        if agreed.files:
            removed += remove_aside(recovery.system.folder, recovery.run)
        for service in agreed.unpacked:
            try:
                removed += _forget_unpacked(recovery, service)
            except RecoupError as failure:
                findings.append(_still_unpacked(recovery, service, failure))
    failed, _ = holds.release(recovery.system, hold_name(recovery.run))
    if removed or not _closed(recovery):
        recovery.journal.append(written.RUN_CLOSED, removed=removed, kept=agreed.keep)
    findings += [
        Finding(
            check="the hold is ended",
            subject=where,
            verdict=Verdict.UNKNOWN,
            detail=failure.message,
            hint=f"When it answers again: recoup hold --release {hold_name(recovery.run)}",
        )
        for where, failure in failed.items()
    ]
    said = [f"removed {what}" for what in removed]
    if agreed.keep:
        later = f"stays until it is closed without --keep: recoup recover --close {recovery.run}"
        said += [f"{what} {later}" for what in agreed.what]
    return Undone(said=tuple(said), findings=tuple(findings))


# -- parts -------------------------------------------------------------------------------------------------------------


def _closed(recovery: Recovery) -> bool:
    return any(one.event == written.RUN_CLOSED for one in recovery.journal.lines)


def _removed(recovery: Recovery) -> bool:
    """Whether what it set aside is gone: a run may be closed and keep that."""
    return any(one.event == written.RUN_CLOSED and not one.data.get("kept") for one in recovery.journal.lines)


def _replaced(recovery: Recovery) -> tuple[str, ...]:
    """The databases whose data this run has replaced, or had begun to; those that it replaced last come first."""
    databases = reversed(facts_of_run(recovery).databases)
    return tuple(one.service for one in databases if written.has_replaced(recovery.progress, one.service))


def _files(recovery: Recovery) -> tuple[str, ...]:
    """Where files are that this run has set aside. On a machine that is not the stack's there are none."""
    return tuple(str(one) for one in set_aside(recovery.system.folder, recovery.run))


def _unpacked(recovery: Recovery) -> tuple[str, ...]:
    """The databases whose copy this run has unpacked, or had begun to, and has not begun to put in place."""
    databases = facts_of_run(recovery).databases
    return tuple(one.service for one in databases if written.has_unpacked(recovery.progress, one.service))


def _to_stop(recovery: Recovery, volumes: Sequence[str]) -> tuple[str, ...]:
    """What stands still while data are put back, in the order in which it stops; all of it is started again after.

    A run that built a server up stopped nothing, but by now its applications run. What a rollback found that was cut
    off counts: when it goes on, what it has stopped does not run.
    """
    for line in reversed(recovery.journal.lines):
        if line.event == written.RUN_ENDED and line.data.get("outcome") == written.ROLLED_BACK:
            break
        if line.event == written.ROLLBACK_BEGUN and line.data.get("stopped"):
            return tuple(line.data["stopped"])
    stopped = facts_of_run(recovery).stopped
    if stopped:
        return stopped
    around = Surroundings(plan=recovery.system.plan, stack=open_stack(recovery.system))
    needing = {name for volume in volumes for name in around.dependents(volume)} - set(volumes)
    return (*reversed(around.in_order(needing)), *reversed(around.in_order(volumes)))


def _put_back(recovery: Recovery, found: Replaced) -> str:
    """Whatever a kill has left is taken from there: a swap in its middle is finished first, which needs no copy."""
    placement, occupant = found.placement, found.home.look()
    if occupant.unfinished == placement:
        found.home.swap(placement)
    elif not _is_ours(placement, occupant):
        _require_ours(recovery, found, occupant)
        return "nothing was replaced yet"
    kept = found.undo.put_back(placement)
    if kept is None:
        return "nothing had been there before; what the recovery brought stays"
    return f"the old data are back; what the recovery brought is kept: {kept}"


def _is_ours(placement: str, occupant: Occupant) -> bool:
    return bool({placement, placement + BACK} & {occupant.unfinished, occupant.placed, occupant.begun})


def _require_ours(recovery: Recovery, found: Replaced, occupant: Occupant) -> None:
    """Raise ``RefusedError`` when this run has put its data in place, and others are there now."""
    ours = _is_ours(found.placement, occupant)
    if not ours and recovery.progress.steps[f"swap-{found.service}"].standing == "done":
        raise RefusedError(
            f"{occupant.place}: the data there are not those that this run put in place",
            hint="Something else was restored since. What this run replaced is kept beside; look at its journal.",
        )


def _start(recovery: Recovery, stopped: Sequence[str]) -> list[Finding]:
    """Start everything again, databases first. Old data may be damaged: what does not start is said, and no error."""
    around = Surroundings(plan=recovery.system.plan, stack=open_stack(recovery.system))
    findings: list[Finding] = []
    for number, name in enumerate(order := list(reversed(stopped))):
        recovery.voice.say(f"starting {name}, and waiting until it is well")
        try:
            around.start([name])
        except RecoupError as failure:
            findings.append(_runs(name, Verdict.FAILED, failure.message, failure.hint))
            findings += [
                _runs(other, Verdict.UNKNOWN, f"not started, because {name} is not well")
                for other in order[number + 1 :]
            ]
            break
        findings.append(_runs(name, Verdict.OK, "it is well"))
    return findings


def _runs(name: str, verdict: Verdict, detail: str, hint: str | None = None) -> Finding:
    return Finding(check="it runs on the data from before", subject=name, verdict=verdict, detail=detail, hint=hint)


def _must_be_done_by_hand(recovery: Recovery, service: str) -> Finding:
    kept = recovery.learned(f"swap-{service}").get("kept")
    hint = (
        "Stop it, let it use its old folder again, and start it: the run has not touched that."
        if by_hand(recovery, service)
        else "Nothing was in it before; empty it, if it must not keep what the recovery brought."
        if kept is None
        else f"What it replaced became a copy first ({kept}): recoup restore ID --force."
    )
    return Finding(
        check="it runs on the data from before",
        subject=service,
        verdict=Verdict.UNKNOWN,
        detail="Recoup does not run this server",
        hint=hint,
    )


def _forget(recovery: Recovery, service: str) -> Sequence[str]:
    found = replaced_in(recovery, service)
    return () if found is None else found.undo.forget(found.placement)


def _forget_unpacked(recovery: Recovery, service: str) -> Sequence[str]:
    """Remove the copy that was never put in place; nothing is made here for that. Raise ``RecoupError`` if it stays."""
    found = replaced_in(recovery, service)
    if found is None:
        return ()
    if not open_stack(recovery.system).client.of_service(found.compose):
        raise EngineError(f"{found.compose} has no container here, and so no volume that is known")
    return found.undo.forget(found.placement)


def _still_unpacked(recovery: Recovery, service: str, failure: RecoupError) -> Finding:
    """Nothing rests on that copy but room on a disk, so it keeps no run open."""
    return Finding(
        check=f"{_UNPACKED} and {_NOT_PLACED} is removed",
        subject=service,
        verdict=Verdict.UNKNOWN,
        detail=failure.message,
        hint=f"Where its container is, this removes it: recoup recover --close {recovery.run}. The next restore of it "
        "does as well.",
    )
