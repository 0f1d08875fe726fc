"""``recoup sync``: every repository of the plan gets what it should hold and does not, from those that have it.

The order in each repository: what all of them hold is listed; then copies, each under the lease of its service, whole
and read back before its manifest and before what depends on it; then WAL and command streams, the oldest first, so
that whatever ends early leaves no hole; last the records of drills. The same call again goes on where this one stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from recoup.assembly.protect.lacking import Holding, Lack, holding_of, lack_of, wal_name
from recoup.assembly.protect.prune import LEASE
from recoup.assembly.system import System
from recoup.drill.book import level
from recoup.kernel.errors import (
    BusyError,
    DamageError,
    Exit,
    MissingObjectError,
    NoRepositoryError,
    RecoupError,
    StorageError,
    WrongKeyError,
)
from recoup.kernel.units import show_size
from recoup.repository import layout
from recoup.repository.catalog import Entry
from recoup.repository.copy_writer import remove_unfinished
from recoup.repository.landing import GoneError, SourceError, copy_artefact, heal_artefact
from recoup.repository.lease import hold_lease
from recoup.repository.repository import Repository
from recoup.repository.stream_archive import SealedStream, StreamArchive, StreamEntry
from recoup.repository.unfinished import UnfinishedCopies
from recoup.repository.wal_archive import SealedWal, WalArchive
from recoup.repository.wal_names import WalEntry

#: After so many failures in a row a repository is given up for this run: it is down, or refuses everything.
_FAILURES_IN_A_ROW: Final = 3

OnWork = Callable[[str], None]
_Sealed = TypeVar("_Sealed")
_Entry = TypeVar("_Entry")


@dataclass(slots=True, kw_only=True)
class Synced:
    """One repository. ``lack`` is what it was to get, ``error`` why nothing is known of it or could be done there."""

    repository: str
    lack: Lack | None = None
    copies: list[str] = field(default_factory=list)  #: the ids that it got
    healed: list[str] = field(default_factory=list)  #: the ids whose damaged manifest was replaced
    wal: int = 0  #: objects that it got
    streams: int = 0
    failed: dict[str, RecoupError] = field(default_factory=dict)  #: what it did not get, by what it is
    busy: dict[str, BusyError] = field(default_factory=dict)  #: services at which another run is working
    error: RecoupError | None = None
    planned: bool = False  #: only looked at
    unasked: tuple[str, ...] = ()  #: repositories that may hold more, and could not be asked

    @property
    def exit_code(self) -> Exit:
        """``OK`` only when it is known to hold all that it should."""
        if self.failed or (self.lack is not None and not self.planned and len(self.healed) < len(self.lack.problems)):
            return Exit.FAILED
        if self.error is not None or self.lack is None or self.unasked:
            return Exit.UNKNOWN
        return Exit.BUSY if self.busy else Exit.OK


def sync(system: System, *, plan: bool = False, on_work: OnWork = lambda _: None) -> tuple[Synced, ...]:
    """Bring every repository of the plan up to what it should hold. With ``plan`` nothing is changed anywhere.

    A repository that fails, or that another key opens, is reported in the result and the others go on. Raise
    ``BusyError`` when another sync or a prune runs, ``WrongKeyError`` when the plan's key opens none of them.
    """
    results = {name: Synced(repository=name, planned=plan) for name in system.plan.repositories}
    with contextlib.nullcontext() if plan else hold_lease(system.state_folder, LEASE, "sync"):
        holdings = _holdings(system, results, plan=plan)
        for holding in holdings:
            result = results[holding.repository.name]
            others = [one for one in holdings if one is not holding]
            asked = {one.repository.name for one in holdings}
            result.unasked = tuple(name for name in results if name not in asked)
            try:
                result.lack = lack_of(system, holding, others)
                if not plan:
                    _bring(system, result, result.lack, others, on_work)
            except RecoupError as failure:
                result.error = failure
        if not plan:
            for name, done in level([one.repository for one in holdings]).items():
                if isinstance(done, RecoupError):
                    results[name].failed.setdefault("records of drills", done)
    return tuple(results.values())


def _holdings(system: System, results: Mapping[str, Synced], *, plan: bool) -> list[Holding]:
    """What the repositories hold that can be opened and listed; the others' results say why not."""
    holdings = []
    for name, result in results.items():
        try:
            opened = system.open(only=name, writing=not plan)
            result.error = opened.failed.get(name)
            if plan and isinstance(result.error, NoRepositoryError):
                result.error.hint = "It is made when it is new, by the next `recoup backup` or `recoup sync`."
            holdings += [holding_of(system, one) for one in opened.repositories]
        except RecoupError as failure:
            result.error = failure
    if all(isinstance(one.error, WrongKeyError) for one in results.values()):
        raise next(one.error for one in results.values() if one.error is not None)
    return holdings


