"""A recovery goes on from another machine, and a journal that does not count any more is not gone on with."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from recoup.assembly.recover import run as recover_run
from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.recover.end import abandon, open_run
from recoup.assembly.recover.forecast import expect
from recoup.assembly.recover.run import show_steps
from recoup.assembly.recover.runs import local_runs, run_folder, runs_seen
from recoup.assembly.system import System
from recoup.demo.host import wait_until
from recoup.kernel import clock, ids
from recoup.kernel.errors import DamageError, RefusedError, UsageError
from recoup.recovery import progress as written
from recoup.recovery.attained import attained
from recoup.recovery.journal import Journal
from recoup.repository import layout
from tests.integration.recover_world import given, make_place, open_place, parts_of, recover

Machine = Callable[[str], None]


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Go to another machine: what it remembers is its own."""

    def go(name: str) -> None:
        monkeypatch.setenv("RECOUP_STATE", str(tmp_path / f"state-of-{name}"))

    go("alpha")
    return go


@pytest.fixture
def plan(tmp_path: Path, on: Machine) -> Path:
    return make_place(tmp_path)


def journal(plan: Path, run: str) -> Path:
    return run_folder(System.from_file(plan).state_folder, run) / "journal"


def stored_objects(plan: Path, run: str) -> list[Path]:
    folder = plan.parent / "repository" / layout.run_journal("marketplace", run)
    return sorted(folder.iterdir())


def test_a_run_goes_on_from_another_machine_by_what_the_repository_holds(plan: Path, on: Machine) -> None:
    first = recover(plan, pause_before="swap-postgres")
    assert first.uncopied == {}
    on("beta")
    said: list[str] = []
    again = recover(plan, said.append)
    assert (again.run, again.resumed, again.outcome.finished) == (first.run, True, True)
    assert again.lines[: len(first.lines)] == first.lines
    assert any("goes on from the journal in local" in one for one in said)
    on("alpha")
    assert recover(plan, pause_before="hold").run != first.run, "this machine hears that it ended elsewhere"


def test_a_run_can_be_looked_at_from_a_machine_that_knows_nothing_of_it(plan: Path, on: Machine) -> None:
    first = recover(plan, pause_before="swap-postgres")
    on("beta")
    opened, _ = open_place(RecoverWish(situation="database-corruption", file=plan))
    for system in ("marketplace", None):
        assert [(one.run, one.lines) for one in runs_seen(opened, system)] == [(first.run, first.lines)]
    assert local_runs(opened.state_folder) == ()


def test_a_machine_whose_own_journal_is_behind_catches_up(plan: Path, on: Machine) -> None:
    first = recover(plan, pause_before="swap-postgres")
    on("beta")
    recover(plan, pause_before="flows")
    on("alpha")
    again = recover(plan)
    assert (again.run, again.outcome.finished) == (first.run, True)
    assert sum(line.event == written.RUN_RESUMED for line in again.lines) == 2


def apart(plan: Path, on: Machine) -> str:
    """Both machines went on with a run: alpha wrote a line that never left it."""
    run = recover(plan, pause_before="swap-postgres").run
    with Journal(journal(plan, run), who="alice", host="alpha", boot="1") as alone:
        alone.append(written.STEP_BEGUN, step="swap-postgres", attempt=1)
    on("beta")
    recover(plan, pause_before="flows")
    on("alpha")
    return run


