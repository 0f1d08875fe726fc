"""The files that a run has set aside in the folder of the plan: found by its id, told, and removed when it is closed.

On a machine without a plan that is brought back before there is a run, with an id and a journal. What is in its way is
set aside under a name of nobody then; the first step of the run, and each that places files, gives it the run's.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from recoup.assembly.recover import data
from recoup.assembly.recover.context import Recovery
from recoup.engines.files.restore import ASIDE
from recoup.kernel import clock, ids
from recoup.kernel.errors import EngineError
from recoup.kernel.files import sync_folder
from recoup.recovery.step import Done, Step

_BEFORE: Final = "before-"


def before_a_run() -> str:
    """What names the files that are set aside before there is a run."""
    return _BEFORE + ids.new_id(clock.now())


def claim_aside(folder: Path, run: str) -> tuple[Path, ...]:
    """Make what was set aside before the run its own; return all that it has set aside. Harmless when repeated.

    Raise ``EngineError`` when the folder cannot be written.
    """
    try:
        found = [one for one in _folders(folder) if one.name.startswith(ASIDE + _BEFORE)]
        for one in found:
            one.rename(_free_name(folder / f"{ASIDE}{run}"))
        if found:
            sync_folder(folder)
    except OSError as failure:
        raise EngineError(f"cannot give what was set aside in {folder} its name: {failure.strerror}") from failure
    return set_aside(folder, run)


def hold(recovery: Recovery, step: Step) -> Done:
    """As ``data.hold``, the first step of a run: what was set aside before for its plan is told, and is its own now.

    Raise as that does, and as ``claim_aside``.
    """
    done = data.hold(recovery, step)
    said = [f"files were set aside: {one}" for one in claim_aside(recovery.system.folder, recovery.run)]
    return replace(done, detail="; ".join((done.detail, *said)))


def set_aside(folder: Path, run: str) -> tuple[Path, ...]:
    """Where the files are that a run has set aside."""
    name = f"{ASIDE}{run}"
    return tuple(one for one in _folders(folder) if one.name == name or one.name.startswith(f"{name}~"))


def remove_aside(folder: Path, run: str) -> list[str]:
    """Remove what a run has set aside; what was removed. Raise ``EngineError`` when that cannot be done."""
    removed = []
    for one in set_aside(folder, run):
        try:
            shutil.rmtree(one)
        except OSError as failure:
            raise EngineError(
                f"cannot remove {failure.filename or one}: {failure.strerror}",
                hint="Give the same command as root, or remove the folder by hand.",
            ) from failure
        removed.append(str(one))
    return removed


def _folders(folder: Path) -> Iterator[Path]:
    """In the order of their names. Links are not followed: nothing of ours is one."""
    names = sorted(folder.glob(f"{ASIDE}*")) if folder.is_dir() else []
    yield from (one for one in names if one.is_dir() and not one.is_symlink())


def _free_name(wanted: Path) -> Path:
    name, number = wanted, 1
    while name.exists():
        name = wanted.with_name(f"{wanted.name}~{number}")
        number += 1
    return name
