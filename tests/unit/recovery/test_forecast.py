"""How long a recovery takes is said from what was measured, and never guessed silently."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.finding import Verdict
from recoup.recovery.forecast import FLOOR_BYTES, Forecast, Outlook, Taken, in_words, outlook
from recoup.recovery.step import Act, Phase, Step

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
GIB = 1 << 30


def _step(name: str, act: Act = Act.HEALTH, phase: Phase = Phase.RECOVER, subject: str = "") -> Step:
    return Step(id=name, title=name, meaning="", act=act, phase=phase, subject=subject)


RESTORE = _step("restore-db", Act.RESTORE, subject="db")
FLOWS = _step("flows", Act.FLOWS, Phase.PROVE)
PROTECT = _step("protect-db", Act.PROTECT, Phase.AFTER, "db")
DNS = _step("let-users-in", Act.ASK, Phase.PROVE)


def _took(step: Step, seconds: float, size: int | None = None, *, ago: int = 1, drill: bool = True) -> Taken:
    return Taken(step=step.id, at=NOON - timedelta(days=ago), seconds=seconds, size=size, rehearsed=drill)


def _minutes(number: float) -> timedelta:
    return timedelta(minutes=number)


def test_a_step_that_moves_bytes_takes_as_much_longer_as_there_are_more_of_them() -> None:
    found = outlook([RESTORE], [_took(RESTORE, 60, GIB)], {"db": 3 * GIB}).steps["restore-db"]
    assert found.forecast == Forecast(p50=_minutes(3), p95=_minutes(3), times=1)
    assert found.basis == "from 1 drill; scaled from 1.0 GiB to 3.0 GiB"


def test_below_the_floor_a_copy_s_size_says_nothing_of_its_time() -> None:
    found = outlook([RESTORE], [_took(RESTORE, 3, 1 << 20)], {"db": FLOOR_BYTES}).steps["restore-db"]
    assert found.forecast is not None
    assert found.forecast.p50 == timedelta(seconds=3)
    assert found.basis == "from 1 drill"


def test_a_time_that_is_scaled_from_far_is_called_a_guess() -> None:
    found = outlook([RESTORE], [_took(RESTORE, 3, FLOOR_BYTES)], {"db": 100 * GIB}).steps["restore-db"]
    assert found.basis.endswith("so far from what was measured, it is a guess")


def test_a_time_whose_size_is_not_known_is_not_scaled_and_that_is_said() -> None:
    then = outlook([RESTORE], [_took(RESTORE, 60)], {"db": GIB}).steps["restore-db"]
    today = outlook([RESTORE], [_took(RESTORE, 60, GIB)], {}).steps["restore-db"]
    assert then.forecast == today.forecast == Forecast(p50=_minutes(1), p95=_minutes(1), times=1)
    assert then.basis == "from 1 drill; not scaled, because the size then is not known"
    assert today.basis == "from 1 drill; not scaled, because the size today is not known"


def test_where_data_are_put_in_place_at_once_that_step_grows_with_them() -> None:
    swap = _step("swap-db", Act.SWAP, subject="db")
    alone = outlook([swap], [_took(swap, 60, GIB)], {"db": 2 * GIB}).steps["swap-db"]
    after = outlook([RESTORE, swap], [_took(swap, 60, GIB)], {"db": 2 * GIB}).steps["swap-db"]
    assert alone.forecast is not None
    assert after.forecast is not None
    assert (alone.forecast.p50, after.forecast.p50) == (_minutes(2), _minutes(1))


def test_a_step_that_was_never_measured_is_unknown_and_the_whole_is_at_least_the_rest() -> None:
    found = outlook([RESTORE, FLOWS], [_took(RESTORE, 60)], {}, _minutes(15))
    assert (found.unknown, found.verdict) == (("flows",), Verdict.UNKNOWN)
    assert found.steps["flows"].basis == "it was never measured"
    assert in_words(found) == (
        "users are back after at least about 1 min, at worst 1 min, and one step that was never measured; "
        "the RTO is 15 min, which may be missed"
    )


def test_nothing_measured_is_said_to_be_unknown() -> None:
    found = outlook([RESTORE, FLOWS], [], {}, _minutes(15))
    assert (found.healthy, found.verdict) == (None, Verdict.UNKNOWN)
    assert in_words(found) == "how long it takes is not known: no step was ever measured; the RTO is 15 min"


def test_what_people_do_is_forecast_from_recoveries_and_not_from_drills() -> None:
    drill = outlook([DNS], [_took(DNS, 1)], {}).steps["let-users-in"]
    assert drill.forecast is None
    assert drill.basis == "a person does it; no recovery has measured how long that takes"
    real = Taken(step=DNS.id, at=NOON, seconds=1, waited=599)
    assert outlook([DNS], [_took(DNS, 1), real], {}).steps["let-users-in"].forecast == Forecast(
        p50=_minutes(10), p95=_minutes(10), times=1
    )


def test_protection_afterwards_is_no_part_of_the_time_to_recovery() -> None:
    found = outlook([RESTORE, FLOWS, PROTECT], [_took(RESTORE, 60), _took(FLOWS, 30), _took(PROTECT, 9e5)], {})
    assert found.healthy == Forecast(p50=timedelta(seconds=90), p95=timedelta(seconds=90), times=1)


def test_the_promise_is_held_against_the_longest_times() -> None:
    def verdict(*minutes: float) -> Verdict:
        times = [_took(RESTORE, 60 * one, ago=at + 1) for at, one in enumerate(minutes)]
        return outlook([RESTORE], times, {}, _minutes(10)).verdict

    assert verdict(4, 5, 9) is Verdict.OK
    assert verdict(4, 5, 12) is Verdict.UNKNOWN  # likely kept; it was missed once
    assert verdict(11, 12, 13) is Verdict.FAILED


def test_only_the_newest_times_count() -> None:
    old = [_took(RESTORE, 6000, ago=100 + at) for at in range(50)]
    new = [_took(RESTORE, 60, ago=at + 1) for at in range(20)]
    found = outlook([RESTORE], [*old, *new], {}).steps["restore-db"].forecast
    assert found == Forecast(p50=_minutes(1), p95=_minutes(1), times=20)


_TIMES = st.lists(
    st.builds(
        Taken,
        step=st.sampled_from(["restore-db", "flows"]),
        at=st.datetimes(timezones=st.just(UTC)),
        seconds=st.floats(0, 1e5),
        waited=st.floats(0, 1e4),
        size=st.none() | st.integers(0, 1 << 42),
        rehearsed=st.booleans(),
    ),
    max_size=12,
)


@given(taken=_TIMES, size=st.none() | st.integers(0, 1 << 42), rto=st.none() | st.timedeltas(timedelta(0)))
def test_ok_is_said_only_of_what_was_measured_entirely_and_fits(
    taken: list[Taken], size: int | None, rto: timedelta | None
) -> None:
    found = outlook([RESTORE, FLOWS], taken, {} if size is None else {"db": size}, rto)
    measured = {one.step for one in taken}
    assert set(found.unknown) == {"restore-db", "flows"} - measured
    if found.verdict is Verdict.OK:
        assert measured == {"restore-db", "flows"}
        assert rto is not None
        assert found.healthy is not None
        assert found.healthy.p50 <= found.healthy.p95 <= rto
    assert in_words(found)


@given(taken=_TIMES, spent=st.floats(0, 1e6))
def test_what_is_left_never_grows_when_time_goes_by_or_a_step_is_over(taken: list[Taken], spent: float) -> None:
    found = outlook([RESTORE, FLOWS], taken, {})

    def left(one: Outlook, done: list[str], current: str | None, in_it: float) -> timedelta:
        rest = one.left(done, current, in_it)
        return timedelta(0) if rest is None else rest.p50

    whole = left(found, [], "restore-db", 0)
    later = left(found, [], "restore-db", spent)
    over = left(found, ["restore-db"], "flows", 0)
    assert whole >= later >= over >= timedelta(0)
    assert found.left(["restore-db", "flows"]) is None
