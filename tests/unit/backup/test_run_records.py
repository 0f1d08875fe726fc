"""The records of runs: what was written is read; what is damaged reads as none."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recoup.backup import run_records as records
from recoup.kernel.errors import RecoupError

NOON = datetime(2026, 11, 23, 12, 0, 0, 123456, tzinfo=UTC)


def _run(folder: Path, outcome: records.Outcome, at: datetime, error: str | None = None) -> records.TaskRecord:
    begun = records.begin_task(folder, "postgres", "base", pid=7, now=at)
    return records.end_task(folder, begun, outcome, now=at + timedelta(minutes=1), exit_code=1, error=error)


def test_failures_are_counted_until_a_run_ends_well_and_an_interruption_is_none(tmp_path: Path) -> None:
    assert _run(tmp_path, "failed", NOON, "no room").failures == 1
    assert _run(tmp_path, "interrupted", NOON + timedelta(hours=1)).failures == 1
    assert _run(tmp_path, "unknown", NOON + timedelta(hours=2)).failures == 2
    ended = _run(tmp_path, "ok", NOON + timedelta(hours=3))
    assert (ended.failures, ended.last_ok) == (0, NOON + timedelta(hours=3))
    assert _run(tmp_path, "failed", NOON + timedelta(hours=4)).last_ok == NOON + timedelta(hours=3)


def test_a_task_that_has_begun_is_running_and_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    begun = records.begin_task(tmp_path, "a.b-c", "base", pid=7, now=NOON)
    assert records.read_task(tmp_path, "a.b-c", "base") == begun
    assert begun.outcome == "running"
    whole = records.begin_task(tmp_path, records.WHOLE_PLAN, "prune", pid=7, now=NOON)
    assert records.read_tasks(tmp_path) == (whole, begun)


def test_what_a_worker_says_and_what_its_supervisor_sees_do_not_overwrite_each_other(tmp_path: Path) -> None:
    records.record_worker(tmp_path, "wal postgres", {"lag_bytes": 12, "lsn": "0/3000000"})
    seen = records.WorkerRecord(
        name="wal postgres",
        facts={},
        said=None,
        state="waiting",
        since=NOON,
        restarts=3,
        error="gone",
        next_attempt=NOON,
    )
    records.record_supervision(tmp_path, seen)
    (read,) = records.read_workers(tmp_path)
    assert read.facts == {"lag_bytes": 12, "lsn": "0/3000000"}
    assert (read.state, read.since, read.restarts, read.error) == ("waiting", NOON, 3, "gone")
    records.forget_workers(tmp_path, keep=frozenset())
    assert records.read_workers(tmp_path) == ()


def test_the_record_of_the_daemon_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert records.read_daemon(tmp_path) is None
    record = records.DaemonRecord(
        pid=1,
        started=NOON,
        alive=NOON,
        state="running",
        plan_loaded=NOON,
        next_service="",
        next_kind="prune",
        next_at=NOON,
    )
    records.record_daemon(tmp_path, record)
    assert records.read_daemon(tmp_path) == record


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"service": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_record_reads_as_none(tmp_path: Path, damage: bytes) -> None:
    records.begin_task(tmp_path, "postgres", "base", pid=7, now=NOON)
    records.record_worker(tmp_path, "wal", {})
    for path in (tmp_path / "runs").iterdir():
        path.write_bytes(damage)
    (tmp_path / "runs" / "daemon.json").write_bytes(damage)
    assert records.read_tasks(tmp_path) == ()
    assert records.read_daemon(tmp_path) is None
    assert [(one.facts, one.said) for one in records.read_workers(tmp_path)] == [({}, None)]


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(RecoupError, match="cannot keep notes"):
        records.begin_task(tmp_path / "state", "postgres", "base", pid=7, now=NOON)


def test_a_request_stands_until_it_is_dropped_and_asking_again_changes_nothing(tmp_path: Path) -> None:
    records.request_run(tmp_path, "postgres", "base", "the slot is gone")
    first = records.read_requests(tmp_path)
    records.request_run(tmp_path, "postgres", "base", "the slot is gone")
    assert records.read_requests(tmp_path) == first
    assert list(first) == [("postgres", "base")]
    records.drop_request(tmp_path, "postgres", "base")
    assert records.read_requests(tmp_path) == {}
