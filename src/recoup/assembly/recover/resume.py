"""Going on with a run: what was wished for when it began, from its journal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from recoup.assembly.access import Readable, open_for_reading
from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.recover.hold import LEASE
from recoup.assembly.recover.plan_from_repository import plan_here
from recoup.assembly.recover.runs import RunSeen, local_runs, runs_seen, under_way
from recoup.assembly.system import System
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError, UsageError
from recoup.kernel.presence import myself
from recoup.recovery.progress import Progress, require_not_rolling_back
from recoup.recovery.runbook import RECOVERED
from recoup.repository.lease import holder_of
from recoup.repository.run_lease import look, standing


def system_here(file: Path | None, source: str | None, key_file: Path | None) -> tuple[Readable, System]:
    """The repositories and the plan of this machine, also the one that a recovery has brought here.

    No repository needs to answer for a run that this machine knows: what it replaced is not in them. Raise
    ``UsageError`` when there is no plan, the repositories' errors when neither they nor this machine know of a run.
    """
    opened = _open(file, source, key_file)
    here = plan_here(opened) if opened.system is None else (opened, opened.system)
    if here is None:
        raise UsageError(
            "no recovery was begun on this machine, and it has no plan",
            hint="Give the plan with -f FILE, or go there. To a new machine `recoup recover server-loss` brings it.",
        )
    return here


def _open(file: Path | None, source: str | None, key_file: Path | None) -> Readable:
    opened = open_for_reading(file, source, key_file, without=True)
    if not opened.repositories and not local_runs(opened.state_folder):
        raise next(iter(opened.failed.values()))
    return opened


def runs_here(file: Path | None, source: str | None, key_file: Path | None) -> tuple[Readable, tuple[RunSeen, ...]]:
    """The repositories, and every run that can be seen from here, the oldest first.

    As for ``system_here``, no repository needs to answer for a run that this machine knows.
    """
    opened = _open(file, source, key_file)
    if opened.system is None and (here := plan_here(opened)) is not None:
        opened = here[0]
    return opened, runs_seen(opened, None if opened.system is None else opened.system.plan.system)


def carried_out_by(opened: Readable, system: str) -> str | None:
    """Who works on the recoveries of a system at this instant, in words, as far as can be seen from here; else None."""
    here = holder_of(opened.state_folder, LEASE)
    if here is not None:
        return here
    for repository in opened.repositories:
        try:
            lease = look(repository, system).lease
        except RecoupError:
            continue  # another one may tell; nobody is kept from anything by this answer
        if lease is not None and standing(lease, myself(), clock.now()) == "held":
            return str(lease)
    return None


def find_run(runs: tuple[RunSeen, ...], wanted: str | None) -> RunSeen:
    """The run called ``wanted``, or the newest. Raise ``UsageError`` when there is none."""
    begun = [one for one in runs if one.was_begun]
    found = [one for one in begun if wanted in (None, one.run)]
    if not found:
        there = ", ".join(one.run for one in begun[-5:]) or "none was ever begun"
        raise UsageError(
            "there is no recovery to look at" if wanted is None else f"there is no run {wanted}",
            hint=f"There are: {there}. A new one begins with `recoup recover SITUATION`.",
        )
    return found[-1]


def wish_to_resume(given: RecoverWish, wanted: str | None) -> RecoverWish:
    """As the run was begun, with the places and permissions of now. Raise ``UsageError`` when nothing is to be resumed.

    What it goes back to, and what it brings back, stays what it was when it began.
    """
    _, runs = runs_here(given.file, given.source, given.key_file)
    newest = under_way(runs)
    if newest is None and wanted is None:
        raise UsageError(
            "there is no recovery to go on with: every one that was begun has ended",
            hint="A new one begins with `recoup recover SITUATION`; `recoup diagnose` says which.",
        )
    found = newest if newest is not None and wanted is None else find_run(runs, wanted)
    progress = found.progress
    if progress is None:
        assert found.damage is not None, "only runs that were begun are found"
        raise found.damage
    require_not_rolling_back(progress)
    require_same_wish(progress, given)
    situation = next((one for one in RECOVERED if one == progress.situation), None)
    if situation is None:
        raise UsageError(
            f"the run {found.run} is of {progress.situation}, which this Recoup does not know",
            hint="Go on with the version of Recoup that began it.",
        )
    folder = progress.facts.get("folder")
    return replace(
        given,
        situation=situation,
        services=tuple(progress.facts.get("services", ())),
        instant=progress.facts.get("instant"),
        folder=given.folder or (None if folder is None else Path(str(folder))),
    )


def require_same_wish(progress: Progress, wish: RecoverWish) -> None:
    """Raise ``UsageError`` when a run that is under way was begun for something else than is asked for now."""
    there = (tuple(progress.facts.get("services", ())), progress.facts.get("instant"))
    if (wish.services or there[0], wish.instant or there[1]) == there:
        return
    services, instant = there
    was = f"{', '.join(services) or 'what is hurt'}, back to {instant or 'the newest good state'}"
    raise UsageError(
        f"the run {progress.run} was begun for something else: {was}",
        hint=f"Go on with it as it is: `recoup recover --resume`. Or give it up, and begin anew: "
        f"`recoup recover --abandon {progress.run} --because TEXT`.",
    )
