"""``recoup recover database-corruption`` on a real stack: the data folder is damaged while the server runs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.engines.postgres.volume_script import INCOMING, STAGED_BY
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


def test_what_a_recovery_that_was_given_up_has_unpacked_goes_when_it_is_closed_and_nobody_else_s(
    place: RecoverPlace,
) -> None:
    killed = place.begin("database-corruption", *AGREED, "--pause-before", "swap-postgres")
    try:
        assert wait_until(lambda: _begun(place, "restore-postgres"), limit_seconds=400, every=0.02), place.story()
    finally:
        kill(killed)  # somewhere in the middle, or after it
    place.recover("--resume", *AGREED, "--pause-before", "swap-postgres", expect=4)
    before = _in_the_volume(place)
    assert {INCOMING, STAGED_BY} <= before
    place.recover("--abandon", "--because", "the damage is elsewhere")
    said = str(place.recover("--close", "--keep", "--yes"))
    assert "what was unpacked of postgres and not put in place stays" in said
    assert _in_the_volume(place) == before

    mark = f"/data/{STAGED_BY}"
    whose = _beside(place, f"cat {mark}; echo of-another > {mark}").strip()
    place.recover("--close", "--yes")
    assert _in_the_volume(place) == before, "it is of another restore"
    _beside(place, f"echo {whose} > {mark}")
    assert f"removed /var/lib/postgresql/data/{INCOMING}" in str(place.recover("--close", "--yes"))
    assert _in_the_volume(place) == before - {INCOMING, STAGED_BY}
    assert not [one for one in _in_the_volume(place) if "recoup" in one], "nothing of it stays"


def _begun(place: RecoverPlace, step: str) -> bool:
    return any(one.event == "step-begun" and one.data.get("step") == step for one in place.journal())


def _in_the_volume(place: RecoverPlace) -> set[str]:
    return set(_beside(place, "ls -A /data").split())


def _beside(place: RecoverPlace, script: str) -> str:
    """Run something in the data volume of PostgreSQL, whose server does not run."""
    image = place.machine.docker(
        "inspect", "--format", "{{.Image}}", place.stack.compose("ps", "-aq", "postgres").strip()
    )
    volume = "marketplace_postgres-data:/data"
    return place.machine.docker("run", "--rm", "-v", volume, "--entrypoint", "sh", image.strip(), "-c", script)


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
