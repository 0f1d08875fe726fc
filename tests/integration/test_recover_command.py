"""`recoup recover`, as it is typed: what it shows, whom it asks, how it ends, and what it says to do next."""

from __future__ import annotations

import json
import re
import signal
from datetime import timedelta
from pathlib import Path

import pytest

from recoup.assembly.recover.runs import JOURNAL, local_runs, run_folder
from recoup.assembly.system import System
from recoup.cli.main import main
from recoup.kernel import clock
from recoup.repository import layout
from recoup.repository.lease import hold_lease
from tests.integration.recover_command import AGREED, SITUATION, Desk, at_terminal


def test_the_plan_shows_exactly_the_steps_of_the_run_and_does_nothing(desk: Desk) -> None:
    text = desk.recover(SITUATION, "--plan")
    paper = desk.recover(SITUATION, "--plan", "--format", "md")
    document = desk.json(SITUATION, "--plan")
    assert desk.done() == set()
    ids = [one["id"] for one in document["steps"]]
    assert re.findall(r"^ *\d+  ([\w-]+): ", text, re.MULTILINE) == ids
    assert re.findall(r"^- step: `([\w-]+)`", paper, re.MULTILINE) == ids
    swap = next(one for one in document["steps"] if one["id"] == "swap-postgres")
    assert (swap["consent"], swap["replaces"]) == ("typed", "the cluster")
    assert swap["asks"] == "asks first: type marketplace (or beforehand: --confirm marketplace)"
    assert swap["forecast"] is None
    assert swap["forecast_basis"] == "it was never measured"
    assert document["total"]["rto_seconds"] == 3600
    assert document["total"]["verdict"] == "unknown"
    for said in (text, paper):
        assert "replaces the cluster; it is kept until --close, and --rollback puts it back" in said
        assert f"recoup recover {SITUATION} -f {desk.plan}" in said
    desk.recover(SITUATION, *AGREED)
    assert desk.done() == set(ids)


def test_the_times_of_a_run_are_the_forecast_of_the_next(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED)
    document = desk.json(SITUATION, "--plan")
    assert document["total"]["never_measured"] == []
    assert document["total"]["verdict"] == "ok"
    assert document["steps"][0]["forecast"]["measured_times"] == 1
    assert document["steps"][0]["forecast_basis"] == "from 1 recovery"
    assert "which is kept" in document["total"]["in_words"]


