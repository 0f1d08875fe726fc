"""`recoup recover` asked for what cannot be, or while something else than before is there: said, and nothing done."""

from __future__ import annotations

import json
import shlex
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recoup.assembly.access import read_key_file
from recoup.assembly.recover import runs
from recoup.assembly.recover.runs import JOURNAL, local_runs, run_folder
from recoup.assembly.system import System
from recoup.cli.main import main
from recoup.cli.recover_asked import Asked, wish_of
from recoup.kernel.errors import Exit, UsageError, WrongKeyError
from recoup.recovery import progress as written
from recoup.recovery.journal import Journal
from recoup.repository import layout
from recoup.repository.repository import Repository
from recoup.repository.run_journals import read_journal
from tests.integration.recover_command import AGREED, SITUATION, Desk


def test_going_on_with_a_run_does_not_change_what_it_goes_back_to_in_silence(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED, "--pause-before", "stop", expect=4)
    for other in (("--to-time", "2026-01-01 10:00:00Z"), ("--service", "another")):
        said = desk.recover("--resume", *AGREED, *other, expect=2)
        assert "was begun for something else: what is hurt, back to the newest good state" in said
    late = desk.recover("--resume", *AGREED, "--detected", "2026-01-01 10:00:00Z", expect=2)
    assert "--detected is written down when a run begins" in late
    assert desk.done() == {"hold", "confirm", "choose-postgres"}


def test_a_pause_in_front_of_what_is_over_is_refused_and_nothing_goes_on(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED, "--pause-before", "swap-postgres", expect=4)
    said = desk.recover("--resume", *AGREED, "--pause-before", "stop", expect=2)
    assert "that step is over already, so the run would not stop there" in said
    assert "swap-postgres" not in desk.done()
    said = desk.recover("--resume", *AGREED, "--skip", "stop", "--because", "too late")
    assert "--skip stop: it was done already, so it is not left out" in said


def test_a_run_is_shown_by_this_machine_s_journal_when_no_repository_answers(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED, "--pause-before", "swap-postgres", expect=4)
    (desk.plan.parent / "repository").rename(desk.plan.parent / "unplugged")
    said = desk.recover("--show", expect=4)
    assert "at step 6 of 12, swap-postgres; nobody carries it out from here" in said
    assert "not the whole truth: local: there is no repository at" in said


def test_a_service_that_left_the_plan_is_named_before_its_steps_go_on(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED, "--pause-before", "swap-postgres", expect=4)
    plan = desk.plan.read_text()
    for other, why in (
        (plan.replace("  postgres:\n", "  pg:\n"), "is not in the plan any more"),
        (
            plan.replace("engine: postgres", "engine: redis").replace(
                "postgresql://recoup@127.0.0.1:1/marketplace", "redis://127.0.0.1:1"
            ),
            "is another kind of service in the plan",
        ),
    ):
        desk.plan.write_text(other)
        said = desk.recover("--resume", *AGREED, expect=5)
        assert f"postgres {why}, and the run" in said
        assert f"Put it back into {desk.plan} as it was" in said
    desk.plan.write_text(plan)
    desk.recover("--resume", *AGREED)


def test_a_run_of_a_newer_recoup_stands_in_nobody_s_way(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED)
    state = System.from_file(desk.plan).state_folder
    (run,) = local_runs(state)
    shutil.rmtree(desk.plan.parent / "repository" / layout.RUNS)
    path = run_folder(state, run.run) / JOURNAL
    path.unlink()
    with Journal(path, who="alice", host="h", boot="b") as newer:
        for line in run.lines:
            steps = [{**one, "act": "dance"} for one in line.data.get("runbook", ())]
            newer.append(line.event, **{**line.data, **({"runbook": steps} if steps else {})})
    said = desk.recover("--show", expect=4)
    assert f"the run {run.run} has steps that this Recoup does not know" in said
    assert "its times are not counted" in desk.recover(SITUATION, "--plan")
    for one in desk.done():
        (desk.plan.parent / "world" / one).unlink()
    desk.recover(SITUATION, *AGREED)
    assert "checklist" in desk.done()


