"""The time that is written beside what arrives from a Redis is never before the one at which it was done there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.redis.replica import ServerClock

_DAY_NS = 86_400 * 10**9
_NOW_NS = 1_790_000_000 * 10**9


@given(
    asked_ns=st.integers(_NOW_NS, _NOW_NS + _DAY_NS),
    there_ns=st.integers(0, 10**9),
    back_ns=st.integers(0, 10**9),
    ahead_ns=st.integers(-_DAY_NS, _DAY_NS),
    later_ns=st.integers(0, _DAY_NS),
    travelled_ns=st.integers(0, 10**9),
)
def test_what_arrives_was_done_by_the_time_that_is_written_beside_it(
    asked_ns: int, there_ns: int, back_ns: int, ahead_ns: int, later_ns: int, travelled_ns: int
) -> None:
    answered_ns = asked_ns + there_ns + ahead_ns  # by the server's clock
    arrived_ns = asked_ns + there_ns + back_ns + travelled_ns + later_ns
    done_ns = arrived_ns - travelled_ns + ahead_ns  # by the server's clock
    asked = ServerClock(asked_us=asked_ns // 1000, answer_us=answered_ns // 1000)
    written_ms = asked.latest_ms(arrived_ns // 1000)
    assert written_ms * 10**6 >= done_ns
    assert written_ms * 10**6 - done_ns <= there_ns + travelled_ns + 2 * 10**6
