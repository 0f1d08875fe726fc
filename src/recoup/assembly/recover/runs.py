"""The runs that there are, on this machine and in the repositories, and which of them is to be gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recoup.assembly.access import Readable
from recoup.kernel import clock, files, ids
from recoup.kernel.errors import DamageError, RecoupError, RefusedError, UsageError, WrongKeyError
from recoup.recovery.journal import Line
from recoup.recovery.journal_copies import HERE, Copy, chosen, in_common, longest, read_copy, trouble
from recoup.recovery.progress import Progress, read_progress, require_not_rolling_back
from recoup.repository.lease import cannot_note
from recoup.repository.repository import Repository
from recoup.repository.run_journals import read_journal, runs_in

_RUNS: Final = "runs"
JOURNAL: Final = "journal"
#: A run begins when no other one is under way, so one that goes on is among the newest.
_NEWEST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSeen:
    """A run and its journal, as far as copies of it agree. ``damage`` says why it cannot simply be gone on with."""

    run: str
    lines: tuple[Line, ...]
    damage: RecoupError | None = None
    copies: tuple[Copy, ...] = ()
    silent: tuple[str, ...] = ()  #: where it could not be looked, and why

    @property
    def progress(self) -> Progress | None:
        """How far it has come; None when nothing was begun yet."""
        return read_progress(self.lines)

    @property
    def is_here(self) -> bool:
        """Whether this machine has a journal of it, whole or not."""
        return any(one.where == HERE for one in self.copies)

    @property
    def was_begun(self) -> bool:
        """Whether there is anything of it, be it damaged."""
        return self.damage is not None or self.progress is not None

    @property
    def goes_on(self) -> bool:
        """Whether it was begun and has not ended, as far as one can see.

        Of one whose journal is damaged here a whole copy elsewhere says it; copies that went apart say nothing.
        """
        progress = self.progress
        if progress is None or (self.damage is not None and not isinstance(self.damage, DamageError)):
            return self.damage is not None
        return progress.ended is None


def run_folder(state: Path, run: str) -> Path:
    """Where this machine keeps what belongs to a run."""
    return state / _RUNS / run


def local_runs(state: Path) -> tuple[RunSeen, ...]:
    """Every run that this machine knows, the oldest first. Reading disturbs nobody who is writing."""
    return tuple(_seen(run, [copy]) for run, copy in _local(state).items())


def runs_seen(opened: Readable, system: str | None) -> tuple[RunSeen, ...]:
    """Every run of this machine, and the newest of the repositories that answer, the oldest first.

    ``system`` None: of whatever system is kept there. Raise ``WrongKeyError``; what else goes wrong is in the runs.
    """
    local = _local(opened.state_folder)
    places: dict[str, dict[str, str]] = {}
    silent: list[str] = []
    for repository in opened.repositories:
        try:
            places[repository.name] = dict(runs_in(repository, system))
        except WrongKeyError:
            raise
        except RecoupError as failure:
            silent.append(f"{repository.name}: {failure.message}")
    elsewhere = {run for there in places.values() for run in there}
    wanted = {*sorted(elsewhere)[-_NEWEST:], *(run for run, copy in local.items() if _seen(run, [copy]).goes_on)}
    found = []
    for run in sorted({*local, *wanted}):
        copies = [local[run]] if run in local else []
        more: list[str] = []
        for repository in opened.repositories if run in wanted else ():
            _read(repository, places.get(repository.name, {}).get(run), copies, more)
        found.append(_seen(run, copies, (*silent, *more)))
    return tuple(found)


def _read(repository: Repository, place: str | None, copies: list[Copy], silent: list[str]) -> None:
    if place is None:
        return
    try:
        copies.append(read_copy(repository.name, read_journal(repository, place)))
    except WrongKeyError:
        raise
    except DamageError as damage:
        copies.append(Copy(where=repository.name, damage=damage))
    except RecoupError as failure:
        silent.append(f"{repository.name}: {failure.message}")


def _local(state: Path) -> Mapping[str, Copy]:
    folder = state / _RUNS
    names = sorted(one.name for one in folder.iterdir() if ids.is_id(one.name)) if folder.is_dir() else []
    found = {}
    for name in names:
        path = run_folder(state, name) / JOURNAL
        try:
            found[name] = read_copy(HERE, path.read_bytes())
        except FileNotFoundError:
            continue
        except OSError as failure:
            damage = DamageError(f"{path} cannot be read: {failure.strerror or failure}")
            found[name] = Copy(where=HERE, damage=damage)
    return found


def _seen(run: str, copies: Sequence[Copy], silent: tuple[str, ...] = ()) -> RunSeen:
    return RunSeen(
        run=run, lines=longest(copies).lines, damage=trouble(run, copies), copies=tuple(copies), silent=silent
    )


def under_way(runs: Sequence[RunSeen]) -> RunSeen | None:
    """The newest run, when it has not ended. An older one that has not was overtaken: it is not gone on with.

    That happens when a machine is lost before the first lines of its journal are copied, and comes back later.
    """
    newest = next((one for one in reversed(runs) if one.was_begun), None)
    return newest if newest is not None and newest.goes_on else None


def unfinished(runs: Sequence[RunSeen], situation: str, wanted: str | None) -> RunSeen | None:
    """The run to go on with: the ``wanted`` one, or the one that has not ended; None when a new one is to be begun.

    Raise ``UsageError`` when there is no run ``wanted``, ``RefusedError`` when it was overtaken, when it is being
    rolled back, or when a run of another situation is under way.
    """
    found = under_way(runs)
    if wanted is not None:
        found = next((one for one in runs if one.run == wanted and one.was_begun), None)
        if found is None:
            raise UsageError(f"there is no run {wanted}", hint="`recoup recover --show` names those there are.")
        newest = next(one for one in reversed(runs) if one.was_begun)
        if found.goes_on and newest is not found:
            raise RefusedError(
                f"the run {newest.run} was begun after {wanted}, which is not gone on with any more",
                hint="What it did would be mixed with what came later. End it: "
                f"`recoup recover --abandon {wanted} --because TEXT`.",
            )
    if found is None or found.progress is None:
        return found
    progress = found.progress
    require_not_rolling_back(progress)
    if progress.ended is not None and not found.damage:
        raise UsageError(f"the run {found.run} has ended: {progress.ended}", hint="Without --resume a new one begins.")
    if progress.situation != situation:
        raise RefusedError(
            f"a recovery from {progress.situation} is under way: {found.run}",
            hint="Go on with it: `recoup recover --resume`; or end it: "
            f"`recoup recover --abandon {found.run} --because TEXT`.",
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The journal that a run goes on with. ``said`` is what was found out about its copies, for people."""

    lines: tuple[Line, ...]
    taken_from: str = ""  #: where it comes from, when not from this machine
    aside: str = ""  #: where this machine's own journal is kept that does not count any more
    said: tuple[str, ...] = ()


