"""How a service stands: what would be lost now, at worst, and whether that is what was promised."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.finding import Verdict
from recoup.objectives.forecast import days_until_full, growth, samples_from_copies
from recoup.objectives.objective import Objective
from recoup.objectives.standing import Point, Proof, Standing, Stream, standing, worst_by_day, worst_loss

_NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_DAY = Objective(rto=4 * _HOUR, rpo=24 * _HOUR)


def _point(hours_ago: float, *, took: float = 0.5, kind: str = "base") -> Point:
    at = _NOW - hours_ago * _HOUR
    return Point(id=f"p{hours_ago:g}", kind=kind, at=at, usable=at + took * _HOUR, stored_bytes=10)


def _stand(*points: Point, streams: tuple[Stream, ...] = (), silent: bool = False, **proofs: Proof) -> Standing:
    return standing(_DAY, points, proofs, streams, now=_NOW, silent=silent)


def test_the_age_is_counted_from_the_start_of_the_newest_copy_and_the_limit_itself_is_kept() -> None:
    assert _stand(_point(30), _point(24)).rpo_now == 24 * _HOUR
    assert _stand(_point(30), _point(24)).verdict is Verdict.OK
    assert _stand(_point(30), _point(24.01)).verdict is Verdict.FAILED


def test_no_copy_is_a_failure_and_unknown_when_a_repository_did_not_answer() -> None:
    assert _stand().verdict is Verdict.FAILED
    assert _stand(silent=True).verdict is Verdict.UNKNOWN
    assert _stand(_point(30), silent=True).verdict is Verdict.UNKNOWN
    assert _stand(_point(3), silent=True).verdict is Verdict.OK  # it is there, whatever the other holds


def test_a_copy_that_failed_its_verification_is_none() -> None:
    bad = Proof(grade=None, verdict=Verdict.FAILED, when=_NOW)
    stands = _stand(_point(20), _point(2), p2=bad)
    assert stands.rpo_now == 20 * _HOUR
    assert stands.last_good is not None
    assert stands.last_good.id == "p20"


def test_proven_is_only_what_was_verified_to_the_content_and_came_out_well() -> None:
    stored = Proof(grade="stored", verdict=Verdict.OK, when=_NOW)
    unknown = Proof(grade="intact", verdict=Verdict.UNKNOWN, when=_NOW)
    intact = Proof(grade="intact", verdict=Verdict.OK, when=_NOW)
    stands = _stand(_point(20), _point(9), _point(2), p20=intact, p9=unknown, p2=stored)
    assert stands.last_proven is not None
    assert stands.last_proven.id == "p20"
    assert _stand(_point(2)).last_proven is None


def test_a_stream_counts_only_after_a_copy_and_without_a_gap() -> None:
    fresh = Stream(kind="wal", state="running", as_of=_NOW - timedelta(seconds=4))
    assert _stand(_point(20), streams=(fresh,)).rpo_now == timedelta(seconds=4)
    assert _stand(streams=(fresh,)).verdict is Verdict.FAILED
    gap = Stream(kind="wal", state="running", as_of=_NOW, gap="the slot was lost")
    assert _stand(_point(20), streams=(gap,)).rpo_now == 20 * _HOUR


def test_a_copy_of_the_future_makes_it_unknown() -> None:
    assert _stand(_point(-1)).verdict is Verdict.UNKNOWN


def test_without_a_promise_something_to_go_back_to_is_ok_and_nothing_is_not() -> None:
    assert standing(Objective(), [_point(900)], {}, (), now=_NOW, silent=False).verdict is Verdict.OK
    assert standing(Objective(), [], {}, (), now=_NOW, silent=False).verdict is Verdict.FAILED


def test_the_worst_is_just_before_a_copy_was_complete() -> None:
    worst, since = worst_loss([_point(72), _point(20, took=2), _point(1)], now=_NOW)
    assert worst == 54 * _HOUR  # from the copy 72 h ago to the end of the one 20 h ago, 18 h ago
    assert since == _NOW - 71.5 * _HOUR


@given(st.lists(st.tuples(st.floats(0, 1500), st.floats(0, 30)), max_size=12))
def test_the_worst_is_what_a_walk_through_the_window_finds(copies: list[tuple[float, float]]) -> None:
    points = [_point(ago, took=took) for ago, took in copies if took <= ago]
    worst, since = worst_loss(points, now=_NOW)
    walked: list[timedelta] = []
    begin = max(since, _NOW - timedelta(days=30)) if since else _NOW
    instants = {_NOW, begin} | {one.usable for one in points if begin < one.usable <= _NOW}
    for instant in instants:
        before = [one.at for one in points if one.usable < instant]  # just before it was complete
        if before:
            walked.append(instant - max(before))
    assert (worst is None) == (not points)
    if worst is not None:
        assert abs(worst - max(walked, default=_NOW - max(one.at for one in points))) <= timedelta(seconds=1)
        by_day = [one for one in worst_by_day(points, now=_NOW) if one is not None]
        assert max(by_day) <= worst + timedelta(seconds=1)


def test_a_day_without_a_copy_shows_in_its_day() -> None:
    points = [_point(hours) for hours in range(12, 700, 24) if not 100 < hours < 190]
    by_day = worst_by_day(points, now=_NOW)
    assert len(by_day) == 30
    assert max(day for day in by_day if day is not None) > 100 * _HOUR
    assert by_day[-1] is not None
    assert by_day[-1] < 25 * _HOUR


def test_a_disk_that_fills_by_a_tenth_of_its_room_each_day_is_full_in_ten_days() -> None:
    days = {(_NOW - timedelta(days=back)).date(): (30 - back) * 100 for back in range(30)}
    growing = growth(days)
    assert growing is not None
    assert abs(growing.bytes_per_day - 100) < 1e-6
    assert abs((days_until_full(1000, growing) or 0) - 10) < 1e-6
    assert days_until_full(1000, growth({day: -size for day, size in days.items()})) is None


def test_two_days_are_too_few_for_a_forecast() -> None:
    assert growth({_NOW.date(): 5, (_NOW - timedelta(days=2)).date(): 1}) is None
    assert growth({}) is None


def test_until_sizes_were_noted_down_the_copies_themselves_tell_the_growth() -> None:
    copies = [(_NOW - timedelta(days=back), 50) for back in range(10)]
    growing = growth(samples_from_copies(copies, now=_NOW))
    assert growing is not None
    assert abs(growing.bytes_per_day - 50) < 1
