"""Proving a stored RDB: read from its first byte to its last, every value, the checksum, the counts of keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recoup.engines.engine import CopyReader
from recoup.engines.redis.rdb_summary import Summary, summarise
from recoup.engines.redis.snapshot import STREAM
from recoup.kernel.errors import DamageError, UnknownFormatError
from recoup.kernel.finding import Finding, Verdict

_WHOLE = "the RDB is whole and every value can be read"
_SEALED = "the checksum of the RDB matches"
_COUNTED = "every database has as many keys as were backed up"


def check_rdb_copy(reader: CopyReader) -> list[Finding]:
    """Check one copy for the grade *intact*: that its RDB would load, as far as reading it through can show.

    An RDB written with ``rdbchecksum no`` is *unknown*: its values can be read, but nothing proves that they are what
    was written. So is a format that this Recoup does not know. Errors of the repository are raised.
    """
    lengths = {stream.name: stream.plain_bytes for stream in reader.streams()}
    if STREAM not in lengths:
        return [_finding(_WHOLE, Verdict.FAILED, f"the copy has no stream {STREAM}")]
    try:
        summary = summarise(_only_from_store(reader))
    except _StoreDamageError as damage:
        raise damage.error from damage
    except UnknownFormatError as unknown:
        return [_finding(_WHOLE, Verdict.UNKNOWN, unknown.message, hint=unknown.hint)]
    except DamageError as damage:
        return [_finding(_WHOLE, Verdict.FAILED, damage.message, hint="Use another copy; this one does not load.")]
    assert summary.end is not None
    total = sum(summary.keys.values())
    detail = f"RDB version {summary.version} of Redis {summary.server_version or 'unknown'}, {total} keys, "
    findings = [_finding(_WHOLE, Verdict.OK, detail + f"{summary.end.size_bytes} bytes")]
    if summary.end.checksum_stated:
        findings.append(_finding(_SEALED, Verdict.OK))
    else:
        findings.append(
            _finding(
                _SEALED,
                Verdict.UNKNOWN,
                "the server writes no checksum (rdbchecksum no)",
                hint="Set rdbchecksum yes in the Redis configuration and restart it; it costs about 10 % while saving.",
                not_checked="whether the values are those the server held",
            )
        )
    findings.append(_compare_counts(summary, reader.facts.get("keys")))
    return findings


class _StoreDamageError(Exception):
    """Carries damage that the repository found past the reader of the RDB, which raises the same kind of error."""

    def __init__(self, error: DamageError) -> None:
        super().__init__(error.message)
        self.error = error


def _only_from_store(reader: CopyReader) -> Iterator[bytes]:
    try:
        yield from reader.read(STREAM)
    except DamageError as damage:
        raise _StoreDamageError(damage) from damage


def _compare_counts(summary: Summary, recorded: Any) -> Finding:
    if isinstance(recorded, dict):
        expected = {int(database): int(count) for database, count in recorded.items()}
        failure, where = Verdict.FAILED, "in the manifest"
    elif summary.stated_keys or not summary.keys:
        expected, failure, where = summary.stated_keys, Verdict.UNKNOWN, "in the file's own remarks"
    else:
        return _finding(_COUNTED, Verdict.UNKNOWN, "neither the manifest nor the file says how many keys there were")
    wrong = [
        f"database {database}: {summary.keys.get(database, 0)} keys, {expected.get(database, 0)} {where}"
        for database in sorted({*summary.keys, *expected})
        if summary.keys.get(database, 0) != expected.get(database, 0)
    ]
    if wrong:
        return _finding(_COUNTED, failure, "; ".join(wrong))
    counted = ", ".join(f"{database}: {count}" for database, count in sorted(summary.keys.items()))
    return _finding(_COUNTED, Verdict.OK, counted or "no keys")


def _finding(
    check: str, verdict: Verdict, detail: str = "", *, hint: str | None = None, not_checked: str = ""
) -> Finding:
    return Finding(check=check, subject=STREAM, verdict=verdict, detail=detail, hint=hint, not_checked=not_checked)
