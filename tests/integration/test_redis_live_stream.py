"""A command stream is proven by the next copy: what an earlier copy and the commands make equals it, or is named."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path

import pytest

from recoup.assembly.access import Found, Readable, open_for_reading
from recoup.assembly.protect.copies import Options, Task, protect
from recoup.assembly.prove.live_redis import redis_live
from recoup.demo.servers import RedisServer
from recoup.engines.redis.command_log import LoggedCommand
from recoup.engines.redis.commands import encode
from recoup.engines.redis.replay import CommandCut
from recoup.engines.redis.stream_proof import CHECK
from recoup.engines.sandbox import open_sandbox
from recoup.kernel.errors import DamageError
from recoup.kernel.finding import Finding, Verdict
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.manifest import Manifest
from tests.integration.redis_copies import fill
from tests.integration.redis_streams import Streamed, make_plan, write
from tests.integration.test_redis_stream import _change

pytestmark = pytest.mark.redis


def _newest(streamed: Streamed) -> tuple[Readable, Found]:
    opened = open_for_reading(streamed.plan, None, None)
    return opened, opened.find("latest", service="redis", kinds=("rdb",))


def _crossed(opened: Readable, found: Found, root: Path) -> list[Finding]:
    reader = ArtefactReader(found.manifest, found.holders)
    with open_sandbox(root, "a test") as sandbox, redis_live(opened, found, reader, sandbox) as live:
        live.boots()
        return [one for one in live.same() if one.check == CHECK]


def _copy(streamed: Streamed) -> None:
    done = protect(streamed.system(), Task(service="redis", kind="rdb"), Options(), lambda _: None)
    assert done.error is None, done.error


def test_a_copy_proves_the_stream_before_it_under_writes_of_every_kind(
    any_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(any_redis)
    streamed, chance = make_plan(tmp_path, any_redis, monkeypatch), random.Random(5)
    with contextlib.closing(any_redis.client()) as client, contextlib.closing(any_redis.client(3)) as other:
        client.xgroup_create("x", "g", id="0", mkstream=True)
        with streamed.streaming():
            for _ in range(2):
                for _ in range(300):
                    _change(client, other, chance)
                client.set("short", "lived", px=30)
                _copy(streamed)
            write(any_redis, range(20))  # after the copy: not part of what it proves
            streamed.settle()
        opened, found = _newest(streamed)
        findings = _crossed(opened, found, tmp_path / "sandboxes")
    assert findings
    assert {one.verdict for one in findings} == {Verdict.OK}, findings
    assert "of the command stream)" in findings[0].detail


def test_a_lost_command_a_wrong_earlier_copy_and_a_damaged_segment_are_caught(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    with streamed.streaming():
        write(redis7, range(50))
        streamed.settle()
        _copy(streamed)
        write(redis7, range(50, 60))
        streamed.settle()
    with streamed.streaming():
        streamed.settle()
        _copy(streamed)
        write(redis7, range(60, 61))
        streamed.settle()
    opened, found = _newest(streamed)
    root = tmp_path / "sandboxes"
    assert {one.verdict for one in _crossed(opened, found, root)} == {Verdict.OK}

    original = CommandCut.pass_on

    def without_one(self, commands, end):  # type: ignore[no-untyped-def]
        return original(self, [one for one in commands if b"\r\n55\r\n" not in one.data], end)

    monkeypatch.setattr(CommandCut, "pass_on", without_one)
    (finding,) = (one for one in _crossed(opened, found, root) if one.verdict is not Verdict.OK)
    assert finding.verdict is Verdict.FAILED
    assert finding.subject == "database 0"
    assert "list: other content" in finding.detail
    monkeypatch.undo()
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path / "state"))

    segments = sorted((tmp_path / "local").glob("redis-stream/**/*.enc"), key=lambda path: path.stat().st_size)
    assert segments
    for path in segments:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.chmod(0o644)
        path.write_bytes(bytes(data))
    (finding,) = _crossed(opened, found, root)
    assert finding.verdict is Verdict.FAILED
    assert "damaged segment" in finding.detail


def test_a_stream_that_would_command_its_server_is_not_replayed() -> None:
    for words in (
        (b"REPLICAOF", b"example.org", b"6379"),
        (b"CONFIG", b"SET", b"dir", b"/"),
        (b"MODULE", b"LOAD", b"x"),
    ):
        command = LoggedCommand(offset=10, end=50, at_ms=1, name=words[0], data=encode(*words))
        with pytest.raises(DamageError, match="which no server replicates"):
            list(CommandCut(after=0, until_ms=10).pass_on([command], 50))


def test_manifests_without_a_place_in_a_stream_are_not_held_against_one(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(redis7)
    streamed = make_plan(tmp_path, redis7, monkeypatch)
    _copy(streamed)
    opened, found = _newest(streamed)
    assert isinstance(found.manifest, Manifest)
    assert json.dumps(found.manifest.facts.get("replid"))
    assert _crossed(opened, found, tmp_path / "sandboxes") == []
