"""Putting a copy into a running Redis: Recoup plays its master."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import pytest

from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.redis.fingerprint import compare
from recoup.engines.redis.restore_server import restore_rdb_to_server
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, EngineError, RefusedError
from recoup.kernel.finding import Verdict, overall
from tests.integration.redis_copies import MemoryCopy, fill, fingerprint_now, take
from tests.real import require_found

pytestmark = pytest.mark.redis


def _server(major: int, **options: object) -> RedisServer:
    return RedisServer(require_found(lambda: find_redis(major)), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("appendonly", [False, True], ids=["rdb", "aof"])
@pytest.mark.parametrize(("source", "target"), [(6, 6), (6, 7), (7, 8), (8, 8)])
def test_a_running_server_gets_the_copy_and_keeps_it_over_a_restart(
    source: int, target: int, appendonly: bool, request: pytest.FixtureRequest
) -> None:
    origin = request.getfixturevalue(f"redis{source}")
    fill(origin)
    copy = take(origin)
    assert copy.fingerprint is not None
    with _server(target, appendonly=appendonly) as server:
        result = restore_rdb_to_server(copy, server.url())
        assert result.keys == {int(db): count for db, count in copy.facts["keys"].items()}
        assert result.aof_rewritten is appendonly
        assert overall(compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))) is Verdict.OK
        with contextlib.closing(server.client()) as client:
            assert client.info("replication")["role"] == "master"
            assert client.config_get("master*") == {"masterauth": "", "masteruser": ""}
            client.set("written", "after the restore")
            if not appendonly:  # when the fork of the fingerprint's RDB has gone
                _until(lambda: not client.info("persistence")["rdb_bgsave_in_progress"])
                client.save()
        os.killpg(server.pid or 0, signal.SIGKILL) if appendonly else None
        server.stop()
        server.start()
        with contextlib.closing(server.client()) as client:
            assert client.config_get("appendonly")["appendonly"] == ("yes" if appendonly else "no")
            client.delete("written")
        assert overall(compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))) is Verdict.OK


def test_a_server_with_keys_is_refused_unless_forced_and_then_copied_first(redis7: RedisServer) -> None:
    fill(redis7)
    copy = take(redis7)
    with _server(7) as server:
        with contextlib.closing(server.client(2)) as client:
            client.set("precious", "data")
        with pytest.raises(RefusedError, match="1 keys in database 2"):
            restore_rdb_to_server(copy, server.url())
        with pytest.raises(RefusedError, match="no place for a copy"):
            restore_rdb_to_server(copy, server.url(), force=True)
        with contextlib.closing(server.client(2)) as client:
            assert client.get("precious") == b"data"
            client.config_set("repl-diskless-sync-delay", 0)
        safety = MemoryCopy()
        result = restore_rdb_to_server(copy, server.url(), force=True, safety=safety)
        assert result.replaced_keys == {2: 1}
        assert b"precious" in safety.data
        with contextlib.closing(server.client(2)) as client:
            assert client.get("precious") is None


@pytest.mark.parametrize("where", ["in the middle", "in the checksum", "cut short"])
def test_a_damaged_copy_replaces_nothing(where: str, redis7: RedisServer) -> None:
    fill(redis7)
    data = bytearray(take(redis7).data)
    if where == "cut short":
        del data[-100:]
    else:
        data[len(data) // 2 if where == "in the middle" else -3] ^= 1
    with _server(7, appendonly=True) as server:
        with contextlib.closing(server.client()) as client:
            client.set("old", "data")
            client.config_set("repl-diskless-sync-delay", 0)
        with pytest.raises(DamageError):
            restore_rdb_to_server(MemoryCopy(bytes(data)), server.url(), force=True, safety=MemoryCopy())
        with contextlib.closing(server.client()) as client:
            assert client.get("old") == b"data"
            assert client.info("replication")["role"] == "master"
            assert client.config_get("masterauth") == {"masterauth": ""}


def test_replicas_masters_of_replicas_and_older_servers_are_refused(redis7: RedisServer, redis8: RedisServer) -> None:
    newer, copy = take(redis8), take(redis7)
    with _server(7, password="") as master, _server(7, password="") as replica:
        with pytest.raises(RefusedError, match="RDB version 12"):
            restore_rdb_to_server(newer, master.url())
        with contextlib.closing(replica.client()) as client, contextlib.closing(master.client()) as other:
            other.config_set("repl-diskless-sync-delay", 0)
            client.replicaof("127.0.0.1", str(master.port))
            _until(lambda: client.info("replication")["master_link_status"] == "up")
        with pytest.raises(RefusedError, match="is a replica of 127"):
            restore_rdb_to_server(copy, replica.url())
        with pytest.raises(RefusedError, match="has 1 replicas"):
            restore_rdb_to_server(copy, master.url())


def test_a_copy_with_more_databases_than_the_server_is_refused_before_it_ends_itself(redis7: RedisServer) -> None:
    fill(redis7)
    with _server(7, settings={"databases": "4"}) as server, pytest.raises(RefusedError, match="needs 16 databases"):
        restore_rdb_to_server(take(redis7), server.url())


def test_a_server_that_does_not_fetch_the_copy_is_its_own_master_again(
    redis7: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recoup.engines.redis.master._ACCEPT_SECONDS", 1.0)
    monkeypatch.setattr("recoup.engines.redis.master.Master._knows", lambda *_: False)  # whoever comes is a stranger
    copy = take(redis7)
    with _server(7) as server:
        with contextlib.closing(server.client()) as client:
            client.set("old", "data", ex=3600)
            client.config_set("masterauth", "its own")
            client.config_set("repl-diskless-sync-delay", 0)
        with pytest.raises(EngineError, match="did not come to fetch"):
            restore_rdb_to_server(copy, server.url(), force=True, safety=MemoryCopy())
        with contextlib.closing(server.client()) as client:
            assert client.info("replication")["role"] == "master"
            assert client.config_get("master*") == {"masterauth": "its own", "masteruser": ""}
            assert client.get("old") == b"data"


def test_a_restore_after_a_killed_one_finds_the_servers_own_settings_and_goes_on(redis7: RedisServer) -> None:
    fill(redis7)
    copy = take(redis7)
    assert copy.fingerprint is not None
    with _server(7) as server:
        with contextlib.closing(server.client()) as client:  # what a killed run leaves
            client.config_set("masterauth", "recoup-restore:0123456789abcdef:its:own")
            client.config_set("masteruser", "recoup-restore:swapdb:replicator")
            client.replicaof("127.0.0.1", "9")
        restore_rdb_to_server(copy, server.url())
        with contextlib.closing(server.client()) as client:
            assert client.config_get("master*") == {"masterauth": "its:own", "masteruser": "replicator"}
            assert client.config_get("repl-diskless-load") == {"repl-diskless-load": "swapdb"}
        assert overall(compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))) is Verdict.OK


def test_the_copy_is_not_given_to_whoever_does_not_know_the_password(redis7: RedisServer) -> None:
    from recoup.engines.redis.master import Master
    from recoup.kernel.secret import Secret

    fill(redis7)
    copy = take(redis7)
    with Master("127.0.0.1", user="someone", password=Secret("right")) as master:
        failures: list[EngineError] = []

        def serve() -> None:
            try:
                master.serve(copy, lambda _: None)
            except EngineError as failure:
                failures.append(failure)

        thread = threading.Thread(target=serve)
        thread.start()
        heard = b""
        for login in (b"PSYNC ? -1", b"AUTH someone wrong", b"AUTH wrong"):
            with socket.create_connection(("127.0.0.1", master.port)) as stranger:
                stranger.settimeout(120)
                for words in (login.split(), b"PSYNC ? -1".split()):
                    stranger.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words))
                    heard += stranger.recv(1000)
        for _ in range(8):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", master.port)):
                pass
        thread.join(120)
        assert not thread.is_alive()
        assert failures
        assert b"FULLRESYNC" not in heard
        assert master.sent_bytes == 0


def _until(condition: object, seconds: float = 120) -> None:
    deadline = clock.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert clock.monotonic() < deadline
        clock.pause(0.05)