def test_the_command_of_a_runbook_can_be_typed_as_it_stands(desk: Desk) -> None:
    document = desk.json(SITUATION, "--plan", "--destination", "/srv/my shop's", "--to-time", "2026-01-01 10:00:00Z")
    words = shlex.split(document["command"])
    assert words[words.index("--destination") + 1] == "/srv/my shop's"
    assert words[words.index("--to-time") + 1] == "2026-01-01 10:00:00Z"


def test_what_a_killed_step_took_is_no_forecast_because_a_part_of_it_was_never_written_down(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED)
    state = System.from_file(desk.plan).state_folder
    (run,) = local_runs(state)
    shutil.rmtree(desk.plan.parent / "repository" / layout.RUNS)
    path = run_folder(state, run.run) / JOURNAL
    path.unlink()
    with Journal(path, who="alice", host="h", boot="b") as killed:
        for line in run.lines:
            if line.event == written.STEP_BEGUN and line.data["step"] == "restore-postgres":
                killed.append(line.event, **line.data)
                killed.append(written.RUN_RESUMED)
            killed.append(line.event, **line.data)
    document = desk.json(SITUATION, "--plan")
    assert document["total"]["never_measured"] == ["restore-postgres"]


def test_what_others_wrote_is_read_once_before_a_run_begins(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.recover(SITUATION, *AGREED)
    for one in desk.done():
        (desk.plan.parent / "world" / one).unlink()
    read: list[str] = []

    def reading(repository: Repository, place: str) -> bytes:
        read.append(place)
        return read_journal(repository, place)

    monkeypatch.setattr(runs, "read_journal", reading)
    desk.recover(SITUATION, *AGREED)
    assert len(read) == 1, "the forecast needs what was read when the lease was taken"


def test_a_diagnosis_in_the_middle_of_a_recovery_says_so_before_it_says_to_start_anything(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED, "--pause-before", "swap-postgres", expect=4)
    (run,) = local_runs(System.from_file(desk.plan).state_folder)
    said = desk.type("diagnose")
    assert f"a recovery from {SITUATION} is under way, run {run.run}" in said
    assert f"  1. recoup recover --show -f {desk.plan}\n" in said
    found = json.loads(desk.type("diagnose", "--json"))
    assert found["under_way"] == run.run
    assert found["advice"][0]["command"] == f"recoup recover --show -f {desk.plan}"
    desk.recover("--resume", *AGREED)
    assert "under way" not in desk.type("diagnose")


def test_a_choice_is_forecast_by_choices_of_its_own_situation_because_only_some_of_them_look(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED)
    known = {one["id"]: one["forecast"] for one in desk.json("server-loss", "--plan")["steps"]}
    assert known["choose-postgres"] is None, "after the loss of a server nothing is looked at first"
    assert known["restore-postgres"] is not None
    again = {one["id"]: one["forecast"] for one in desk.json(SITUATION, "--plan")["steps"]}
    assert again["choose-postgres"] is not None


def test_a_time_without_a_zone_is_not_guessed_where_there_is_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no plan here that says its zone") as refused:
        wish_of(Asked(what="server-loss", detected="2026-01-01 10:00"))
    assert "2026-01-01T10:00" in str(refused.value.hint)
    wish = wish_of(Asked(what="server-loss", detected="2026-01-01 10:00+01:00"))
    assert wish.detected == datetime(2026, 1, 1, 9, tzinfo=UTC)


@pytest.mark.parametrize("words", [("server-loss", "--plan"), ("redis-loss",), ("--show",), ("--close", "--yes")])
def test_on_a_machine_without_the_plan_it_is_said_how_to_come_to_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RECOUP_FILE", raising=False)
    assert main(["recover", *words]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "there is no recoup.yaml" in said
    assert "--kit FILE, or --from s3://BUCKET/FOLDER --key-file FILE" in said
    assert "recoup init" not in said, "nobody makes a first plan after a disaster"


def test_an_empty_key_file_sends_nobody_to_make_another_key(tmp_path: Path) -> None:
    (tmp_path / "recoup.key").touch()
    with pytest.raises(WrongKeyError, match="holds no key") as refused:
        read_key_file(tmp_path / "recoup.key")
    assert "another opens no copy" in str(refused.value.hint)
