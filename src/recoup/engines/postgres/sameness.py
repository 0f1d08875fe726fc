"""The grade *same* of a PostgreSQL copy: the restored databases equal the fingerprint in the copy's manifest.

The fingerprint was taken from production: for a dump in its very snapshot, for a base backup right after it. A base
backup of a server that was written to meanwhile has no fingerprint that must be equal (``base_fingerprint.py``): what
differs from it is *unknown*, and the cross-chain check settles it, which derives the same state from another base
backup and the WAL between. ``settle`` puts the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from recoup.engines.postgres.comparison import CopyMode, compare, not_compared
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.postgres.restored_server import RestoredServer
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict, overall

SAME: Final = "the content equals the copied one"
#: The check of what differs from a fingerprint that need not be equal.
INEXACT: Final = "the content equals what was recorded around the copy"

_DIFFERS: Final = (
    "Do not count on this copy. Verify the one before it (`recoup list`) and take a new one; then find out which of "
    "disk, memory or transfer changed it on the way."
)
_WRITTEN_TO: Final = (
    "The server was written to while it was copied, so this may be such a write. The cross-chain check settles it: it "
    "needs an earlier base backup and the WAL between the two. A copy of a quiet hour, or a dump, is exact by itself."
)
_LIBRARY: Final = "Install the extension's package, of the version that production has, where the sandbox runs."


def compare_with_recorded(
    server: RestoredServer, fingerprint: Mapping[str, Any] | None, facts: Mapping[str, Any]
) -> list[Finding]:
    """Compare every database of a restored copy with ``fingerprint``, both as its manifest has them.

    One finding for each thing that differs, by its name, and one for each database that says what is equal and what
    was not compared. Reads every row once. Raises nothing for what is wrong or cannot be read.
    """
    if fingerprint is None:
        hint = "Set fingerprint: true for the service in the plan; copies from then on can be compared."
        detail = "the copy has no fingerprint to compare with"
        return [Finding(check=SAME, subject="all databases", verdict=Verdict.UNKNOWN, detail=detail, hint=hint)]
    mode = CopyMode.LOGICAL if "format" in facts and isinstance(facts.get("databases"), Mapping) else CopyMode.PHYSICAL
    exact = bool(fingerprint.get("exact", mode is CopyMode.LOGICAL))
    recorded = fingerprint["databases"]
    there = server.databases()
    findings: list[Finding] = []
    for name, before in recorded.items():
        if name not in there:
            detail = "the database is missing"
            findings.append(Finding(check=SAME, subject=name, verdict=Verdict.FAILED, detail=detail, hint=_DIFFERS))
            continue
        findings += compare_database(server, name, before, mode)
    if not exact:
        findings = [_inexact(one) for one in findings]
    return _naming_the_rest(findings, sorted(set(there) - set(recorded) - {"template1"}))


def compare_database(server: RestoredServer, name: str, before: Mapping[str, Any], mode: CopyMode) -> list[Finding]:
    """Compare the database ``name`` of a server with a fingerprint of it. When it cannot be read, that is a finding."""
    try:
        with server.session(name) as session:
            after = fingerprint_database(session)
    except EngineError as failure:
        return [
            Finding(
                check=SAME, subject=name, verdict=Verdict.UNKNOWN, detail=failure.message,
                hint=_hint(failure.message) or failure.hint,
            )
        ]  # fmt: skip
    return judge_database(name, before, after, mode)


def judge_database(name: str, before: Mapping[str, Any], after: Mapping[str, Any], mode: CopyMode) -> list[Finding]:
    """The findings of ``compare``, each named with its database and what to do; and what is equal beside them."""
    found = [
        _damaged(one) for one in compare(before, after, mode=mode) if one.verdict is not Verdict.OK or one.check == SAME
    ]
    named = [
        one
        if one.check == SAME
        else replace(
            one,
            subject=f"{name}: {one.subject}",
            hint=one.hint or _hint(one.detail) or (_DIFFERS if one.verdict is Verdict.FAILED else None),
        )
        for one in found
    ]
    if any(one.check == SAME for one in found):
        return named
    skipped = not_compared(before, after, mode)
    differing = {one.subject for one in found}
    equal = [one for one in before["tables"] if one not in skipped and one not in differing]
    return [
        *named,
        Finding(
            check="the other tables equal the copied ones", subject=name, verdict=Verdict.OK,
            detail=f"{len(equal)} of {len(before['tables'])} tables",
            not_checked="; ".join(f"{table}: {reason}" for table, reason in skipped.items()),
        ),
    ]  # fmt: skip


def settle(recorded: Sequence[Finding], crossed: Sequence[Finding]) -> list[Finding]:
    """What the comparison with the fingerprint and the cross-chain check say together.

    Where the second one found the whole state equal, derived another way, what differs from a fingerprint that need
    not be equal is explained by what was written meanwhile: those findings become one, and ok.
    """
    doubtful = [one for one in recorded if one.check == INEXACT]
    if not doubtful or overall(crossed) is not Verdict.OK:
        return [*recorded, *crossed]
    names = ", ".join(one.subject for one in doubtful)
    settled = Finding(
        check=INEXACT,
        subject="all databases",
        verdict=Verdict.OK,
        detail=f"what differs was written while it was copied, as another base backup and the WAL show: {names}",
        not_checked="what both base backups have in common: damage of the server itself from before the older one",
    )
    return [*(one for one in recorded if one.check != INEXACT), settled, *crossed]


def _inexact(one: Finding) -> Finding:
    if one.verdict is not Verdict.FAILED:
        return one
    return replace(one, check=INEXACT, verdict=Verdict.UNKNOWN, detail=f"{one.check}: {one.detail}", hint=_WRITTEN_TO)


def _naming_the_rest(findings: list[Finding], rest: Sequence[str]) -> list[Finding]:
    """Say in the last finding which databases of the copy no fingerprint covers."""
    if not rest:
        return findings
    said = f"databases without a fingerprint: {', '.join(rest)}"
    if not findings:
        hint = "Correct `databases` of the service in the plan."
        return [Finding(check=SAME, subject="all databases", verdict=Verdict.UNKNOWN, detail=said, hint=hint)]
    last = findings[-1]
    return [*findings[:-1], replace(last, not_checked="; ".join(filter(None, (last.not_checked, said))))]


def _damaged(one: Finding) -> Finding:
    """What PostgreSQL itself calls corrupted is not unknown: data_corrupted and index_corrupted."""
    corrupted = "SQLSTATE XX001" in one.detail or "SQLSTATE XX002" in one.detail
    return replace(one, verdict=Verdict.FAILED) if corrupted else one


def _hint(detail: str) -> str | None:
    return _LIBRARY if "could not access file" in detail or "could not load library" in detail else None
