"""What carries out the steps of a recovery."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.assembly.recover.actor import DOING
from recoup.kernel import clock
from recoup.recovery import runbook_steps as make
from recoup.recovery.progress import Progress, StepProgress
from recoup.recovery.step import Act, Step


def test_every_act_of_a_runbook_is_carried_out_by_something() -> None:
    assert set(DOING) == set(Act)


@pytest.mark.parametrize("step", [make.restore("redis", ""), make.swap("redis", "its data"), make.place("redis")])
def test_without_a_choice_the_steps_of_a_database_leave_its_data_alone_and_the_run_goes_on(step: Step) -> None:
    steps = {"choose-redis": StepProgress(standing="skipped", attempts=1)}
    progress = Progress(run="r", situation="s", begun=clock.now(), order=1, frozen=tuple(steps), steps=steps)
    done = DOING[step.act](cast(Any, SimpleNamespace(progress=progress)), step)  # it has nothing else to look at
    assert "its data stay as they are" in done.detail
    assert not done.data
