"""``recoup drill --due``: held when the plan's schedule says so, and not beside one that runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from recoup.assembly.drill.run import LEASE
from recoup.backup.due import Run
from recoup.backup.run_records import WHOLE_PLAN
from recoup.cli import drill_run, due
from recoup.cli.drill_run import Asked
from recoup.cli.due import Outlook
from recoup.cli.output import Output
from recoup.kernel.errors import Exit, RecoupError
from recoup.repository.lease import hold_lease

NOW = datetime(2026, 11, 2, 4, 0, tzinfo=UTC)


class HeldError(RecoupError):
    """Stands for the drill that would be held."""


def came_to_it(*_: object) -> None:
    raise HeldError("it would be held now")


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Makes the next drill be at an instant; None: no repository answered."""
    monkeypatch.setattr("recoup.assembly.system.System.from_file", lambda _: SimpleNamespace(state_folder=tmp_path))
    monkeypatch.setattr(drill_run, "_wish", came_to_it)

    def set_it(instant: datetime | None) -> None:
        runs = (
            ()
            if instant is None
            else (Run(service=WHOLE_PLAN, kind="drill", at=instant, slot=None, reason="scheduled"),)
        )
        ahead = Outlook(runs=runs, now=NOW, zone="UTC", silent={}, nobody_answered=instant is None)
        monkeypatch.setattr(due, "drill_outlook", lambda _: ahead)

    return set_it


def test_it_is_held_when_it_is_due_and_says_when_that_is_before(at, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    at(NOW)
    with pytest.raises(HeldError):
        drill_run.run_drill(Output(), Asked(due=True))
    at(NOW + timedelta(days=2))
    assert drill_run.run_drill(Output(), Asked(due=True)) is Exit.OK
    assert "nothing is due; next: drill 2026-11-04 04:00 UTC, in 2 d" in capsys.readouterr().out


def test_without_an_answer_of_a_repository_it_is_unknown_and_nothing_is_held(at) -> None:  # type: ignore[no-untyped-def]
    at(None)
    assert drill_run.run_drill(Output(), Asked(due=True)) is Exit.UNKNOWN


def test_one_that_runs_already_is_left_to_itself(at, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    at(NOW)
    with hold_lease(tmp_path, LEASE, "drill of server-loss"):
        assert drill_run.run_drill(Output(), Asked(due=True)) is Exit.OK
    assert "one runs already: drill of server-loss" in capsys.readouterr().out
