"""A Redis copy in a sandbox where this machine has no Redis: by the image of the service, closed and leashed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from recoup.assembly.live_redis import find_launcher
from recoup.assembly.system import System
from recoup.demo.servers import RedisServer
from recoup.engines.redis import local_servers
from recoup.engines.redis.live import open_redis_live
from recoup.engines.sandbox import open_sandbox
from recoup.engines.sandbox_walls import find_walls
from recoup.kernel.errors import UsageError
from recoup.kernel.finding import Verdict
from tests.integration.live_redis import FILLED
from tests.integration.redis_copies import fill, take
from tests.testhost.fixtures import Stack
from tests.testhost.machine import eventually

pytestmark = pytest.mark.redis


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
