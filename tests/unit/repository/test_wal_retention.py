"""Which WAL may go: only the oldest side, and never what an instant that must be reachable may need."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from recoup.repository.wal_retention import WalBase, WalDecision, WalUnit, decide_wal

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def _unit(segment: int, timeline: int = 1) -> WalUnit:
    return WalUnit(timeline=timeline, segment=segment, stamp=START + segment * HOUR)


def _base(segment: int, timeline: int = 1, *, alone: bool = True) -> WalBase:
    ended = START + segment * HOUR + timedelta(minutes=30)
    return WalBase(id=f"base-{segment}", timeline=timeline, first_segment=segment, ended=ended, needs_archive=not alone)


def _decide(units: Sequence[WalUnit], bases: Sequence[WalBase], *, hours: int, **more: object) -> WalDecision:
    now = max(unit.stamp for unit in units)
    return decide_wal(units, bases, reach=now - hours * HOUR, now=more.pop("now", now), **more)  # type: ignore[arg-type]


def _gone(decision: WalDecision) -> list[tuple[int, int]]:
    return [(unit.timeline, unit.segment) for unit in decision.remove]


def test_wal_before_the_base_backup_from_which_the_window_is_reached_goes_oldest_first() -> None:
    decision = _decide([_unit(n) for n in range(100)], [_base(10), _base(40), _base(70)], hours=40)
    assert _gone(decision) == [(1, n) for n in range(40)]
    assert decision.reason == "needed from base backup base-40 on, from which replay begins"


def test_when_no_base_backup_is_old_enough_wal_stays_from_the_oldest_one_on() -> None:
    assert _gone(_decide([_unit(n) for n in range(100)], [_base(70), _base(90)], hours=60)) == [
        (1, n) for n in range(39 - 1)
    ], "nor anything that is younger than the window itself"


def test_without_a_base_backup_or_a_window_all_of_it_stays() -> None:
    units = [_unit(n) for n in range(100)]
    assert _decide(units, [], hours=10).remove == ()
    assert decide_wal(units, [_base(90)], reach=None, now=START + 1000 * HOUR).remove == ()


def test_a_base_backup_without_its_own_wal_keeps_all_wal_from_its_beginning() -> None:
    decision = _decide([_unit(n) for n in range(100)], [_base(10, alone=False), _base(70)], hours=10)
    assert _gone(decision) == [(1, n) for n in range(10)]
    assert decision.reason == "needed from base backup base-10 on, which does not hold the WAL it needs"


def test_wal_from_the_future_stops_everything() -> None:
    decision = _decide([_unit(n) for n in range(100)], [_base(10), _base(70)], hours=10, now=START + 50 * HOUR)
    assert (decision.remove, decision.reason) == ((), "some of it is dated in the future: a clock is wrong")


def test_the_end_of_an_abandoned_timeline_goes_when_nothing_in_the_window_needs_it() -> None:
    units = [_unit(n) for n in range(30)] + [
        WalUnit(timeline=2, segment=n, stamp=START + (n + 10) * HOUR) for n in range(20, 100)
    ]
    bases = [_base(5), WalBase(id="second", timeline=2, first_segment=60, ended=START + 71 * HOUR)]
    gone = _gone(_decide(units, bases, hours=20))
    assert gone == [(1, n) for n in range(30)] + [(2, n) for n in range(20, 60)]


def test_an_older_timeline_stays_while_the_window_is_reached_through_it() -> None:
    units = [_unit(n) for n in range(90)] + [WalUnit(timeline=2, segment=89, stamp=START + 100 * HOUR)]
    gone = _gone(_decide(units, [_base(5), _base(50)], hours=30))
    assert gone == [(1, n) for n in range(50)]


def test_wal_of_a_replaced_cluster_goes_when_it_is_older_than_the_window() -> None:
    units, late = [_unit(n) for n in range(10)], START + 100 * HOUR
    assert decide_wal(units, [], reach=late, now=late, superseded=True).remove == tuple(units)
    assert decide_wal(units, [], reach=START + 5 * HOUR, now=late, superseded=True).remove == ()
    assert decide_wal(units, [_base(3, alone=False)], reach=late, now=late, superseded=True).remove == tuple(units[:3])


def test_what_is_blocked_stays_and_says_why() -> None:
    units = [_unit(n) for n in range(100)]
    decision = _decide(units, [_base(90)], hours=1, blocked="hold breach: being looked into")
    assert (decision.remove, decision.reason) == ((), "hold breach: being looked into")


@given(
    count=st.integers(1, 120),
    forks=st.lists(st.integers(1, 119), max_size=3, unique=True),
    bases=st.lists(st.tuples(st.integers(0, 119), st.booleans()), max_size=6, unique_by=lambda one: one[0]),
    hours=st.integers(1, 130),
)
def test_every_instant_of_the_window_that_could_be_reached_before_can_be_reached_afterwards(
    count: int, forks: list[int], bases: list[tuple[int, bool]], hours: int
) -> None:
    """One history with switches of the timeline at ``forks``; each segment is an hour."""

    def timeline(segment: int) -> int:
        return 1 + sum(fork <= segment for fork in forks)

    units = [_unit(n, timeline(n)) for n in range(count)]
    kept = [_base(at, timeline(at), alone=alone) for at, alone in bases if at < count]
    gone = set(_decide(units, kept, hours=hours).remove)
    left = {(unit.timeline, unit.segment) for unit in units if unit not in gone}
    window = max(unit.stamp for unit in units) - hours * HOUR
    for unit in units:
        if unit.stamp < window:
            continue
        starts = [base for base in kept if base.ended <= unit.stamp]
        reached = [
            base
            for base in starts
            if all((timeline(n), n) in left for n in range(base.first_segment, unit.segment + 1))
        ]
        assert reached or not starts, f"{unit} cannot be reached any more"
    for base in kept:
        if base.needs_archive:
            assert (base.timeline, base.first_segment) in left
    for each in {unit.timeline for unit in units}:
        numbers = sorted(segment for line, segment in left if line == each)
        assert numbers == list(range(numbers[0], numbers[-1] + 1)) if numbers else True, "a hole was cut"
