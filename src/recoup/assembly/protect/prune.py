"""``recoup prune``: decides for every copy of every repository whether it stays, and removes what does not.

The order in each repository: what is known is read; the newest copies are proven where something older would go; then,
under the leases of the services, it is read again and decided, what the store locks is taken out, and the rest goes,
dependents first, each one whole before the next. The same call again goes on where this one stopped.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from recoup.assembly.protect.retain import Cluster, Facts, decide_all, decide_cluster, gather, prove_newest
from recoup.assembly.protect.retain_stream import LogFate, log_fate, prune_streams
from recoup.assembly.system import System
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, Exit, RecoupError, StorageError, WrongKeyError
from recoup.plan.services import ComposeService
from recoup.repository.expire import Orphan, Place, cut_log, find_orphans, locked_until, remove_copy, remove_orphan
from recoup.repository.lease import hold_lease
from recoup.repository.proofs import Proofs
from recoup.repository.repository import Repository
from recoup.repository.retention import CLOCK_TOLERANCE, Copy, Decision, Proof, removal_order
from recoup.repository.unfinished import UnfinishedCopies
from recoup.repository.wal_names import WalEntry

LEASE = "prune"
#: After so many failures in a row a repository is given up for this run: it is down, or refuses everything.
_FAILURES_IN_A_ROW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """What was decided of a copy and what became of it. ``removed`` is False in a dry run."""

    decision: Decision
    stored_bytes: int
    removed: bool = False
    error: RecoupError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """One repository. ``error`` is set when nothing could be decided there; ``problems`` are what stops pruning."""

    repository: str
    copies: tuple[Fate, ...] = ()
    wal: tuple[LogFate, ...] = ()
    streams: tuple[LogFate, ...] = ()
    orphans: tuple[Orphan, ...] = ()
    orphans_removed: int = 0
    problems: tuple[str, ...] = ()
    busy: Mapping[str, BusyError] | None = None  #: services at which another run is working: nothing of them went
    error: RecoupError | None = None
    dry_run: bool = False

    @property
    def errors(self) -> tuple[RecoupError | None, ...]:
        """What went wrong with single copies, clusters and streams."""
        copies, wal, streams = (one.error for one in self.copies), (one.error for one in self.wal), self.streams
        return (*copies, *wal, *(one.error for one in streams))

    @property
    def exit_code(self) -> Exit:
        """The worst of what happened. What the store locks, and a rule that keeps much, is no failure."""
        errors = [self.error, *self.errors]
        found = [error for error in errors if error is not None]
        if found:
            return found[0].exit_code
        newest: dict[object, Copy] = {}
        for fate in self.copies:  # newest first
            newest.setdefault(fate.decision.copy.group, fate.decision.copy)
        if self.problems or any(copy.proof is Proof.BAD for copy in newest.values()):
            return Exit.BAD
        if any(copy.begun > clock.now() + CLOCK_TOLERANCE for copy in newest.values()):
            return Exit.REFUSED
        return Exit.BUSY if self.busy else Exit.OK


def prune(
    system: System,
    *,
    only: str | None = None,
    dry_run: bool = False,
    on_work: Callable[[str], None] = lambda _: None,
) -> tuple[Pruned, ...]:
    """Prune every repository of the plan, or the one called ``only``. With ``dry_run`` nothing is changed anywhere.

    A repository that fails is reported in the result. Raise ``BusyError`` when another prune runs, ``WrongKeyError``,
    ``UsageError`` for an unknown repository.
    """
    opened = system.open(only=only)
    results = [Pruned(repository=name, error=error) for name, error in opened.failed.items()]
    lease = contextlib.nullcontext() if dry_run else hold_lease(system.state_folder, LEASE, "prune")
    with lease:
        for repository in opened.repositories:
            try:
                results.append(_prune(system, repository, dry_run=dry_run, on_work=on_work))
            except WrongKeyError:
                raise
            except RecoupError as failure:
                results.append(Pruned(repository=repository.name, error=failure))
    order = list(system.plan.repositories)
    return tuple(sorted(results, key=lambda one: order.index(one.repository)))


def _prune(system: System, repository: Repository, *, dry_run: bool, on_work: Callable[[str], None]) -> Pruned:
    facts = gather(system, repository, clock.now(), blocked={})
    prove_newest(system, facts, on_work)
    with contextlib.ExitStack() as leases:
        busy = {} if dry_run else _leases(system, leases)
        if not dry_run:
            _clean(system, repository, busy)
        blocked = {service: f"not looked at: {error.message}" for service, error in busy.items()}
        facts = gather(system, repository, clock.now(), blocked=blocked)
        decisions = _decide(facts, repository)
        orphans = [
            one for one in find_orphans(repository, facts.snapshot.now) if one.place.service in facts.snapshot.rules
        ]
        if dry_run:
            fates, wal, swept = _fates(facts, decisions, {}, {}), _wal(facts, decisions, dry_run=True), 0
        else:
            removed, errors = _remove(system, repository, decisions)
            fates = _fates(facts, decisions, removed, errors)
            wal = _wal(facts, decisions, dry_run=False)
            swept = 0 if facts.snapshot.frozen else _sweep(repository, orphans, busy)
        streams = prune_streams(facts, decisions, dry_run=dry_run)
    return Pruned(
        repository=repository.name,
        copies=fates,
        wal=wal,
        streams=streams,
        orphans=tuple(orphans),
        orphans_removed=swept,
        problems=facts.problems,
        busy=busy,
        dry_run=dry_run,
    )


def _leases(system: System, held: contextlib.ExitStack) -> dict[str, BusyError]:
    """Hold the lease of every service that holds data; those that another run has, and who has them."""
    busy: dict[str, BusyError] = {}
    for name, service in system.plan.services.items():
        if not isinstance(service, ComposeService):
            try:
                held.enter_context(hold_lease(system.state_folder, name, "prune"))
            except BusyError as taken:
                busy[name] = taken
    return busy


def _clean(system: System, repository: Repository, busy: Mapping[str, BusyError]) -> None:
    """Finish what this machine began to write or to remove there and did not end."""
    unfinished = UnfinishedCopies(system.state_folder)
    for name, service in system.plan.services.items():
        if name not in busy and not isinstance(service, ComposeService):
            unfinished.clean(name, [repository])


def _decide(facts: Facts, repository: Repository) -> tuple[Decision, ...]:
    """The decisions, after asking the store what it locks of what would go."""
    locked: dict[str, datetime] = {}
    while True:
        decisions = decide_all(facts, locked)
        found = {}
        for one in decisions:
            if not one.keep and (until := locked_until(repository, _place(one.copy), facts.snapshot.now)) is not None:
                found[one.copy.id] = until
        if not found:
            return decisions
        locked |= found  # what is locked may keep more of its chain; it never lets anything go


def _place(copy: Copy) -> Place:
    return Place(service=copy.service, kind=copy.kind, id=copy.id)


def _remove(
    system: System, repository: Repository, decisions: Sequence[Decision]
) -> tuple[dict[str, bool], dict[str, RecoupError]]:
    unfinished, proofs = UnfinishedCopies(system.state_folder), Proofs(system.state_folder)
    removed: dict[str, bool] = {}
    errors: dict[str, RecoupError] = {}
    needed: set[str] = set()
    in_a_row = 0
    for copy in removal_order(decisions):
        if copy.id in needed:
            needed |= set(copy.depends_on)  # something that could not be removed depends on it
            continue
        if in_a_row >= _FAILURES_IN_A_ROW:
            break
        try:
            remove_copy(repository, _place(copy), unfinished)
        except StorageError as failure:
            errors[copy.id] = failure
            needed |= set(copy.depends_on)
            in_a_row += 1
            continue
        in_a_row = 0
        removed[copy.id] = True
        proofs.forget(repository.identity, copy.id)
    return removed, errors


def _fates(
    facts: Facts, decisions: Sequence[Decision], removed: Mapping[str, bool], errors: Mapping[str, RecoupError]
) -> tuple[Fate, ...]:
    sizes = {entry.id: entry.stored_bytes for entry in facts.catalog.entries}
    return tuple(
        Fate(
            decision=one,
            stored_bytes=sizes[one.copy.id],
            removed=removed.get(one.copy.id, False),
            error=errors.get(one.copy.id),
        )
        for one in decisions
    )


def _wal(facts: Facts, decisions: Sequence[Decision], *, dry_run: bool) -> tuple[LogFate, ...]:
    return tuple(_one_wal(facts, cluster, decisions, dry_run=dry_run) for cluster in facts.clusters)


def _one_wal(facts: Facts, cluster: Cluster, decisions: Sequence[Decision], *, dry_run: bool) -> LogFate:
    """Decide and remove, the oldest first; at the first object that is locked or fails, all younger ones stay too."""
    decided = decide_cluster(facts, cluster, decisions)
    going: list[WalEntry] = [entry for unit in decided.remove for entry in cluster.entries[unit]]
    cut = cut_log(facts.repository, going, cluster.archive.delete, now=facts.snapshot.now, dry_run=dry_run)
    return log_fate(
        cut,
        service=cluster.archive.service,
        system_identifier=cluster.archive.system_identifier,
        held=sum(len(entries) for entries in cluster.entries.values()),
        reason=decided.reason,
    )


def _sweep(repository: Repository, orphans: Sequence[Orphan], busy: Mapping[str, BusyError]) -> int:
    swept = 0
    for orphan in orphans:
        # What the store locks stays for now; it is nobody's copy and will be met again.
        with contextlib.suppress(StorageError):
            if orphan.place.service not in busy and locked_until(repository, orphan.place, clock.now()) is None:
                swept += remove_orphan(repository, orphan)
    return swept
