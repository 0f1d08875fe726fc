"""What is told of alarms: everything that lasts, every end once, and never too much. Under a simulated clock."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.objectives.alarms import Alarm, Severity
from recoup.objectives.announcing import Known, Message, Policy, due, not_sent, observe, sent

_START = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_POLICY = Policy(every=timedelta(hours=1))


def _alarm(key: str, hold: int = 0, severity: Severity = "critical") -> Alarm:
    return Alarm(key=key, subject=key, severity=severity, what=f"{key} fails", hint="Look.", hold=hold * _MINUTE)


def _run(
    minutes: list[list[Alarm]], taken: list[bool] | None = None, policy: Policy = _POLICY
) -> Iterator[tuple[int, Message]]:
    """The messages of a series of minutes, each with the conditions that hold in it."""
    known = Known()
    for minute, alarms in enumerate(minutes):
        now = _START + minute * _MINUTE
        known = observe(known, alarms, now, policy)
        message = due(known, now, policy)
        if message is None:
            continue
        if taken is not None and not taken[minute]:
            known = not_sent(known, now)
            continue
        known = sent(known, message, now)
        yield minute, message


def _keys(episodes: tuple[object, ...]) -> list[str]:
    return [one.alarm.key for one in episodes]  # type: ignore[attr-defined]


def test_a_condition_is_told_at_once_repeated_while_it_lasts_and_its_end_is_told_once() -> None:
    messages = list(_run([[_alarm("disk")]] * 150 + [[]] * 200))
    assert [(minute, _keys(m.began), _keys(m.lasts), _keys(m.ended)) for minute, m in messages] == [
        (0, ["disk"], [], []),
        (60, [], ["disk"], []),
        (120, [], ["disk"], []),
        (160, [], [], ["disk"]),  # ten minutes after it was last seen
    ]


def test_what_comes_and_goes_is_one_episode_with_one_notice_and_one_end() -> None:
    messages = list(_run([[_alarm("s3")] if minute % 3 else [] for minute in range(55)] + [[]] * 60))
    assert [len(m.began) for _, m in messages] == [1, 0]
    assert [len(m.ended) for _, m in messages] == [0, 1]


def test_a_condition_that_may_be_short_is_told_of_only_when_it_lasts_but_then_even_if_it_flickers() -> None:
    assert list(_run([[_alarm("s3", hold=3)]] * 3 + [[]] * 60)) == []
    told = [minute for minute, m in _run([[_alarm("s3", hold=3)] if minute % 2 == 0 else [] for minute in range(9)])]
    assert told == [4]


def test_what_becomes_worse_is_told_at_once_and_what_becomes_better_is_not() -> None:
    mild, bad = _alarm("rpo", severity="warning"), _alarm("rpo")
    messages = list(_run([[mild]] * 20 + [[bad]] * 20 + [[mild]] * 15))
    assert [(minute, m.began[0].alarm.severity) for minute, m in messages] == [(0, "warning"), (20, "critical")]


def test_all_that_happens_at_once_is_one_message() -> None:
    ((_, message),) = _run([[_alarm(f"service{number}") for number in range(40)]])
    assert len(message.began) == 40


def test_a_message_that_nobody_took_is_tried_again_less_and_less_often_and_is_not_lost() -> None:
    taken = [False] * 100 + [True] * 100
    tries: list[int] = []
    known = Known()
    for minute in range(200):
        now = _START + minute * _MINUTE
        known = observe(known, [_alarm("disk")], now, _POLICY)
        message = due(known, now, _POLICY)
        if message is not None:
            tries.append(minute)
            known = sent(known, message, now) if taken[minute] else not_sent(known, now)
    assert tries == [0, 1, 3, 7, 15, 31, 61, 91, 121, 181]  # taken at 121; then the first repeat


_CONDITIONS = st.lists(
    st.lists(st.sampled_from(range(6)), unique=True, max_size=4).map(tuple), min_size=1, max_size=40
).flatmap(lambda changes: st.tuples(st.just(changes), st.lists(st.integers(1, 90), min_size=len(changes))))


@given(series=_CONDITIONS, holds=st.lists(st.integers(0, 30), min_size=6, max_size=6))
def test_what_lasts_is_told_within_a_bound_every_end_once_and_no_hour_has_more_than_twelve_messages(
    series: tuple[list[tuple[int, ...]], list[int]], holds: list[int]
) -> None:
    minutes: list[tuple[int, ...]] = []
    for present, length in zip(series[0], series[1], strict=False):
        minutes += [present] * length
    minutes += [()] * 60  # all is well in the end
    alarms = [[_alarm(str(key), holds[key]) for key in present] for present in minutes]
    messages = list(_run(alarms))
    times = [minute for minute, _ in messages]
    assert all(later - earlier >= 5 for earlier, later in pairwise(times))
    for start in times:
        assert sum(start <= minute < start + 60 for minute in times) <= 12
    for key in range(6):
        told = [minute for minute, m in messages if str(key) in _keys(m.began) + _keys(m.lasts)]
        ended = [minute for minute, m in messages if str(key) in _keys(m.ended)]
        _check_notices(key, minutes, holds[key], told, ended)
    assert all(not (set(_keys(m.began)) & set(_keys(m.ended))) for _, m in messages)


def _check_notices(key: int, minutes: list[tuple[int, ...]], hold: int, told: list[int], ended: list[int]) -> None:
    length = 0
    for minute, present in enumerate(minutes):
        length = length + 1 if key in present else 0
        if length > hold + 5:  # it lasts: a notice not longer ago than a repeat, and the distance of messages
            assert any(minute - 65 <= one <= minute for one in told), (key, minute)
    # Told and ended take turns, beginning with told, and at the end nothing is left open.
    state, opened = "over", 0
    for _, what in sorted([(one, "told") for one in told] + [(one, "over") for one in ended]):
        assert not (what == "over" and state == "over"), "an end of what nobody was told of, or twice"
        opened += what == "told" and state == "over"
        state = what
    assert state == "over"
    assert opened == len(ended)
    for one in ended:
        assert all(key not in present for present in minutes[max(0, one - 10) : one + 1]), "an end that is none"


@pytest.mark.parametrize("days", [30])
def test_a_month_in_which_everything_flickers_is_bounded_in_messages_and_memory(days: int) -> None:
    known, messages = Known(), 0
    for minute in range(days * 24 * 60):
        now = _START + minute * _MINUTE
        alarms = [_alarm(f"a{number}", hold=number) for number in range(5) if (minute // (11 + number)) % 2]
        known = observe(known, alarms, now, _POLICY)
        message = due(known, now, _POLICY)
        if message is not None:
            messages += 1
            known = sent(known, message, now)
        assert len(known.episodes) <= 5
    assert messages <= days * 24 * 12
