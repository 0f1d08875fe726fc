"""Is this machine's clock right? What a server says counts; what a copy says leaves open whose clock is wrong."""

from __future__ import annotations

from datetime import timedelta

import pytest

from recoup.kernel.finding import Verdict
from recoup.recovery.wall_clock import CLOCK_TOLERANCE, clock_fault, clock_finding

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("ahead", "newest", "fault", "verdict"),
    [
        (timedelta(0), -SECOND, None, "ok"),
        (CLOCK_TOLERANCE, None, None, "ok"),
        (CLOCK_TOLERANCE + SECOND, None, "5 min 1 s ahead of the repository's", "failed"),
        (-timedelta(hours=2), None, "2 h behind the repository's", "failed"),
        (timedelta(0), timedelta(hours=1), None, "ok"),
        (None, None, None, "ok"),
        (None, CLOCK_TOLERANCE, None, "ok"),
        (None, timedelta(hours=1), "the newest copy is 1 h in its future", "unknown"),
    ],
)
def test_a_wrong_clock_is_told_from_one_that_nobody_can_judge(
    ahead: timedelta | None, newest: timedelta | None, fault: str | None, verdict: str
) -> None:
    said = clock_fault(ahead, newest)
    assert (said is None) == (fault is None)
    assert (fault or "") in (said or "")
    found = clock_finding(ahead, newest)
    assert found.verdict == Verdict(verdict)
    assert bool(found.not_checked) == (ahead is None and fault is None)
    if fault is not None:
        assert "timedatectl" in (found.hint or "")
