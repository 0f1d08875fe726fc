"""A server or its application is lost, and comes back: with a bucket and a key, without a registry, without a forge."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.s3_server import S3Server
from recoup.kernel import clock
from tests.acceptance.blank_place import BlankPlace, blank_place, git, in_network_of
from tests.acceptance.workplace import RECOUP, killed_at
from tests.cable import Cable, listen_on
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine, eventually

_SEED = int(os.environ.get("RECOUP_SEED", "20261123"))
_BOUNDARIES = [
    (event, step, when)
    for step in ("restore-postgres", "swap-postgres", "swap-redis", "start-postgres", "start-redis")
    for event, when in (("step-begun", "after"), ("step-done", "before"), ("step-done", "after"))
]

pytestmark = [pytest.mark.testhost, pytest.mark.s3, pytest.mark.xdist_group("testhost")]


@pytest.fixture(scope="module")
def place(
    standing_stack: Stack, second_host: Machine, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BlankPlace]:
    """Production with copies in a bucket, and a machine with nothing. The tests go from small losses to large ones."""
    with blank_place(standing_stack, second_host, s3, tmp_path_factory.mktemp("blank")) as found:
        yield found


@pytest.fixture(scope="module")
def lost(place: BlankPlace) -> Iterator[BlankPlace]:
    """The same after a power cut from which production's machine does not come back, nor its disk."""
    place.stack.machine.power_cut()
    try:
        place.wipe()
        yield place
    finally:
        place.stack.machine.start()


def test_a_removed_application_folder_comes_back_and_the_databases_are_not_touched(place: BlankPlace) -> None:
    stack = place.stack
    there = place.on_production()
    commit, before = git(stack.folder, "rev-parse", "HEAD"), place.databases()
    shutil.rmtree(stack.folder)
    with Cable(place.s3.port, listener=listen_on(stack.machine, place.s3.port)):
        said = there.recover("application-loss", expect=None)
        assert "users were back" in said, said
    assert stack.answers()
    assert place.databases() == before, "the containers of the databases went on, and so did their data"
    assert git(stack.folder, "rev-parse", "HEAD") == commit
    assert stat.S_IMODE((stack.folder / "recoup.key").stat().st_mode) == 0o600
    (stack.folder / "logs" / "from-the-host").touch()
    assert stack.compose("exec", "-T", "api", "ls", "/app/logs") == "from-the-host\n", "it sees the folder of today"


def test_an_application_whose_machine_was_switched_on_again_without_it_comes_back_as_it_was(place: BlankPlace) -> None:
    """The engine makes an empty folder in the place of every file that it is to mount, before anybody can recover."""
    stack = place.stack
    shutil.rmtree(stack.folder)
    stack.machine.power_cut()
    stack.machine.start()
    mounted = stack.folder / "docker" / "postgres" / "init.sql"
    eventually(mounted.is_dir, what="that the engine makes what it misses")
    with Cable(place.s3.port, listener=listen_on(stack.machine, place.s3.port)):
        said = place.on_production().recover("application-loss", expect=None)
        assert "users were back" in said, said
    assert stack.answers()
    assert mounted.is_file()
    assert not list(stack.folder.glob(".recoup-*")), "nothing was in it that had to be kept"


def test_the_page_of_the_kit_typed_as_it_stands_brings_production_back_on_a_blank_machine(lost: BlankPlace) -> None:
    lost.wipe()
    home = lost.folder / "stranger"
    home.mkdir()
    commands = "\n".join(re.findall(r"```sh\n(.*?)```", lost.page, re.DOTALL))
    environment = {
        "RECOUP_STATE": lost.environment["RECOUP_STATE"],
        "PATH": f"{Path(RECOUP).parent}:{os.environ['PATH']}",
    }
    last = commands.rstrip().rpartition("\n")[2]
    boundary = random.Random(_SEED).choice(_BOUNDARIES)
    with Cable(lost.s3.port, listener=listen_on(lost.blank, lost.s3.port)):
        # The first time something interrupts it, and it is typed again; on another day that is somewhere else.
        killed = commands.replace(last, last.replace("recoup", shlex.join(killed_at(*boundary)), 1))
        done = lost.blank.run(["bash", "-c", killed], folder=home, environment=environment, check=False, timeout=400)
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stdout.decode() + done.stderr.decode()
        done = lost.blank.run(["bash", "-c", commands], folder=home, environment=environment, check=False, timeout=400)
        said = done.stdout.decode() + done.stderr.decode()
        assert "users were back" in said, said
        assert lost.key_id in said
        assert_production(lost)


