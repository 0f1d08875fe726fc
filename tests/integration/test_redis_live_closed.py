"""The sandbox of a Redis copy: nothing gets out, nobody gets in, nothing of production's settings, nothing stays."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.redis.connection import read_settings
from recoup.engines.redis.live import open_redis_live
from recoup.engines.redis.sandbox_server import SandboxRedis
from recoup.engines.sandbox import clean_leftovers, open_sandbox
from recoup.engines.sandbox_processes import processes_of
from recoup.engines.sandbox_walls import Walls
from recoup.kernel.finding import Verdict
from recoup.verification.grade import Grade
from tests.integration.live_redis import climbed, launcher_of, live, proven, verdicts
from tests.integration.redis_copies import fill, take
from tests.real import require_found
from tests.testhost.machine import eventually

pytestmark = pytest.mark.redis


def test_the_server_of_a_sandbox_has_no_port_no_network_and_none_of_productions_settings(
    any_redis: RedisServer, tmp_path: Path
) -> None:
    fill(any_redis)
    copy = take(any_redis)
    with open_sandbox(tmp_path, "a test") as sandbox, open_redis_live(sandbox, copy, launcher_of(any_redis)) as opened:
        opened.boots()
        server = opened._server
        assert isinstance(server, SandboxRedis)
        with server.connect() as connection:  # without a password: the folder is what keeps others out
            names = ("port", "requirepass", "save", "appendonly", "protected-mode", "tls-port")
            settings = read_settings(connection, *names)
            assert connection.command("CONFIG", "GET", "replicaof") in ([b"replicaof", b""], [])
        assert settings["port"] == "0"
        assert settings["requirepass"] == settings["save"] == ""
        assert settings["appendonly"] == "no"
        assert settings["protected-mode"] == "yes"
        seen = [number for number in processes_of(sandbox.id) if b"redis" in _read(number, "comm")]
        assert seen
        for number in seen:
            if sandbox.network_closed:
                interfaces = _read(number, "net/dev").decode().splitlines()[2:]
                assert {line.split(":")[0].strip() for line in interfaces} <= {"lo"}
                # Nothing listens, nothing is connected: the files hold their heading only.
                for kind in ("tcp", "tcp6", "udp", "udp6"):
                    assert len(_read(number, f"net/{kind}").splitlines()) <= 1
            assert b"\nUid:\t0\t" not in _read(number, "status")
        assert (sandbox.folder.stat().st_mode & 0o777) == 0o700
    assert not processes_of(sandbox.id)
    assert not sandbox.folder.exists()


def _read(number: int, name: str) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/{name}").read_bytes()
    return b""


def test_a_copy_of_a_replica_does_not_call_its_master(tmp_path: Path) -> None:
    with RedisServer(require_found(lambda: find_redis(7))) as server, socket.socket() as master:
        fill(server)
        master.bind(("127.0.0.1", 0))
        master.listen()
        master.settimeout(0)
        copy = take(server)
        assert copy.taken is not None
        facts = {**copy.taken.facts, "settings": {"replicaof": f"127.0.0.1 {master.getsockname()[1]}"}}
        object.__setattr__(copy.taken, "facts", facts)
        done = proven(copy, launcher_of(server), tmp_path)
        assert done.reached is Grade.WORKS
        with pytest.raises(BlockingIOError):  # nobody has called
            master.accept()


def test_a_folder_with_a_long_name_has_room_for_the_socket(redis7: RedisServer, tmp_path: Path) -> None:
    fill(redis7)
    root = tmp_path / ("a" * 90) / ("b" * 90)
    root.mkdir(parents=True)
    for folder in (root, *root.parents):
        if folder.is_relative_to(tmp_path.parent.parent) and folder.stat().st_uid == os.geteuid():
            folder.chmod(0o755)
    with open_sandbox(root, "a test") as sandbox:
        place = len(str(sandbox.folder))
    done = proven(take(redis7), launcher_of(redis7), root)
    assert done.reached is Grade.WORKS, done
    assert place > 107 or os.geteuid() == 0


def test_a_machine_without_namespaces_says_what_that_leaves_open_and_finds_its_servers_again(
    any_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recoup.engines.sandbox.find_walls", lambda: Walls(unshare=()))
    copy = take(any_redis)
    with open_sandbox(tmp_path, "a test") as sandbox, open_redis_live(sandbox, copy, launcher_of(any_redis)) as opened:
        assert any("whether it sent anything" in one.not_checked for one in opened.boots())
        # A Redis that sets its title overwrites the environment that it is known by.
        assert any(b"redis" in _read(number, "comm") for number in processes_of(sandbox.id))


def test_a_server_that_ends_in_between_is_unknown_and_never_ok(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(redis7)
    with live(take(redis7), launcher_of(redis7), tmp_path) as opened:
        opened.boots()
        server = opened._server
        assert server is not None
        os.killpg(server.pid, signal.SIGKILL)

        monkeypatch.setattr(opened, "boots", list)
        done = verdicts(climbed(lambda: contextlib.nullcontext(opened)))
    assert done[Grade.SOUND] is done[Grade.SAME] is done[Grade.WORKS] is Verdict.UNKNOWN


def test_after_a_kill_the_next_run_removes_the_server_and_the_folder(redis7: RedisServer, tmp_path: Path) -> None:
    fill(redis7)
    copy, launcher, root = take(redis7), launcher_of(redis7), tmp_path / "sandboxes"
    (tmp_path / "dump.rdb").write_bytes(copy.data)
    arguments = [str(root), str(tmp_path / "dump.rdb"), launcher.where, launcher.version]
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.live_then_die", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"alive\n"
    (note,) = root.glob("*.json")
    identifier = note.name.removesuffix(".json")
    assert clean_leftovers(root) == ()  # its owner lives
    assert processes_of(identifier)
    child.kill()
    child.wait()
    assert clean_leftovers(root) == (identifier,)
    eventually(lambda: not processes_of(identifier))
    assert sorted(path.name for path in root.iterdir()) == ["door.lock"]
