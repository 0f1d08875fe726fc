"""The demo keeps what the README promises: it recovers, proves it, tells the truth when it did not, leaves nothing."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from recoup.demo import marketplace, proof
from recoup.demo.host import wait_until
from recoup.demo.production import DATABASE, open_production
from recoup.demo.programs import find_postgres, find_redis, find_weed
from recoup.demo.story import Before, protect_all, prove_all, recover_all
from recoup.kernel import clock
from recoup.kernel.errors import Exit
from recoup.kernel.finding import Verdict
from recoup.kernel.process import Child, Command, open_child, run
from tests.real import require_found

_RECOUP = str(Path(sys.executable).with_name("recoup"))


@pytest.fixture(scope="module", autouse=True)
def _servers() -> None:
    require_found(lambda: (find_postgres(17), find_redis(8), find_weed()))


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for everything temporary of a process, checked to be empty again: a place nobody else writes to."""
    folder = Path(tempfile.mkdtemp(prefix="demo-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
        assert wait_until(lambda: not _living_in(folder), limit_seconds=120), _living_in(folder)
        assert wait_until(lambda: not list(folder.iterdir()), limit_seconds=120), list(folder.iterdir())
    finally:
        with suppress(OSError):
            folder.rmdir()


def _living_in(folder: Path) -> list[str]:
    """The command lines of processes that name the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line:
                found.append(line)
    return found


def _demo(temporary: Path, *arguments: str) -> Command:
    environment = {"TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"}
    return Command(argv=[_RECOUP, "demo", *arguments], environment=environment, timeout_seconds=500)


def test_the_demo_recovers_everything_and_leaves_nothing_behind(temporary: Path) -> None:
    said = run(_demo(temporary)).stdout.decode()
    assert "RESULT: everything that was copied is back." in said
    assert "FAILED" not in said
    assert "MISSED" not in said
    assert "Traceback" not in said
    for table in ("clients", "orders", "payments", "conversations"):
        assert f"ok      {table}" in said
    assert "RTO: recovery took" in said
    assert "RPO: age of the data" in said


def _read_until(child: Child, text: str) -> str:
    said = ""
    while text not in said:
        line = child.stdout.readline().decode()
        assert line, f"ended before it said {text!r}: {said}"
        said += line
    return said


@pytest.mark.parametrize("moment", ["1. A production", "2. Protected", "4. Disaster"])
def test_an_interrupted_demo_leaves_nothing_behind(temporary: Path, moment: str) -> None:
    for _ in range(5):
        with open_child(_demo(temporary)) as child:
            _read_until(child, moment)
            os.kill(child.pid, signal.SIGINT)
            ended = child.wait(240).exit_status
        if ended != Exit.OK:  # it was over before the signal came: again
            break
    assert ended == Exit.INTERRUPTED


def test_a_kept_demo_takes_commands_until_it_is_interrupted(temporary: Path) -> None:
    with open_child(_demo(temporary, "--keep")) as child:
        said = _read_until(child, "psql")
        folder = next(line.split()[1] for line in said.splitlines() if line.strip().startswith("cd "))
        begin = "recoup backup --new-repository local --quiet >&2"
        script = f"cd {folder} && . ./environment && {begin} && recoup list --json"
        listed = json.loads(run(Command(argv=["sh", "-c", script], timeout_seconds=240)).stdout)
        assert {entry["service"] for entry in listed["artefacts"]} == {"postgres", "redis", "configuration"}
        os.kill(child.pid, signal.SIGINT)
        assert child.wait(240).exit_status == Exit.OK


def test_the_demo_says_so_when_what_came_back_is_not_what_was_copied() -> None:
    silent: list[str] = []
    with open_production() as production:
        url = production.postgres.url(DATABASE)
        small = marketplace.Size(clients=200, contractors=50, orders=300, messages=400, contracts=3)
        marketplace.load(url, production.redis.url(), size=small)
        copies = protect_all(production, silent.append)
        before = Before(
            tables=proof.count_tables(production.postgres, DATABASE),
            files=proof.read_files(production.configuration),
            written=marketplace.write_some_more(url, production.redis.url()),
            disaster=clock.now(),
        )
        production.lose()
        recover_all(production, silent.append)

        def prove() -> tuple[Exit, set[str]]:
            outcome = prove_all(production, copies, before, timedelta(seconds=1))
            bad = {finding.subject for finding in outcome.findings if finding.verdict is not Verdict.OK}
            return outcome.exit_code, bad

        assert prove() == (Exit.OK, set())
        # One digit in one row; the number of rows stays.
        production.postgres.execute("UPDATE clients SET balance = balance + 0.01 WHERE id = 7", DATABASE)
        assert prove() == (Exit.BAD, {'"public"."clients"'})
        production.postgres.execute("UPDATE clients SET balance = balance - 0.01 WHERE id = 7", DATABASE)
        assert prove() == (Exit.OK, set())
        client = production.redis.client(2)
        client.incr("orders:count")
        client.close()
        (production.configuration / ".env").unlink()
        assert prove() == (Exit.BAD, {"redis database 2", "configuration"})
