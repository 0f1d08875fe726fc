"""``recoup recover database-corruption`` on a real stack: the data folder is damaged while the server runs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.kernel import clock
from tests.acceptance.recover_place import AGREED, RecoverPlace, damage_database, kill, recover_place
from tests.testhost.fixtures import Stack

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost"), pytest.mark.timeout(900)]

_SOAK = bool(os.environ.get("RECOUP_SOAK"))
_SEED = int(os.environ.get("RECOUP_SEED", "20261123"))
#: More boundaries than a run of this situation has.
_MOST = 40


@pytest.fixture
def place(stack: Stack, tmp_path: Path) -> Iterator[RecoverPlace]:
    """A production whose database was damaged a moment after an order was archived."""
    with recover_place(stack, tmp_path) as found:
        found.redis("set", "basket", "apples")
        found.order("the last one")
        found.wait_for_wal()
        damage_database(stack)
        assert wait_until(lambda: not stack.answers(), limit_seconds=30)
        yield found


@pytest.mark.parametrize("when", ["at boundaries", *(["at random instants"] if _SOAK else [])])
def test_a_damaged_database_comes_back_whatever_is_killed_and_nothing_is_done_twice(
    place: RecoverPlace, when: str
) -> None:
    killed = _at_boundaries(place) if when == "at boundaries" else _at_random_instants(place)
    assert killed >= 3, place.story()
    if not _ended(place):
        document = place.recover("--resume", *AGREED)
        assert document["finished"], document
    _require_recovered(place)
    done = [one.data["step"] for one in place.journal() if one.event == "step-done"]
    assert len(done) == len(set(done)), "a step that is done is not begun again"
    if _SOAK:
        said = place.recover("--rollback", "--confirm", "marketplace", expect=3)
        assert "failed" in {one["verdict"] for one in said["findings"]}, "it is as damaged as it was"
        assert not place.stack.answers()


def _at_boundaries(place: RecoverPlace) -> int:
    """Three that the seed chooses; in ``make soak`` all of them, one by one."""
    drawn = sorted(random.Random(_SEED).sample(range(4, 22), 3))
    began, killed = False, 0
    for boundary in range(1, _MOST) if _SOAK else drawn:
        how = ("--resume", *AGREED) if began else ("database-corruption", *AGREED)
        began = True
        killed += place.interrupt_at(boundary, *how, end=kill)
        if _ended(place):
            break
    return killed


def _at_random_instants(place: RecoverPlace) -> int:
    """In the middle of whatever it does."""
    chance, killed = random.Random(_SEED), 0
    while killed < 100 and not _ended(place):
        process = place.begin("database-corruption", *AGREED)
        clock.pause(chance.uniform(0.5, 8.0))
        kill(process)
        killed += 1
    return killed


def _ended(place: RecoverPlace) -> bool:
    return any(one.event == "run-ended" for one in place.journal())


def _require_recovered(place: RecoverPlace) -> None:
    assert place.stack.answers(), place.story()
    assert place.has_order("the last one"), "what was written before the damage is there"
    assert place.redis("get", "basket") == "apples", "what was not hurt was left alone"
    aside = place.set_aside()
    assert len(aside["postgres"]) == 1, aside
    assert aside["redis"] == []
    assert place.left_over() == ""
    took = {step: place.took(step) for step in ("restore-postgres", "swap-postgres", "start-postgres")}
    assert all(seconds > 0 for seconds in took.values()), took
