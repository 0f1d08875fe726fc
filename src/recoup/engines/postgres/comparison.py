"""Compare two fingerprints of a database: is everything there, and is it the same? Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from recoup.kernel.finding import Finding, Verdict

_SEQUENCE_LOGGED_AHEAD = 32  # SEQ_LOG_VALS in src/backend/commands/sequence.c: values written to the WAL in advance


class CopyMode(enum.StrEnum):
    """How the second database came to be. It decides what may differ."""

    LOGICAL = "logical"  #: from a dump
    PHYSICAL = "physical"  #: from a base backup and WAL


def compare(before: Mapping[str, Any], after: Mapping[str, Any], *, mode: CopyMode) -> list[Finding]:
    """Findings on ``after``, measured against ``before``: one per difference, and one for all that is equal.

    What could not be compared is ``unknown``, with the reason; what by its nature is not carried by a copy of this
    kind is named in ``not_checked`` of the last finding.
    """
    if before.get("version") != after.get("version"):
        return [
            Finding(
                check="the content equals the copied one",
                subject=str(before.get("database", "")),
                verdict=Verdict.UNKNOWN,
                detail=f"fingerprints of versions {before.get('version')} and {after.get('version')} do not compare",
            )
        ]
    skipped: list[str] = []
    findings = [
        *_tables(before, after, mode, skipped),
        *_sequences(before["sequences"], after["sequences"], mode),
        *_large_objects(before["large_objects"], after["large_objects"]),
        *_definitions(before, after),
        *_extensions(before["extensions"], after["extensions"], mode),
        *_surroundings(before, after, mode),
    ]
    if all(finding.verdict is Verdict.OK for finding in findings):
        compared = [
            entry
            for name, entry in before["tables"].items()
            if _not_comparable(entry, after["tables"][name], mode) is None
        ]
        findings.append(
            Finding(
                check="the content equals the copied one",
                subject=str(before["database"]),
                verdict=Verdict.OK,
                detail=f"{len(compared)} tables with {sum(entry['rows'] for entry in compared)} rows, "
                f"{len(before['sequences'])} sequences, {before['large_objects']['count']} large objects, "
                f"{len(before['definitions'])} definitions",
                not_checked="; ".join(skipped),
            )
        )
    return findings


def _tables(
    before: Mapping[str, Any], after: Mapping[str, Any], mode: CopyMode, skipped: list[str]
) -> Iterator[Finding]:
    majors = (before["server_major"], after["server_major"])
    theirs = after["tables"]
    for name, old in before["tables"].items():
        if name not in theirs:
            yield _table(name, Verdict.FAILED, f"the {old['kind']} is missing")
            continue
        reason = _not_comparable(old, theirs[name], mode)
        if reason is not None:
            skipped.append(f"{name}: {reason}")
        else:
            yield from _rows(name, old, theirs[name], majors)
    for name in theirs.keys() - before["tables"].keys():
        yield _table(name, Verdict.FAILED, f"the {theirs[name]['kind']} was not there when the copy was made")


def not_compared(before: Mapping[str, Any], after: Mapping[str, Any], mode: CopyMode) -> dict[str, str]:
    """The tables of both fingerprints whose rows cannot be compared, each with the reason."""
    theirs = after["tables"]
    reasons = {
        name: _not_comparable(old, theirs[name], mode) for name, old in before["tables"].items() if name in theirs
    }
    return {name: reason for name, reason in reasons.items() if reason is not None}


def _not_comparable(old: Mapping[str, Any], new: Mapping[str, Any], mode: CopyMode) -> str | None:
    if "not_compared" in old or "not_compared" in new:
        return str(old.get("not_compared") or new.get("not_compared"))
    if mode is CopyMode.PHYSICAL and old.get("unlogged"):
        return "an unlogged table is empty after a physical restore"
    if mode is CopyMode.LOGICAL and old["kind"] == "materialized view":
        return "a dump carries the query of a materialized view, and the restore runs it again"
    if mode is CopyMode.LOGICAL and "extension" in old:
        return f"it belongs to the extension {old['extension']}, which fills it itself"
    return None


def _rows(name: str, old: Mapping[str, Any], new: Mapping[str, Any], majors: tuple[int, int]) -> Iterator[Finding]:
    for side, entry in (("when the copy was made", old), ("now", new)):
        if "unknown" in entry:
            yield _table(name, Verdict.UNKNOWN, f"could not be read {side}: {entry['unknown']}")
            return
    if old["rows"] != new["rows"]:
        yield _table(name, Verdict.FAILED, f"{old['rows']} rows were copied, {new['rows']} are there")
    elif old["method"] != new["method"]:
        yield _table(
            name,
            Verdict.UNKNOWN,
            f"{old['rows']} rows on both sides, hashed in two ways ({old['method']}, {new['method']}): "
            "a column has another type",
        )
    elif old["lanes"] != new["lanes"] and majors[0] != majors[1]:
        yield _table(
            name,
            Verdict.UNKNOWN,
            f"{old['rows']} rows on both sides, and other hashes; PostgreSQL {majors[0]} and {majors[1]} do not "
            "promise equal ones",
        )
    elif old["lanes"] != new["lanes"]:
        yield _table(name, Verdict.FAILED, f"{old['rows']} rows on both sides, and at least one differs")


def _table(name: str, verdict: Verdict, detail: str) -> Finding:
    return Finding(check="the rows equal the copied ones", subject=name, verdict=verdict, detail=detail)


def _sequences(before: Mapping[str, Any], after: Mapping[str, Any], mode: CopyMode) -> Iterator[Finding]:
    for name, old in before.items():
        new = after.get(name)
        if new is None:
            yield _sequence(name, Verdict.FAILED, "the sequence is missing")
        elif "unknown" in old or "unknown" in new:
            yield _sequence(name, Verdict.UNKNOWN, f"could not be read: {old.get('unknown') or new.get('unknown')}")
        elif mode is CopyMode.PHYSICAL and old.get("unlogged"):
            continue
        else:
            yield from _values(name, old, new, mode)


def _values(name: str, old: Mapping[str, Any], new: Mapping[str, Any], mode: CopyMode) -> Iterator[Finding]:
    """Restored sequences may be ahead, never behind: a value handed out twice breaks a key.

    From a dump: between the two readings around it. From a physical copy: as far as the WAL runs ahead.
    """
    step = old["step"]
    first = old["last"] - (0 if old["called"] else step)
    now = new["last"] - (0 if new["called"] else step)
    ahead = (now - first) / step
    if mode is CopyMode.PHYSICAL:
        allowed = float(_SEQUENCE_LOGGED_AHEAD + old["cache"])
    else:
        allowed = max(0.0, (old.get("latest", old["last"]) - first) / step)
    if ahead == 0 or (0 < ahead <= allowed):
        return
    told = f"was at {old['last']}, is at {new['last']}"
    if old["cycles"]:
        yield _sequence(name, Verdict.UNKNOWN, f"{told}; a sequence that cycles has no before and after")
    else:
        yield _sequence(name, Verdict.FAILED, told + (", behind" if ahead < 0 else f", {ahead:g} steps ahead"))


def _sequence(name: str, verdict: Verdict, detail: str) -> Finding:
    return Finding(check="the sequence is where it was", subject=name, verdict=verdict, detail=detail)


def _large_objects(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Finding]:
    def finding(verdict: Verdict, detail: str) -> Finding:
        return Finding(
            check="the large objects equal the copied ones", subject="large objects", verdict=verdict, detail=detail
        )

    if old["count"] != new["count"]:
        yield finding(Verdict.FAILED, f"{old['count']} were copied, {new['count']} are there")
    elif "unknown" in old or "unknown" in new:
        yield finding(Verdict.UNKNOWN, f"could not be read: {old.get('unknown') or new.get('unknown')}")
    elif old["method"] != new["method"]:
        yield finding(Verdict.UNKNOWN, "they were read with other rights than now, which gives other hashes")
    elif old["lanes"] != new["lanes"]:
        yield finding(Verdict.FAILED, f"{old['count']} on both sides, and at least one differs")


def _definitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Finding]:
    same_major = before["server_major"] == after["server_major"]
    old, new = before["definitions"], after["definitions"]
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        verdict = Verdict.FAILED
        if name not in new:
            detail = "is missing"
        elif name not in old:
            detail = "was not there when the copy was made"
        else:
            detail = "is defined in another way, or has another owner or other rights"
            if not same_major:
                verdict = Verdict.UNKNOWN
                detail += "; another major version prints definitions in its own way"
        yield Finding(check="the definition equals the copied one", subject=name, verdict=verdict, detail=detail)


def _extensions(old: Mapping[str, Any], new: Mapping[str, Any], mode: CopyMode) -> Iterator[Finding]:
    for name in sorted(old):
        if name not in new:
            yield Finding(
                check="the extension is there",
                subject=name,
                verdict=Verdict.FAILED,
                detail="is missing",
                hint=f"Install the package that holds the extension {name} on the server.",
            )
        elif old[name] != new[name] and mode is CopyMode.PHYSICAL:
            yield Finding(
                check="the extension has its version",
                subject=name,
                verdict=Verdict.FAILED,
                detail=f"was {old[name]}, is {new[name]}",
            )


def _surroundings(before: Mapping[str, Any], after: Mapping[str, Any], mode: CopyMode) -> Iterator[Finding]:
    for key, what in (("encoding", "the encoding"), ("collate", "the collation"), ("ctype", "the character classes")):
        if before[key] != after[key]:
            yield Finding(
                check=f"{what} is the same",
                subject=str(after["database"]),
                verdict=Verdict.FAILED,
                detail=f"was {before[key]}, is {after[key]}",
            )
    if mode is CopyMode.PHYSICAL:
        missing: Iterable[str] = sorted(set(before["roles"]) - set(after["roles"]))
        for role in missing:
            yield Finding(check="the role is there", subject=role, verdict=Verdict.FAILED, detail="is missing")
        for name, (recorded, actual) in after["collations"].items():
            if recorded != actual:
                yield Finding(
                    check="the collation sorts as when its indexes were built",
                    subject=name,
                    verdict=Verdict.UNKNOWN,
                    detail=f"indexes were built with version {recorded}, the system has {actual}",
                    hint="Run REINDEX DATABASE, then ALTER DATABASE … REFRESH COLLATION VERSION.",
                )