def test_a_run_says_before_it_begins_what_it_will_do_and_afterwards_what_was_attained(desk: Desk) -> None:
    desk.order("old")
    begun = clock.monotonic()
    seen = clock.to_text(clock.now() - timedelta(minutes=10))
    said = desk.recover(SITUATION, *AGREED, "--detected", seen, expect=3)
    took = int((clock.monotonic() - begun) // 60)  # minutes
    assert "nothing of production is touched before step 4 of 12: stop api, postgres" in said
    assert "step 6 of 12, swap-postgres: ok after" in said
    back = re.search(r"users were back (\d+) min.* after it was detected; RTO 1 h: kept", said)
    lost = re.search(r"postgres: lost (\d+) min.* \(last commit\); RPO 5 min: MISSED", said)
    assert back is not None, said
    assert lost is not None, said
    assert 10 <= int(back[1]) <= 10 + took
    assert 49 - took <= int(lost[1]) <= 50
    assert "recoup recover --close" in said
    assert "recoup recover --rollback" in said


def test_where_nobody_is_a_step_that_touches_production_is_not_done(desk: Desk) -> None:
    said = desk.recover(SITUATION, expect=5)
    assert "step 4 of 12, stop, needs somebody who agrees, and nobody is here: stop api, postgres" in said
    assert f"recoup recover --resume --yes -f {desk.plan}" in said
    assert desk.done() == {"hold", "confirm", "choose-postgres"}
    said = desk.recover("--resume", "--yes", expect=5)
    assert "step 6 of 12, swap-postgres, needs somebody who agrees" in said
    assert "--resume --confirm marketplace" in said
    assert "swap-postgres" not in desk.done()
    desk.recover("--resume", "--confirm", "marketplace")
    assert "checklist" in desk.done()


def test_the_name_that_confirms_must_be_the_system_s(desk: Desk) -> None:
    said = desk.recover(SITUATION, "--yes", "--confirm", "marketplac", expect=2)
    assert "--confirm marketplac: this system is called marketplace" in said
    assert desk.done() == set()
    assert local_runs(System.from_file(desk.plan).state_folder) == ()


def test_a_step_that_failed_says_what_to_type_and_goes_on(desk: Desk) -> None:
    desk.order("fail-start-postgres")
    failed = desk.json(SITUATION, *AGREED, expect=1)
    assert (failed["stopped_at"], failed["finished"]) == ("start-postgres", False)
    assert (failed["detail"], failed["hint"]) == ("the disk is full", "Make room: df -h.")
    commands = [one["command"] for one in failed["next"]]
    assert commands[0] == f"recoup recover --resume -f {desk.plan}"
    assert commands[1].startswith("recoup recover --resume --skip start-postgres --because")
    assert commands[2].startswith("recoup recover --rollback")
    said = desk.recover("--show", expect=3)
    assert "at step 7 of 12, start-postgres; nobody carries it out from here" in said
    assert re.search(r"start-postgres +FAILED .*the disk is full", said)
    (desk.orders / "fail-start-postgres").unlink()
    assert "6 of 12 steps are over" in desk.recover("--resume", *AGREED)


def test_a_step_is_left_out_only_with_a_reason_and_then_nothing_is_proven(desk: Desk) -> None:
    assert "--skip needs its reason" in desk.recover(SITUATION, "--skip", "flows", expect=2)
    unknown = desk.recover(SITUATION, *AGREED, "--skip", "flow", "--because", "no time", expect=2)
    assert "the runbook has no step 'flow'" in unknown
    assert "health" not in unknown.split("It has: ")[0]
    assert desk.done() == set()
    said = desk.recover(SITUATION, *AGREED, "--skip", "flows", "--because", "no time", expect=4)
    assert "left out: flows, because no time" in said
    assert "done, and not everything could be proven" in said
    assert "RTO 1 h: whether it is kept is not proven" in said
    assert re.search(r"flows +left out .*no time", desk.recover("--show", expect=4))


def test_a_run_pauses_where_it_was_asked_to_and_goes_on_without(desk: Desk) -> None:
    said = desk.recover(SITUATION, *AGREED, "--pause-before", "swap-postgres", expect=4)
    assert "step 6 of 12, swap-postgres, is where it stopped: paused as asked" in said
    assert "swap-postgres" not in desk.done()
    desk.recover(SITUATION, *AGREED)
    assert "swap-postgres" in desk.done()


def test_what_cannot_be_proven_is_unknown_and_named(desk: Desk) -> None:
    desk.order("unknown-flows")
    document = desk.json(SITUATION, *AGREED, expect=4)
    assert (document["verdict"], document["finished"]) == ("unknown", True)
    assert document["rto"]["verdict"] == "unknown"
    assert document["findings"][-1]["verdict"] != "failed"
    assert {"flows"} == {one["subject"] for one in document["findings"] if one["verdict"] == "unknown"}


def test_what_makes_no_sense_is_said_before_anything_is_opened(desk: Desk) -> None:
    assert "`recoup diagnose` looks and says which" in desk.recover(expect=2)
    assert "Did you mean database-corruption?" in desk.recover("database-coruption", expect=2)
    assert "nobody but you knows when it happened" in desk.recover("data-loss", expect=2)
    assert "--show and --resume are different things" in desk.recover("--show", "--resume", expect=2)
    assert "'yesterday' is no run" in desk.recover("--show", "yesterday", expect=2)
    assert "there is no recovery to look at" in desk.recover("--show", expect=2)
    assert "there is no recovery to go on with" in desk.recover("--resume", expect=2)
    assert "--abandon needs its reason" in desk.recover("--abandon", expect=2)
    late = clock.to_text(clock.now() + timedelta(hours=1))
    assert "is in the future" in desk.recover(SITUATION, "--detected", late, expect=2)


def test_a_run_that_was_begun_for_something_else_is_not_changed_on_the_way(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED, "--pause-before", "stop", expect=4)
    other = desk.recover(SITUATION, *AGREED, "--to-time", "2026-01-01 10:00:00Z", expect=2)
    assert "was begun for something else: what is hurt, back to the newest good state" in other
    assert "under way" in desk.recover("redis-loss", expect=5)
    desk.recover("--resume", *AGREED)


def test_while_somebody_carries_it_out_others_can_only_look(desk: Desk) -> None:
    desk.recover(SITUATION, expect=5)
    with hold_lease(System.from_file(desk.plan).state_folder, "recover", "recovery from database-corruption"):
        busy = desk.recover("--resume", expect=6)
        assert "another run holds the lease on 'recover': recovery from database-corruption, process" in busy
        shown = desk.recover("--show")
        assert "carried out by: recovery from database-corruption, process" in shown
        assert "users are not back yet" in shown
        assert desk.json("--show")["carried_out_by"] is not None


def test_at_a_terminal_it_asks_and_takes_nothing_but_the_name(desk: Desk) -> None:
    typing = at_terminal(desk.plan, SITUATION)
    typing.until("begin [y/N]:")
    typing.type("n")
    assert typing.ended() == 5
    typing.until("not begun")
    assert desk.done() == set()

    typing = at_terminal(desk.plan, SITUATION)
    typing.until("begin [y/N]:")
    typing.type("y")
    typing.until("do it [y/N]:")
    _seen_before(typing.shown, "From here on users see an outage.", "do it [y/N]:")
    typing.type("y")
    typing.until("type marketplace to do it, or nothing to stop here:")
    _seen_before(typing.shown, "It replaces ", "type marketplace to do it, or nothing")
    typing.type("yes")
    typing.until("that is 'yes', and not 'marketplace'")
    typing.type("")
    assert typing.ended() == 5
    typing.until("nobody agreed to the step swap-postgres")
    assert "swap-postgres" not in desk.done()

    typing = at_terminal(desk.plan, "--resume")
    typing.until("type marketplace to do it, or nothing to stop here:")
    typing.type("marketplace")
    assert typing.ended() == 0
    typing.until("done and proven")
    by = [one["approved_by"] for one in desk.json("--show")["steps"] if one["id"] == "swap-postgres"]
    assert by != [None]


def _seen_before(shown: str, what: str, question: str) -> None:
    """What a question is about stands above it."""
    assert what in shown.partition(question)[0], shown


def test_a_terminal_shows_step_bytes_time_and_the_next_decision(desk: Desk) -> None:
    desk.order("wait-restore-postgres")
    typing = at_terminal(desk.plan, SITUATION, "--yes")
    typing.until("base.tar: 1.0 GiB of about 4.0 GiB")
    typing.until("next decision, at step 6")
    for text in ("recovery of marketplace from database-corruption", "RTO", "of 1 h", ">>  5", "Ctrl-C stops here"):
        assert text in typing.shown
    desk.order("go")
    typing.until("type marketplace to do it")
    typing.type("marketplace")
    assert typing.ended() == 0


def test_a_terminal_that_goes_away_ends_nothing(desk: Desk) -> None:
    desk.order("wait-restore-postgres")
    typing = at_terminal(desk.plan, SITUATION, "--yes")
    typing.until_at(desk.orders / "at-restore-postgres")
    typing.hang_up()
    desk.order("go")
    # It goes on to the next question, which nobody is there to answer.
    assert typing.ended() == 5
    assert "restore-postgres" in desk.done()
    assert "swap-postgres" not in desk.done()
    [run] = local_runs(System.from_file(desk.plan).state_folder)
    log = (System.from_file(desk.plan).state_folder / "runs" / run.run / "output.log").read_text()
    assert "restore-postgres: ok after" in log
    assert "step 6 of 12, swap-postgres, needs somebody who agrees, and nobody is here" in log
    desk.recover("--resume", "--confirm", "marketplace")


def test_a_terminal_that_shows_nothing_any_more_holds_up_nothing(desk: Desk) -> None:
    desk.order("chatter-hold")
    stuck = at_terminal(desk.plan, SITUATION, *AGREED)  # and nobody reads the screen, as after Ctrl-S
    stuck.until_at(desk.plan.parent / "world" / "checklist")
    assert stuck.ended() == 0


def test_a_terminal_that_goes_away_over_a_question_answers_no(desk: Desk) -> None:
    typing = at_terminal(desk.plan, SITUATION, "--yes")
    typing.until("type marketplace to do it")
    typing.hang_up()
    assert typing.ended() == 5
    assert "swap-postgres" not in desk.done()
    desk.recover("--resume", *AGREED)


def test_another_machine_shows_the_run_from_the_repository_alone(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.recover(SITUATION, "--yes", expect=5)
    here = desk.json("--show", expect=4)
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "elsewhere"))
    monkeypatch.chdir("/")
    key = str(tmp_path / "key")
    code = main(["recover", "--show", "--json", "--from", str(tmp_path / "repository"), "--key-file", key])
    there = json.loads(capsys.readouterr().out)
    assert code == 4
    assert there["run"] == here["run"]
    assert there["rto"]["objective_seconds"] == 3600
    assert [one["standing"] for one in there["steps"]] == [one["standing"] for one in here["steps"]]


