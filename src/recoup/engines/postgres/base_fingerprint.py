"""The fingerprint that goes with a base backup.

A snapshot is not a log position: a base backup recovers to the position where it ended, and no snapshot can be taken
exactly there. But when no transaction that writes ended between a snapshot before the backup and one after it, both
see what the backup recovers to, and the fingerprint of the later one is exact. On a server that was written to
meanwhile it is recorded as not exact: differences then prove nothing, and a comparison says *unknown*, not *failed*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recoup.engines.engine import CopyFacts
from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.comparison import CopyMode, compare
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.postgres.session import Session
from recoup.kernel.finding import Finding, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Which writing transactions had ended at an instant: all below ``xmax`` but those ``in_progress``."""

    xmax: int
    in_progress: tuple[int, ...]


def read_activity(session: Session) -> Activity:
    """The server's writing transactions now, prepared ones included. Transaction ids are cluster-wide."""
    row = session.query(
        "SELECT pg_snapshot_xmax(s)::text, "
        "coalesce((SELECT string_agg(x::text, ',' ORDER BY x::text::bigint) FROM pg_snapshot_xip(s) x), '') "
        "FROM pg_current_snapshot() s"
    )[0]
    return Activity(xmax=int(row[0] or 0), in_progress=tuple(int(x) for x in str(row[1] or "").split(",") if x))


def take_with_fingerprint(access: ServerAccess, databases: Sequence[str], take: Callable[[], CopyFacts]) -> CopyFacts:
    """Take a base backup and the fingerprint of ``databases`` (empty: all that accept connections) after it.

    Raise what ``take`` and ``fingerprint_database`` raise.
    """
    with open_maintenance(access) as session:
        before = read_activity(session)
    copy = take()
    prints: dict[str, Any] = {}
    with open_maintenance(access) as session:
        for name in databases or _all_databases(session):
            with access.session(name) as inside:
                prints[name] = fingerprint_database(inside)
        after = read_activity(session)
    return replace(copy, fingerprint={"exact": before == after, "databases": prints})


def _all_databases(session: Session) -> list[str]:
    rows = session.query("SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template1' ORDER BY 1")
    return [str(name) for (name,) in rows]


def compare_with_base(fingerprint: Mapping[str, Any] | None, access: ServerAccess) -> list[Finding]:
    """Compare a running, restored server with the fingerprint of its copy. Reads every table it names.

    Without a fingerprint the answer is *unknown*. Where the fingerprint is not exact, differences are *unknown* too,
    but equality is proof all the same.
    """
    check = "the content equals the copied one"
    if fingerprint is None:
        hint = "Set fingerprint: true for the service in the plan."
        detail = "the copy has no fingerprint"
        return [Finding(check=check, subject=access.place, verdict=Verdict.UNKNOWN, detail=detail, hint=hint)]
    findings: list[Finding] = []
    for name, before in fingerprint["databases"].items():
        with access.session(name) as session:
            findings += compare(before, fingerprint_database(session), mode=CopyMode.PHYSICAL)
    if fingerprint.get("exact"):
        return findings
    return [
        replace(
            one,
            verdict=Verdict.UNKNOWN,
            detail=f"{one.detail} (the server was written to while it was copied, so this may be such a write)",
        )
        if one.verdict is Verdict.FAILED
        else one
        for one in findings
    ]
