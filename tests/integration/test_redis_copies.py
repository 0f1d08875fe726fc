"""Taking copies of real Redis servers, and putting them into the data folder of another one."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.redis.fingerprint import compare, fingerprint_rdb
from recoup.engines.redis.restore_folder import REPLACED_PREFIX, FolderLayout, restore_rdb_to_folder
from recoup.kernel.errors import RefusedError
from recoup.kernel.finding import Verdict, overall
from tests.integration.redis_copies import MemoryCopy, fill, fingerprint_now, take
from tests.real import require_found

pytestmark = pytest.mark.redis


def test_a_copy_states_what_it_holds_and_its_fingerprint(any_redis: RedisServer) -> None:
    fill(any_redis)
    copy = take(any_redis)
    with contextlib.closing(any_redis.client()) as client:
        assert copy.facts["keys"]["0"] == client.dbsize()
        assert copy.facts["redis_version"] == client.info("server")["redis_version"]
        assert copy.facts["replid"] == client.info("replication")["master_replid"]
        assert client.info("replication")["connected_slaves"] == 0
    assert copy.facts["keys"]["3"] == copy.facts["keys"]["15"] == 50
    assert copy.facts["settings"]["appendonly"] == "no"
    assert copy.facts["checksum"] is True
    assert copy.fingerprint is not None
    again = fingerprint_now(any_redis, copy.fingerprint)
    assert overall(compare(copy.fingerprint, again)) is Verdict.OK


def test_one_changed_element_of_any_type_shows_in_the_fingerprint(any_redis: RedisServer) -> None:
    fill(any_redis)
    before = take(any_redis).fingerprint
    assert before is not None
    changes = {
        "string": lambda c: c.set("string:5", "other"),
        "list": lambda c: c.lset("list:big", 4321, "other"),
        "set": lambda c: (c.srem("set:big", "member 3"), c.sadd("set:big", "member 3x")),
        "zset": lambda c: c.zadd("zset:big", {"member 3": 4}),
        "hash": lambda c: c.hset("hash:big", "field 3", "other"),
        "stream": lambda c: c.xack("stream:big", "group", "1002-1"),
    }
    with contextlib.closing(any_redis.client()) as client:
        for kind, change in changes.items():
            touched = ("string:5", "list:big", "set:big", "zset:big", "hash:big", "stream:big")
            dumped = {key: client.dump(key) for key in touched}
            change(client)
            (finding,) = [f for f in compare(before, fingerprint_now(any_redis, before)) if f.verdict is not Verdict.OK]
            assert finding.subject == "database 0"
            assert finding.detail.startswith(f"{kind}:"), finding
            for key, value in dumped.items():
                client.restore(key, 0, value, replace=True)
        client.expire("session:3", 3)
        (finding,) = [f for f in compare(before, fingerprint_now(any_redis, before)) if f.verdict is not Verdict.OK]
        assert "that expire" in finding.detail


@pytest.mark.parametrize("appendonly", [False, True], ids=["rdb", "aof"])
@pytest.mark.parametrize(("source", "target"), [(6, 6), (6, 7), (6, 8), (7, 7), (7, 8), (8, 8)])
def test_a_copy_put_into_a_data_folder_comes_back_equal(
    source: int, target: int, appendonly: bool, request: pytest.FixtureRequest
) -> None:
    origin = request.getfixturevalue(f"redis{source}")
    fill(origin)
    copy = take(origin)
    assert copy.fingerprint is not None
    with RedisServer(require_found(lambda: find_redis(target)), appendonly=appendonly) as server:
        with contextlib.closing(server.client()) as client:
            client.set("old", "data")
            client.bgrewriteaof() if appendonly else client.save()
        server.stop()
        layout = FolderLayout(appendonly=appendonly, server_version=str(target))
        with pytest.raises(RefusedError, match="holds data already"):
            restore_rdb_to_folder(copy, server.folder, layout)
        result = restore_rdb_to_folder(copy, server.folder, layout, force=True)
        assert result.replaced is not None
        assert any(result.replaced.rglob("*.rdb" if target > 6 or not appendonly else "*.aof"))
        server.start()
        assert overall(compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))) is Verdict.OK
        with contextlib.closing(server.client()) as client:
            assert client.config_get("appendonly")["appendonly"] == ("yes" if appendonly else "no")
            assert client.get("old") is None
            client.set("written", "after the restore")
        if appendonly:  # what is written now must survive a restart by way of the log, with the restored data
            server.stop()
            server.start()
            with contextlib.closing(server.client()) as client:
                assert client.get("written") == b"after the restore"
                client.delete("written")
            assert overall(compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))) is Verdict.OK


def test_a_restore_of_a_newer_format_is_refused_and_changes_nothing(redis8: RedisServer, tmp_path: Path) -> None:
    copy = take(redis8)
    (tmp_path / "dump.rdb").write_bytes(b"old")
    layout = FolderLayout(appendonly=False, server_version="7.0.15")
    with pytest.raises(RefusedError, match="RDB version 12"):
        restore_rdb_to_folder(copy, tmp_path, layout, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["dump.rdb"]
    assert (tmp_path / "dump.rdb").read_bytes() == b"old"


def test_what_expired_since_the_copy_is_passed_over_and_said(redis7: RedisServer) -> None:
    with contextlib.closing(redis7.client()) as client:
        client.set("stays", 1)
        client.set("goes", 1, px=60_000)
        client.set("goes much later", 1, ex=900_000)
    copy = take(redis7)
    assert copy.fingerprint is not None
    at = copy.fingerprint["at_ms"]
    later = fingerprint_rdb([copy.data], at_ms=at + 120_000, origin_ms=at)
    (finding,) = compare(copy.fingerprint, later)
    assert finding.verdict is Verdict.OK
    assert finding.not_checked == "1 that have expired since"
    assert later["expired_left_out"] == 1


def test_an_empty_server_gives_a_copy_that_restores(redis7: RedisServer, tmp_path: Path) -> None:
    copy = take(redis7)
    assert copy.facts["keys"] == {}
    result = restore_rdb_to_folder(copy, tmp_path, FolderLayout(appendonly=False, server_version="7"))
    assert result.replaced is None
    assert not list(tmp_path.glob(f"{REPLACED_PREFIX}*"))
    assert (tmp_path / "dump.rdb").read_bytes() == copy.data


def test_a_copy_in_memory_reads_like_any_other() -> None:
    assert b"".join(MemoryCopy(b"x" * 120_001).read("dump.rdb")) == b"x" * 120_001


def test_the_content_of_modules_is_never_called_equal_on_the_strength_of_its_keys(redis8: RedisServer) -> None:
    """A vector set that was loaded writes other bytes than before, though it is equal."""
    with contextlib.closing(redis8.client()) as client:
        for i in range(50):
            client.execute_command("VADD", "vectors", "VALUES", 3, i, i * i, 1, f"element {i}")
    copy = take(redis8)
    assert copy.fingerprint is not None
    assert overall(compare(copy.fingerprint, copy.fingerprint)) is Verdict.OK
    with RedisServer(require_found(lambda: find_redis(8))) as server:
        server.stop()
        restore_rdb_to_folder(copy, server.folder, FolderLayout(appendonly=False, server_version="8.2"))
        server.start()
        with contextlib.closing(server.client()) as client:
            assert client.execute_command("VCARD", "vectors") == 50
        (finding,) = compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))
        assert finding.verdict is Verdict.UNKNOWN
        assert "values of modules" in finding.not_checked
        with contextlib.closing(server.client()) as client:
            client.rename("vectors", "other")
        (finding,) = compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))
        assert finding.verdict is Verdict.FAILED