def test_ctrl_c_stops_in_the_step_and_the_same_command_goes_on(desk: Desk) -> None:
    desk.order("wait-restore-postgres")
    typing = at_terminal(desk.plan, SITUATION, *AGREED)
    typing.until_at(desk.orders / "at-restore-postgres")
    typing.process.send_signal(signal.SIGINT)
    assert typing.ended() == 130
    typing.until("The same command resumes.")
    (desk.orders / "wait-restore-postgres").unlink()
    assert "4 of 12 steps are over" in desk.recover(SITUATION, *AGREED)


def test_a_person_at_the_terminal_is_asked_for_what_only_they_can_do(desk: Desk) -> None:
    desk.order("ask-others")
    typing = at_terminal(desk.plan, SITUATION, *AGREED)
    typing.until("done, no, or skip")
    typing.type("done")
    assert typing.ended() == 0
    [others] = [one for one in desk.json("--show")["steps"] if one["id"] == "others"]
    assert others["people_seconds"] > 0


def test_a_run_is_given_up_with_its_reason_and_says_what_is_left_of_it(desk: Desk) -> None:
    desk.recover(SITUATION, "--yes", "--pause-before", "swap-postgres", expect=4)
    said = desk.recover("--abandon", "--because", "it was a full disk")
    assert "is given up, because it was a full disk" in said
    assert "what it stopped stands still: docker compose up -d --wait starts it" in said
    assert "it replaced nothing" in said
    assert "recoup recover --close" in said
    shown = desk.recover("--show", expect=4)
    assert "given up; it is not closed yet" in shown
    assert "users were not brought back by it" in shown
    assert "has ended already: abandoned" in desk.recover("--abandon", "--because", "again", expect=2)
    assert "every one that was begun has ended" in desk.recover("--resume", expect=2)


