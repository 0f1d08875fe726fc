"""Which instants a Redis can be brought back to: pure decisions over what the repositories hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.redis.replica import StreamState, read_state
from recoup.engines.redis.stream_windows import Inventory, Join, Loss, Piece, RdbBase, choose, gaps, windows
from recoup.kernel.errors import EngineError, RefusedError

A, B = "a" * 40, "b" * 40
T0 = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


def _at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def _piece(start: int, end: int, line: str = A, *, key: str = "") -> Piece:
    """A piece of a stream in which one byte comes each second."""
    return Piece(key=key or f"{line[0]}{start}-{end}", replication_id=line, start=start, end=end, time=_at(end))


def _base(offset: int, line: str = A) -> RdbBase:
    return RdbBase(id=f"copy-{line[0]}{offset}", replication_id=line, offset=offset, time=_at(offset))


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8)), max_size=20),
    st.integers(0, 30),
)
def test_following_the_pieces_reaches_as_far_as_they_cover_and_takes_no_hole(
    spans: list[tuple[int, int]], begin: int
) -> None:
    chain = Inventory([_piece(start, start + size) for start, size in spans]).follow((A, begin))
    covered = {byte for start, size in spans for byte in range(start, start + size)}
    end = begin
    while end in covered:
        end += 1
    reached = begin
    for piece in chain:
        assert piece.start <= reached < piece.end
        reached = piece.end
    assert reached == max(end, begin)


def test_a_window_lasts_from_its_first_copy_to_the_end_of_the_stream_and_over_a_new_replication_id() -> None:
    inventory = Inventory(
        [_piece(0, 10), _piece(10, 20), _piece(20, 30, B)], [Join(replication_id=B, start=20, before=A)]
    )
    (window,) = windows([_base(5), _base(12), _base(25, B)], inventory)
    assert (window.begin_time, window.end_time) == (_at(5), _at(30))
    assert [base.id for base in window.bases] == ["copy-a5", "copy-a12", "copy-b25"]
    choice = choose(_at(22), [_base(5), _base(12)], inventory)
    assert choice.base.id == "copy-a12"
    assert [piece.key for piece in choice.pieces] == ["a10-20", "b20-30"]


def test_between_two_windows_is_a_gap_with_its_record() -> None:
    loss = Loss(key="why", replication_id=B, start=40, before=A, before_end=20)
    inventory = Inventory([_piece(0, 20), _piece(40, 60, B)], (), [loss])
    bases = [_base(3), _base(45, B)]
    found = windows(bases, inventory)
    assert [(one.begin_time, one.end_time) for one in found] == [(_at(3), _at(20)), (_at(45), _at(60))]
    (gap,) = gaps(found, inventory)
    assert (gap.begin_time, gap.end_time, gap.record) == (_at(20), _at(45), "why")
    for target in (_at(2), _at(30), _at(61)):
        with pytest.raises(RefusedError, match="cannot be reached") as refusal:
            choose(target, bases, inventory)
        assert "2026-11-23 02:00:03" in (refusal.value.hint or "")
        assert "02:01:00" in (refusal.value.hint or "")


def test_a_stream_without_a_copy_reaches_nothing() -> None:
    inventory = Inventory([_piece(0, 20)])
    assert windows([_base(30)], inventory) == ()
    with pytest.raises(RefusedError) as refusal:
        choose(_at(10), [_base(30)], inventory)
    assert "no instant at all" in (refusal.value.hint or "")


def test_a_piece_that_is_there_twice_or_joined_changes_no_window() -> None:
    pieces = [_piece(0, 10), _piece(10, 20), _piece(20, 25)]
    more = [*pieces, _piece(10, 20, key="again"), _piece(0, 25, key="whole")]
    assert windows([_base(4)], Inventory(pieces))[0].end == windows([_base(4)], Inventory(more))[0].end
    assert [one.key for one in Inventory(more).follow((A, 4))] == ["whole"]


def _state(**changes: object) -> StreamState:
    known: dict[str, object] = {
        "replication_id": A, "offset": 100, "second_id": B, "second_offset": 81, "backlog_first": 51,
        "backlog_bytes": 50, "version": "7.0.15", "run_id": "r",
    }  # fmt: skip
    return StreamState(**(known | changes))  # type: ignore[arg-type]


def test_a_server_continues_only_what_its_backlog_holds_of_its_own_history() -> None:
    state = _state()
    assert state.continues(A, 50)
    assert state.continues(A, 100)
    assert not state.continues(A, 49)
    assert not state.continues(A, 101)
    assert state.continues(B, 80)
    assert not state.continues(B, 81)
    assert not state.continues("c" * 40, 60)
    assert not _state(backlog_first=None).continues(A, 60)


def test_a_replica_without_its_master_has_no_stream() -> None:
    with pytest.raises(EngineError, match="without its master"):
        read_state({"role": "slave", "master_link_status": "down"}, "redis://x")
