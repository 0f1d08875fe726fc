"""A journal that lacks the lines of a swap, over a volume in which it happened: the real scripts, in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from recoup.assembly.drill.record import Newest
from recoup.assembly.recover import data as recover_data
from recoup.assembly.recover.context import RecoverWish, Recovery
from recoup.assembly.recover.run import Parts, RecoverControl, RecoveryOutcome, run_recovery
from recoup.assembly.recover.runs import JOURNAL, run_folder
from recoup.assembly.system import System
from recoup.assembly.voice import Voice
from recoup.engines.postgres import volume_script
from recoup.kernel.finding import Finding
from recoup.recovery.executor import Agreement
from recoup.recovery.in_place import Occupant
from recoup.recovery.stack_in_place import VolumeMember
from recoup.recovery.step import Act, Done, Step
from tests.faults.test_volume_placement import _OLD, _backup, data, run_script
from tests.integration.recover_world import FileActor, make_place, parts_of

__all__ = ["data"]


@dataclass(frozen=True)
class Volume:
    """What ``PostgresHome`` does in a container, here in a folder."""

    folder: Path

    def look(self) -> Occupant:
        status = volume_script.parse_status(self._run(volume_script.STATUS, "look"))
        unfinished = None if status.placing is None else status.placing[1]
        return Occupant(
            place="the volume", identity=str(_OLD), what="a cluster",  # the copy is of this very cluster
            unfinished=unfinished, begun=unfinished, free_bytes=status.free_bytes, placed=status.placed,
        )  # fmt: skip

    def needs_bytes(self, _reader: object) -> int:
        return 1

    def stage(self, _reader: object, restore_id: str, _on_progress: object) -> None:
        self._run(volume_script.STAGE, restore_id, stdin=_backup())

    def swap(self, restore_id: str) -> str | None:
        said = self._run(volume_script.SWAP, restore_id).decode()
        return next((one.removeprefix("kept ") for one in said.splitlines() if one.startswith("kept ")), None)

    def check(self, _reader: object) -> Sequence[Finding]:
        return ()

    def _run(self, script: str, restore_id: str, stdin: bytes = b"") -> bytes:
        done = run_script(script, self.folder, restore_id, stdin=stdin)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout


@dataclass
class DataActor(FileActor):
    """Restores and swaps as in production; everything else is a file."""

    def act(self, step: Step) -> Done:
        match step.act:
            case Act.RESTORE:
                return recover_data.restore(self.recovery, step)
            case Act.SWAP:
                return recover_data.swap(self.recovery, step)
        return super().act(step)

    def after(self, step: Step) -> Sequence[Finding]:
        return () if step.act in (Act.RESTORE, Act.SWAP) else super().after(step)


def _recover(plan: Path, pause_before: str | None = None) -> RecoveryOutcome:
    world = plan.parent / "world"
    found = parts_of(world)
    parts = Parts(open=found.open, facts=found.facts, actor=lambda recovery: DataActor(recovery, world))
    control = RecoverControl(agree=lambda _step: Agreement(how="typed"), who="alice", pause_before=pause_before)
    voice = Voice(say=lambda _text: None, on_progress=lambda _progress: None)
    return run_recovery(RecoverWish(situation="database-corruption", file=plan), voice, control, parts)


def _forget_after(plan: Path, run: str, last: bytes) -> None:
    """The journal ends with the line that holds ``last``, and no copy of it knows more."""
    journal = run_folder(System.from_file(plan).state_folder, run) / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if b"step-begun" in line and last in line)
    journal.write_bytes(b"".join(lines[: end + 1]))
    copies = [one for one in (plan.parent / "repository").rglob("*") if one.is_file() and run in str(one)]
    assert copies
    for one in copies:
        one.unlink()


@pytest.mark.parametrize("last", [b"restore-postgres", b"swap-postgres"])
def test_what_a_forgotten_swap_put_in_place_is_found_there_and_nothing_is_set_aside_twice(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last: bytes,
) -> None:
    def placed(_recovery: Recovery, service: str) -> tuple[object, VolumeMember]:
        return None, VolumeMember(
            service=service, compose=service, what="a copy", home=Volume(data), artefact_id="copy",
            identity=str(_OLD), reader=None,  # type: ignore[arg-type]
        )  # fmt: skip

    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    monkeypatch.setattr(recover_data, "_placed", placed)
    monkeypatch.setattr(recover_data, "newest_of", lambda *_, **__: Newest(at=None, how="of no account"))
    stack = SimpleNamespace(client=SimpleNamespace(stop=lambda _services: None))
    monkeypatch.setattr(recover_data, "open_stack", lambda _system: stack)
    plan = make_place(tmp_path)
    first = _recover(plan, "start-postgres")
    assert first.outcome.stopped_at is not None
    assert first.outcome.stopped_at.id == "start-postgres", first.outcome
    (data / "base/1/112").write_bytes(b"written since")

    _forget_after(plan, first.run, last)
    again = _recover(plan)
    assert again.run == first.run
    assert again.outcome.finished, again.outcome
    aside = list(data.glob(f"{volume_script.REPLACED}*"))
    assert len(aside) == 1
    assert (aside[0] / "base/1/112").read_bytes() == b"old row"
    assert (data / "base/1/112").read_bytes() == b"written since"
    assert not (data / volume_script.INCOMING).exists()
