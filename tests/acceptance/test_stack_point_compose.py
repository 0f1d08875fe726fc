"""A Compose stack goes back to a stack point while its application counts, is killed on the way, and goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest

from recoup.demo.host import wait_until
from tests.acceptance.counting import counting
from tests.acceptance.test_compose_stack import Operator, _password, _redis, operator
from tests.testhost.fixtures import Stack

__all__ = ["operator"]

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost")]


@contextmanager
def _client(stack: Stack, *argv: str) -> Iterator[Callable[[str], str]]:
    """A program inside a container that answers each line with one line."""
    where = ("compose", "-f", str(stack.file), "--env-file", str(stack.env_file), "exec", "-T")
    child = subprocess.Popen(
        ["docker", *where, *argv],
        cwd=stack.folder,
        env={**os.environ, **stack.machine.docker_environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None

    def ask(line: str) -> str:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(line + "\n")
        child.stdin.flush()
        answer = child.stdout.readline()
        assert answer, f"no answer to {line}"
        return answer.strip()

    try:
        yield ask
    finally:
        child.stdin.close()
        child.wait(20)
        child.stdout.close()


def _ticks(stack: Stack) -> tuple[int, int]:
    """The newest number in the database and in Redis."""
    return int(stack.sql("select max(n) from ticks")), int(_redis(stack, "get", "ticks"))


def _kill_at(operator: Operator, step: str, *arguments: str) -> None:
    """Run ``recoup`` and end it with SIGKILL when it says that it begins a step."""
    process = subprocess.Popen(
        [sys.executable, "-m", "recoup.cli", *arguments],
        cwd=operator.stack.folder,
        env={**os.environ, **operator.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if step in line:
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    process.stderr.close()
    assert any(step in line for line in said), "".join(said)


def test_databases_and_files_go_back_to_one_label_also_after_kills(operator: Operator) -> None:
    stack = operator.stack
    stack.sql("create table ticks (n int primary key)")
    password = _password(stack, "REDIS_PASSWORD")
    psql = ("postgres", "psql", "-XAtq", "-U", "market", "-d", "market")
    cli = ("-e", f"REDISCLI_AUTH={password}", "redis", "redis-cli", "--no-auth-warning")
    with (
        _client(stack, *psql) as database,
        _client(stack, *cli) as cache,
        counting(
            lambda n: database(f"insert into ticks values ({n}) returning n;"), lambda n: cache(f"set ticks {n}")
        ) as written,
    ):
        point = json.loads(operator.run("backup", "--stack", "--name", "before", "--json", "--quiet"))["point"]
        there = len(written.redis)
        assert wait_until(lambda: len(written.redis) > there + 20, limit_seconds=60)
    assert {one["service"] for one in point["members"]} >= {"postgres", "redis", "configuration"}
    assert point["apart_ms"] is not None
    changed = stack.file
    original = changed.read_text()
    changed.write_text(original + "# changed after the point\n")

    shown = operator.run("restore", "--stack", "latest", "--plan")
    order = [
        shown.index(text) for text in ("stop api, ", "unpack postgres", "put redis", "aside and the new", "start api")
    ]
    assert order == sorted(order)
    assert shown.count("start api") == 1
    assert "nobody agreed" in operator.run("restore", "--stack", "before", expect=5)
    assert stack.answers(), "nothing was stopped"

    command = ("restore", "--stack", "before", "--yes")
    _kill_at(operator, "set the old data of postgres aside", *command)
    _kill_at(operator, "start postgres and look", *command)
    said = operator.run(*command, expect=4)  # the fingerprint of a database in use is not exact: unknown is not ok
    assert "restored the stack point before" in said
    assert "FAILED" not in said
    in_database, in_redis = _ticks(stack)
    assert in_database < len(written.database) - 20
    assert written.apart(in_database, in_redis) <= timedelta(milliseconds=point["apart_ms"])
    assert changed.read_text() == original
    assert stack.answers()
