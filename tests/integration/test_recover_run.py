"""A run of `recoup recover`: one at a time, written down, and gone on with where it ended."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.recover.resume import wish_to_resume
from recoup.assembly.recover.runs import local_runs, run_folder
from recoup.assembly.system import System
from recoup.kernel import presence
from recoup.kernel.errors import BusyError, RefusedError
from recoup.kernel.finding import Verdict
from recoup.repository.lease import hold_lease
from tests.integration.recover_world import make_place, recover


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    return make_place(tmp_path)


def test_a_run_carries_out_every_step_once_and_ends(plan: Path) -> None:
    done = recover(plan)
    assert (done.outcome.verdict, done.outcome.finished, done.resumed) == (Verdict.OK, True, False)
    assert {one.name for one in (plan.parent / "world").iterdir()} == {step.id for step in done.steps}
    seen = local_runs(System.from_file(plan).state_folder)
    assert [one.run for one in seen] == [done.run]
    assert seen[0].lines == done.lines


def test_the_same_command_goes_on_with_the_run_that_was_not_finished(plan: Path) -> None:
    first = recover(plan, pause_before="swap-postgres")
    assert not first.outcome.finished
    again = recover(plan)
    assert (again.run, again.resumed, again.outcome.finished) == (first.run, True, True)
    assert recover(plan, pause_before="hold").run != first.run


def test_a_run_that_was_begun_for_another_folder_goes_on_with_that_folder(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = RecoverWish(situation="database-corruption", file=plan)
    monkeypatch.chdir(plan.parent)
    run = recover(plan, folder=Path("elsewhere"), pause_before="swap-postgres").run
    monkeypatch.chdir("/")
    assert wish_to_resume(given, run).folder == plan.parent / "elsewhere"
    other = replace(given, folder=Path("/srv/larger"))
    assert wish_to_resume(other, run).folder == Path("/srv/larger"), "who says another one means it"


def test_a_new_server_is_not_taken_for_the_one_that_was_built_up_before(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "_MACHINE", plan.parent / "machine-id")
    (plan.parent / "machine-id").write_text("the first new server\n")
    first = recover(plan, situation="server-loss", pause_before="flows")
    (plan.parent / "machine-id").write_text("the second new server\n")
    with pytest.raises(RefusedError, match=f"{first.run} builds up the server") as refused:
        recover(plan, situation="server-loss")
    assert f"--abandon {first.run}" in str(refused.value.hint)
    (plan.parent / "machine-id").write_text("the first new server\n")
    assert recover(plan, situation="server-loss").outcome.finished


def test_a_server_that_was_made_anew_is_not_taken_for_what_it_was_before(plan: Path) -> None:
    first = recover(plan, situation="server-loss", pause_before="flows")
    shutil.rmtree(run_folder(System.from_file(plan).state_folder, first.run))
    with pytest.raises(RefusedError, match=f"{first.run} builds up .* this machine has no journal of it") as refused:
        recover(plan, situation="server-loss", take_over=True)
    assert f"--abandon {first.run}" in str(refused.value.hint)


def test_a_step_that_replaces_production_needs_more_than_a_yes_given_beforehand(plan: Path) -> None:
    with pytest.raises(RefusedError, match="swap-postgres"):
        recover(plan, yes=True, agree=lambda _step: None)
    assert (plan.parent / "world" / "stop").exists()
    assert not (plan.parent / "world" / "swap-postgres").exists()


def test_two_runs_of_one_stack_are_never_at_work_at_once(plan: Path) -> None:
    with hold_lease(System.from_file(plan).state_folder, "recover", "recovery"), pytest.raises(BusyError):
        recover(plan)


def test_when_the_plan_asks_for_two_people_another_one_agrees_to_what_replaces_production(plan: Path) -> None:
    plan.write_text(plan.read_text() + "recovery: {two_people: true}\n")
    with pytest.raises(RefusedError, match="alice began this run"):
        recover(plan)
    done = recover(plan, who="bob")
    assert done.outcome.finished
    said = {line.data["step"]: line.data["by"] for line in done.lines if line.event == "approved"}
    assert said == {"stop": "alice", "swap-postgres": "bob"}


def test_a_yes_given_beforehand_is_written_down_as_one(plan: Path) -> None:
    done = recover(plan, yes=True)
    how = {line.data["step"]: line.data["how"] for line in done.lines if line.event == "approved"}
    assert how == {"stop": "beforehand", "swap-postgres": "typed"}


def test_what_keeps_others_away_is_written_down_when_a_call_begins(plan: Path) -> None:
    done = recover(plan, pause_before="swap-postgres")
    (leased,) = [line for line in done.lines if line.event == "leased"]
    assert leased.data["repositories"] == ["local"]
    assert leased.data["without"] == {}
