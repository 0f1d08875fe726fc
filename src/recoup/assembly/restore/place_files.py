"""Copies of files back where they were, on a machine that lost them: the newest that is whole, and only once.

What was put there before and changed since by somebody who repairs a machine stays as he made it: the same command,
given again, must not undo his work. With force it does, and sets his work aside.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.watch.notes import instant_of, read_note, write_note
from recoup.engines.engine import ProgressListener
from recoup.engines.files.restore import FilesRestored, differences, paths_in, restore_files
from recoup.engines.files.walk import OUTSIDE
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, EngineError, MissingObjectError, NoRepositoryError
from recoup.kernel.files import sync_folder, temporary_beside
from recoup.repository.catalog import REPLACED
from recoup.repository.copy_reader import ArtefactReader

_NOTE: Final = "placed-files.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedSet:
    """A copy of files in its place. ``edited``: was put there earlier and is different now. ``damaged``: newer
    copies that could not be used, and why. ``newer``: whole files of those, which this copy does not have.
    """

    found: Found
    restored: FilesRestored | None
    edited: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)
    newer: tuple[str, ...] = ()

    def __str__(self) -> str:
        done = self.restored
        said = "it was there already" if done is None else f"{done.placed} placed, {done.same} were there already"
        said = f"files {self.found.manifest.id}: {said}"
        if self.edited:
            said += f"; changed here since: {_few(self.edited)}"
        if done is not None and done.aside is not None:
            said += f"; what differed was set aside: {done.aside}"
        if self.damaged:
            said += f"; not taken: {'; '.join(self.damaged.values())}"
        if self.newer:
            said += f"; whole and only there: {_few(self.newer)}"
        return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """How copies of files are put in place. ``run`` names what is set aside; the same after a kill."""

    opened: Readable
    folder: Path
    run: str
    force: bool
    on_progress: ProgressListener


def place_newest(how: Placing, service: str) -> PlacedSet:
    """Put the newest copy of a file set in place that is not damaged. Harmless when repeated.

    Raise ``NoRepositoryError`` when there is no copy, the newest's ``DamageError`` or ``MissingObjectError`` when each
    is damaged, ``RefusedError`` when something else is in the way, ``EngineError`` when the folder cannot be written.
    """
    damage: dict[str, DamageError | MissingObjectError] = {}
    known = {} if how.force else damaged_for(how.opened.state_folder, how.folder)
    ours: set[str] = set()  # what a copy placed before its damage was met: the next one may replace it
    catalog = how.opened.catalog()
    for entry in catalog.entries:
        if entry.service != service or entry.kind != "files" or entry.label == REPLACED:
            continue
        if entry.id in known:
            damage[entry.id] = DamageError(known[entry.id])
            continue
        try:
            found = how.opened.find(entry.id, catalog=catalog)
            return _place_set(how, found, {one: failure.message for one, failure in damage.items()}, ours)
        except (DamageError, MissingObjectError) as failure:
            damage[entry.id] = failure
    if damage:
        raise next(iter(damage.values()))
    raise NoRepositoryError(
        f"there is no copy of the files of {service}", hint="Look what there is: recoup list --from ADDRESS."
    )


def _place_set(how: Placing, found: Found, damaged: Mapping[str, str], ours: set[str]) -> PlacedSet:
    reader, folder, artefact = ArtefactReader(found.manifest, found.holders), how.folder, found.manifest.id
    if not how.force and artefact in placed_in(how.opened.state_folder, folder):
        differing = differences(reader, folder) if folder.is_dir() else ["."]
        if all(os.path.lexists(folder / path) for path in differing) and _has_git(found, folder):
            return PlacedSet(found=found, restored=None, edited=tuple(differing), damaged=damaged)
    _make(folder)
    before = frozenset(ours)
    restored = restore_files(reader, folder, force=how.force, run_id=how.run, ours=ours, on_progress=how.on_progress)
    # Not before: what was refused, or killed half way, is not a copy that somebody changed since.
    note_placed(how.opened.state_folder, folder, artefact, damaged)
    newer = tuple(sorted(before - paths_in(reader))) if before else ()
    return PlacedSet(found=found, restored=restored, damaged=damaged, newer=newer)


def note_placed(state_folder: Path, folder: Path, artefact: str, damaged: Mapping[str, str]) -> None:
    """Remember that a copy was put into a folder by us, and which newer ones could not be, and why.

    Without the note its files are compared again, no more, and what is there by an older copy is refused by a newer.
    """
    known = read_note(state_folder / _NOTE)
    placed = [*{*placed_in(state_folder, folder), artefact}]
    bad = {**damaged_for(state_folder, folder), **damaged}
    write_note(state_folder / _NOTE, {**known, str(folder): placed, f"damaged, not in {folder}": bad})


def note_brought(state_folder: Path, folder: Path, artefact: str) -> None:
    """Remember that the plan and its files were not in a folder, and were brought there by us, and when."""
    said = {"artefact": artefact, "at": clock.to_text(clock.now())}
    write_note(state_folder / _NOTE, {**read_note(state_folder / _NOTE), f"brought to {folder}": said})


def brought_to(state_folder: Path, folder: Path) -> tuple[str, datetime] | None:
    """Which copy the plan of a folder came from, and when, if we have ever brought it there."""
    said = read_note(state_folder / _NOTE).get(f"brought to {folder}")
    at = instant_of(said.get("at")) if isinstance(said, dict) else None
    return None if at is None or not isinstance(said, dict) else (str(said.get("artefact")), at)


def placed_in(state_folder: Path, folder: Path) -> tuple[str, ...]:
    """The copies that were put into a folder by us."""
    said = read_note(state_folder / _NOTE).get(str(folder))
    return tuple(str(one) for one in said) if isinstance(said, list) else ()


def damaged_for(state_folder: Path, folder: Path) -> Mapping[str, str]:
    """The copies that an older one was put into a folder for, and what was wrong with them."""
    said = read_note(state_folder / _NOTE).get(f"damaged, not in {folder}")
    return {str(one): str(why) for one, why in said.items()} if isinstance(said, dict) else {}


def _has_git(found: Found, folder: Path) -> bool:
    """The checkout's ``.git`` comes last: with it, all of a copy with Git state is there."""
    git = found.manifest.facts.get("git")
    return not git or not git.get("bundled") or (folder / str(git["path"]) / ".git").exists()


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise EngineError(
            f"cannot make {folder}, where the stack was: {failure.strerror}",
            hint="Run as root, or say where else the stack may live: --destination FOLDER.",
        ) from failure


