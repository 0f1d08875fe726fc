"""The application of the soak: moves between accounts in PostgreSQL, counters and a list in Redis.

Writers talk to the servers directly, not through the cables; when a server is away they try again. What they draw
comes from the seed. A move whose answer was lost is not tried again: the reference says whether it came to be.
"""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
import redis

from recoup.demo.servers import PostgresServer, RedisServer
from recoup.kernel import clock

_WRITERS = 3
_PAUSE_SECONDS = 0.015
_FILLING = 700  #: bytes a move carries beside itself, so that segments fill


@dataclass(slots=True, kw_only=True)
class Written:
    """What was acknowledged: the ids of moves, and for each number of Redis the server's time of its transaction."""

    moves: set[int] = field(default_factory=set)
    #: Of the numbers 1, 2, ...; None where the answer was lost, and the number was there nevertheless.
    numbers: list[datetime | None] = field(default_factory=list)


@contextlib.contextmanager
def load(database_server: PostgresServer, database: str, cache: RedisServer, seed: int) -> Iterator[Written]:
    """Write while inside."""
    written, stop = Written(), threading.Event()
    failures: list[Exception] = []

    def move(writer: int) -> None:
        chance, number = random.Random(f"{seed} {writer}"), 0
        while not stop.is_set():
            with (
                contextlib.suppress(psycopg.OperationalError),
                database_server.connect(database, autocommit=False) as session,
            ):
                while not stop.is_set():
                    number += 1
                    identifier = writer * 1_000_000_000 + number
                    _move(session, identifier, chance)
                    written.moves.add(identifier)
                    stop.wait(chance.uniform(0, 2 * _PAUSE_SECONDS))
            stop.wait(0.1)

    def count() -> None:
        with contextlib.closing(cache.client()) as client:
            while not stop.is_set():
                try:
                    if int(client.get("number") or 0) > len(written.numbers):
                        written.numbers.append(None)
                    while not stop.is_set():
                        written.numbers.append(_count(client, len(written.numbers) + 1))
                        stop.wait(_PAUSE_SECONDS / 2)
                except (redis.ConnectionError, redis.TimeoutError):
                    stop.wait(0.1)

    def keep(failure: threading.ExceptHookArgs) -> None:
        if isinstance(failure.exc_value, Exception):
            failures.append(failure.exc_value)

    threads = [threading.Thread(target=move, args=(one,), daemon=True) for one in range(1, _WRITERS + 1)]
    threads.append(threading.Thread(target=count, daemon=True))
    before, threading.excepthook = threading.excepthook, keep
    try:
        for one in threads:
            one.start()
        yield written
    finally:
        stop.set()
        for one in threads:
            one.join(60)
        threading.excepthook = before
    assert not failures, failures


def _move(session: psycopg.Connection[tuple[object, ...]], identifier: int, chance: random.Random) -> None:
    account, amount = chance.randrange(200), chance.randint(-1000, 1000)
    session.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (amount, account))
    filling = chance.randbytes(_FILLING // 2).hex()
    session.execute("INSERT INTO moves VALUES (%s, %s, %s, %s)", (identifier, account, amount, filling))
    session.commit()


def _count(client: redis.Redis, number: int) -> datetime:
    with client.pipeline(transaction=True) as pipe:
        pipe.incr("number")
        pipe.rpush("numbers", number)
        pipe.hincrby("sums", str(number % 7), number)
        pipe.set(f"session:{number % 50}", number, ex=3600)
        pipe.time()
        seconds, microseconds = pipe.execute()[-1]
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)


def wrong_in(client: redis.Redis) -> tuple[int, str | None]:
    """The newest number that a restored Redis holds, and what does not belong to that moment, if anything."""
    number = int(client.get("number") or 0)
    wanted_sums: dict[bytes, bytes] = {}
    for rest in range(7):
        if sum_ := sum(range(rest, number + 1, 7)):
            wanted_sums[str(rest).encode()] = str(sum_).encode()
    said = []
    if client.lrange("numbers", 0, -1) != [str(one).encode() for one in range(1, number + 1)]:
        said.append(f"the list is not 1 to {number}")
    if client.hgetall("sums") != wanted_sums:
        said.append(f"the sums are not those of 1 to {number}")
    wanted = {f"session:{one % 50}".encode(): str(one).encode() for one in range(max(1, number - 49), number + 1)}
    if {key: client.get(key) for key in client.scan_iter("session:*")} != wanted:
        said.append(f"the sessions are not the last 50 up to {number}")
    return number, "; ".join(said) or None


def pause_until(instant: float) -> None:
    """Wait until the monotonic clock says so."""
    while (left := instant - clock.monotonic()) > 0:
        clock.pause(min(left, 0.2))
