"""A PostgreSQL copy in a sandbox where this machine has no PostgreSQL: by the image of its service, closed, leashed."""

from __future__ import annotations

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from recoup.assembly.prove.postgres_image import find_installation
from recoup.assembly.system import System
from recoup.demo.servers import PostgresServer
from recoup.engines.engine import CopyReader
from recoup.engines.postgres import sandbox_programs
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.live import LiveRequest, PostgresLive
from recoup.engines.postgres.sandbox_programs import lacks, local_installation
from recoup.engines.sandbox import open_sandbox
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.process import run
from recoup.kernel.secret import Secret
from tests.integration.logical import direct, dumped, small_database
from tests.integration.postgres_copies import MemoryCopy
from tests.testhost.fixtures import Stack
from tests.testhost.machine import eventually


@pytest.fixture
def no_postgres_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(major: int, **_: object) -> Path:
        raise EngineError(f"there is no PostgreSQL {major} server on this machine; replaying WAL needs one")

    monkeypatch.setattr(sandbox_programs, "find_server", none)
    monkeypatch.setattr(sandbox_programs, "_PACKAGES", {})


@pytest.fixture
def system(standing_stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    for name, value in standing_stack.machine.docker_environment.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "recoup.key").write_text("0" * 64 + "\n")
    (tmp_path / "recoup.yaml").write_text(
        "recoup: 1\nsystem: Shop\n"
        f"compose: {{file: '{standing_stack.file}', env_files: ['{standing_stack.env_file}']}}\n"
        "services:\n  db: {engine: postgres, compose: postgres, user: market}\n"
        f"repositories:\n  local: {{path: '{tmp_path}/backups'}}\nkey: {{file: recoup.key}}\n"
    )
    return System.from_file(tmp_path / "recoup.yaml")


@pytest.mark.testhost
@pytest.mark.xdist_group("testhost")
@pytest.mark.usefixtures("no_postgres_here")
def test_the_image_of_the_service_proves_a_copy_without_network_volumes_or_rights(
    standing_stack: Stack, system: System, postgres15: PostgresServer, tmp_path: Path
) -> None:
    docker = partial(standing_stack.machine.docker, "ps", "--all", "--quiet")
    before = docker()
    name = small_database(postgres15)
    base = MemoryCopy()
    base.copy_facts = take_base_backup(Secret(postgres15.url()), base, label="image")
    copies: list[CopyReader] = [dumped(direct(postgres15), name), base]
    for copy in copies:
        request = LiveRequest(find=find_installation(system, "db"))
        with open_sandbox(tmp_path / "sandboxes", "a test") as sandbox, PostgresLive(sandbox, [copy], request) as live:
            findings = live.boots()
            assert overall(findings) is Verdict.OK, findings
            assert findings[0].detail.endswith("the image of postgres")
            if copy.fingerprint is not None:
                assert overall(live.same()) is Verdict.OK
            said = run(live.server.command([live.server.program("psql"), "-XAtc", "SELECT 1"], database=name))
            assert said.stdout == b"1\n"
            (identity,) = docker("--filter", f"label=recoup.sandbox={sandbox.id}").split()
            (seen,) = json.loads(standing_stack.machine.docker("inspect", identity))
            assert seen["HostConfig"]["NetworkMode"] == "none"
            assert seen["HostConfig"]["ReadonlyRootfs"] is True
            binds = [mount["Source"] for mount in seen["Mounts"] if mount["Type"] == "bind"]
            assert binds == [str(sandbox.folder)]
            assert not any("marketplace" in mount["Source"] for mount in seen["Mounts"])
            assert not any("PASSWORD" in one for one in seen["Config"]["Env"])
            if copy is base:
                assert live.server._child is not None
                os.killpg(live.server._child.pid, signal.SIGKILL)  # as when the whole run is killed
                eventually(lambda: docker() == before)
        eventually(lambda: docker() == before)


@pytest.mark.usefixtures("no_postgres_here")
def test_without_an_image_either_it_says_what_to_install(tmp_path: Path) -> None:
    with (
        open_sandbox(tmp_path / "sandboxes", "a test") as sandbox,
        pytest.raises(EngineError, match="bringing the copy to life") as missing,
    ):
        find_installation(None, "db")(sandbox, 16, frozenset())
    assert "apt-get install postgresql-16" in str(missing.value.hint)


def test_an_installation_that_lacks_an_extension_of_the_copy_is_known(
    postgres17: PostgresServer, tmp_path: Path
) -> None:
    with open_sandbox(tmp_path / "sandboxes", "a test") as sandbox:
        local = local_installation(sandbox, 17, folders=[postgres17.bin])
        assert lacks(sandbox, local, {"plpgsql", "dblink"}) == set()
        assert lacks(sandbox, local, {"plpgsql", "no_such_extension"}) == {"no_such_extension"}