def test_journals_that_went_apart_are_refused_until_somebody_says_which_one_counts(plan: Path, on: Machine) -> None:
    run = apart(plan, on)
    with pytest.raises(RefusedError, match=rf"the journal of {run} went apart after line \d+") as refused:
        recover(plan)
    assert "step-begun" in refused.value.message
    assert "--take-over" in str(refused.value.hint)
    said: list[str] = []
    again = recover(plan, said.append, take_over=True)
    assert (again.run, again.outcome.finished) == (run, True)
    kept = [path for path in journal(plan, run).parent.iterdir() if "aside" in path.name]
    assert len(kept) == 1
    assert any(str(kept[0]) in one for one in said)
    leased = [line for line in again.lines if line.event == written.LEASED]
    assert (leased[-1].data["take_over"], leased[-1].data["aside"]) == (True, str(kept[0]))


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_journal_is_refused_and_the_copy_takes_its_place_on_request(plan: Path, on: Machine) -> None:
    first = recover(plan, pause_before="swap-postgres")
    damage(journal(plan, first.run))
    with pytest.raises(DamageError, match="is not the line that was written") as refused:
        recover(plan)
    assert "local has a whole copy" in str(refused.value.hint)
    again = recover(plan, take_over=True)
    assert again.outcome.finished
    assert again.lines[: len(first.lines)] == first.lines


def _finished(plan: Path) -> str:
    return recover(plan).run


def _given_up(plan: Path) -> str:
    run = recover(plan, pause_before="swap-postgres").run
    abandon(given(plan, run), "the old server is back")
    return run


@pytest.mark.parametrize(("end", "how"), [(_finished, "ok"), (_given_up, "abandoned")])
def test_a_damaged_journal_of_a_run_that_has_ended_is_no_hindrance_to_a_new_one(
    plan: Path, on: Machine, end: Callable[[Path], str], how: str
) -> None:
    run = end(plan)
    whole = journal(plan, run).read_bytes()
    damage(journal(plan, run))
    done = {one.name for one in (plan.parent / "world").iterdir()}
    with pytest.raises(DamageError):
        recover(plan, run=run)
    with pytest.raises(UsageError, match=f"the run {run} has ended: {how}"):
        recover(plan, run=run, take_over=True)
    assert {one.name for one in (plan.parent / "world").iterdir()} == done, "none of its steps is carried out"
    assert journal(plan, run).read_bytes() == whole
    damage(journal(plan, run))
    for one in (plan.parent / "world").iterdir():
        one.unlink()
    new = recover(plan)
    assert (new.run != run, new.resumed, new.outcome.finished) == (True, False, True)


def test_a_journal_that_is_damaged_everywhere_is_refused_and_can_be_given_up(plan: Path, on: Machine) -> None:
    run = recover(plan, pause_before="swap-postgres").run
    damage(journal(plan, run))
    for path in stored_objects(plan, run):
        damage(path)
    for take_over in (False, True):
        with pytest.raises(DamageError) as refused:
            recover(plan, take_over=take_over)
        assert f"--abandon {run}" in str(refused.value.hint)
    lines = abandon(given(plan, run), "nothing is left of it")
    assert lines[-1].data["outcome"] == "abandoned"
    assert attained(lines) is not None
    assert [path for path in journal(plan, run).parent.iterdir() if "aside" in path.name]
    on("beta")
    assert recover(plan, pause_before="hold").run != run


@pytest.mark.parametrize("harm", ["damage", "remove the first"])
def test_a_bad_copy_in_a_repository_does_not_stop_a_run_whose_own_journal_is_whole(
    plan: Path, on: Machine, harm: str
) -> None:
    run = recover(plan, pause_before="swap-postgres").run
    for path in stored_objects(plan, run)[: 1 if harm != "damage" else None]:
        damage(path) if harm == "damage" else path.unlink()
    said: list[str] = []
    again = recover(plan, said.append, pause_before="flows")
    assert any(one.startswith("local: ") for one in said)
    on("beta")
    assert recover(plan).lines[: len(again.lines)] == again.lines, "it was written anew, whole"


def test_a_repository_that_was_lost_in_between_gets_the_whole_journal_again(plan: Path, on: Machine) -> None:
    first = recover(plan, pause_before="swap-postgres")
    shutil.rmtree(plan.parent / "repository" / layout.RUNS)
    again = recover(plan, pause_before="flows")
    on("beta")
    assert recover(plan).lines[: len(again.lines)] == again.lines
    assert again.run == first.run


