"""Files that a recovery sets aside, also before there is a run: who is told of them, and who removes them.

The repository, the plan, the hold and the files are real; the other steps are files in a folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recoup.assembly.recover import undo as recover_undo
from recoup.assembly.recover.aside import hold
from recoup.assembly.recover.blank import files, open_blank
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.end import abandon, open_run
from recoup.assembly.recover.run import Parts, RecoverControl, RecoveryOutcome, run_recovery
from recoup.assembly.recover.undo import close, closing, rollback_step
from recoup.assembly.voice import Voice
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Finding
from recoup.recovery.executor import Agreement
from recoup.recovery.runbook import Facts
from recoup.recovery.step import Act, Done, Step
from tests.integration.recover_world import FileActor, given
from tests.integration.test_place_files import production, root, wish

__all__ = ["production", "root"]

_FACTS = Facts(files=("configuration",), compose=False)
_DOING: dict[Act, Callable[[Recovery, Step], Done]] = {Act.HOLD: hold, Act.FILES: files}


class Actor(FileActor):
    """Holds the repository and brings files back; the rest is written down."""

    def done(self, step: Step) -> bool:
        return step.act not in _DOING and super().done(step)

    def act(self, step: Step) -> Done:
        return _DOING[step.act](self.recovery, step) if step.act in _DOING else super().act(step)

    def after(self, step: Step) -> Sequence[Finding]:
        return ()


def recovered(production: Path, **wishes: object) -> RecoveryOutcome:
    world = production.parent / f"world-{os.urandom(4).hex()}"
    world.mkdir()
    parts = Parts(open=open_blank, facts=lambda *_: _FACTS, actor=lambda recovery: Actor(recovery, world))
    control = RecoverControl(**{"agree": lambda _step: Agreement(how="typed"), "who": "alice", **wishes})  # type: ignore[arg-type]
    voice = Voice(say=lambda _text: None, on_progress=lambda _progress: None)
    return run_recovery(replace(wish(production), force=True), voice, control, parts)


@pytest.fixture
def in_the_way(production: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where production was, with a file in it that is not the one that was copied."""
    monkeypatch.setattr(recover_undo, "still_open", lambda _recovery: ())
    production.mkdir()
    (production / "app.conf").write_text("somebody else's\n")
    of_another = production / ".recoup-replaced-20261101-020000-another/app.conf"
    of_another.parent.mkdir()
    of_another.write_text("kept by another run\n")
    return production


def aside(folder: Path) -> set[str]:
    return {one.name for one in folder.glob(".recoup-replaced-*")} - {".recoup-replaced-20261101-020000-another"}


def told(outcome: RecoveryOutcome, step: str) -> str:
    [line] = [one for one in outcome.lines if one.event == "step-done" and one.data["step"] == step]
    return str(line.data["detail"])


def test_what_was_in_the_way_of_the_plan_before_there_was_a_run_is_told_by_it_and_removed_when_it_is_closed(
    in_the_way: Path,
) -> None:
    done = recovered(in_the_way)
    [kept] = aside(in_the_way)
    assert kept == f".recoup-replaced-{done.run}", "it is the run's"
    assert (in_the_way / kept / "app.conf").read_text() == "somebody else's\n"
    assert f"files were set aside: {in_the_way / kept}" in told(done, "hold")
    plan = in_the_way / "recoup.yaml"
    with open_run(given(plan, done.run), "closing") as recovery:
        keeping = closing(recovery, keep=True)
        what = f"what was set aside into {in_the_way / kept}"
        assert str(keeping) == f"ends the hold; {what} stays"
        assert close(recovery, keeping).said[0].startswith(f"{what} stays until it is closed without --keep")
        assert aside(in_the_way) == {kept}
        with pytest.raises(RefusedError, match="has replaced no database") as refused:
            rollback_step(recovery)
        assert str(in_the_way / kept) in (refused.value.hint or "")
        agreed = closing(recovery)
        assert str(agreed) == f"ends the hold, and removes {what}: no way back from there"
        assert close(recovery, agreed).said == (f"removed {in_the_way / kept}",)
        assert str(closing(recovery)) == "ends the hold", "nothing is left of it"
    assert aside(in_the_way) == set()
    assert (in_the_way / ".recoup-replaced-20261101-020000-another/app.conf").exists(), "another run keeps that"


def test_what_was_in_the_way_is_the_run_s_also_when_the_first_call_was_killed_before_it_began(
    in_the_way: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("recoup.assembly.recover.run.begin", _killed)
        with pytest.raises(EngineError, match="killed"):
            recovered(in_the_way)
    (in_the_way / "app.conf").write_text("somebody is quick\n")
    done = recovered(in_the_way)
    [name] = aside(in_the_way)
    assert name == f".recoup-replaced-{done.run}"
    assert str(in_the_way / name) in told(done, "hold")
    assert f"it has set aside {in_the_way / name}" in told(done, "files-configuration")
    assert {one.read_text() for one in (in_the_way / name).iterdir()} == {"somebody else's\n", "somebody is quick\n"}


def test_files_that_a_given_up_run_set_aside_are_removed_by_the_list_only(
    in_the_way: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = recovered(in_the_way, pause_before="files-configuration")
    plan = in_the_way / "recoup.yaml"
    (in_the_way / "recoup.key").write_bytes((in_the_way.parent / "recoup.key").read_bytes())
    abandon(given(plan, done.run), "the old server is back")
    asked: list[Recovery] = []

    def still_open(recovery: Recovery) -> tuple[()]:
        asked.append(recovery)
        return ()

    monkeypatch.setattr(recover_undo, "still_open", still_open)
    with open_run(given(plan, done.run), "closing") as recovery:
        closing(recovery, keep=True)
        assert not asked
        closing(recovery)
        assert asked, "they may be all that is left"


def _killed(*_: object, **__: object) -> None:
    raise EngineError("killed")
