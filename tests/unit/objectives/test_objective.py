"""A promise is kept, missed or unknown."""

from datetime import timedelta

from recoup.kernel.finding import Verdict
from recoup.objectives.objective import Measured, Objective, attainment

HOUR = timedelta(hours=1)


def test_a_measured_time_within_the_promise_is_ok_also_at_the_limit() -> None:
    result = attainment(Objective(rto=HOUR, rpo=HOUR), Measured(recovery_time=HOUR, lost_data=timedelta(0)))
    assert (result.rto, result.rpo) == (Verdict.OK, Verdict.OK)
    assert (result.rto_margin, result.rpo_margin) == (timedelta(0), HOUR)


def test_a_measured_time_beyond_the_promise_failed_by_its_margin() -> None:
    result = attainment(Objective(rto=HOUR), Measured(recovery_time=3 * HOUR))
    assert result.rto is Verdict.FAILED
    assert result.rto_margin == -2 * HOUR


def test_what_was_not_promised_or_not_measured_is_unknown_and_never_ok() -> None:
    assert attainment(Objective(), Measured(recovery_time=HOUR, lost_data=HOUR)).rto is Verdict.UNKNOWN
    assert attainment(Objective(rto=HOUR, rpo=HOUR), Measured()).rpo is Verdict.UNKNOWN
    assert attainment(Objective(rto=HOUR), Measured(recovery_time=-HOUR)).rto is Verdict.UNKNOWN


def test_a_services_own_numbers_stand_in_for_its_tiers() -> None:
    assert Objective(rto=HOUR, rpo=HOUR).overridden(rpo=2 * HOUR) == Objective(rto=HOUR, rpo=2 * HOUR)