def decide(seen: RunSeen, *, take_over: bool) -> Copy:
    """The copy that a run goes on with. Raise the ``damage`` of the run, unless ``take_over`` gets around it."""
    if seen.damage is None:
        return chosen(seen.copies, take_over=False)
    copy = chosen(seen.copies, take_over=True)
    if not take_over or not copy.lines:
        raise seen.damage
    return copy


def settle(state: Path, seen: RunSeen, copy: Copy) -> Settled:
    """Make ``copy`` this machine's journal of a run. Nobody else is writing it. Raise ``RecoupError``."""
    path = run_folder(state, seen.run) / JOURNAL
    here = next((one for one in seen.copies if one.where == HERE), None)
    said = [f"{one.where}: {one.damage.message}" for one in seen.copies if one.damage is not None and one is not here]
    said += seen.silent
    if copy is here:
        return Settled(lines=copy.lines, said=tuple(said))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        aside = ""
        if here is not None and (here.damage is not None or in_common(here, copy) < len(here.lines)):
            kept = path.with_name(f"{JOURNAL}.aside-{ids.stamp(clock.now())}")
            path.replace(kept)
            aside = str(kept)
        files.write_atomically(path, copy.data)
    except OSError as failure:
        raise cannot_note(path, failure) from failure
    last = copy.lines[-1]
    said.append(
        f"goes on from the journal in {copy.where}: {len(copy.lines)} lines, the last of "
        f"{clock.to_text(last.at)[:19]}Z by {last.who} on {last.host}"
    )
    if aside:
        said.append(f"this machine's own journal does not count any more; it is kept in {aside}")
    return Settled(lines=copy.lines, taken_from=copy.where, aside=aside, said=tuple(said))
