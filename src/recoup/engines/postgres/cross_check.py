"""The cross-chain check: base backup A and the WAL behind it must lead to what base backup B holds.

A physical copy of a server that is written to equals nothing that could have been recorded on the server. But two base
backups, each with the WAL up to the same position, are two ways to the same state. When they differ, one of them or a
segment of WAL is bad; when they agree, all three are good as far as the WAL has touched them. Nothing of it
is asked of production.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from recoup.engines.engine import CopyReader
from recoup.engines.postgres.comparison import CopyMode
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recover_folder import Recovery, recover_to_folder
from recoup.engines.postgres.recovery_script import Reached
from recoup.engines.postgres.recovery_verdict import judge
from recoup.engines.postgres.sameness import SAME, judge_database
from recoup.engines.postgres.sandbox_programs import find_sandbox_programs
from recoup.engines.postgres.sandbox_server import start_sandbox_server
from recoup.engines.sandbox import Sandbox
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Finding, Verdict

CROSSED: Final = "two base backups and the WAL between them lead to the same data"
_HINT: Final = (
    "One of the two base backups is bad, or a segment of WAL between them. Take a new base backup now, and prove each "
    "of the older ones by itself (`recoup verify ID`)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """What one way led to: where the replay stopped, and the fingerprint of every database there."""

    base_id: str
    stopped: Finding
    reached: Reached
    databases: Mapping[str, Mapping[str, Any]]


def derive(sandbox: Sandbox, chain: Sequence[CopyReader], recovery: Recovery, *, wal_end: Lsn) -> Derived:
    """Recover a base backup in a sandbox, and read all of it. ``wal_end`` is where the WAL ends that there is.

    Needs PostgreSQL's programs on this machine, or from PyPI: a replay is fed through pipes, which those of an image
    are not. Raise ``UncheckedError`` when there are none, otherwise as ``recover_to_folder`` and
    ``start_sandbox_server`` do: ``DamageError`` names the file that is damaged.
    """
    facts = chain[-1].facts
    major = int(facts["major"])
    try:
        programs = [find_sandbox_programs(sandbox, major)]
    except EngineError as missing:
        raise UncheckedError(missing.message, hint=missing.hint) from missing
    folder = sandbox.child(f"from-{recovery.base_id}")
    done = recover_to_folder(chain, folder, recovery, owner=sandbox.user, inside=sandbox.command, programs=programs)
    stopped = judge(
        recovery.target, done.reached, subject=f"from {recovery.base_id}", wal_end=wal_end,
        segment_bytes=recovery.segment_bytes,
    )  # fmt: skip
    found: dict[str, Mapping[str, Any]] = {}
    with start_sandbox_server(sandbox, folder, major=major, facts=facts, programs=programs) as server:
        for name in server.databases():
            with server.session(name) as session:
                found[name] = fingerprint_database(session)
    return Derived(base_id=recovery.base_id, stopped=stopped, reached=done.reached, databases=found)


def compare_derived(older: Derived, newer: Derived, *, shared: Sequence[str] = ()) -> list[Finding]:
    """Compare what two ways led to, table by table. Pure. ``shared`` are backups that both were built on."""
    wrong = [one for one in (older.stopped, newer.stopped) if one.verdict is not Verdict.OK]
    ways = f"{older.base_id} with WAL, and {newer.base_id}"
    if wrong:
        return [replace(one, check=CROSSED, hint=_HINT) for one in wrong]
    if older.reached.lsn != newer.reached.lsn:
        detail = f"{ways}, stopped at two positions: {older.reached.lsn} and {newer.reached.lsn}"
        return [Finding(check=CROSSED, subject="the WAL", verdict=Verdict.UNKNOWN, detail=detail)]
    findings, skipped = [], []
    tables = rows = 0
    for name in sorted({*older.databases, *newer.databases}):
        before, after = older.databases.get(name), newer.databases.get(name)
        if before is None or after is None:
            there = newer.base_id if before is None else older.base_id
            detail = f"the database is there from {there} only"
            findings.append(Finding(check=CROSSED, subject=name, verdict=Verdict.FAILED, detail=detail, hint=_HINT))
            continue
        # The way through the WAL may be ahead with its sequences, whose values are logged in advance; never behind.
        for one in judge_database(name, after, before, CopyMode.PHYSICAL):
            if one.not_checked:
                skipped.append(f"{name}: {one.not_checked}")
            if one.verdict is not Verdict.OK:
                detail = f"{newer.base_id} held against {older.base_id} with WAL: {one.check}: {one.detail}"
                findings.append(replace(one, check=CROSSED, detail=detail, hint=_HINT, not_checked=""))
            elif one.check == SAME:
                tables += len(before["tables"])
                rows += sum(entry.get("rows", 0) for entry in before["tables"].values())
    if findings:
        return findings
    skipped += [f"what both have from {', '.join(shared)}"] if shared else []
    return [
        Finding(
            check=CROSSED, subject="all databases", verdict=Verdict.OK,
            detail=f"{ways}, are equal at {newer.reached.lsn}: {tables} tables with {rows} rows",
            not_checked="; ".join([*skipped, "damage of the server itself from before the older base backup"]),
        )
    ]  # fmt: skip
