"""The application on a machine that has nothing of it: the plan, its files, its source, its images, its containers.

The first thing is the plan. With an address and a key alone it is found among the copies of files, and these are put
where they were: into the folder that the plan had (``RecoverWish.folder`` says another). The same folder means the same
name of the Compose project, and so the same volumes; and what names a path of the old server finds it.

What was kept comes before what is fetched, here and in the steps: a kept bundle before the forge, a kept image before
the registry. It is what production had, and nobody else has to be up for it.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from recoup.assembly.access import Found, Readable, open_for_reading
from recoup.assembly.recover.aside import before_a_run, claim_aside
from recoup.assembly.recover.context import RecoverWish, Recovery
from recoup.assembly.recover.images import images
from recoup.assembly.recover.machine import machine
from recoup.assembly.recover.plan_from_repository import no_plan, note_plan, plan_here, sets_with_a_plan, with_plan_in
from recoup.assembly.recover.source import placing, source
from recoup.assembly.recover.stack import stack
from recoup.assembly.restore.place_files import Placing, note_brought, note_placed, place_newest, place_outside
from recoup.assembly.system import System
from recoup.engines.engine import Progress
from recoup.kernel.errors import DamageError, EngineError, MissingObjectError, PlanError, RecoupError
from recoup.kernel.files import write_atomically
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.step import Done, Step

__all__ = ["files", "images", "machine", "open_blank", "open_to_look", "source", "stack"]


def open_blank(wish: RecoverWish) -> tuple[Readable, System]:
    """The repositories and the plan: the plan at hand, else the one in the repository, brought to this machine.

    Its files are put where they were; the same call, repeated, finds them there. Raise ``WrongKeyError``,
    ``UsageError`` when the repository holds no plan, ``DamageError`` or ``MissingObjectError`` when it holds none that
    is whole, ``RefusedError`` when something else is where the stack was, ``EngineError`` when the folder cannot be
    written.
    """
    return _open(wish, None)


def open_to_look(wish: RecoverWish) -> tuple[Readable, System]:
    """As ``open_blank``, and nothing is changed: the plan of a repository is in a private folder while this process is.

    Raise as ``open_blank`` does.
    """
    folder = Path(tempfile.mkdtemp(prefix="recoup-plan-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return _open(wish, folder)


def _open(wish: RecoverWish, place: Path | None) -> tuple[Readable, System]:
    opened = open_for_reading(wish.file, wish.source, wish.key_file)
    if opened.system is not None:
        return opened, opened.system
    at_hand = _plan_at_hand(wish)
    if at_hand is not None:
        at_hand.key = opened.repositories[0].key
        return replace(opened, system=at_hand, state_folder=at_hand.state_folder), at_hand
    here = plan_here(opened) if place is None else None
    if here is not None and wish.folder in (None, here[1].folder):
        return here
    damage: RecoupError | None = None
    for found in sets_with_a_plan(opened, None):
        folder = place or folder_of(wish, found)
        how = Placing(opened=opened, folder=folder, run=before_a_run(), force=wish.force, on_progress=_nobody)
        try:
            placed = place_newest(how, found.manifest.service)
        except (DamageError, MissingObjectError) as failure:
            damage = damage or failure
            continue
        made = with_plan_in(opened, folder)
        if made is not None:
            readable, system = made
            # From here on everything is by the plan, as for whoever types the next command beside it.
            note_placed(system.state_folder, folder, placed.found.manifest.id, placed.damaged)
            if place is None:
                note_brought(system.state_folder, folder, placed.found.manifest.id)
                note_plan(opened, system)
            return replace(readable, state_folder=system.state_folder), system
    raise damage or no_plan()


def _plan_at_hand(wish: RecoverWish) -> System | None:
    """The plan that is named, or the one beside whoever types; a new server's comes from the repository."""
    if wish.file is not None:
        return System.from_file(wish.file)
    if wish.situation == "server-loss":
        return None
    try:
        return System.from_file(None)
    except PlanError:
        return None


def folder_of(wish: RecoverWish, found: Found) -> Path:
    """Where the stack goes: where it was, unless the operator says otherwise."""
    return (wish.folder or Path(str(found.manifest.facts["base_folder"]))).absolute()


def files(recovery: Recovery, step: Step) -> Done:
    """Bring a file set back to where it was, and the key to where the plan looks for it."""
    folder = recovery.system.folder
    placed = place_newest(placing(recovery), step.subject)
    outside, differing = place_outside(folder)
    said = [str(placed), *(f"it has set aside {one}" for one in claim_aside(folder, recovery.run))]
    if outside:
        said.append(f"{outside} files outside of {folder}")
    said += _bring_key(recovery.system)
    left = [*(str(folder / one) for one in placed.edited), *differing]
    hints = [f"Compare them with those in {folder}/_outside."] if differing else []
    if placed.edited:
        hints.append(f"To see the copy's: recoup restore {placed.found.manifest.id} --destination ANOTHER-FOLDER.")
    finding = Finding(
        check="every file of the copy is in its place",
        subject=step.subject,
        verdict=Verdict.UNKNOWN if left else Verdict.OK,
        detail=f"left as they are: {', '.join(left[:5])}" if left else str(placed),
        hint=" ".join(hints) or None,
    )
    return Done(findings=(finding,), detail="; ".join(said), data={"copy": placed.found.manifest.id})


def _bring_key(system: System) -> list[str]:
    """Put the key where the plan says it is: copies never hold it, and the next backup needs it there."""
    described = system.plan.key.file
    if described is None:
        return []
    path = system.resolver.path(described)
    if path.exists():
        return []
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(path, system.key.text.reveal().encode() + b"\n")
    except OSError as failure:
        raise EngineError(
            f"cannot write the key to {path}, where the plan looks for it: {failure.strerror}",
            hint="Make its folder, or run as root.",
        ) from failure
    return [f"the key is in {path}"]


def _nobody(_progress: Progress) -> None:
    """Nobody is shown how far it is before the run has begun."""
