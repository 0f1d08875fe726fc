"""Whether the copies that a stack point names are there. What is inside them, their own verification proves."""

from __future__ import annotations

from collections.abc import Sequence

from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError
from recoup.kernel.finding import Finding, Verdict
from recoup.repository.manifest import Manifest
from recoup.repository.repository import Repository


def check_members(manifest: Manifest, holders: Sequence[Repository]) -> list[Finding]:
    """One finding for each copy that the point ``manifest`` depends on: some repository that holds the point has it."""
    return [_member(artefact, holders) for artefact in manifest.depends_on]


def _member(artefact: str, holders: Sequence[Repository]) -> Finding:
    check = "the copy of a member is there"
    verdict, reasons = Verdict.FAILED, []
    for holder in holders:
        try:
            found = holder.manifest(artefact)
        except (MissingObjectError, DamageError) as lost:
            reasons.append(f"{holder.name}: {lost.message}")
        except RecoupError as silent:
            reasons.append(f"{holder.name}: {silent.message}")
            verdict = Verdict.UNKNOWN
        else:
            return Finding(
                check=check,
                subject=f"{found.service} {found.kind} {artefact}",
                verdict=Verdict.OK,
                not_checked="what is inside the copies of the members: verify them as well",
            )
    return Finding(
        check=check,
        subject=artefact,
        verdict=verdict,
        detail="; ".join(reasons),
        hint="Another stack point may be whole; take a new one.",
    )
