"""``recoup backup --due`` as an operator meets it: takes what is due, once, and says what comes next."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recoup.backup.run_records import read_task
from recoup.demo.servers import RedisServer
from tests.acceptance.workplace import Workplace, kill, wait_for


@pytest.fixture
def files_place(work: Workplace) -> Workplace:
    """A plan of two folders: one each hour, one on a day of the week."""
    for name in ("uploads", "logs"):
        (work.folder / name).mkdir()
        (work.folder / name / "one.txt").write_text(name)
    work.services = {
        "uploads": "{engine: files, paths: [uploads], every: 1h}",
        "logs": '{engine: files, paths: [logs], daily: "03:00"}',
    }
    work.extra = "timezone: Europe/Berlin\n"
    work.write_plan()
    return work


def _state(place: Workplace) -> Path:
    (folder,) = place.state.iterdir()
    return folder


def test_what_has_no_copy_is_due_and_then_nothing_is_and_the_next_time_is_said(files_place: Workplace) -> None:
    shown = files_place.recoup("backup", "--due", "--plan").out
    assert re.findall(r"(\w+) +files +now +first +local", shown) == ["uploads", "logs"]
    assert files_place.listed("--from", "local") == {} if files_place.local.exists() else True
    copies = files_place.json("backup", "--due")["copies"]
    assert [(one["service"], one["exit_code"]) for one in copies] == [("uploads", 0), ("logs", 0)]
    said = files_place.recoup("backup", "--due").out
    assert re.search(r"nothing is due; next: \w+ files 20\d\d-\d\d-\d\d \d\d:\d\d CES?T, in ", said)
    document = files_place.json("backup", "--due")
    assert document["copies"] == []
    assert {(one["service"], one["due"], one["reason"]) for one in document["next"]} == {
        ("uploads", False, "scheduled"),
        ("logs", False, "scheduled"),
    }
    assert len(files_place.listed()) == 2


def test_a_run_is_recorded_and_a_failure_is_not_tried_again_at_once(files_place: Workplace) -> None:
    uploads = files_place.folder / "uploads"
    uploads.rename(files_place.folder / "away")
    files_place.recoup("backup", "--due", expect=1)
    record = read_task(_state(files_place), "uploads", "files")
    assert record is not None
    assert (record.outcome, record.failures, record.exit_code) == ("failed", 1, 1)
    assert record.error
    assert "uploads" in record.error
    logs = read_task(_state(files_place), "logs", "files")
    assert logs is not None
    assert (logs.outcome, logs.error) == ("ok", None)
    (files_place.folder / "away").rename(uploads)
    waiting = files_place.recoup("backup", "--due")
    assert "next: uploads files" in waiting.out
    files_place.recoup("backup", "uploads")  # by hand it is never put off
    assert not any(one["due"] for one in files_place.json("backup", "--due", "--plan")["runs"])


def test_copies_are_the_truth_and_not_the_records_of_one_machine(files_place: Workplace) -> None:
    files_place.recoup("backup", "--due")
    for path in (_state(files_place) / "runs").iterdir():
        path.unlink()
    assert files_place.json("backup", "--due")["copies"] == []


def test_when_no_repository_answers_it_is_not_said_that_nothing_is_due(files_place: Workplace) -> None:
    files_place.recoup("backup", "--due")
    marker = files_place.local / "recoup-repository.json"
    text = marker.read_bytes()
    marker.write_bytes(text.replace(b'"created"', b'"Created"'))
    ended = files_place.recoup("backup", "--due", expect=4)
    assert "no repository answered" in ended.out
    assert "nothing is due" not in ended.said
    marker.unlink()  # as when its disk is not mounted
    assert "is its address right?" in files_place.recoup("backup", "--due", expect=5).err


def test_one_service_can_be_asked_about_and_what_the_plan_lacks_is_refused(files_place: Workplace) -> None:
    assert [one["service"] for one in files_place.json("backup", "logs", "--due")["copies"]] == ["logs"]
    files_place.recoup("backup", "nothing", "--due", expect=2)
    files_place.services = {"uploads": "{engine: files, paths: [uploads]}"}
    files_place.write_plan()
    assert "no schedule" in files_place.recoup("backup", "--due", expect=2).err


def test_a_run_that_was_killed_is_made_up_for_by_the_next_and_its_remains_are_removed(
    work: Workplace, redis7: RedisServer
) -> None:
    redis7.client().set("a", "b")
    work.add_redis(redis7)
    work.services["redis"] = work.services["redis"][:-1] + ", rdb: daily 02:00}"
    work.write_plan()
    running = work.start("backup", "--due")
    try:
        wait_for(lambda: work.unfinished() or running.poll() is not None, "a copy is begun")
    finally:
        kill(running)
    copies = work.json("backup", "--due")["copies"] or work.json("list")["artefacts"]
    assert len(copies) == 1
    assert work.unfinished() == []
    assert work.strays() == []
