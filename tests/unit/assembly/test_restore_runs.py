"""An interrupted restore into a server is resumed by the same command, for a day and no longer."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from recoup.assembly.restore import runs as restore_runs
from recoup.assembly.restore.runs import RestoreRuns, begun_at
from recoup.kernel import clock

ARTEFACT, TARGET = "20261123-020000-k7f3q2", "127.0.0.1:5432/shop"


def test_the_same_restore_goes_on_under_the_same_run_until_it_is_done(tmp_path: Path) -> None:
    runs = RestoreRuns(tmp_path)
    first = runs.begin(ARTEFACT, TARGET)
    assert RestoreRuns(tmp_path).begin(ARTEFACT, TARGET) == first
    assert runs.begin(ARTEFACT, "127.0.0.1:5432/other") != first
    runs.end(ARTEFACT, TARGET)
    assert runs.begin(ARTEFACT, TARGET) != first


def test_a_run_of_the_day_before_yesterday_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = RestoreRuns(tmp_path)
    first = runs.begin(ARTEFACT, TARGET)
    later = begun_at(first) + timedelta(days=2)
    monkeypatch.setattr(restore_runs.clock, "now", lambda: later)
    assert runs.begin(ARTEFACT, TARGET) != first


def test_a_damaged_note_means_a_fresh_run(tmp_path: Path) -> None:
    runs = RestoreRuns(tmp_path)
    first = runs.begin(ARTEFACT, TARGET)
    (note,) = (tmp_path / "restores").iterdir()
    note.write_bytes(b"\xff{")
    assert runs.begin(ARTEFACT, TARGET) != first
    assert begun_at(first) <= clock.now()
