"""The command stream of real Redis servers: kept, and restored to any instant."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import redis

from recoup.assembly.protect.copies import Options, Task, protect
from recoup.assembly.protect.prune import prune
from recoup.assembly.protect.redis_inventory import redis_windows
from recoup.demo.host import wait_until
from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.kernel import clock
from tests.integration.redis_copies import fill
from tests.integration.redis_streams import (
    State,
    differences,
    make_plan,
    read_state,
    server_now,
    write,
)
from tests.real import require, require_found

pytestmark = pytest.mark.redis


_SCRIPT = "redis.call('incr', KEYS[1]); return redis.call('rpush', KEYS[2], ARGV[1])"


def _change(client: redis.Redis, other: redis.Redis, chance: random.Random) -> None:
    """One of everything that changes data, chosen by ``chance``."""
    n = chance.randrange(8)
    word = f"{chance.randrange(10**6)}"
    acts: list[Callable[[], object]] = [
        lambda: client.set(f"s{n}", word),
        lambda: client.set(f"s{n}", word, ex=chance.randrange(500, 5000)),
        lambda: client.append(f"s{n}", word),
        lambda: client.incrbyfloat(f"f{n}", 0.5),
        lambda: client.setrange(f"s{n}", 3, word),
        lambda: client.rpush(f"l{n}", word, word),
        lambda: client.lpop(f"l{n}"),
        lambda: client.sadd(f"set{n}", *range(chance.randrange(1, 9))),
        lambda: client.spop(f"set{n}"),
        lambda: client.zincrby("z", 1.5, word[:1]),
        lambda: client.hset(f"h{n}", word[:1], word),
        lambda: client.hincrby("h", "count", 3),
        lambda: client.xadd("x", {"word": word}, maxlen=20, approximate=False),
        lambda: client.xreadgroup("g", "alice", {"x": ">"}, count=2),
        lambda: client.expire(f"l{n}", chance.randrange(500, 5000)),
        lambda: client.pexpire(f"h{n}", chance.randrange(500_000, 5_000_000)),
        lambda: client.persist(f"l{n}"),
        lambda: client.delete(f"set{n}", f"s{n}"),
        lambda: client.exists("f1") and client.rename("f1", "f2"),
        lambda: other.set(f"s{n}", word),
        lambda: other.lpush("l", word),
        lambda: client.eval(
            "redis.call('incr', KEYS[1]); return redis.call('rpush', KEYS[2], ARGV[1])", 2, "n", "l", word
        ),
        lambda: client.copy(f"h{n}", f"h{n}copy", replace=True),
        lambda: (
            client.restore("restored", 900_000, client.dump("z") or b"", replace=True) if client.exists("z") else None
        ),
    ]
    chance.choice(acts)()
    with client.pipeline(transaction=True) as pipe:
        amount = chance.randrange(1, 100)
        pipe.decrby("account:a", amount)
        pipe.incrby("account:b", amount)
        pipe.execute()


def test_a_restore_to_any_instant_equals_what_the_server_held_then(
    any_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    fill(any_redis)
    streamed = make_plan(tmp_path, any_redis, monkeypatch)
    log: list[tuple[datetime, State]] = []
    between: list[datetime] = []
    with contextlib.closing(any_redis.client()) as client, contextlib.closing(any_redis.client(3)) as other:
        client.xgroup_create("x", "g", id="0", mkstream=True)
        with streamed.streaming():
            for _ in range(8):
                for step in range(chance.randrange(5, 40)):
                    _change(client, other, chance)
                    if step == 3:
                        between.append(server_now(any_redis))
                streamed.settle()
                state = read_state(any_redis)
                log.append((streamed.mark(), state))
    for target, state in chance.sample(log, 3):
        restored, report = streamed.state_at(target)
        assert differences(state, restored) == []
        assert any("the last command applied came at" in note for note in report.notes)
    for target in chance.sample(between, 2):
        restored, _ = streamed.state_at(target)
        accounts = [int(restored.get((0, b"account:" + name), ("", b"0", None))[1]) for name in (b"a", b"b")]  # type: ignore[call-overload]
        assert sum(accounts) == 0


def test_what_was_alive_at_the_target_and_has_expired_since_is_counted_and_worked_on_as_it_was_then(
    any_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, any_redis, monkeypatch)
    with contextlib.closing(any_redis.client()) as client, streamed.streaming():
        client.set("kept", "c")
        for milliseconds in (3_000, 15_000, 75_000):  # it must be there at the mark, however long that takes here
            client.set("short", "a", px=milliseconds)
            client.append("short", "b")  # replayed later, it must not make a key that never expires
            client.copy("short", "kept by value", replace=True)
            client.persist("kept by value")
            target = streamed.mark()
            if client.exists("short"):
                break
        assert client.get("kept by value") == b"ab"
        assert wait_until(lambda: not client.exists("short"), limit_seconds=120)
    state, report = streamed.state_at(target)
    assert {key for _, key in state} == {b"kept", b"kept by value"}
    assert state[0, b"kept by value"][1] == b"ab"
    assert any(note.startswith("1 keys or fields were alive at the target") for note in report.notes)


def test_a_user_with_the_rights_for_a_stream_and_no_others_is_enough(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rights = ["+psync", "+replconf", "+ping", "+info", "+time", "+config|get"]
    with contextlib.closing(redis7.client()) as client:
        client.execute_command("ACL", "SETUSER", "recoup", "on", ">secret", *rights)
        streamed = make_plan(tmp_path, redis7, monkeypatch)
        text = streamed.plan.read_text().replace("redis://:${STREAMED_PASSWORD}", "redis://recoup:${STREAMED_PASSWORD}")
        streamed.plan.write_text(text)
        monkeypatch.setenv("STREAMED_PASSWORD", "secret")
        with streamed.streaming():
            write(redis7, range(3))
            streamed.settle()
        client.execute_command("ACL", "DELUSER", "recoup")
    assert len(redis_windows(streamed.holdings())[0]) == 1


def test_stock_tools_replay_the_segments_of_a_stream(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = require("redis-check-aof")
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    with streamed.streaming():
        write(redis7, range(5))
        streamed.settle()
        clock.pause(1.1)
        write(redis7, range(5, 10))
        streamed.settle()
    holdings = streamed.holdings()
    (window,), _ = redis_windows(holdings)
    pieces = holdings.inventory.follow(window.begin)
    log = tmp_path / "commands.aof"
    log.write_bytes(b"".join(holdings.read(piece.key)[0] for piece in pieces))
    second = int(pieces[0].time.timestamp())
    assert f"#TS:{second}\r\n".encode() in log.read_bytes()
    subprocess.run([checker, log], check=True, capture_output=True)
    with RedisServer(require_found(lambda: find_redis(7)), appendonly=True) as server:
        server.stop()
        (increment,) = server.folder.rglob("*.incr.aof")
        increment.write_bytes(log.read_bytes())
        server.start()
        assert [int(one) for one in server.client().lrange("log", 0, -1)] == list(range(10))


def test_pruning_looks_at_the_stream_and_keeps_what_is_younger_than_its_window(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    streamed.plan.write_text(streamed.plan.read_text() + "retention: {last: 1, wal: 1h}\n")
    with streamed.streaming():
        write(redis7, range(5))
        streamed.settle()
        system = streamed.system()
        done = protect(system, Task(service="redis", kind="rdb"), Options(), lambda _: None)
        assert done.error is None
        write(redis7, range(5, 10))
        streamed.mark()
    before = streamed.holdings().entries
    (now,) = prune(system, dry_run=True)
    assert [(one.service, one.expired, one.kept) for one in now.streams] == [("redis", 0, len(before))]
    assert "no copy is older" in now.streams[0].reason