def place_outside(folder: Path) -> tuple[int, tuple[str, ...]]:
    """Copy what lay outside of the plan's folder from where a restore puts it to its own path.

    Returns how many files were placed, and the paths that hold something else already and were left as they are. Raise
    ``EngineError`` naming what cannot be written.
    """
    top = folder / OUTSIDE
    placed, differing = 0, []
    for inside, names, files in os.walk(top):
        here = Path("/") / Path(inside).relative_to(top)
        links = [name for name in names if (Path(inside) / name).is_symlink()]
        try:
            if not here.exists():
                here.mkdir()
                _alike(Path(inside), here)
            for name in [*files, *links]:
                source, target = Path(inside) / name, here / name
                if not os.path.lexists(target):
                    _bring(source, target)
                    placed += 1
                elif not _same(source, target):
                    differing.append(str(target))
        except OSError as failure:
            raise EngineError(
                f"cannot bring back {failure.filename or here}: {failure.strerror}",
                hint=f"Run as root, or copy it by hand: its files are in {top}.",
            ) from failure
    return placed, tuple(differing)


def _bring(source: Path, target: Path) -> None:
    """Whole or not at all: half a file would count as somebody else's when the same command goes on."""
    if source.is_symlink():
        shutil.copy2(source, target, follow_symlinks=False)
    else:
        with temporary_beside(target) as new:
            shutil.copyfile(source, new)  # which only its owner may read until it has the rights of its source
            _sync(new)
            _alike(source, new)
            new.replace(target)
    sync_folder(target.parent)


def _sync(path: Path) -> None:
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def _alike(source: Path, target: Path) -> None:
    shutil.copystat(source, target)
    if os.geteuid() == 0:
        info = source.stat()
        os.chown(target, info.st_uid, info.st_gid)
        target.chmod(info.st_mode & 0o7777)


def _same(source: Path, target: Path) -> bool:
    if source.is_symlink() or target.is_symlink():
        return source.is_symlink() and target.is_symlink() and source.readlink() == target.readlink()
    return target.is_file() and source.stat().st_size == target.stat().st_size and _content(source) == _content(target)


def _content(path: Path) -> str:
    import hashlib

    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