def _bring(system: System, result: Synced, lack: Lack, others: Sequence[Holding], on_work: OnWork) -> None:
    for entry in lack.heal:
        on_work(f"{result.repository}: the manifest of {entry.id} is damaged and replaced")
        try:
            with hold_lease(system.state_folder, entry.service, f"sync of {entry.service} to {result.repository}"):
                heal_artefact(entry.id, _sources(entry, others), lack.target)
            result.healed.append(entry.id)
        except BusyError as taken:
            result.busy[entry.service] = taken
        except RecoupError as failure:
            result.failed[entry.id] = failure
    if not _bring_copies(system, result, lack, others, on_work):
        return
    if lack.wal:
        on_work(f"{result.repository}: {len(lack.wal)} objects of WAL")
    broken: set[object] = set()
    for cluster, piece in lack.wal:
        if cluster not in broken:
            target = WalArchive(lack.target, *cluster)
            name = wal_name(piece)
            holders = [
                (WalArchive(one.repository, *cluster), one.wal[cluster][name])
                for one in others
                if name in one.wal.get(cluster, {})
            ]
            with _counted(result, piece.key, broken, cluster):
                result.wal += _one_wal(target, holders)
    if lack.streams:
        on_work(f"{result.repository}: {len(lack.streams)} objects of command streams")
    for service, segment in lack.streams:
        if service not in broken:
            archive = StreamArchive(lack.target, service)
            have = [StreamArchive(one.repository, service) for one in others
                    if segment.key in one.streams.get(service, {})]  # fmt: skip
            with _counted(result, segment.key, broken, service):
                result.streams += _one_segment(archive, segment, have)


@contextlib.contextmanager
def _counted(result: Synced, what: str, broken: set[object], line: object) -> Iterator[None]:
    """Note a failure. When it is the place itself that fails, the rest of the line waits: there must be no hole."""
    try:
        yield
    except RecoupError as failure:
        result.failed[what] = failure
        if not isinstance(failure, SourceError):
            broken.add(line)


def _bring_copies(system: System, result: Synced, lack: Lack, others: Sequence[Holding], on_work: OnWork) -> bool:
    """Copy after copy; whether the repository takes anything at all."""
    cleaned: set[str] = set()
    in_a_row = 0
    for entry in lack.copies:
        missing = [link for link in entry.depends_on if link in result.failed]
        if missing or entry.service in result.busy:
            if missing:
                result.failed[entry.id] = StorageError(f"not copied: it depends on {missing[0]}")
            continue
        on_work(f"{result.repository}: {entry.id} ({entry.service} {entry.kind}, {show_size(entry.stored_bytes)})")
        try:
            with hold_lease(system.state_folder, entry.service, f"sync of {entry.service} to {result.repository}"):
                _one_copy(system, entry, _sources(entry, others), lack.target, clean=entry.service not in cleaned)
            cleaned.add(entry.service)
            result.copies.append(entry.id)
            in_a_row = 0
        except BusyError as taken:
            result.busy[entry.service] = taken
        except GoneError:
            in_a_row = 0  # removed everywhere since it was listed: it is not to be held any more
        except RecoupError as failure:
            result.failed[entry.id] = failure
            in_a_row = 0 if isinstance(failure, SourceError) else in_a_row + 1
            if in_a_row >= _FAILURES_IN_A_ROW:
                return False
    return True


def _sources(entry: Entry, others: Sequence[Holding]) -> list[Repository]:
    return [one.repository for one in others if any(each.id == entry.id for each in one.catalog.entries)]


def _one_copy(system: System, entry: Entry, sources: Sequence[Repository], target: Repository, *, clean: bool) -> None:
    """Copy one artefact. While it is under way it is noted, so that what a dead run left is removed by the next."""
    unfinished = UnfinishedCopies(system.state_folder)
    if clean:
        unfinished.clean(entry.service, [target])
    with unfinished.under_way(entry.id, entry.service, entry.kind, target.identity):
        try:
            copy_artefact(entry.id, sources, target)
        except RecoupError as failure:
            folder = layout.artefact_folder(entry.service, entry.kind, entry.id)
            if not remove_unfinished(target, folder, entry.id):
                raise  # it stays noted
            wrong: RecoupError | None = failure
        else:
            wrong = None
    if wrong is not None:
        raise wrong


def _one_wal(target: WalArchive, holders: Sequence[tuple[WalArchive, WalEntry]]) -> int:
    def land(sealed: SealedWal) -> None:
        target.put(sealed)
        for landed in list(target.entries(sealed.name + "-")):
            with _gone_if_damaged(target.delete, landed):
                target.read(landed)

    return _one_object([partial(archive.raw, entry) for archive, entry in holders], land)


def _one_segment(target: StreamArchive, entry: StreamEntry, holders: Sequence[StreamArchive]) -> int:
    def land(sealed: SealedStream) -> None:
        target.put(sealed)
        with _gone_if_damaged(target.delete, entry):
            target.raw(entry)

    return _one_object([partial(archive.raw, entry) for archive in holders], land)


def _one_object(sources: Sequence[Callable[[], _Sealed]], land: Callable[[_Sealed], None]) -> int:
    """Copy one object of a log from the first source that has it right, and read it back where it landed.

    Return 0 when it has gone meanwhile. Raise as ``copy_artefact`` does.
    """
    wrong: list[RecoupError] = []
    for source in sources:
        try:
            sealed = source()
        except (DamageError, StorageError) as failure:
            wrong.append(failure)
            continue
        land(sealed)
        return 1
    return _not_found(wrong)


@contextlib.contextmanager
def _gone_if_damaged(delete: Callable[[_Entry], None], landed: _Entry) -> Iterator[None]:
    """What landed damaged is removed: under its name nothing right could be stored later."""
    try:
        yield
    except DamageError:
        delete(landed)
        raise


def _not_found(wrong: Sequence[RecoupError]) -> int:
    if all(isinstance(one.__cause__, MissingObjectError) for one in wrong):
        return 0
    raise SourceError(
        "no repository has it whole: " + "; ".join(dict.fromkeys(one.message for one in wrong)),
        hint="`recoup verify` says what is damaged; take a new backup.",
    )
