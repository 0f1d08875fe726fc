"""What the sample marketplace keeps in Redis: sessions, queues, ranks and caches, in three databases.

Every type is there, with and without an expiry. Expiries are hours away, so that none falls into a demo or a test.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import redis

_SESSIONS, _QUEUES, _RANKS = 0, 1, 2


def load_redis(url: str, *, seed: int, now: datetime, sessions: int = 1_500) -> int:
    """Fill an empty server. Return how many keys it has then, over all its databases."""
    chance = random.Random(seed)  # noqa: S311 invented data, no secret
    with _pipeline(url, _SESSIONS) as to:
        for number in range(sessions):
            _session(to, chance, now, number)
    with _pipeline(url, _QUEUES) as to:
        for number in range(400):
            to.rpush("queue:emails", json.dumps({"to": f"client{number}@example.org", "try": number % 3}))
            to.lpush("queue:webhooks", f"https://partner.example/hook/{number}")
        to.delete("events:orders")
        to.xgroup_create("events:orders", "billing", id="0", mkstream=True)
        begin = int(now.timestamp() * 1000) - 3_600_000
        for number in range(800):
            to.xadd(
                "events:orders",
                {"order": 100_000 + 7 * number, "event": "created"},
                id=f"{begin + number}-{number % 2}",
            )
        # Read and not yet acknowledged: a pending entry is state as well.
        to.xreadgroup("billing", "worker-1", {"events:orders": ">"}, count=20)
        to.xack("events:orders", "billing", f"{begin}-0", f"{begin + 1}-1")
        to.xdel("events:orders", f"{begin + 30}-0")
        to.set("queue:lock", "worker-1", exat=_in(now, hours=2), nx=True)
    with _pipeline(url, _RANKS) as to:
        to.sadd("contractors:online", *range(1, 300))
        to.sadd("trades", "plumbing", "électricité", b"\x00\xff binary")
        to.zadd("contractors:rating", {f"contractor:{n}": chance.uniform(1, 5) for n in range(1, 600)})
        to.zadd("jobs:due", {"soon": float("-inf"), "someday": float("inf"), "now": 0.1})
        to.geoadd(
            "contractors:places", [part for n in range(60) for part in (-73.5 + n / 100, 45.5 + n / 200, f"c{n}")]
        )
        to.pfadd("visitors:today", *(f"visitor{n}" for n in range(2_000)))
        for number in range(0, 5_000, 37):
            to.setbit("clients:active", number, 1)
        to.set("orders:count", 12_000)
        to.set("empty", "")
        for number in range(120):
            page = " ".join(f"row{chance.randrange(10_000)}" for _ in range(200))
            to.set(f"cache:page:{number}", page, exat=_in(now, hours=3 + number % 24))
        to.hset("settings", mapping={"fee": "0.029", "currency": "CAD", "motd": "bonjour ☺"})
    return count_keys(url)


def add_redis(url: str, *, seed: int, now: datetime) -> int:
    """Go on: new sessions, a queue worked off, ranks changed. Return how many keys were touched."""
    chance = random.Random(seed)  # noqa: S311 invented data, no secret
    with _pipeline(url, _SESSIONS) as to:
        for number in range(60):
            _session(to, chance, now, 1_000_000 + number)
    with _pipeline(url, _QUEUES) as to:
        to.lpop("queue:emails", 50)
        to.xadd("events:orders", {"order": 1, "event": "paid"})
    with _pipeline(url, _RANKS) as to:
        to.incrby("orders:count", 40)
        to.zincrby("contractors:rating", 0.5, "contractor:7")
        to.delete("contractors:online")
    return 60 + 2 + 3


def count_keys(url: str) -> int:
    """How many keys a server has over all its databases."""
    client = redis.Redis.from_url(url, socket_timeout=30)
    try:
        return sum(int(facts["keys"]) for facts in client.info("keyspace").values())
    finally:
        client.close()


def _session(to: Any, chance: random.Random, now: datetime, number: int) -> None:
    key = f"session:{chance.getrandbits(96):024x}"
    role = "contractor" if number % 4 == 0 else "client"
    to.hset(key, mapping={"user": f"{role}:{number}", "csrf": f"{chance.getrandbits(64):x}", "seen": now.isoformat()})
    if number % 20:  # one in twenty is remembered for ever
        to.pexpireat(key, int((now + timedelta(hours=2 + number % 48)).timestamp() * 1000) + number % 1000)


def _in(now: datetime, *, hours: int) -> int:
    return int((now + timedelta(hours=hours)).timestamp())


@contextmanager
def _pipeline(url: str, database: int) -> Iterator[Any]:
    """A pipeline to one of the databases, carried out on leaving."""
    client = redis.Redis.from_url(url, db=database, socket_timeout=30)
    try:
        client.select(database)
        with client.pipeline(transaction=False) as pipeline:
            yield pipeline
            pipeline.execute()
    finally:
        client.close()
