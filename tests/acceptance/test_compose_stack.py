"""The main job on a real Compose stack: init, backup, lose the volumes, restore, and the application answers again.

Everything goes through ``docker compose``: neither PostgreSQL nor Redis is published, and the test runs beside the
machine, not on it. The images are the tests' own stand-ins for the official ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from recoup.demo.s3_server import S3Server
from tests.acceptance.workplace import s3_environment
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost")]

_MORE_ROWS = (
    "insert into orders (client_id, what, price) select 1 + g % 50, 'job ' || g, 10 + g from generate_series(1, 500) g"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Somebody who types ``recoup`` in the stack's folder, with the machine's engine at hand."""

    stack: Stack
    environment: dict[str, str]

    def run(self, *arguments: str, expect: int = 0) -> str:
        """Run ``recoup``; its output and errors together. Fails the test when the exit code is another."""
        done = subprocess.run(
            [sys.executable, "-m", "recoup.cli", *arguments],
            cwd=self.stack.folder,
            env={**os.environ, **self.environment},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=300,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == expect, f"recoup {' '.join(arguments)} ended with {done.returncode}:\n{said}"
        return said

    def artefacts(self, service: str) -> list[dict[str, object]]:
        """What ``recoup list`` says of a service, newest first."""
        document = json.loads(self.run("list", service, "--json"))
        found = document["artefacts"]
        assert isinstance(found, list)
        return found


@pytest.fixture
def operator(stack: Stack, tmp_path: Path, s3: S3Server) -> Operator:
    """The operator of a fresh stack, with a bucket for the second repository."""
    environment = {**stack.machine.docker_environment, "RECOUP_STATE": str(tmp_path / "state")}
    bucket = s3.new_bucket()
    environment |= s3_environment(s3)
    found = Operator(stack=stack, environment=environment)
    found.run(
        *("init", "--compose", "docker-compose.prod.yml", "--env-file", ".env.production"),
        *("--repository", str(tmp_path / "backups"), "--repository", f"s3://{bucket}/marketplace"),
    )
    return found


def _rows(stack: Stack) -> str:
    return stack.sql("select count(*), sum(price), max(id) from orders")


def _redis(stack: Stack, *words: str) -> str:
    password = _password(stack, "REDIS_PASSWORD")
    where = ("exec", "-T", "-e", f"REDISCLI_AUTH={password}", "redis", "redis-cli", "--no-auth-warning")
    return stack.compose(*where, *words)


def _password(stack: Stack, name: str) -> str:
    lines = stack.env_file.read_text().splitlines()
    return next(line.partition("=")[2].strip().strip("'\"") for line in lines if line.startswith(f"{name}="))


def _lose(stack: Stack, *services: str) -> None:
    """The containers and the volumes of services are gone, as after ``docker volume rm`` by mistake."""
    stack.compose("rm", "--stop", "--force", *services)
    for service in services:
        stack.machine.docker("volume", "rm", f"marketplace_{service}-data")


def _ids(found: Sequence[dict[str, object]]) -> list[str]:
    return [str(one["id"]) for one in found]


def test_a_lost_database_volume_comes_back_and_the_application_answers(operator: Operator) -> None:
    stack = operator.stack
    assert stack.answers()
    stack.sql(_MORE_ROWS)
    before = _rows(stack)
    assert "a recovery would NOT work today" in operator.run("check", expect=3)
    said = operator.run("backup")
    assert "intact" in said
    check = operator.run("check", "--json")
    assert json.loads(check)["verdict"] == "ok"

    _lose(stack, "postgres")
    assert not stack.answers()
    restored = operator.run("restore", "latest", "--service", "postgres", "--kind", "base")
    assert "ok      the running cluster is the one of the copy" in restored
    assert "the content equals the copied one" in restored
    assert _rows(stack) == before
    assert stack.answers()


def test_a_lost_redis_volume_comes_back_and_stays_append_only(operator: Operator) -> None:
    stack = operator.stack
    _redis(stack, "set", "basket:7", "three apples")
    _redis(stack, "expire", "basket:7", "86400")
    _redis(stack, "rpush", "queue:mail", "one", "two", "three")
    _redis(stack, "config", "set", "repl-diskless-sync-delay", "5")  # as servers do when nobody says otherwise
    operator.run("backup", "redis")
    _redis(stack, "del", "queue:mail")

    _lose(stack, "redis")
    restored = operator.run("restore", "latest", "--service", "redis")
    assert "keys and expiring fields are equal" in restored
    assert _redis(stack, "lrange", "queue:mail", "0", "-1").split() == ["one", "two", "three"]
    assert int(_redis(stack, "ttl", "basket:7")) > 80_000
    assert _redis(stack, "config", "get", "appendonly").split() == ["appendonly", "yes"]
    _redis(stack, "set", "after", "the restore")
    stack.compose("restart", "redis")
    stack.compose("up", "--detach", "--wait", "redis")
    assert _redis(stack, "get", "after").strip() == "the restore"
    assert _redis(stack, "get", "basket:7").strip() == "three apples"
    assert stack.answers()


def test_a_restore_over_living_data_asks_keeps_the_old_and_can_be_undone_by_hand(operator: Operator) -> None:
    stack = operator.stack
    operator.run("backup", "postgres", "--kind", "base")
    copied = _rows(stack)
    stack.sql(_MORE_ROWS)
    refused = operator.run("restore", "latest", "--service", "postgres", expect=5)
    assert "nobody agreed to replace it" in refused
    assert stack.answers()
    done = operator.run("restore", "latest", "--service", "postgres", "--yes")
    assert "what was replaced is kept: /var/lib/postgresql/data/pgsql_tmp_recoup_replaced_" in done
    assert _rows(stack) == copied
    kept = stack.compose(
        "exec", "-T", "postgres", "sh", "-c", "ls /var/lib/postgresql/data/pgsql_tmp_recoup_replaced_*"
    )
    assert "global" in kept.split()
    # what was set aside does not swell the next backup
    operator.run("backup", "postgres", "--kind", "base")
    newest, older = operator.artefacts("postgres")[:2]
    assert abs(int(str(newest["plain_bytes"])) - int(str(older["plain_bytes"]))) < 20 << 20


def test_another_cluster_in_the_volume_is_not_replaced_without_force(operator: Operator) -> None:
    stack = operator.stack
    operator.run("backup", "postgres", "--kind", "base")
    copied = _rows(stack)
    _lose(stack, "postgres")
    stack.compose("up", "--detach", "--wait")  # a fresh cluster, made by the image
    refused = operator.run("restore", "latest", "--service", "postgres", "--yes", expect=5)
    assert "which is not what this copy was taken of" in refused
    assert "--force" in refused
    assert stack.answers(), "nothing was stopped"
    operator.run("restore", "latest", "--service", "postgres", "--force")
    assert _rows(stack) == copied
    # the cluster of the copies is back, so the next backup is one of the same cluster
    operator.run("backup", "postgres", "--kind", "base")


def test_a_dump_goes_into_the_container_through_a_fresh_database_and_a_rename(operator: Operator) -> None:
    stack = operator.stack
    operator.run("backup", "postgres", "--kind", "dump", "--format", "plain", "--compression", "gzip")
    copied = _rows(stack)
    stack.sql("update orders set price = 0 where id % 2 = 0")
    refused = operator.run("restore", "latest", "--service", "postgres", "--kind", "dump", expect=5)
    assert "--force" in refused
    operator.run("restore", "latest", "--service", "postgres", "--kind", "dump", "--force")
    assert _rows(stack) == copied
    assert "market_replaced_" in stack.sql("select string_agg(datname, ' ') from pg_database")


def test_everything_comes_back_from_the_bucket_alone(operator: Operator, tmp_path: Path) -> None:
    stack = operator.stack
    stack.sql(_MORE_ROWS)
    _redis(stack, "set", "session:1", "anna")
    operator.run("backup")
    before = _rows(stack)
    _lose(stack, "postgres", "redis")
    (tmp_path / "backups").rename(tmp_path / "backups-are-gone")
    operator.run("restore", "latest", "--service", "postgres", "--kind", "base", "--from", "offsite")
    operator.run("restore", "latest", "--service", "redis", "--from", "offsite", "--yes")
    assert _rows(stack) == before
    assert _redis(stack, "get", "session:1").strip() == "anna"
    assert stack.answers()


def test_the_recovery_kit_brings_the_stack_up_on_a_second_machine(
    operator: Operator, second_host: Machine, tmp_path: Path
) -> None:
    stack = operator.stack
    stack.sql(_MORE_ROWS)
    _redis(stack, "set", "session:1", "anna")
    operator.run("backup")
    before = _rows(stack)
    bucket = next(line for line in (stack.folder / "recoup.yaml").read_text().splitlines() if "s3://" in line)
    address = bucket.partition('"')[2].partition('"')[0]
    (tmp_path / "backups").rename(tmp_path / "backups-are-gone")

    # On the other machine there is the key, the address of the bucket, and nothing else.
    blank = tmp_path / "blank"
    blank.mkdir()
    (blank / "recoup.key").write_bytes((stack.folder / "recoup.key").read_bytes())
    environment = {**operator.environment, **second_host.docker_environment, "RECOUP_STATE": str(blank / "state")}
    there = Operator(stack=replace(stack, machine=second_host, folder=blank), environment=environment)
    there.run(
        *("restore", "latest", "--service", "configuration", "--from", address),
        *("--key-file", "recoup.key", "--destination", "restored"),
    )
    restored = blank / "restored"
    (restored / "recoup.key").write_bytes((blank / "recoup.key").read_bytes())
    new_stack = replace(
        stack,
        machine=second_host,
        folder=restored,
        file=restored / "docker-compose.prod.yml",
        env_file=restored / ".env.production",
    )
    there = Operator(stack=new_stack, environment=environment)
    try:
        there.run("restore", "latest", "--service", "postgres", "--kind", "base")
        there.run("restore", "latest", "--service", "redis")
        assert _rows(new_stack) == before
        assert _redis(new_stack, "get", "session:1").strip() == "anna"
        assert new_stack.answers()
    finally:
        new_stack.compose("down", "--volumes", "--timeout", "2")
