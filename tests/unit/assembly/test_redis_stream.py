"""When the stream of a Redis tries again."""

from __future__ import annotations

from recoup.assembly.protect.redis_stream import next_attempt, pause_before_copy


def test_a_connection_that_held_for_long_is_made_again_at_once() -> None:
    assert next_attempt(0, 3600) == (1, 0.5)
    assert next_attempt(9, 3600) == (1, 0.5)


def test_the_pauses_grow_while_the_server_is_away_and_stay_short() -> None:
    attempt, pauses = 0, []
    for _ in range(8):
        attempt, pause = next_attempt(attempt, 0.1)
        pauses.append(pause)
    assert pauses == [0.5, 1.0, 2.0, 5.0, 10.0, 10.0, 10.0, 10.0]


def test_the_copy_that_a_stream_begins_at_is_tried_again_soon_and_then_less_often() -> None:
    assert [pause_before_copy(failures) for failures in range(1, 8)] == [1.0, 2.0, 5.0, 10.0, 30.0, 30.0, 30.0]
