"""``recoup recover database-corruption`` on a real stack: the data folder is damaged while the server runs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from tests.acceptance.recover_place import AGREED, RecoverPlace, damage_database, kill, recover_place
from tests.testhost.fixtures import Stack

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost"), pytest.mark.timeout(900)]

_SOAK = bool(os.environ.get("RECOUP_SOAK"))
_SEED = int(os.environ.get("RECOUP_SEED", "20261123"))


@pytest.fixture
def place(stack: Stack, tmp_path: Path) -> Iterator[RecoverPlace]:
    """A production whose database was damaged a moment after an order was archived."""
    with recover_place(stack, tmp_path) as found:
        found.redis("set", "basket", "apples")
        found.order("the last one")
        found.wait_for_wal()
        damage_database(stack)
        assert wait_until(lambda: not stack.answers(), limit_seconds=120)
        yield found


def test_a_damaged_database_comes_back_whatever_is_killed_and_nothing_is_done_twice(place: RecoverPlace) -> None:
    killed, how = 0, ("database-corruption", *AGREED)
    for boundary in sorted(random.Random(_SEED).sample(range(4, 22), 3)):
        killed += place.interrupt_at(boundary, *how, end=kill)
        how = ("--resume", *AGREED)
    assert killed >= 2, place.story()  # where we are slow, it may be over before the third
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
