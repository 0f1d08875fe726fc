"""The soak's own eyes: a state that is one transaction off must be seen."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import cast

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.lsn import Lsn
from tests.soak.reference import RESOLUTION, Commit, Move, Reference, difference

_BEGUN = datetime(2026, 11, 23, tzinfo=UTC)


def _reference(count: int = 10) -> Reference:
    """One move a second, each of another account, each record 100 bytes long."""
    commits = [
        Commit(
            begin=Lsn(1000 + 100 * at),
            end=Lsn(1100 + 100 * at),
            time=_BEGUN + timedelta(seconds=at),
            moves=(Move(id=at, account=at % 3, amount=at + 1),),
        )
        for at in range(count)
    ]
    return Reference(server=cast(PostgresServer, None), database="bank", commits=commits)


def test_a_missing_an_extra_and_a_half_transaction_are_told_apart() -> None:
    reference = _reference()
    wanted = reference.after(5)
    assert difference(reference.after(5), wanted) is None
    assert "1 moves are missing, such as [4]" in str(difference(reference.after(4), wanted))
    assert "1 moves are there that came later, such as [5]" in str(difference(reference.after(6), wanted))
    half = replace(wanted, balances={**wanted.balances, 1: 0})
    assert "the balances of 1 accounts" in str(difference(half, wanted))


def test_positions_are_exact_and_times_are_as_exact_as_those_of_commits() -> None:
    reference = _reference()
    assert reference.up_to(Lsn(1499)) == 4
    assert reference.up_to(Lsn(1500)) == 5
    assert reference.count_at(_BEGUN + timedelta(seconds=3.5)) == (4, 4)
    assert reference.count_at(_BEGUN + timedelta(seconds=3)) == (3, 4)
    assert reference.count_at(_BEGUN + timedelta(seconds=3) + RESOLUTION) == (4, 4)
    assert reference.count_at(_BEGUN + timedelta(hours=1)) == (10, 10)
