"""The cross-chain check of a base backup: gathering the two ways to the same position, and going both in sandboxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.protect.incremental import KINDS, chain_of
from recoup.assembly.protect.wal_facts import ClusterFacts, read_clusters
from recoup.assembly.restore.postgres_moment import PostgresMoment
from recoup.engines.postgres.cross_check import CROSSED, Derived, compare_derived, derive
from recoup.engines.postgres.cross_choice import Crossing, NotCrossed, choose_crossing
from recoup.engines.postgres.recovery_choice import Choice
from recoup.engines.sandbox import open_sandbox
from recoup.kernel.errors import DamageError, RecoupError, UncheckedError, WrongKeyError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_duration, show_size
from recoup.repository.copy_reader import ArtefactReader

#: What a slow machine restores, and what a server replays, in bytes for each second: for an estimate, no promise.
_RESTORED: Final = 100e6
_REPLAYED: Final = 40e6

#: Asks whether there is room to restore a chain of a kind. Raises ``UncheckedError`` with the numbers.
RequireRoom = Callable[[str, Sequence[ArtefactReader]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossed:
    """What the check found. Without findings, ``why_not`` says why it was not made."""

    findings: tuple[Finding, ...] = ()
    why_not: str = ""


def cross_chain(
    opened: Readable,
    found: Found,
    *,
    sandboxes: Path,
    roles: Sequence[str] = ("postgres",),
    left_seconds: float | None = None,
    require_room: RequireRoom = lambda _kind, _chain: None,
) -> Crossed:
    """Hold the base backup ``found`` against the one before it and the WAL between the two.

    It is made when there is such a one, and time and room allow it. WAL that is archived but has a hole is *unknown*,
    with the name of what is missing; damaged WAL, or a difference, is *failed*. Restores two copies, one after the
    other, each in a sandbox of its own in ``sandboxes``. ``roles`` are tried to ask where the replay stopped. Raise
    ``WrongKeyError``, ``BusyError`` and what removing a sandbox raises; all else is a finding.
    """
    manifest = found.manifest
    if manifest.kind not in KINDS:
        return Crossed(why_not=f"copies of the kind {manifest.kind} have no WAL behind them")
    clusters = read_clusters(opened, manifest.service, opened.catalog())
    cluster = next((one for one in clusters if manifest.id in one.found), None)
    if cluster is None:
        return Crossed(why_not="its position in the WAL is not known")
    newer = next(one for one in cluster.bases if one.id == manifest.id)
    chains = {identifier: (*one.manifest.depends_on, identifier) for identifier, one in cluster.found.items()}
    crossing = choose_crossing(cluster.inventory, cluster.bases, newer, chains)
    if isinstance(crossing, NotCrossed):
        if not crossing.broken:
            return Crossed(why_not=crossing.why)
        return Crossed(findings=(_not_made(manifest.id, crossing.why, crossing.hint),))
    try:
        return _both_ways(opened, cluster, crossing, sandboxes, roles, left_seconds, require_room)
    except UncheckedError as lacking:
        return Crossed(why_not=lacking.message)
    except WrongKeyError:
        raise
    except DamageError as damage:
        detail = f"it could not be derived another way: {damage.message}"
        finding = Finding(check=CROSSED, subject=manifest.id, verdict=Verdict.FAILED, detail=detail, hint=damage.hint)
        return Crossed(findings=(finding,))
    except RecoupError as failure:
        return Crossed(findings=(_not_made(manifest.id, failure.message, failure.hint),))


def _not_made(identifier: str, why: str, hint: str | None) -> Finding:
    return Finding(check=CROSSED, subject=identifier, verdict=Verdict.UNKNOWN, detail=why, hint=hint)


def _both_ways(
    opened: Readable,
    cluster: ClusterFacts,
    crossing: Crossing,
    sandboxes: Path,
    roles: Sequence[str],
    left_seconds: float | None,
    require_room: RequireRoom,
) -> Crossed:
    ways = [(one, chain_of(opened, cluster.found[one.bases[0].id])) for one in (crossing.older, crossing.newer)]
    for choice, chain in ways:
        require_room(cluster.found[choice.bases[0].id].manifest.kind, chain)
    plain = sum(reader.manifest.plain_bytes for _, chain in ways for reader in chain)
    seconds = plain / _RESTORED + crossing.replayed_bytes / _REPLAYED
    if left_seconds is not None and seconds > left_seconds:
        return Crossed(
            why_not=f"restoring {show_size(plain)} and replaying {show_size(crossing.replayed_bytes)} of WAL would "
            f"take about {show_duration(seconds)}, and {show_duration(left_seconds)} are left"
        )
    older, newer = (_derive(cluster, choice, chain, sandboxes, roles) for choice, chain in ways)
    return Crossed(findings=tuple(compare_derived(older, newer, shared=crossing.shared)))


def _derive(
    cluster: ClusterFacts, choice: Choice, chain: Sequence[ArtefactReader], sandboxes: Path, roles: Sequence[str]
) -> Derived:
    moment = PostgresMoment(cluster=cluster, choice=choice, timeline=choice.window.timeline)
    base = choice.bases[0]
    with open_sandbox(sandboxes, f"cross-chain check of {cluster.service}, from {base.id}") as sandbox:
        return derive(sandbox, chain, moment.recovery(base, roles), wal_end=choice.window.end)
