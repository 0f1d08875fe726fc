"""Continuous protection of a Compose stack that publishes neither its database nor its Redis.

The daemon runs in the network of the machine on which the stack runs, and reaches the containers by their addresses
there. Everything is lost in the middle of the writing, and what comes back is counted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recoup.kernel import clock
from tests.acceptance.test_compose_stack import _lose, _password, _redis
from tests.acceptance.test_stack_point_compose import _client
from tests.acceptance.workplace import wait_for
from tests.testhost.fixtures import Stack

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost")]

_HBA = "/var/lib/postgresql/data/pg_hba.conf"
_EVERY = timedelta(seconds=1)
#: The time between a commit and the archive beyond the interval. What a busy machine needs is measured besides.
_SLACK = timedelta(seconds=4)


@dataclass(slots=True, kw_only=True)
class OnTheHost:
    """Somebody who types ``recoup`` on the machine of the stack: with its engine and in its network."""

    stack: Stack
    state: Path
    log: list[str] = field(default_factory=list)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``recoup`` in the stack's folder."""
        return subprocess.Popen(
            ["nsenter", "-t", str(self.stack.machine.pid), "-n", "--", sys.executable, "-m", "recoup.cli", *arguments],
            cwd=self.stack.folder,
            env={**os.environ, **self.stack.machine.docker_environment, "RECOUP_STATE": str(self.state)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, expect: int | None = 0) -> str:
        """Run ``recoup`` and return what it printed, errors last."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=400)
        assert expect in (None, process.returncode), f"recoup {' '.join(arguments)}: {process.returncode}\n{out}{err}"
        assert "Traceback" not in err, err
        for name in ("DATABASE_PASSWORD", "REDIS_PASSWORD"):
            assert _password(self.stack, name) not in out + err
        return out if "--json" in arguments else out + err

    def json(self, *arguments: str) -> dict[str, Any]:
        """The document that a command prints."""
        document = json.loads(self.run(*arguments, "--json", expect=None))
        assert isinstance(document, dict)
        return document

    @contextlib.contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[str]]:
        """A running ``recoup daemon``. Its log is read all along; it must end well when it is asked to."""
        process = self.start("daemon", "--grace", "5m")
        assert process.stderr is not None
        reader = threading.Thread(target=lambda: self.log.extend(process.stderr or ()), daemon=True)
        reader.start()
        try:
            yield process
            process.send_signal(signal.SIGTERM)
            assert process.wait(400) == 0, self.said
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(120)
            reader.join(120)
        assert "Traceback" not in self.said, self.said

    @property
    def said(self) -> str:
        """What the daemon has logged."""
        return "".join(self.log)

    def windows(self, service: str) -> list[tuple[datetime, datetime]]:
        """The windows that ``recoup windows`` tells of a service: none before its first copy."""
        return [
            (datetime.fromisoformat(one["begin"]), datetime.fromisoformat(one["end"]))
            for found in self.json("windows", service).get("services", ())
            for one in found["windows"]
        ]

    def wait_until_it_streams(self, since: datetime, *services: str) -> None:
        """Wait until one can go back to an instant after ``since`` of each."""
        for service in services:
            self._wait(lambda service=service: any(end > since for _, end in self.windows(service)), service)  # type: ignore[misc]

    def wait_until_it_reaches(self, moment: datetime, *services: str) -> None:
        """Wait until one can go back to ``moment`` of each."""
        for service in services:
            self._wait(
                lambda service=service: any(begin <= moment <= end for begin, end in self.windows(service)),  # type: ignore[misc]
                service,
            )

    def _wait(self, question: Callable[[], bool], service: str) -> None:
        try:
            wait_for(question, service, every=0.2)
        except AssertionError as never:
            raise AssertionError(f"{never}: {self.run('windows', service, expect=None)}\n{self.said}") from None


@pytest.fixture
def host(stack: Stack, tmp_path: Path) -> OnTheHost:
    """The host of a fresh stack, with a plan that streams everything.

    The database's password is in a file that only its container knows, as with secrets of a swarm.
    """
    compose = stack.file.read_text()
    written = "POSTGRES_PASSWORD: ${DATABASE_PASSWORD:?set it in .env.production}"
    assert written in compose
    compose = compose.replace(written, "POSTGRES_PASSWORD_FILE: /etc/database.password")
    mount = "      - postgres-data:/var/lib/postgresql/data\n"
    stack.file.write_text(compose.replace(mount, mount + "      - ./database.password:/etc/database.password:ro\n"))
    (stack.folder / "database.password").write_text(_password(stack, "DATABASE_PASSWORD") + "\n")
    stack.compose("up", "--detach", "--wait", "--wait-timeout", "240")
    # Only the application may log in over the network, so that the daemon needs a line of its own.
    gateway = stack.machine.docker(
        "network", "inspect", "-f", "{{(index .IPAM.Config 0).Gateway}}", "marketplace_default"
    ).strip()
    stack.compose("exec", "-T", "postgres", "sed", "-i", f"1i host all all {gateway}/32 reject", _HBA)
    stack.sql("select pg_reload_conf()")
    found = OnTheHost(stack=stack, state=tmp_path / "state")
    found.run(
        *("init", "--compose", "docker-compose.prod.yml", "--env-file", ".env.production"),
        *("--repository", str(tmp_path / "backups")),
    )
    plan = stack.folder / "recoup.yaml"
    text = plan.read_text()
    for engine, lines in (
        ("postgres", ("wal: continuous", f"wal_every: {_EVERY.seconds}s", "wal_heartbeat: 1s", "fingerprint: false")),
        ("redis", ("stream: continuous", f"stream_every: {_EVERY.seconds}s")),
    ):
        assert text.count(f"engine: {engine}\n") == 1
        text = text.replace(f"engine: {engine}\n", "\n    ".join((f"engine: {engine}", *lines)) + "\n")
    plan.write_text(text)
    return found


@dataclass(slots=True, kw_only=True)
class Written:
    """What was written when, from the number ``first`` on; ``rows`` before ``keys``."""

    first: int
    rows: list[datetime] = field(default_factory=list)
    keys: list[datetime] = field(default_factory=list)

    def row_at(self, number: int) -> datetime:
        """When a number was in the database; one more than was acknowledged may be."""
        return self.rows[min(number - self.first, len(self.rows) - 1)]

    def key_at(self, number: int) -> datetime:
        """When a number was in Redis."""
        return self.keys[min(number - self.first, len(self.keys) - 1)]


@contextlib.contextmanager
def _writing(stack: Stack) -> Iterator[Written]:
    """An application that counts in both, until the end or until its servers are gone."""
    written = Written(first=1 + int(stack.sql("select coalesce(max(n), -1) from ticks")))
    stop = threading.Event()
    password = _password(stack, "REDIS_PASSWORD")
    psql = ("postgres", "psql", "-XAtq", "-U", "market", "-d", "market")
    cli = ("-e", f"REDISCLI_AUTH={password}", "redis", "redis-cli", "--no-auth-warning")

    def count() -> None:
        number = written.first
        with contextlib.suppress(AssertionError, OSError):  # its servers are gone
            while not stop.wait(0.01):
                assert database(f"insert into ticks values ({number}) returning n;") == str(number)
                written.rows.append(clock.now())
                assert cache(f"set ticks {number}") == "OK"
                written.keys.append(clock.now())
                number += 1

    with contextlib.suppress(BrokenPipeError), _client(stack, *psql) as database, _client(stack, *cli) as cache:
        thread = threading.Thread(target=count, daemon=True)
        thread.start()
        try:
            wait_for(lambda: written.keys, "the first number is written")
            yield written
        finally:
            stop.set()
            thread.join(120)


def _addresses(stack: Stack) -> dict[str, str]:
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return {
        name: stack.machine.docker("inspect", "-f", form, f"marketplace-{name}-1").strip()
        for name in ("postgres", "redis")
    }


def _swap_addresses(stack: Stack) -> None:
    """Both containers start again, each at another address than before."""
    before = _addresses(stack)
    stack.compose("stop", "--timeout", "10", "redis", "postgres")
    for name in sorted(before, key=lambda one: before[one], reverse=True):  # the lowest free address is given first
        stack.compose("start", name)
    stack.compose("up", "--detach", "--wait", "--no-recreate", "--wait-timeout", "240")
    after = _addresses(stack)
    assert before["postgres"] != after["postgres"]
    assert before["redis"] != after["redis"]


def _ticks(stack: Stack) -> tuple[int, int]:
    """The newest number in the database and in Redis."""
    return int(stack.sql("select max(n) from ticks")), int(_redis(stack, "get", "ticks"))


def test_everything_is_lost_and_seconds_are_missing(host: OnTheHost) -> None:
    stack, both = host.stack, ("postgres", "redis")
    stack.sql("create table ticks (n int primary key)")
    hba = stack.compose("exec", "-T", "postgres", "cat", _HBA)
    owned = stack.compose("exec", "-T", "postgres", "stat", "-c", "%a %u %g", _HBA)
    prepared = host.run("check", "--prepare", "--yes")
    assert 'done: host  replication  "market"  samenet' in prepared
    assert "nothing is left to do" in prepared
    with host.daemon():
        host.wait_until_it_streams(clock.now(), *both)
        with _writing(stack):
            host.wait_until_it_reaches(clock.now(), *both)

        _swap_addresses(stack)
        host.wait_until_it_streams(clock.now(), *both)
        assert len(host.windows("postgres")) == 1, "nothing is missing"
        assert len(host.windows("redis")) == 2, "a Redis that was started again has another history"
        with _writing(stack) as written:
            asked = clock.now()
            host.wait_until_it_reaches(asked, *both)
            needed = clock.now() - asked  # from a commit to the archive, and until one is told: on this machine, today
            stack.compose("kill", "--signal", "KILL", *both)
        _lose(stack, *both)
        assert not stack.answers()

        without = ("--without", "configuration", "--without", "logs")
        said = host.run("restore", "--stack", "latest", "--to-time", "latest", *without, "--yes")
        assert "restored the stack as far as there is anything: postgres, redis" in said
        wait_for(stack.answers, "the application answers")
        rows, key = _ticks(stack)
        missing = written.rows[-1] - written.row_at(rows), written.keys[-1] - written.key_at(key)
        print(f"missing of PostgreSQL {missing[0]}, of Redis {missing[1]}; {needed} were needed")
        assert max(missing) <= _EVERY + _SLACK + needed
        assert stack.sql("select count(*) - 1 from ticks") == stack.sql("select max(n) from ticks")
        with _writing(stack):
            host.wait_until_it_streams(clock.now(), *both)
    assert "nothing is left to do" in host.run("check", "--undo", "--yes")
    assert stack.compose("exec", "-T", "postgres", "cat", _HBA) == hba
    assert stack.compose("exec", "-T", "postgres", "stat", "-c", "%a %u %g", _HBA) == owned
