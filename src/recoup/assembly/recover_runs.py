"""The runs that there are: on this machine, and which of them is to be gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recoup.kernel import ids
from recoup.kernel.errors import DamageError, RefusedError, UsageError
from recoup.recovery.journal import Line, parse_journal
from recoup.recovery.progress import Progress, read_progress

_RUNS: Final = "runs"
JOURNAL: Final = "journal"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """A run and its journal. ``damage`` says why the journal cannot be believed; then ``lines`` is empty."""

    run: str
    lines: tuple[Line, ...]
    damage: DamageError | None = None

    @property
    def progress(self) -> Progress | None:
        """How far it has come; None when nothing was begun yet."""
        return read_progress(self.lines)


def run_folder(state: Path, run: str) -> Path:
    """Where this machine keeps what belongs to a run."""
    return state / _RUNS / run


def local_runs(state: Path) -> tuple[RunSeen, ...]:
    """Every run that this machine knows, the oldest first. Reading disturbs nobody who is writing."""
    folder = state / _RUNS
    names = sorted(one.name for one in folder.iterdir() if ids.is_id(one.name)) if folder.is_dir() else []
    return tuple(_seen(run_folder(state, name), name) for name in names)


def _seen(folder: Path, run: str) -> RunSeen:
    path = folder / JOURNAL
    try:
        return RunSeen(run=run, lines=parse_journal(path.read_bytes(), str(path))[0])
    except FileNotFoundError:
        return RunSeen(run=run, lines=())
    except DamageError as damage:
        return RunSeen(run=run, lines=(), damage=damage)


def unfinished(runs: Sequence[RunSeen], situation: str, wanted: str | None) -> RunSeen | None:
    """The run to go on with: the ``wanted`` one, or the one that has not ended; None when a new one is to be begun.

    Raise ``DamageError`` when its journal is damaged, ``UsageError`` when there is no run ``wanted``, ``RefusedError``
    when a run of another situation is under way.
    """
    open_ones = [one for one in runs if one.damage is not None or _goes_on(one)]
    if wanted is not None:
        open_ones = [one for one in runs if one.run == wanted]
        if not open_ones:
            raise UsageError(f"there is no run {wanted}", hint="`recoup recover --show` names those there are.")
    if not open_ones:
        return None
    found = open_ones[-1]
    if found.damage is not None:
        raise found.damage
    progress = found.progress
    if progress is not None and progress.ended is not None:
        raise UsageError(f"the run {found.run} has ended: {progress.ended}", hint="Without --resume a new one begins.")
    if progress is not None and progress.situation != situation:
        raise RefusedError(
            f"a recovery from {progress.situation} is under way: {found.run}",
            hint=f"Go on with it: `recoup recover --resume`; or end it: `recoup recover --abandon {found.run}`.",
        )
    return found


def _goes_on(one: RunSeen) -> bool:
    return one.progress is not None and one.progress.ended is None
