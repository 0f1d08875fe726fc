"""``recoup recover redis-loss`` on a real stack: the volume of Redis is gone; and a recovery that is taken back."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from tests.acceptance.recover_place import AGREED, RecoverPlace, lose_redis, recover_place
from tests.testhost.fixtures import Stack

_SEED = int(os.environ.get("RECOUP_SEED", "20261123"))

#: A power cut leaves a stream that waits for its next attempt; the list would wait for it. It has tests of its own.
_BUT_FOR_THE_LIST = (*AGREED, "--skip", "checklist", "--because", "it is tested by itself")

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost"), pytest.mark.timeout(900)]


def test_a_lost_redis_comes_back_after_a_power_cut_in_between_and_a_recovery_can_be_taken_back(
    stack: Stack, tmp_path: Path
) -> None:
    with recover_place(stack, tmp_path) as place:
        place.redis("rpush", "queue", "one", "two")
        place.redis("set", "session", "7", "ex", "86400")
        before = place.wait_for_stream()
        lose_redis(stack)
        assert wait_until(lambda: not stack.answers(), limit_seconds=120)

        # The power goes somewhere between its last look and the users at work; with it what runs in the engine.
        boundary = random.Random(_SEED).randrange(7, 15)
        assert place.interrupt_at(boundary, "redis-loss", *AGREED, end=place.cut_power), place.story()
        document = place.recover("--resume", *_BUT_FOR_THE_LIST, expect=4)
        assert document["finished"], document
        assert stack.answers()
        assert _queue(place) == ["one", "two"]
        assert int(place.redis("ttl", "session")) > 80_000
        assert place.redis("config", "get", "appendonly").split() == ["appendonly", "yes"]
        assert place.set_aside() == {"postgres": [], "redis": []}, "there was nothing to set aside"
        assert place.left_over() == ""

        # Somebody empties it; that is recovered from, and then it turns out that what was written since is needed.
        place.redis("flushall")
        place.redis("set", "since", "then")
        document = place.recover("redis-loss", "--force", "--to-time", before, *_BUT_FOR_THE_LIST, expect=4)
        assert document["finished"], document
        assert _queue(place) == ["one", "two"]
        assert place.redis("exists", "since") == "0"
        (aside,) = place.set_aside()["redis"]
        away = place.backups.rename(place.backups.with_name("away"))
        said = place.recover("--rollback", "--confirm", "marketplace")  # the old data lie on this machine
        away.rename(place.backups)
        assert said["findings"], said
        assert place.redis("get", "since") == "then"
        assert _queue(place) == []
        assert stack.answers()
        assert place.set_aside()["redis"] == [f"{aside}.back"], "what the recovery brought is kept as well"
        place.recover("--close", "--yes")
        assert place.set_aside()["redis"] == []
        assert place.left_over() == ""


def _queue(place: RecoverPlace) -> list[str]:
    return place.redis("lrange", "queue", "0", "-1").split()
