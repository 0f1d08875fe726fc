"""What carries out the steps of a recovery."""

from __future__ import annotations

from recoup.assembly.recover.actor import DOING
from recoup.recovery.step import Act


def test_every_act_of_a_runbook_is_carried_out_by_something() -> None:
    assert set(DOING) == set(Act)
