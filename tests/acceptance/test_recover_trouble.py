"""What can be wrong at that moment: each ends in words that say what to do, and the same command then goes on."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.demo.servers import PostgresServer, S3Server
from tests.acceptance.recover_place import AGREED, lose_redis, recover_place
from tests.acceptance.workplace import Workplace, kill
from tests.cable import Cable
from tests.testhost.fixtures import Stack

#: Makes every process that has it on its path believe in another time.
_OTHER_TIME = """
import os
from datetime import timedelta
from recoup.kernel import clock
_right = clock.now
clock.now = lambda: _right() + timedelta(seconds=float(os.environ["OTHER_TIME"]))
"""


def _shop(work: Workplace, server: PostgresServer) -> None:
    database = server.new_database()
    server.execute("create table orders as select generate_series(1, 5) id", database)
    work.add_postgres(server, database)
    work.write_plan()


@pytest.mark.s3
def test_a_repository_that_does_not_answer_at_first_is_waited_for(
    work: Workplace, postgres17: PostgresServer, s3: S3Server
) -> None:
    work.repositories.clear()
    with Cable(s3.port) as cable:
        work.add_bucket(s3, endpoint=f"http://127.0.0.1:{cable.port}")
        _shop(work, postgres17)
        work.backup("postgres", "--kind", "base")
        cable.cut()
        process = work.start("recover", "database-corruption", "--yes", "--pause-before", "confirm")
        try:
            _read_until(process, "trying again for up to")
            cable.mend()
            ended = work.finish(process, expect=4)
        finally:
            kill(process)
    assert "paused" in ended.said


def _read_until(process: subprocess.Popen[str], words: str) -> None:
    lines: list[str] = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}:\n" + "".join(lines))


@pytest.mark.s3
def test_a_wrong_clock_is_said_before_anything_is_done_by_it(
    work: Workplace, postgres17: PostgresServer, s3: S3Server
) -> None:
    work.repositories.clear()
    work.add_bucket(s3)
    _shop(work, postgres17)
    work.backup("postgres", "--kind", "base")
    (work.folder / "sitecustomize.py").write_text(_OTHER_TIME)
    wrong = {"PYTHONPATH": str(work.folder), "OTHER_TIME": "-630"}  # half a minute for how long the call takes
    asked = ("recover", "database-corruption", "--yes", "--pause-before", "confirm")
    stopped = work.recoup(*asked, environment=wrong, expect=1)
    assert re.search(r"the clock is 10 min \d+ s behind the repository's", stopped.said), stopped.said
    assert "timedatectl set-ntp true" in stopped.said
    gone_on = work.recoup(*asked, expect=4)
    assert "paused" in gone_on.said


def test_a_repository_whose_disk_is_not_mounted_is_named_and_the_other_one_does(
    work: Workplace, postgres17: PostgresServer
) -> None:
    work.repositories["offsite"] = "{path: offsite}"
    _shop(work, postgres17)
    work.backup("postgres", "--kind", "base")
    work.local.rename(work.folder / "not-mounted")
    ended = work.recoup("recover", "database-corruption", "--yes", "--pause-before", "confirm", expect=4)
    assert f"there is no repository at {work.local}" in ended.said
    assert "When it answers again: recoup hold" in ended.said


#: A user who looks at the orders, and one who orders; in production only the first one does.
_FLOWS = """
drill:
  flows:
    - name: a client sees the orders
      within: 2m
      steps: [{get: "http://api:3000/api/health", expect: {json: {status: ok}, value: orders, at_least: 1}}]
"""
_WELL = """test: ["CMD", "wget", "-q", "-O", "-", "http://127.0.0.1:3000/api/health"]"""
_NEVER_WELL = """test: ["CMD-SHELL", "false"]"""


@pytest.mark.testhost
@pytest.mark.xdist_group("testhost")
def test_a_service_that_never_gets_healthy_is_named_and_the_run_goes_on_when_it_is_mended(
    stack: Stack, tmp_path: Path
) -> None:
    with recover_place(stack, tmp_path, edit=lambda text: text + _FLOWS) as place:
        place.redis("set", "basket", "apples")
        place.recoup("backup", "redis")
        whole = stack.file.read_text()
        assert whole.count(_WELL) == 1
        stack.file.write_text(
            re.sub(re.escape(_WELL) + r"(.*?)retries: 60", _NEVER_WELL + r"\1retries: 2", whole, flags=re.DOTALL)
        )
        stack.compose("up", "--detach", "--no-deps", "api")
        lose_redis(stack)

        stopped = place.recover("redis-loss", *AGREED, expect=1)
        assert stopped.get("stopped_at") == "application-api", stopped
        assert "api" in stopped["detail"]
        assert "logs api" in str(stopped["hint"]), stopped
        stack.file.write_text(whole)
        stack.compose("up", "--detach", "--no-deps", "api")
        paused = place.recover("--resume", *AGREED, "--pause-before", "checklist", expect=4)
        assert paused["stopped_at"] == "checklist"
        assert place.redis("get", "basket") == "apples"

        stack.compose("stop", "api")
        wrong = place.recover("--resume", *AGREED, expect=1)
        assert "every service runs" in wrong["detail"], wrong
        assert "api: exited" in wrong["detail"]
        assert "docker compose up -d api" in str(wrong["hint"])
        stack.compose("start", "api")
        assert wait_until(stack.answers, limit_seconds=120)
        done = place.recover("--resume", *AGREED)
        assert done["finished"]
        last = next(one for one in place.journal() if one.event == "step-done" and one.data["step"] == "checklist")
        points = {one["id"]: one["finding"]["verdict"] for one in last.data["data"]["items"]}
        asked = {"outside", "cause", "access"}
        assert {name for name, verdict in points.items() if verdict != "ok"} == asked, last.data
        assert {"copy-redis", "stream-redis", "stream-postgres", "users"} <= set(points)

        refused = str(place.recover("--close", "--yes", expect=5))
        assert "3 points of the list are open" in refused
        assert "the cause is known" in refused
