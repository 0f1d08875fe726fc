"""Is where a recovery stopped what was asked for? Pure."""

from __future__ import annotations

from datetime import UTC, datetime

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recovery_script import Reached
from recoup.engines.postgres.recovery_target import AtLsn, AtName, AtTime, AtXid, Target
from recoup.kernel.finding import Finding, Verdict

#: A record may begin behind a page header that the end of the record before it does not count.
_LONGEST_PAGE_HEADER = 40


def judge(target: Target, reached: Reached, *, subject: str, wal_end: Lsn, segment_bytes: int) -> Finding:
    """Compare the target with what the server said. ``wal_end`` is where the WAL ends that was there to replay."""
    wrong = _fault(target, reached, wal_end, segment_bytes)
    return Finding(
        check="the recovery stopped at its target",
        subject=subject,
        verdict=Verdict.UNKNOWN if reached.lsn is None else Verdict.OK if wrong is None else Verdict.FAILED,
        detail=f"target {target}; reached {describe(reached)}" + ("" if wrong is None else f": {wrong}"),
        not_checked="" if reached.asked else "the server could not be asked by SQL; this is from its log",
    )


def describe(reached: Reached) -> str:
    """Where it stopped, for people."""
    last = "no commit" if reached.last_commit is None else f"last commit {_text(reached.last_commit)}"
    how = reached.stopped or "the end of the WAL"
    return f"LSN {reached.lsn or 'unknown'}, {last}, now timeline {reached.timeline or 'unknown'} ({how})"


def _fault(target: Target, reached: Reached, wal_end: Lsn, segment_bytes: int) -> str | None:
    if reached.lsn is None:
        return "it did not say where it stopped"
    stopped = reached.stopped or ""
    match target:
        case AtTime(time=time, before=before):
            last = reached.last_commit
            if last is not None and (last > time or (before and last == time)):
                return "a later transaction was replayed"
        case AtLsn(lsn=lsn, before=True):
            if reached.lsn > lsn:
                return "a later record was replayed"
        case AtLsn(lsn=lsn):
            if reached.lsn.value + _LONGEST_PAGE_HEADER < lsn.value:
                return "records before it were not replayed"
        case AtXid(xid=xid):
            if f"transaction {xid & 0xFFFFFFFF}," not in stopped:
                return "it stopped at something else"
        case AtName(name=name):
            if f'restore point "{name}"' not in stopped:
                return "it stopped at something else"
    # A replay that ends by itself must have come to the end of what there was: a segment that stops being valid in its
    # middle looks like an end as well.
    if not stopped and reached.lsn.value < (wal_end.value - 1) // segment_bytes * segment_bytes:
        return f"the WAL stopped being readable before its end at {wal_end}"
    return None


def _text(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S.%fZ}"
