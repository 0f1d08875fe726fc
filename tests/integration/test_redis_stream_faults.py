"""The command stream of real Redis servers, with everything that can happen to it."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from recoup.assembly.protect import redis_stream
from recoup.assembly.protect.redis_inventory import redis_windows
from recoup.backup import stream_keeper
from recoup.demo.host import wait_until
from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.redis import commands
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RefusedError, StorageError
from recoup.repository.stream_archive import SealedStream, StreamArchive
from tests.integration.redis_streams import (
    make_plan,
    numbers_at,
    write,
)
from tests.real import require_found

pytestmark = pytest.mark.redis


def test_killed_connections_are_taken_up_again_with_nothing_lost_and_nothing_twice(
    any_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, any_redis, monkeypatch)
    with contextlib.closing(any_redis.client()) as client, streamed.streaming():
        for turn in range(4):
            write(any_redis, range(turn * 50, turn * 50 + 25))
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
            write(any_redis, range(turn * 50 + 25, turn * 50 + 50))
        end = streamed.mark()
    (window,), _ = redis_windows(streamed.holdings())
    assert len(window.bases) == 1
    assert numbers_at(streamed, end) == list(range(200))


@pytest.mark.parametrize("version", [6, 7, 8])
def test_a_server_that_lost_its_history_begins_a_new_window_and_the_gap_says_why(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisServer(require_found(lambda: find_redis(version))) as server:
        streamed = make_plan(tmp_path, server, monkeypatch)
        with streamed.streaming():
            write(server, range(10))
            before = streamed.mark()
            write(server, range(10, 20))
            streamed.settle()
            first = streamed.facts()["replication_id"]
            server.kill()
            server.start()
            streamed.wait(lambda facts: facts["replication_id"] != first and facts["base"] == "present")
            write(server, range(100, 110))
            after = streamed.mark()
        holdings = streamed.holdings()
        (one, two), (gap,) = redis_windows(holdings)
        assert one.end_time < two.begin_time
        assert "began a new history" in holdings.why_lost(gap)
        assert numbers_at(streamed, before) == list(range(10))
        assert numbers_at(streamed, after) == list(range(100, 110))
        with pytest.raises(RefusedError, match="cannot be reached") as refusal:
            streamed.restored(one.end_time + (two.begin_time - one.end_time) / 2, "nothing")
        assert str(two) in (refusal.value.hint or "")


def test_a_clean_restart_of_redis_7_goes_on_in_the_same_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It saves where its stream stood, and takes it up under a new replication id."""
    with RedisServer(require_found(lambda: find_redis(7)), settings={"save": "3600 1"}) as server:
        streamed = make_plan(tmp_path, server, monkeypatch)
        with streamed.streaming():
            write(server, range(10))
            streamed.settle()
            first = streamed.facts()["replication_id"]
            server.stop()
            server.start()
            write(server, range(10, 20))
            streamed.wait(lambda facts: facts["replication_id"] != first and facts["connected"])
            now = streamed.mark()
        (window,), between = redis_windows(streamed.holdings())
        assert between == ()
        assert window.begin[0] == first != window.end[0]
        assert numbers_at(streamed, now) == list(range(20))


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
                write(redis7, range(written, written + 300))
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
    assert numbers_at(streamed, end) == list(range(written))


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
        write(redis7, range(10))
        broken.set()
        for number in range(10, 60):
            client.rpush("log", number)
            client.set("filling", "x" * 8000)
        facts = streamed.wait(lambda facts: not facts["connected"] and "the disk is away" in (facts["problem"] or ""))
        assert wait_until(lambda: client.info("replication")["connected_slaves"] == 0, limit_seconds=120)
        assert facts["queued_bytes"] < 256 << 10
        broken.clear()
        streamed.wait(lambda facts: facts["connected"] is True)
        end = streamed.mark()
        assert len(redis_windows(streamed.holdings())[0]) == 1
        assert numbers_at(streamed, end) == list(range(60))
        # And what has left the backlog is a gap that says so.
        broken.set()
        for _ in range(200):
            client.set("filling", "x" * 8000)
        streamed.wait(lambda facts: facts["connected"] is False)
        for _ in range(200):
            client.set("filling", "x" * 8000)
        # The copy that the new stream begins at fails once too: what it costs is seconds.
        take, failures = redis_stream._BaseTaker.take_now, [StorageError("the bucket is away")]
        monkeypatch.setattr(
            redis_stream._BaseTaker, "take_now", lambda taker: take(taker) if not failures else _raise(failures.pop())
        )
        broken.clear()
        streamed.wait(lambda facts: "have left the server's backlog" in facts.get("gap", ""))
        streamed.wait(lambda facts: facts["base"] == "present" and facts["connected"])
        assert failures == []
        client.set("behind", 2)
        streamed.settle()
    found, (gap,) = redis_windows(streamed.holdings())
    assert len(found) == 2
    assert "repl-backlog-size" in streamed.holdings().why_lost(gap)


def _raise(failure: StorageError) -> NoReturn:
    raise failure


def test_a_damaged_segment_is_named_and_comes_from_another_repository_that_has_it_right(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, redis7, monkeypatch, repositories=("local", "second"))
    with streamed.streaming():
        write(redis7, range(10))
        end = streamed.mark()
    (damaged, *_) = sorted((tmp_path / "local" / "redis-stream").rglob("*.zst.enc"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.chmod(0o600)
    damaged.write_bytes(data)
    assert numbers_at(streamed, end) == list(range(10))
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
        write(redis7, range(10))
        streamed.settle()
        assert streamed.wait(lambda facts: bool(facts["behind"]))["behind"] == {"second": "the network is away"}
        away.clear()
        streamed.wait(lambda facts: not facts["behind"])
    names = [
        sorted(path.name for path in (tmp_path / one / "redis-stream").rglob("*.enc")) for one in ("local", "second")
    ]
    assert names[0] == names[1]
    assert names[0]


def test_a_command_that_cannot_be_held_ends_the_window_and_a_new_one_begins(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "COMMAND_LIMIT", 1 << 20)
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    with contextlib.closing(redis7.client()) as client, streamed.streaming():
        write(redis7, range(5))
        before = streamed.mark()
        client.set("large", b"x" * (3 << 20))
        streamed.wait(lambda facts: "longer than" in facts.get("gap", ""))
        streamed.wait(lambda facts: facts["connected"] and facts["base"] == "present")
        write(redis7, range(5, 10))
        after = streamed.mark()
    assert len(redis_windows(streamed.holdings())[0]) == 2
    assert numbers_at(streamed, before) == list(range(5))
    state, _ = streamed.state_at(after)
    assert state[0, b"log"][1] == [b"%d" % number for number in range(10)]
    assert len(state[0, b"large"][1]) == 3 << 20  # type: ignore[arg-type]
