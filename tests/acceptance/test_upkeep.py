"""What the daemon does for the whole plan: when it is due, and that its result says no more than was done."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from recoup.assembly.protect import agenda
from recoup.assembly.protect.task_child import TaskChild, put_in_force
from recoup.assembly.system import System
from recoup.backup.due import Run
from recoup.backup.run_records import WHOLE_PLAN, TaskRecord, begin_task, end_task, read_task
from recoup.cli.main import main
from recoup.demo.host import wait_until
from recoup.kernel import clock, process
from tests.acceptance.workplace import Workplace


@pytest.fixture
def system(work: Workplace, monkeypatch: pytest.MonkeyPatch) -> System:
    """A system with a copy, that is verified daily, weekly and slice by slice."""
    (work.folder / "uploads").mkdir()
    (work.folder / "uploads" / "one.txt").write_text("one")
    work.services = {"uploads": '{engine: files, paths: [uploads], daily: "03:00"}'}
    work.extra = "verify: {daily: intact, weekly: same, monthly: works, every_byte: 30d}\n"
    work.write_plan()
    work.recoup("backup")
    monkeypatch.setenv("RECOUP_STATE", str(work.state))
    return System.from_file(work.folder / "recoup.yaml")


def _do(system: System, kind: str) -> tuple[TaskRecord, str]:
    """Run one task of the whole plan as the daemon does; its record and what it said."""
    put_in_force(system)
    run = Run(service=WHOLE_PLAN, kind=kind, at=clock.now(), slot=None, reason="scheduled")
    child, said = TaskChild.start(system, run), []
    assert wait_until(lambda: not child.alive, limit_seconds=120)
    said += list(child.said())
    return child.close(), "\n".join(said)


def test_verification_by_the_plan_proves_its_grade_and_is_recorded(system: System) -> None:
    record, said = _do(system, "verify daily")
    assert (record.outcome, record.exit_code, record.failures) == ("ok", 0, 0)
    assert "proven intact" in said
    assert read_task(system.state_folder, WHOLE_PLAN, "verify daily") == record
    record, said = _do(system, "verify weekly")
    assert (record.outcome, record.exit_code) == ("ok", 0), said
    assert "proven same" in said
    assert list((system.state_folder / "sandboxes").glob("*.json")) == [], "a sandbox is left"


def test_what_could_not_be_checked_is_unknown_and_never_ok(system: System) -> None:
    record, _ = _do(system, "verify monthly")
    assert (record.outcome, record.exit_code) == ("unknown", 4)
    assert record.error is not None
    assert "the plan has no checks" in record.error


def test_a_slice_of_the_stored_bytes_is_read_each_day_and_damage_in_it_is_named(
    system: System, work: Workplace
) -> None:
    record, said = _do(system, "verify slice")
    assert (record.outcome, record.exit_code) == ("ok", 0), said
    assert "oldest unproven byte: local:" in said
    (copy,) = work.listed()
    path = work.objects(copy)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    sampled = work.recoup("verify", "--all", "--sample", "100%", expect=3)
    assert path.name in sampled.out
    assert "FAILED intact" in work.recoup("list").out
    assert any(one["key"].startswith("unproven:") for one in work.json("status", expect=3)["alarms"])


def test_damage_is_found_and_recorded_as_a_failure(system: System, work: Workplace) -> None:
    (copy,) = work.listed()
    path = work.objects(copy)[0]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    record, _ = _do(system, "verify daily")
    assert (record.outcome, record.exit_code) == ("failed", 3)
    assert record.error


def test_pruning_runs_and_keeps_the_last_copy(system: System, work: Workplace) -> None:
    record, _ = _do(system, "prune")
    assert record.outcome == "ok", record
    assert len(work.listed()) == 1


def test_upkeep_is_first_due_after_the_repository_was_made_and_then_once_for_each_time(system: System) -> None:
    known = agenda.look(system, upkeep=True)
    now = clock.now()
    runs = {run.kind: run for run in agenda.decide(system, known, now)}
    assert set(runs) == {"files", "prune", *(f"verify {name}" for name in ("daily", "weekly", "monthly", "slice"))}
    assert not any(run.is_due(now) for run in runs.values())
    later = datetime(now.year + 1, now.month, 1, 12, tzinfo=UTC)
    assert all(run.is_due(later) for run in agenda.decide(system, known, later))
    for outcome, code, again in (("ok", 0, False), ("failed", 3, False), ("unknown", 4, False), ("failed", 1, True)):
        begun = begin_task(system.state_folder, WHOLE_PLAN, "prune", pid=1, now=later)
        end_task(system.state_folder, begun, outcome, now=later, exit_code=code)  # type: ignore[arg-type]
        looked = agenda.look(system, upkeep=True)
        (run,) = (one for one in agenda.decide(system, looked, later) if one.kind == "prune")
        assert run.at > later
        assert (run.at < later + timedelta(hours=2)) == again
        (system.state_folder / "runs" / f"task:{WHOLE_PLAN}:prune.json").unlink()


def test_what_was_proven_and_done_while_a_clock_was_ahead_does_not_count(system: System, work: Workplace) -> None:
    _do(system, "verify daily")
    ahead = clock.now() + timedelta(days=400)
    for cache, columns in (("proofs", "held = ?1, moment = ?1"), ("coverage", "moment = ?1")):
        table = {"proofs": "proof", "coverage": "span"}[cache]
        with contextlib.closing(sqlite3.connect(system.state_folder / f"{cache}.sqlite")) as database:
            database.execute(f"update {table} set {columns}", (clock.to_text(ahead),))
            database.commit()
    begun = begin_task(system.state_folder, WHOLE_PLAN, "verify daily", pid=1, now=ahead)
    end_task(system.state_folder, begun, "ok", now=ahead, exit_code=0)
    (copy,) = work.json("list")["artefacts"]
    assert copy["proof"]["grade"] is None
    runs = {run.kind: run for run in agenda.decide(system, agenda.look(system, upkeep=True), clock.now())}
    assert runs["verify daily"].is_due(clock.now()), "it would not have been proven again for a year"
    record, said = _do(system, "verify daily")
    assert record.outcome == "ok", said
    (copy,) = work.json("list")["artefacts"]
    assert copy["proof"]["grade"] == "intact"
    runs = {run.kind: run for run in agenda.decide(system, agenda.look(system, upkeep=True), clock.now())}
    assert not runs["verify daily"].is_due(clock.now())


def test_a_stack_point_is_taken_by_its_schedule_and_its_copies_count_as_copies(work: Workplace, system: System) -> None:
    work.extra += "stack: daily 02:00\n"
    work.write_plan()
    system = System.from_file(work.folder / "recoup.yaml")
    later = clock.now() + timedelta(days=2)
    due = {run.kind for run in agenda.decide(system, agenda.look(system, upkeep=True), later) if run.is_due(later)}
    assert "stack" in due
    record, said = _do(system, "stack")
    assert record.outcome == "ok", said
    (point,) = work.json("list", "stack")["artefacts"]
    runs = {run.kind: run for run in agenda.decide(system, agenda.look(system, upkeep=True), clock.now())}
    assert not runs["stack"].is_due(clock.now())
    assert not runs["files"].is_due(clock.now())
    (system.state_folder / "runs" / f"task:{WHOLE_PLAN}:stack.json").unlink()
    again = {run.kind: run for run in agenda.decide(system, agenda.look(system, upkeep=True), clock.now())}
    assert again["stack"].at == runs["stack"].at, f"the newest point {point['id']} says when, not this machine's notes"


def test_backup_due_verifies_what_is_due_after_the_copies_once(
    system: System, work: Workplace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = work.json("backup", "--due", "--plan")["runs"]
    assert {one["kind"] for one in before if not one["service"]} == {
        "verify slice", "verify daily", "verify weekly", "verify monthly"
    }  # fmt: skip
    assert not any(one["due"] for one in before)
    later = clock.now() + timedelta(days=2)
    monkeypatch.setattr(clock, "now", lambda: later)
    monkeypatch.setattr(process, "give_way", lambda: None)
    monkeypatch.chdir(work.folder)
    assert main(["backup", "--due", "--json", "--quiet"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in done["copies"]] == ["files"]
    # Which of the two comes first depends on the hour the repository was made: its first slots may be of two days.
    assert {"slice", "daily"} <= set(done["verifications"])
    assert done["verifications"]["daily"]["artefacts"][0]["id"] == done["copies"][0]["id"], "the newest copy"
    assert main(["backup", "--due", "--quiet"]) == 0
    assert "nothing is due" in capsys.readouterr().out