def test_a_run_whose_journal_is_lost_is_given_up_without_a_word_that_nobody_knows(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED, "--pause-before", "start-postgres", expect=4)
    state = System.from_file(desk.plan).state_folder
    [run] = (one.run for one in local_runs(state))
    copies = (desk.plan.parent / "repository" / layout.RUNS).rglob("*")
    for path in (run_folder(state, run) / JOURNAL, *(one for one in copies if run in str(one) and one.is_file())):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert "--abandon" in desk.recover("--resume", *AGREED, expect=3)
    said = desk.recover("--abandon", run, "--because", "nothing is left of it")
    assert "nobody knows what it stopped or replaced" in said
    assert "replaced nothing" not in said
    assert f"\n  recoup hold --release recovery-{run}\n" in said
    written = (run_folder(state, run) / JOURNAL).read_bytes()
    for act in (("--close", run, "--yes"), ("--rollback", run, "--confirm", "marketplace")):
        assert "`recoup hold` lists its hold" in desk.recover(*act, expect=2)
    assert (run_folder(state, run) / JOURNAL).read_bytes() == written


def test_a_swap_that_failed_half_way_can_be_put_back(desk: Desk) -> None:
    desk.order("fail-swap-postgres")
    failed = desk.json(SITUATION, *AGREED, expect=1)
    assert failed["stopped_at"] == "swap-postgres"
    assert any(one["command"].startswith("recoup recover --rollback") for one in failed["next"])


def test_a_run_that_is_not_over_or_has_nothing_to_put_back_is_neither_closed_nor_rolled_back(desk: Desk) -> None:
    desk.recover(SITUATION, "--yes", "--pause-before", "swap-postgres", expect=4)
    assert "is not over" in desk.recover("--close", expect=5)
    assert "is not over" in desk.recover("--close", "--yes", expect=5)
    assert "has replaced nothing" in desk.recover("--rollback", "--confirm", "marketplace", expect=5)
    wrong = desk.recover("--rollback", "--confirm", "shop", expect=2)
    assert "this system is called marketplace" in wrong
    assert "--keep belongs to --close" in desk.recover("--resume", "--keep", expect=2)


def test_a_run_is_closed_when_its_list_is_done_and_what_is_open_is_named_line_by_line(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED)
    said = desk.recover("--close", "--yes", expect=5)
    assert re.search(r"is not closed, because \d points of the list are open:\n  every service runs: ", said)
    assert "\n  recoup backup postgres --kind base\n" in said


def test_what_is_open_is_told_before_anybody_is_asked_to_close(desk: Desk) -> None:
    desk.recover(SITUATION, *AGREED)
    said = desk.recover("--close", expect=5)
    assert "points of the list are open" in said
    assert "nobody is here to agree" not in said


def test_the_plan_may_ask_for_a_second_person(desk: Desk) -> None:
    desk.plan.write_text(desk.plan.read_text() + "recovery: {two_people: true}\n")
    desk.recover(SITUATION, *AGREED, "--as", "ann", expect=5)
    assert "swap-postgres" not in desk.done()
    planned = desk.recover(SITUATION, "--plan")
    assert "asks first somebody else than who began the run: type marketplace (--as NAME)" in planned
    assert "is under way, and the same command goes on with it" in planned
    desk.recover("--resume", *AGREED, "--as", "bob")
    [swap] = [one for one in desk.json("--show")["steps"] if one["id"] == "swap-postgres"]
    assert swap["approved_by"] == "bob"
