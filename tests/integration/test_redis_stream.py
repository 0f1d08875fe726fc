"""The command stream of real Redis servers: kept, and restored to any instant."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
import redis

from recoup.assembly import redis_stream
from recoup.assembly.protect import Options, Task, protect
from recoup.assembly.prune import prune
from recoup.assembly.redis_inventory import redis_windows
from recoup.backup import stream_keeper
from recoup.demo.host import wait_until
from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.redis import commands
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RefusedError, StorageError
from recoup.repository.stream_archive import SealedStream, StreamArchive
from tests.integration.redis_copies import fill
from tests.integration.redis_streams import State, Streamed, differences, make_plan, read_state, server_now
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


def _numbers(streamed: Streamed, target: datetime) -> list[int]:
    """The list ``log`` as of ``target``."""
    state, _ = streamed.state_at(target)
    value = state.get((0, b"log"), ("list", [], None))[1]
    assert isinstance(value, list)
    return [int(one) for one in value]


def _write(server: RedisServer, numbers: range) -> None:
    with contextlib.closing(server.client()) as client:
        for number in numbers:
            client.rpush("log", number)


def test_killed_connections_are_taken_up_again_with_nothing_lost_and_nothing_twice(
    any_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, any_redis, monkeypatch)
    with contextlib.closing(any_redis.client()) as client, streamed.streaming():
        for turn in range(4):
            _write(any_redis, range(turn * 50, turn * 50 + 25))
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            _write(any_redis, range(turn * 50 + 25, turn * 50 + 50))
        end = streamed.mark()
    (window,), _ = redis_windows(streamed.holdings())
    assert len(window.bases) == 1
    assert _numbers(streamed, end) == list(range(200))


@pytest.mark.parametrize("version", [6, 7, 8])
def test_a_server_that_lost_its_history_begins_a_new_window_and_the_gap_says_why(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(require_found(lambda: find_redis(version))) as server:
        streamed = make_plan(tmp_path, server, monkeypatch)
        with streamed.streaming():
            _write(server, range(10))
            before = streamed.mark()
            _write(server, range(10, 20))
            streamed.settle()
            first = streamed.facts()["replication_id"]
            server.kill()
            server.start()
            streamed.wait(lambda facts: facts["replication_id"] != first and facts["base"] == "present", seconds=60)
            _write(server, range(100, 110))
            after = streamed.mark()
        holdings = streamed.holdings()
        (one, two), (gap,) = redis_windows(holdings)
        assert one.end_time < two.begin_time
        assert "began a new history" in holdings.why_lost(gap)
        assert _numbers(streamed, before) == list(range(10))
        assert _numbers(streamed, after) == list(range(100, 110))
        with pytest.raises(RefusedError, match="cannot be reached") as refusal:
            streamed.restored(one.end_time + (two.begin_time - one.end_time) / 2, "nothing")
        assert str(two) in (refusal.value.hint or "")


def test_a_clean_restart_of_redis_7_goes_on_in_the_same_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saves where its stream stood, and takes it up under a new replication id."""
    with RedisServer(require_found(lambda: find_redis(7)), settings={"save": "3600 1"}) as server:
        streamed = make_plan(tmp_path, server, monkeypatch)
        with streamed.streaming():
            _write(server, range(10))
            streamed.settle()
            first = streamed.facts()["replication_id"]
            server.stop()
            server.start()
            _write(server, range(10, 20))
            streamed.wait(lambda facts: facts["replication_id"] != first and facts["connected"], seconds=60)
            now = streamed.mark()
        (window,), between = redis_windows(streamed.holdings())
        assert between == ()
        assert window.begin[0] == first != window.end[0]
        assert _numbers(streamed, now) == list(range(20))


def test_a_worker_killed_at_any_moment_is_followed_by_one_that_goes_on_where_the_repository_ends(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    chance = random.Random(11)
    written = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.integration.streaming_worker", str(streamed.plan)]
        ) as process:
            try:
                streamed.wait(lambda facts: facts.get("connected") is True and facts.get("base") == "present")
                _write(redis7, range(written, written + 300))
                written += 300
                clock.pause(chance.random() * 0.3)
            finally:
                process.send_signal(signal.SIGKILL)
        record = next((tmp_path / "state").rglob("worker:stream redis.json"))
        record.unlink()
    with streamed.streaming():
        end = streamed.mark()
    (window,), _ = redis_windows(streamed.holdings())
    assert len(window.bases) == 1
    assert _numbers(streamed, end) == list(range(written))


