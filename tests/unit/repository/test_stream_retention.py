"""What may go of a command stream: never what an instant that must be reachable needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from recoup.repository.stream_archive import StreamSegment
from recoup.repository.stream_retention import StreamStart, decide_stream

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


def _ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def _segment(hours: int) -> StreamSegment:
    """The segment that ended so many hours ago."""
    start = 10_000 - hours
    return StreamSegment(
        key=f"k{start:05}",
        replication_id="a" * 40,
        start=start,
        end=start + 1,
        stamp=_ago(hours),
        mac="",
        stored_bytes=1,
    )


def _start(hours: float) -> StreamStart:
    return StreamStart(id=f"copy-{hours}", begun=_ago(hours), ended=_ago(hours - 0.1))


@given(st.sets(st.integers(0, 400)), st.lists(st.integers(1, 400), max_size=8), st.integers(1, 300))
def test_everything_from_the_newest_copy_before_the_reach_stays_and_what_goes_is_the_oldest(
    hours: set[int], copies: list[int], reach: int
) -> None:
    entries = [_segment(one) for one in hours]
    decided = decide_stream(entries, [_start(one) for one in copies], reach=_ago(reach), now=NOW)
    usable = [one for one in copies if _start(one).ended <= _ago(reach)]
    gone, stays = list(decided.remove), [one for one in entries if one not in decided.remove]
    assert gone == sorted(gone, key=lambda one: one.stamp)
    assert all(a.stamp < b.stamp for a in gone for b in stays)
    assert all(one.stamp < _ago(reach) for one in gone)
    if not usable:
        assert gone == []
    for one in gone:
        assert one.stamp < _ago(min(usable))


def test_nothing_goes_without_a_window_when_blocked_or_with_a_clock_that_is_wrong() -> None:
    entries, starts = [_segment(300), _segment(10)], [_start(200)]
    assert len(decide_stream(entries, starts, reach=_ago(100), now=NOW).remove) == 1
    assert decide_stream(entries, starts, reach=None, now=NOW).remove == ()
    assert decide_stream(entries, starts, reach=_ago(100), now=NOW, blocked="a hold").reason == "a hold"
    assert decide_stream([*entries, _segment(-30)], starts, reach=_ago(100), now=NOW).remove == ()
