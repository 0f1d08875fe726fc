"""Which services a run has replaced the data of, by its journal alone."""

from __future__ import annotations

import pytest

from recoup.kernel import clock
from recoup.recovery.progress import Progress, Standing, StepProgress, has_replaced


@pytest.mark.parametrize("act", ["swap", "place"])
@pytest.mark.parametrize(
    ("standing", "attempts", "replaced"),
    [
        ("waiting", 0, False),
        ("begun", 1, True),
        ("failed", 1, True),
        ("done", 1, True),
        ("skipped", 0, False),
        ("skipped", 1, True),
    ],
)
def test_a_service_counts_as_replaced_as_soon_as_that_was_begun_by_whomever(
    act: str, standing: Standing, attempts: int, replaced: bool
) -> None:
    steps = {
        "restore-postgres": StepProgress(standing="done", attempts=1),
        f"{act}-postgres": StepProgress(standing=standing, attempts=attempts),
        f"{act}-redis": StepProgress(standing="done", attempts=1),
    }
    run = Progress(run="r", situation="s", begun=clock.now(), order=1, frozen=tuple(steps), steps=steps)
    assert has_replaced(run, "postgres") is replaced
    assert has_replaced(run, "redis")
    assert not has_replaced(run, "another")


@pytest.mark.parametrize("act", ["swap", "place"])
def test_nothing_of_a_service_was_replaced_for_which_nothing_was_chosen(act: str) -> None:
    steps = {
        "choose-redis": StepProgress(standing="skipped", attempts=1),
        f"{act}-redis": StepProgress(standing="skipped", attempts=1),
    }
    run = Progress(run="r", situation="s", begun=clock.now(), order=1, frozen=tuple(steps), steps=steps)
    assert not has_replaced(run, "redis")