def assert_production(place: BlankPlace) -> None:
    """The stack on the blank machine is the one that was lost."""
    there = place.there()
    assert there.answers()
    assert int(there.sql("select count(*) from orders")) > 0
    assert there.sql("select system_identifier from pg_control_system()") == place.identity
    assert git(there.folder, "rev-parse", "HEAD") == place.commit
    assert not git(there.folder, "status", "--porcelain").replace("?? recoup.yaml", "").strip()
    running = place.blank.docker("ps", "--format", '{{.Label "com.docker.compose.service"}} {{.Image}}').split("\n")
    assert sorted(one for one in running if one) == ["api api:1", "postgres postgres:15", "redis redis:7"]
    images = {
        name: place.blank.docker("image", "inspect", "--format", "{{.Id}}", name).strip() for name in place.images
    }
    assert images == place.images, "the very images that production ran"
    document = json.loads(place.recoup("recover", "--show", "--json", *place.where, expect=None))
    so_far = (clock.now() - clock.from_text(document["declared"])).total_seconds()
    assert 0 < document["healthy_seconds"] < so_far, "the time to users at work is in the journal"
    assert {one["service"] for one in document["rpo"] if one["attained_seconds"] is not None} == {"postgres", "redis"}


def without_docker(folder: Path) -> str:
    """A PATH with everything of this machine's but docker."""
    programs = folder / "bin"
    programs.mkdir()
    for place in os.environ["PATH"].split(os.pathsep):
        with contextlib.suppress(OSError):
            for program in Path(place).iterdir():
                if not program.name.startswith("docker"):
                    with contextlib.suppress(FileExistsError):
                        (programs / program.name).symlink_to(program)
    return str(programs)


def test_what_a_blank_machine_lacks_is_named_at_once_with_what_to_do(lost: BlankPlace, tmp_path: Path) -> None:
    lost.wipe()
    (lost.folder / "other.key").write_text("0badc0de" * 8 + "\n")
    with Cable(lost.s3.port, listener=listen_on(lost.blank, lost.s3.port)) as cable:
        said = lost.recoup("recover", "server-loss", "--from", lost.address, "--key-file", "other.key", expect=12)
        assert not lost.stack.folder.exists(), "a wrong key changes nothing"

        with in_network_of(lost.blank, lambda: socket.create_server(("127.0.0.1", 3000))):
            cable.cut()  # the network is not there at first: the command waits for it
            threading.Timer(4, cable.mend).start()
            said = lost.recover(expect=1, environment={"PATH": without_docker(tmp_path)})
            assert "docker is not installed here" in said, said
            assert "--install" in said or "docs.docker.com" in said, said
            said = lost.recover(expect=1)
            assert "port 3000/tcp, which api publishes, is not free" in said, said
            assert "ss -ltnp 'sport = :3000'" in said, said

        with lost.without_kept_images():
            said = lost.recover(expect=1)
            assert re.search(r"no image for api, postgres, redis: .*api:1", said), said
            assert "docker login" in said, said

        if os.environ.get("RECOUP_SOAK"):
            said = lost.recover(expect=None)
            assert "users were back" in said, said
            assert_production(lost)


def test_from_a_laptop_the_key_and_the_credentials_travel_in_no_command_line(lost: BlankPlace, tmp_path: Path) -> None:
    lost.wipe()
    log = tmp_path / "ssh.log"
    programs = tmp_path / "bin"
    programs.mkdir()
    # As ssh: options, then a target, then what the shell there gets. What it was called with is written down.
    where = lost.blank.inside([], tmp_path)
    (programs / "ssh").write_text(
        f"#!/bin/bash\nprintf '%s\\n' \"$*\" >> {log}\n"
        'while [ "$1" != -- ]; do shift; done; shift; [ "$1" = root@new ] || exit 255; shift\n'
        f'exec env -i HOME=/root PATH="$PATH" RECOUP_STATE={lost.environment["RECOUP_STATE"]} '
        f'{" ".join(where)} bash -c "$*"\n'
    )
    (programs / "ssh").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{Path(RECOUP).parent}:{os.environ['PATH']}"}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        environment.pop(name, None)
    with Cable(lost.s3.port, listener=listen_on(lost.blank, lost.s3.port)):
        done = subprocess.run(
            [RECOUP, "recover", "server-loss", "--kit", lost.kit, "--host", "ssh://root@new", "--plan"],
            cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recovery of marketplace from server-loss" in done.stdout
    typed = log.read_text()
    for secret in (lost.key, lost.s3.secret_key):
        assert secret not in typed + done.stdout + done.stderr
    assert not Path(f"/dev/shm/recoup-{lost.key_id}").exists(), "nothing of it is left there"
