"""Which services a run has replaced the data of, by its journal alone."""

from __future__ import annotations

import pytest

from recoup.kernel import clock
from recoup.recovery.progress import Progress, Standing, StepProgress, has_replaced, has_unpacked


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


@pytest.mark.parametrize(
    ("restored", "swapped", "unpacked"), [(0, 0, False), (1, 0, True), (1, 1, False), (1, None, False)]
)
def test_a_copy_lies_beside_the_data_from_when_it_is_unpacked_until_it_is_put_in_place(
    restored: int, swapped: int | None, unpacked: bool
) -> None:
    steps = {"restore-postgres": StepProgress(standing="begun" if restored else "waiting", attempts=restored)}
    if swapped is not None:
        steps["swap-postgres"] = StepProgress(standing="begun" if swapped else "waiting", attempts=swapped)
    run = Progress(run="r", situation="s", begun=clock.now(), order=1, frozen=tuple(steps), steps=steps)
    assert has_unpacked(run, "postgres") is unpacked
    assert not has_unpacked(run, "redis")


def test_nothing_was_unpacked_where_nothing_was_chosen() -> None:
    steps = {
        "choose-postgres": StepProgress(standing="skipped", attempts=1),
        "restore-postgres": StepProgress(standing="done", attempts=1),
        "swap-postgres": StepProgress(standing="waiting"),
    }
    run = Progress(run="r", situation="s", begun=clock.now(), order=1, frozen=tuple(steps), steps=steps)
    assert not has_unpacked(run, "postgres")
