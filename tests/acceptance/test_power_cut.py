"""The power of the production machine is cut under load; a blank machine brings the stack back from the bucket alone.

The application's own counter measures the loss: each number is known outside the machine as soon as it is acknowledged.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.demo.s3_server import S3Server
from recoup.kernel import clock
from tests.acceptance.admin import Admin, protected
from tests.acceptance.counting import Counting, Written, write
from tests.acceptance.workplace import s3_environment
from tests.cable import Cable, listen_on
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Hall, Machine, copy_stack

pytestmark = [pytest.mark.testhost, pytest.mark.s3, pytest.mark.xdist_group("testhost")]

#: How often what does not fill a segment is stored, in the plan of this test, and what is promised with it.
_INTERVAL = timedelta(seconds=2)
_PROMISED = _INTERVAL + timedelta(seconds=1)
_PAUSE_SECONDS = 0.01
_REDIS = ("-e", "REDISCLI_AUTH=redis-example-4711", "redis", "redis-cli", "--no-auth-warning")
_DATABASE = ("postgres", "psql", "-XAtq", "-U", "market", "-d", "market")


@contextlib.contextmanager
def _client(stack: Stack, *argv: str) -> Iterator[Callable[[str], None]]:
    """A program inside a container that answers each line with one; ``EOFError`` when the machine has gone."""
    where = ("compose", "-f", str(stack.file), "--env-file", str(stack.env_file), "exec", "-T")
    child = subprocess.Popen(
        ["docker", *where, *argv],
        cwd=stack.folder,
        env=stack.machine.environment_inside(stack.machine.docker_environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    assert child.stdout is not None

    def ask(line: str) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(line.encode() + b"\n")
        child.stdin.flush()
        if not child.stdout.readline().endswith(b"\n"):
            raise EOFError

    try:
        yield ask
    finally:
        child.kill()
        child.wait(20)
        for pipe in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def _counting(stack: Stack) -> Iterator[Counting]:
    """The application: the same number into PostgreSQL and then into Redis, then the next, until the power is cut."""
    known = Counting()

    def count(database: Callable[[str], None], cache: Callable[[str], None]) -> None:
        with contextlib.suppress(EOFError, OSError, ValueError):
            while True:
                write(known.database, lambda number: database(f"insert into ticks values ({number}) returning n;"))
                write(known.redis, lambda number: cache(f"set ticks {number}"))
                clock.pause(_PAUSE_SECONDS)

    with _client(stack, *_DATABASE) as database, _client(stack, *_REDIS) as cache:
        thread = threading.Thread(target=count, args=(database, cache), daemon=True)
        thread.start()
        yield known
    thread.join(30)
    assert not thread.is_alive()


def _ticks(stack: Stack) -> tuple[int, int]:
    """The newest number in the database, which has every earlier one too, and that in Redis."""
    newest, count = stack.sql("select max(n), count(*) from ticks").strip().split("|")
    assert int(count) == int(newest) + 1
    return int(newest), int(stack.compose("exec", "-T", *_REDIS, "get", "ticks"))


def _lost(numbers: list[Written], newest: int, cut: datetime) -> timedelta:
    """The time before the cut whose acknowledged numbers are gone."""
    return cut - numbers[newest + 1].answered if newest + 1 < len(numbers) else timedelta(0)


def _environment(s3: S3Server, state: Path) -> dict[str, str]:
    return {"RECOUP_STATE": str(state), **s3_environment(s3)}


@pytest.fixture
def production(hall: Hall, testhost: Machine, s3: S3Server, tmp_path: Path) -> Iterator[Admin]:
    """A machine of its own with the example stack, prepared and with a plan whose only repository is a bucket."""
    machine = hall.machine("production", images_of=testhost)
    try:
        folder = copy_stack(tmp_path / "marketplace").parent
        admin = Admin(machine=machine, folder=folder, environment=_environment(s3, tmp_path / "state"))
        admin.stack.compose("up", "--detach", "--wait", "--wait-timeout", "90")
        admin.stack.sql("create table ticks (n int primary key)")
        with Cable(s3.port, listener=listen_on(machine, s3.port)):
            files = ("--compose", "docker-compose.prod.yml", "--env-file", ".env.production")
            admin.recoup("init", *files, "--repository", f"s3://{s3.new_bucket()}/marketplace")
            plan = folder / "recoup.yaml"
            seconds = f"{_INTERVAL.total_seconds():g}s"
            text = re.sub(r"(?m)^ *dump: .*\n", "", plan.read_text())  # one copy less to wait for
            text = re.sub(r"# (wal|stream): continuous .*", rf"\1: continuous\n    \1_every: {seconds}", text)
            plan.write_text(text)
            admin.recoup("check", "--prepare", "--yes")
            yield admin
    finally:
        machine.stop()
        shutil.rmtree(machine.folder)


def test_what_a_power_cut_costs_is_seconds_and_the_bucket_alone_brings_the_stack_back(
    production: Admin, second_host: Machine, s3: S3Server, tmp_path: Path
) -> None:
    with production.daemon(tmp_path / "daemon.log"), contextlib.ExitStack() as application:
        ready = wait_until(lambda: protected(tmp_path / "state"), limit_seconds=120, every=0.1)
        assert ready, (tmp_path / "daemon.log").read_text()
        known = application.enter_context(_counting(production.stack))
        point = json.loads(production.recoup("backup", "--stack", "--name", "noon", "--json", "--quiet"))["point"]
        since = len(known.redis)
        clock.pause(2 * _INTERVAL.total_seconds() + 0.7)
        cut = clock.now()
        production.machine.power_cut()
    counted = len(known.redis)
    assert counted > since + 20

    # Another machine, which never saw the stack: Recoup, the key, and the address of the bucket.
    address = re.search(r"s3://[^\"]+", (production.folder / "recoup.yaml").read_text())
    assert address is not None
    blank = tmp_path / "blank"
    blank.mkdir()
    (blank / "recoup.key").write_bytes((production.folder / "recoup.key").read_bytes())
    production.folder.rename(tmp_path / "gone")
    (tmp_path / "state").rename(tmp_path / "gone-too")
    began = clock.monotonic()
    admin = Admin(machine=second_host, folder=blank, environment=_environment(s3, blank / "state"))
    with Cable(s3.port, listener=listen_on(second_host, s3.port)):
        admin.recoup(
            *("restore", "latest", "--service", "configuration", "--from", address.group()),
            *("--key-file", "recoup.key", "--destination", "restored"),
        )
        restored = blank / "restored"
        (restored / "recoup.key").write_bytes((blank / "recoup.key").read_bytes())
        admin = replace(admin, folder=restored)
        stack = admin.stack
        try:
            admin.recoup("restore", "--stack", "latest", "--to-time", "latest", "--yes")
            assert wait_until(stack.answers, limit_seconds=30)
            took = clock.monotonic() - began
            in_database, in_redis = _ticks(stack)
            lost = _lost(known.database, in_database, cut), _lost(known.redis, in_redis, cut)
            print(f"lost {max(lost)}, of {counted} numbers; recovered in {took:.1f} s")
            assert max(lost) <= _PROMISED

            admin.recoup("restore", "--stack", "noon", "--yes", expect=4)  # a database in use has no exact fingerprint
            in_database, in_redis = _ticks(stack)
            apart = known.apart(in_database, in_redis)
            print(f"apart {apart}; the point says {point['apart_ms']} ms")
            assert apart <= timedelta(milliseconds=point["apart_ms"])
            assert stack.answers()
        finally:
            stack.compose("down", "--volumes", "--timeout", "2")