def test_while_no_repository_answers_the_server_is_let_go_and_nothing_is_lost_that_its_backlog_holds(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    broken = threading.Event()
    put = StreamArchive.put

    def failing(archive: StreamArchive, sealed: SealedStream) -> None:
        if broken.is_set():
            raise StorageError("the disk is away")
        put(archive, sealed)

    monkeypatch.setattr(StreamArchive, "put", failing)
    monkeypatch.setattr(redis_stream, "SEGMENT_BYTES", 16 << 10)
    monkeypatch.setattr(stream_keeper, "_RETRY_SECONDS", (0.1,))
    with contextlib.closing(redis7.client()) as client, streamed.streaming(held_bytes=64 << 10):
        _write(redis7, range(10))
        broken.set()
        for number in range(10, 60):
            client.rpush("log", number)
            client.set("filling", "x" * 8000)
        facts = streamed.wait(lambda facts: not facts["connected"] and "the disk is away" in (facts["problem"] or ""))
        assert wait_until(lambda: client.info("replication")["connected_slaves"] == 0, limit_seconds=10)
        assert facts["queued_bytes"] < 256 << 10
        broken.clear()
        streamed.wait(lambda facts: facts["connected"] is True)
        end = streamed.mark()
        assert len(redis_windows(streamed.holdings())[0]) == 1
        assert _numbers(streamed, end) == list(range(60))
        # And what has left the backlog is a gap that says so.
        broken.set()
        for _ in range(200):
            client.set("filling", "x" * 8000)
        streamed.wait(lambda facts: facts["connected"] is False)
        for _ in range(200):
            client.set("filling", "x" * 8000)
        broken.clear()
        streamed.wait(lambda facts: "have left the server's backlog" in facts.get("gap", ""), seconds=60)
        streamed.wait(lambda facts: facts["base"] == "present" and facts["connected"], seconds=60)
        client.set("behind", 2)
        streamed.settle()
    found, (gap,) = redis_windows(streamed.holdings())
    assert len(found) == 2
    assert "repl-backlog-size" in streamed.holdings().why_lost(gap)


def test_a_damaged_segment_is_named_and_comes_from_another_repository_that_has_it_right(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, redis7, monkeypatch, repositories=("local", "second"))
    with streamed.streaming():
        _write(redis7, range(10))
        end = streamed.mark()
    (damaged, *_) = sorted((tmp_path / "local" / "redis-stream").rglob("*.zst.enc"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.chmod(0o600)
    damaged.write_bytes(data)
    assert _numbers(streamed, end) == list(range(10))
    _, report = streamed.restored(end, "told")
    assert any(damaged.name in note for note in report.notes)
    (tmp_path / "second" / damaged.relative_to(tmp_path / "local")).unlink()
    with pytest.raises(DamageError, match=damaged.name):
        streamed.restored(end, "damaged")


def test_a_repository_that_was_away_is_brought_up(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, redis7, monkeypatch, repositories=("local", "second"))
    away = threading.Event()
    put = StreamArchive.put

    def failing(archive: StreamArchive, sealed: SealedStream) -> None:
        if away.is_set() and archive.repository.name == "second":
            raise StorageError("the network is away")
        put(archive, sealed)

    monkeypatch.setattr(StreamArchive, "put", failing)
    monkeypatch.setattr(stream_keeper, "_CATCH_UP_SECONDS", 0.05)
    with streamed.streaming():
        away.set()
        _write(redis7, range(10))
        streamed.settle()
        assert streamed.wait(lambda facts: bool(facts["behind"]))["behind"] == {"second": "the network is away"}
        away.clear()
        streamed.wait(lambda facts: not facts["behind"])
    names = [
        sorted(path.name for path in (tmp_path / one / "redis-stream").rglob("*.enc")) for one in ("local", "second")
    ]
    assert names[0] == names[1]
    assert names[0]


def test_what_was_alive_at_the_target_and_has_expired_since_is_counted_and_worked_on_as_it_was_then(
    any_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, any_redis, monkeypatch)
    with contextlib.closing(any_redis.client()) as client, streamed.streaming():
        client.set("short", "a", px=400)
        client.append("short", "b")  # replayed later, it must not make a key that never expires
        client.set("kept", "c")
        client.copy("short", "kept by value")
        client.persist("kept by value")
        target = streamed.mark()
        clock.pause(0.5)
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
            _write(redis7, range(3))
            streamed.settle()
        client.execute_command("ACL", "DELUSER", "recoup")
    assert len(redis_windows(streamed.holdings())[0]) == 1


def test_stock_tools_replay_the_segments_of_a_stream(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checker = require("redis-check-aof")
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    with streamed.streaming():
        _write(redis7, range(5))
        streamed.settle()
        clock.pause(1.1)
        _write(redis7, range(5, 10))
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


def test_a_command_that_cannot_be_held_ends_the_window_and_a_new_one_begins(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "COMMAND_LIMIT", 1 << 20)
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    with contextlib.closing(redis7.client()) as client, streamed.streaming():
        _write(redis7, range(5))
        before = streamed.mark()
        client.set("large", b"x" * (3 << 20))
        streamed.wait(lambda facts: "longer than" in facts.get("gap", ""))
        streamed.wait(lambda facts: facts["connected"] and facts["base"] == "present")
        _write(redis7, range(5, 10))
        after = streamed.mark()
    assert len(redis_windows(streamed.holdings())[0]) == 2
    assert _numbers(streamed, before) == list(range(5))
    state, _ = streamed.state_at(after)
    assert state[0, b"log"][1] == [b"%d" % number for number in range(10)]
    assert len(state[0, b"large"][1]) == 3 << 20  # type: ignore[arg-type]


def test_pruning_looks_at_the_stream_and_keeps_what_is_younger_than_its_window(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    streamed.plan.write_text(streamed.plan.read_text() + "retention: {last: 1, wal: 1h}\n")
    with streamed.streaming():
        _write(redis7, range(5))
        streamed.settle()
        system = streamed.system()
        done = protect(system, Task(service="redis", kind="rdb"), Options(), lambda _: None)
        assert done.error is None
        _write(redis7, range(5, 10))
        streamed.mark()
    before = streamed.holdings().entries
    (now,) = prune(system, dry_run=True)
    assert [(one.service, one.expired, one.kept) for one in now.streams] == [("redis", 0, len(before))]
    assert "no copy is older" in now.streams[0].reason
