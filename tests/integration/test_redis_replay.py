"""Replaying a command stream and proving a copy: by a program of this machine, and by the image of the service."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

import pytest

from recoup.assembly.prove.live_redis import find_launcher
from recoup.assembly.prove.redis_scratch import find_replayer
from recoup.assembly.system import System
from recoup.demo.host import temporary_folder
from recoup.demo.servers import RedisServer
from recoup.engines.redis import local_servers
from recoup.engines.redis.commands import encode
from recoup.engines.redis.live import open_redis_live
from recoup.engines.redis.rdb import Entry, read_rdb
from recoup.engines.redis.replay import CONFIGURATION, IMAGE_SCRIPT, Scratch, ScratchProgram, image_settings
from recoup.engines.sandbox import open_sandbox
from recoup.engines.sandbox_walls import find_walls
from recoup.kernel.errors import EngineError, UsageError
from recoup.kernel.finding import Verdict
from tests.integration.live_redis import FILLED
from tests.integration.redis_copies import fill, take
from tests.real import require
from tests.testhost.fixtures import Stack
from tests.testhost.machine import eventually

pytestmark = pytest.mark.redis

COMMANDS = [
    encode(b"SELECT", b"0"),
    encode(b"SET", b"replayed", b"yes"),
    encode(b"SET", b"gone", b"x"),
    encode(b"PEXPIREAT", b"gone", b"1700000000000"),
    encode(b"APPEND", b"gone", b"y"),
]


def _program(server: RedisServer) -> ScratchProgram:
    said = subprocess.run([server.program, "--version"], capture_output=True, text=True, check=True).stdout
    return ScratchProgram(path=str(server.program), version=said.split("v=")[1].split()[0])


def _entries(rdb: bytes) -> dict[bytes, tuple[int | None, list[object]]]:
    return {
        record.key: (record.expires_ms, [one for batch in record.batches for one in batch])
        for record in read_rdb([rdb])
        if isinstance(record, Entry) and record.database == 0
    }


def test_a_replay_keeps_what_expired_long_ago_with_its_value_and_its_time(any_redis: RedisServer) -> None:
    fill(any_redis)
    copy = take(any_redis)
    with temporary_folder("replay") as folder:
        scratch = Scratch(folder, _program(any_redis))
        scratch.write([copy.data], COMMANDS)
        entries = _entries(scratch.replay(databases=16).read_bytes())
    assert entries[b"replayed"] == (None, [b"yes"])
    assert entries[b"gone"] == (1700000000000, [b"xy"])
    assert entries.keys() - _entries(copy.data).keys() == {b"replayed", b"gone"}


def test_a_log_that_a_server_cannot_load_is_an_error_with_its_words(redis7: RedisServer) -> None:
    copy = take(redis7)
    with temporary_folder("replay") as folder:
        scratch = Scratch(folder, _program(redis7))
        scratch.write([copy.data], [encode(b"SELECT", b"0"), encode(b"NOSUCH.COMMAND", b"x")])
        with pytest.raises(EngineError, match="NOSUCH"):
            scratch.replay(databases=16)


def test_the_script_for_images_does_the_same(any_redis: RedisServer, tmp_path: Path) -> None:
    cli = require("redis-cli")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "redis-cli").symlink_to(cli)
    (tmp_path / "bin" / "redis-server").symlink_to(any_redis.program)
    copy, program = take(any_redis), _program(any_redis)
    (tmp_path / "layout").mkdir()
    scratch = Scratch(tmp_path / "layout", program)
    scratch.write([copy.data], COMMANDS)
    (scratch.folder / CONFIGURATION).write_bytes(image_settings(16, multi_part=program.multi_part))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w|") as tar:
        for path in sorted(scratch.folder.iterdir()):
            tar.add(path, arcname=path.name)
    done = subprocess.run(
        ["sh", "-c", IMAGE_SCRIPT],
        input=packed.getvalue(),
        capture_output=True,
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert _entries(done.stdout)[b"gone"] == (1700000000000, [b"xy"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "layout"]


def test_a_machine_without_the_right_redis_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(UsageError, match="no redis-server in the PATH") as refusal:
        find_replayer(None, "redis", rdb_version=10, server_version="7.0.15")
    assert "Install Redis 7.0" in (refusal.value.hint or "")


@pytest.mark.testhost
@pytest.mark.xdist_group("testhost")
def test_without_a_redis_here_the_image_of_the_service_replays(
    standing_stack: Stack, redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(redis7)
    copy = take(redis7)
    for name, value in standing_stack.machine.docker_environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(shutil.which("docker") or "docker")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "recoup.key").write_text("0" * 64 + "\n")
    (tmp_path / "recoup.yaml").write_text(
        "recoup: 1\nsystem: Shop\n"
        f"compose: {{file: '{standing_stack.file}', env_files: ['{standing_stack.env_file}']}}\n"
        "services:\n  redis: {engine: redis, compose: redis}\n"
        f"repositories:\n  local: {{path: '{tmp_path}/backups'}}\nkey: {{file: recoup.key}}\n"
    )
    system = System.from_file(tmp_path / "recoup.yaml")
    replayer = find_replayer(system, "redis", rdb_version=10, server_version="7.0.15")
    assert replayer.where == "the image of redis"
    (tmp_path / "layout").mkdir()
    scratch = Scratch(tmp_path / "layout", replayer.program)
    scratch.write([copy.data], COMMANDS)
    entries = _entries(replayer.replay(scratch, 16).read_bytes())
    assert entries[b"gone"] == (1700000000000, [b"xy"])
    assert entries.keys() - _entries(copy.data).keys() == {b"replayed", b"gone"}
    assert "recoup" not in standing_stack.machine.docker("ps", "--all", "--format", "{{.Names}}")


@pytest.fixture
def no_redis_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_walls()  # what it finds is remembered, and shall not be what it finds with this PATH
    (tmp_path / "bin").mkdir()
    for program in ("docker",):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program) or program)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(local_servers, "_FOLDERS", ())
    monkeypatch.setattr(local_servers, "_PACKAGES", ())


@pytest.mark.usefixtures("no_redis_here")
def test_a_machine_without_any_redis_is_told_what_to_install() -> None:
    with pytest.raises(UsageError, match="there is no redis-server on this machine") as refusal:
        find_launcher(None, "redis", rdb_version=10, server_version="7.0.15")
    assert "Install Redis 7.0" in (refusal.value.hint or "")


@pytest.mark.testhost
@pytest.mark.xdist_group("testhost")
@pytest.mark.usefixtures("no_redis_here")
def test_the_image_of_the_service_proves_a_copy_without_network_volumes_or_rights(
    standing_stack: Stack, redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(redis7)
    copy = take(redis7)
    for name, value in standing_stack.machine.docker_environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "recoup.key").write_text("0" * 64 + "\n")
    (tmp_path / "recoup.yaml").write_text(
        "recoup: 1\nsystem: Shop\n"
        f"compose: {{file: '{standing_stack.file}', env_files: ['{standing_stack.env_file}']}}\n"
        "services:\n  redis: {engine: redis, compose: redis}\n"
        f"repositories:\n  local: {{path: '{tmp_path}/backups'}}\nkey: {{file: recoup.key}}\n"
    )
    system = System.from_file(tmp_path / "recoup.yaml")
    before = standing_stack.machine.docker("ps", "--all", "--quiet")
    launcher = find_launcher(system, "redis", rdb_version=10, server_version="7.0.15")
    assert launcher.where == "the image of redis"
    with (
        open_sandbox(tmp_path / "sandboxes", "a test") as sandbox,
        open_redis_live(sandbox, copy, launcher, checks=FILLED) as live,
    ):
        findings = [*live.boots(), *live.sound(), *live.same(), *live.works()]
        (identity,) = standing_stack.machine.docker(
            "ps", "--quiet", "--filter", f"label=recoup.sandbox={sandbox.id}"
        ).split()
        (seen,) = json.loads(standing_stack.machine.docker("inspect", identity))
        host = seen["HostConfig"]
        assert host["NetworkMode"] == "none"
        assert host["ReadonlyRootfs"] is True
        # The folder of the sandbox, and what the image itself declares: empty, without a name, gone with the container.
        assert not any("marketplace" in mount["Source"] for mount in seen["Mounts"])
        assert [mount["Destination"] for mount in seen["Mounts"] if mount["Type"] == "bind"] == ["/sandbox"]
        assert not any("PASSWORD" in one for one in seen["Config"]["Env"])
        server = live._server
        assert server is not None
        os.killpg(server.pid, signal.SIGKILL)  # as when the whole run is killed: its end of the pipe goes
        eventually(lambda: standing_stack.machine.docker("ps", "--all", "--quiet") == before)
    assert {one.verdict for one in findings} == {Verdict.OK}, findings
    eventually(lambda: standing_stack.machine.docker("ps", "--all", "--quiet") == before)
