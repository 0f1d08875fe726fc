"""How a stream stands, from what its worker says of itself."""

from __future__ import annotations

from datetime import datetime

from recoup.assembly.watch.notes import instant_of
from recoup.backup.run_records import WorkerRecord
from recoup.objectives.standing import Stream


def stream_of(kind: str, record: WorkerRecord | None, newest_copy: datetime | None) -> Stream:
    """Given its worker's record, return how a stream stands. A gap before the newest copy matters no more."""
    if record is None:
        return Stream(kind=kind, state="unknown", error="it never ran on this machine")
    facts = record.facts
    gap_at = instant_of(facts.get("gap_at"))
    gap = facts.get("gap") if gap_at is None or newest_copy is None or gap_at > newest_copy else None
    if facts.get("base") == "present":
        # A copy lies in what is streamed since the gap. It may look older than the gap: the copy that a stream begins
        # at is taken before the gap is noted.
        gap = None
    elif facts.get("base") == "missing":
        gap = gap or "no copy lies in it yet"
    error = facts.get("problem") or (None if _runs_again(record) else facts.get("error") or record.error)
    position = facts.get("safe_lsn") or facts.get("stored_offset")
    slot, held, limit = facts.get("slot_status"), facts.get("held_bytes"), facts.get("held_limit_bytes")
    guard = facts.get("alarm")
    return Stream(
        kind=kind,
        state=_state(record),
        as_of=_as_of(record),
        error=None if error is None else str(error),
        since=record.since,
        position=None if position is None else str(position),
        slot=None if slot is None else str(slot),
        slot_bytes=held if isinstance(held, int) else None,
        slot_limit_bytes=limit if isinstance(limit, int) else None,
        guard=None if guard is None else str(guard),
        gap=None if gap is None else str(gap),
        gap_since=gap_at,
    )


def _state(record: WorkerRecord) -> str:
    """The worker may run and have nothing to stream from."""
    facts = record.facts
    apart = facts.get("connected") is False or facts.get("state") not in (None, "streaming")
    return "waiting" if record.state == "running" and apart else record.state


def _runs_again(record: WorkerRecord) -> bool:
    """Whether the worker has said that it streams since it was last started: what ended the time before is over."""
    streams = record.facts.get("connected") is True or record.facts.get("state") == "streaming"
    said_since = record.said is not None and record.since is not None and record.said >= record.since
    return record.state == "running" and streams and said_since


def _as_of(record: WorkerRecord) -> datetime | None:
    """Until when everything is in the repositories: for an idle server, as long as the stream is connected."""
    facts, said = record.facts, record.said
    safe_until = instant_of(facts.get("safe_until"))
    if safe_until is not None:
        return safe_until
    if facts.get("connected") is True and said is not None and not facts.get("queued_bytes"):
        return instant_of(facts.get("unsaved_since")) or said
    return instant_of(facts.get("stored_until"))
