"""Where `recoup recover` is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.assembly.recover import run as recover_run
from tests.integration.recover_command import Desk, ordered_parts
from tests.integration.recover_world import make_place


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A plan, and steps that do what is ordered."""
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))
    plan = make_place(tmp_path)
    text = plan.read_text().replace("services:\n", "tiers: {all: {rto: 1h, rpo: 5min}}\nservices:\n", 1)
    plan.write_text(text.replace("engine: postgres\n", "engine: postgres\n    tier: all\n", 1))
    monkeypatch.setattr(recover_run, "production_parts", lambda: ordered_parts(tmp_path / "world"))

    def capture() -> tuple[str, str]:
        read = capsys.readouterr()
        return read.out, read.err

    return Desk(plan, capture)
