"""How a stream is shown, from what its worker and its supervisor last said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from recoup.assembly.protect.streams import stream_of
from recoup.backup.run_records import WorkerRecord

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def record(facts: dict[str, Any], *, said: timedelta, state: Literal["running", "waiting"] = "running") -> WorkerRecord:
    """Of a worker whose supervisor started it again just now, after an error; ``said`` is from then on."""
    return WorkerRecord(
        name="stream redis", facts=facts, said=NOW + said, state=state, since=NOW, restarts=1, error="it was away",
        next_attempt=None,
    )  # fmt: skip


@pytest.mark.parametrize("facts", [{"connected": True, "problem": None}, {"state": "streaming", "error": None}])
def test_the_error_of_the_time_before_is_shown_until_the_stream_runs_again(facts: dict[str, Any]) -> None:
    second = timedelta(seconds=1)
    assert stream_of("stream", record(facts, said=-second), None).error == "it was away", "said before it ended"
    assert stream_of("stream", record(facts, said=second, state="waiting"), None).error == "it was away"
    assert stream_of("stream", record({**facts, "connected": False, "state": None}, said=second), None).error
    assert stream_of("stream", record(facts, said=second), None).error is None
    assert stream_of("stream", record({**facts, "problem": "slow"}, said=second), None).error == "slow"


@pytest.mark.parametrize(
    ("base", "gap"), [("present", None), ("missing", "it was away too long"), (None, "it was away too long")]
)
def test_a_gap_matters_until_a_copy_lies_in_what_is_streamed_since(base: str | None, gap: str | None) -> None:
    """The copy that a stream begins anew at is taken before the gap is noted."""
    facts = {"connected": True, "gap": "it was away too long", "gap_at": NOW.isoformat(), "base": base}
    before = NOW - timedelta(seconds=1)
    assert stream_of("stream", record(facts, said=timedelta(seconds=1)), before).gap == gap