def test_a_run_that_another_one_overtook_is_not_gone_on_with(plan: Path, on: Machine) -> None:
    first = recover(plan, pause_before="swap-postgres").run
    shutil.rmtree(plan.parent / "repository" / layout.RUNS)  # the machine was lost before anything was copied
    on("beta")
    assert wait_until(lambda: ids.stamp(clock.now()) > first[:15], limit_seconds=120), "ids are sorted by their second"
    second = recover(plan)
    assert second.run != first
    on("alpha")
    with pytest.raises(RefusedError, match=f"the run {second.run} was begun after {first}"):
        recover(plan, run=first)
    shown = show_steps(RecoverWish(situation="database-corruption", file=plan), parts_of(plan.parent / "world"))
    opened, system, steps = shown
    assert expect(opened, system, "database-corruption", steps).under_way is None, "`recover` would begin a new one"
    assert recover(plan, pause_before="hold").run not in (first, second.run)


def test_a_run_that_was_given_up_is_not_gone_on_with_anywhere(plan: Path, on: Machine) -> None:
    first = recover(plan, pause_before="swap-postgres")
    on("beta")
    lines = abandon(given(plan, name="bob"), "the old server is back")
    assert (lines[-1].who, lines[-1].data["outcome"]) == ("bob", "abandoned")
    on("alpha")
    with pytest.raises(UsageError, match="has ended already: abandoned"):
        abandon(given(plan, first.run), "again")
    assert recover(plan, pause_before="hold").run != first.run


def test_a_run_that_has_ended_can_be_opened_to_be_closed(plan: Path, on: Machine) -> None:
    run = recover(plan).run
    with open_run(given(plan), "closing a recovery") as recovery:
        assert recovery.run == run
        recovery.journal.append("closed")
    on("beta")
    with open_run(given(plan, run), "looking") as recovery:
        assert [line.event for line in recovery.journal.lines if line.event == "closed"] == ["closed"]


def test_a_plan_that_was_changed_meanwhile_is_said_and_written_down(plan: Path, on: Machine) -> None:
    recover(plan, pause_before="swap-postgres")
    plan.write_text(plan.read_text() + "# another word\n")
    said: list[str] = []
    again = recover(plan, said.append)
    assert any("the plan was changed" in one for one in said)
    resumed = [line for line in again.lines if line.event == written.RUN_RESUMED]
    assert "plan" in resumed[0].data


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"order": written.ORDER + 1}, "orders steps otherwise"),
        ({"facts": {"facts": {"databases": "all of them"}}}, "was written by a Recoup that says it otherwise"),
        ({"facts": {}}, "was written by a Recoup that says it otherwise"),
        (
            {"order": written.ORDER + 1, "facts": {}, "runbook": [{"id": "hold", "act": "dance"}]},
            "orders steps otherwise",
        ),
    ],
)
def test_a_run_of_another_recoup_is_refused_by_what_it_is_and_can_be_given_up(
    plan: Path, on: Machine, change: dict[str, object], why: str
) -> None:
    first = recover(plan, pause_before="start-postgres")
    shutil.rmtree(plan.parent / "repository" / layout.RUNS)
    path = journal(plan, first.run)
    path.unlink()
    with contextlib.closing(Journal(path, who="alice", host="h", boot="b")) as other:
        for one in first.lines:
            other.append(one.event, **{**one.data, **(change if one.event == written.RUN_BEGUN else {})})
    with pytest.raises(RefusedError, match=why) as refused:
        recover(plan, run=first.run)
    assert f"--abandon {first.run}" in str(refused.value.hint)
    assert abandon(given(plan, first.run), "it is of another version")[-1].data["outcome"] == "abandoned"


def test_the_facts_of_a_run_are_looked_up_when_it_begins_and_not_again(
    plan: Path, on: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    recover(plan, pause_before="swap-postgres")

    def asked(*_: object) -> object:
        raise AssertionError("they are in the journal")

    monkeypatch.setattr(recover_run, "_facts", asked)
    assert recover(plan).outcome.finished
