"""Nonsense on the command line, in the plan and behind the addresses: a clear refusal, no traceback, no secret."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.programs import find_postgres, find_redis
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
from recoup.kernel import clock
from tests.acceptance.workplace import KEY, RECOUP, Workplace, new_workplace
from tests.integration.logical import small_database
from tests.real import require_found

_BASE = ["restore", "latest", "--service", "postgres", "--kind", "base"]
_DUMP = ["restore", "latest", "--service", "postgres", "--kind", "dump"]
_ODD_PASSWORD = "p@ss:w/ord %41 'quoted' $HOME"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[PostgresServer, RedisServer]]:
    """A PostgreSQL and a Redis that want passwords."""
    postgres, redis = require_found(lambda: find_postgres(17)), require_found(lambda: find_redis(8))
    with (
        PostgresServer(postgres, auth="scram-sha-256", password=_ODD_PASSWORD) as first,
        RedisServer(redis, password="r3dis-s3cret-word") as second,
    ):
        yield first, second


@pytest.fixture(scope="module")
def ready(servers: tuple[PostgresServer, RedisServer]) -> Iterator[Workplace]:
    """A plan with one service of each kind, and a copy of each."""
    postgres, redis = servers
    with new_workplace() as work:
        # The password is given plain in the environment; the plan encodes it where it stands in an address.
        work.environment["POSTGRES_PASSWORD"] = _ODD_PASSWORD
        work.secrets |= {_ODD_PASSWORD, "p%40ss"}
        database = small_database(postgres)
        work.services["postgres"] = (
            "{engine: postgres, url: 'postgresql://postgres:${POSTGRES_PASSWORD}@127.0.0.1:"
            f"{postgres.port}/{database}', databases: [{database}]}}"
        )
        work.environment["PATH"] = f"{postgres.bin}{os.pathsep}{os.environ['PATH']}"
        work.add_redis(redis)
        client = redis.client()
        client.set("one", "1")
        client.close()
        (work.folder / "data").mkdir()
        (work.folder / "data" / "file").write_text("content")
        work.services["files"] = "{engine: files, paths: [data]}"
        work.services["api"] = "{engine: compose}"
        work.extra = "compose: {file: compose.yml}\n"
        work.write_plan()
        work.recoup("backup", "postgres", "redis", "files")
        work.recoup("backup", "postgres", "--kind", "dump")
        yield work


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["frobnicate"], 2, "no such command"),
        (["backup", "nobody"], 2, "no service 'nobody'"),
        (["backup", "api"], 2, "holds no data"),
        (["backup", "redis", "--kind", "base"], 2, "no copies of kind 'base'"),
        (["backup", "--kind", "nonsense"], 2, "nonsense"),
        (["backup", "--format", "tar"], 2, "tar"),
        (["backup", "--label", "../../etc"], 2, "cannot be a label"),
        (["backup", "--label", "replaced"], 2, "replaced"),
        (["backup", "--label", ""], 2, "cannot be a label"),
        (["backup", "--nonsense"], 2, "--nonsense"),
        (["list", "--limit", "-1"], 2, "--limit"),
        (["list", "--limit", "many"], 2, "--limit"),
        (["list", "--from", "nobody"], 2, "no repository 'nobody'"),
        (["list", "--from", "ftp://host/folder", "--key-file", "recoup.key"], 2, "ftp"),
        (["list", "--from", "s3://", "--key-file", "recoup.key"], 2, "bucket"),
        (["list", "--from", "/nowhere/at/all", "--key-file", "recoup.key"], 10, "/nowhere/at/all"),
        (["list", "--key-file", "data"], 12, "data"),
        (["list", "-f", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["list", "-f", "data"], 2, "data"),
        (["show"], 2, "missing"),
        (["show", ""], 2, "ambiguous"),
        (["show", "latest"], 2, "'latest' of which service"),
        (["show", "2026"], 2, "ambiguous"),
        (["show", "../../etc/passwd"], 2, "no artefact"),
        (["show", "x" * 5000], 2, "no artefact"),
        (["show", "\x1b[31mred\x07"], 2, "no artefact"),
        (["verify", "nothing"], 2, "no artefact"),
        (["verify", "--grade", "boot"], 2, "boot"),
        (["verify", "--sample", "120%"], 2, "no part of a whole"),
        (["verify", "--sample", "a little"], 2, "not a size"),
        (["verify", "--sample", "5%", "--grade", "same"], 2, "proves no grade"),
        (["verify", "--time", "soon"], 2, "not a duration"),
        (["verify", "--rhythm", "daily"], 2, "nothing proven daily"),
        (["verify", "--rhythm", "slice"], 2, "how often every byte"),
        (["verify", "--rhythm", "daily", "--all"], 2, "does not go with --all"),
        (["verify", "latest", "--service", "nobody"], 2, "no artefact"),
        (["restore"], 2, "restore what?"),
        (["restore", "nothing"], 2, "no artefact"),
        (["restore", "latest", "--service", "nobody"], 2, "no artefact"),
        (["restore", "latest", "--service", "postgres", "--kind", "rdb"], 2, "no artefact"),
        (["restore", "latest", "--service", "files"], 2, "--destination"),
        ([*_BASE], 2, "--destination"),
        ([*_BASE, "--destination", "redis://h"], 2, "cannot go"),
        ([*_BASE, "--destination", "data/file"], 2, "not a folder"),
        ([*_DUMP, "--destination", "redis://h/0"], 2, "cannot go"),
        ([*_DUMP, "--database", "nope"], 2, "no database"),
        ([*_DUMP, "--destination", "data/file/x"], 1, "file"),
        ([*_DUMP, "--into", "a" * 70], 2, "cannot be the name"),
        (["restore", "latest", "--service", "redis", "--destination", "postgresql://h/d"], 2, "redis"),
        (["restore", "latest", "--service", "redis", "--destination", "data/file"], 2, "not a folder"),
        (["restore", "latest", "--service", "files", "--destination", "data/file"], 2, "not a folder"),
        (["restore", "nowhere.sql.gz.enc", "--service", "postgres"], 1, "nowhere.sql.gz.enc"),
        (["check", "-f", "/dev/null"], 2, "/dev/null"),
        (["plan", "check", "-f", "recoup.key"], 2, "recoup.key"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else "",
)
def test_a_wrong_call_is_answered_with_what_is_wrong(
    ready: Workplace, arguments: list[str], code: int | tuple[int, ...], said: str
) -> None:
    ended = ready.recoup(*arguments, expect=None)
    assert ended.code in (code if isinstance(code, tuple) else (code,)), ended
    assert said.lower() in ended.err.lower(), ended
    assert ended.out == ""
    assert "hint: " in ended.err or "recoup.key:1" in ended.err or "/dev/null:" in ended.err, ended
    assert "\x1b" not in ended.said
    assert "\x07" not in ended.said
    assert len(ended.err) < 12_000


def test_bytes_that_are_no_text_are_no_trouble(ready: Workplace) -> None:
    for arguments in ([b"show", b"\xff\xfe"], [b"list", b"\xf0"], [b"restore", b"\xff.sql", b"--service", b"postgres"]):
        done = subprocess.run(
            [os.fsencode(RECOUP), *arguments],
            cwd=ready.folder,
            env={**os.environ, "RECOUP_STATE": str(ready.state), **ready.environment},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode in (0, 1, 2), done
        assert b"Traceback" not in done.stderr
        assert b"bug in Recoup" not in done.stderr


@pytest.mark.parametrize(
    ("plan", "place"),
    [
        ("recoup: 1\nsystem: [\n", "recoup.yaml:"),
        ("\x00\x01", "recoup.yaml"),
        ("recoup: 99\n", "recoup.yaml:1:"),
        (
            "recoup: 1\nsystem: x\nservices: {a: {engine: no}}\nrepositories: {l: {path: x}}\nkey: {file: k}\n",
            ":3:",
        ),
        ("recoup: 1\nsystem: x\nservices: {a: {engine: redis}}\nrepositories: {}\nkey: {}\n", "recoup.yaml:"),
    ],
)
def test_a_wrong_plan_is_refused_with_its_place(work: Workplace, plan: str, place: str) -> None:
    (work.folder / "recoup.yaml").write_text(plan)
    for command in (["backup"], ["restore", "latest"]):
        ended = work.recoup(*command, expect=2)
        assert place in ended.err


def test_a_server_that_is_not_there_or_does_not_let_us_in_is_named_with_a_hint(
    ready: Workplace, servers: tuple[PostgresServer, RedisServer], s3: S3Server
) -> None:
    postgres, redis = servers
    wrong = "wr0ng-passw0rd"
    with new_workplace() as work:
        work.secrets |= {wrong, _ODD_PASSWORD}
        work.environment |= {"WRONG": wrong, "PATH": ready.environment["PATH"]}
        address = f"127.0.0.1:{postgres.port}"
        plans = {
            "refused password": f"{{engine: postgres, url: 'postgresql://postgres:${{WRONG}}@{address}/postgres'}}",
            "unknown role": f"{{engine: postgres, url: 'postgresql://nobody:${{WRONG}}@{address}/postgres'}}",
            "closed port": "{engine: postgres, url: 'postgresql://postgres:${WRONG}@127.0.0.1:9/postgres'}",
            "not a PostgreSQL": f"{{engine: postgres, url: 'postgresql://x:${{WRONG}}@127.0.0.1:{redis.port}/x'}}",
            "redis password": f"{{engine: redis, url: 'redis://:${{WRONG}}@127.0.0.1:{redis.port}/0'}}",
            "redis closed": "{engine: redis, url: 'redis://:${WRONG}@127.0.0.1:9/0'}",
            "not a Redis": f"{{engine: redis, url: 'redis://:${{WRONG}}@{address}/0'}}",
            "no files": "{engine: files, paths: [nowhere]}",
        }
        work.services = {f"service{number}": text for number, text in enumerate(plans.values())}
        work.write_plan()
        document = work.json("backup", expect=1)
        for (name, _), copy in zip(plans.items(), document["copies"], strict=True):
            assert copy["exit_code"] != 0, name
            assert copy["error"]["message"], name
            assert copy["error"]["hint"], (name, copy["error"])
        del work.services["service3"]  # to find that out takes a time-out, and once is enough
        work.write_plan()
        document = work.json("backup", "--kind", "dump", expect=1)
        assert all(copy["error"]["hint"] for copy in document["copies"]), document
        checked = work.json("check", expect=3)
        assert all(one["hint"] for one in checked["findings"] if one["verdict"] != "ok"), checked


class _Watch:
    """Collects the command lines of all processes while others work."""

    def __init__(self) -> None:
        self.lines: set[bytes] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(120)

    def saw(self, program: bytes) -> bool:
        """Whether something of that name has run."""
        return any(program in line for line in self.lines.copy())

    def _look(self) -> None:
        while not self._stop.is_set():
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.lines.add(entry.read_bytes())
                except OSError:
                    continue
            clock.pause(0.003)


def test_no_secret_is_seen_in_the_list_of_processes_or_left_anywhere(
    ready: Workplace, servers: tuple[PostgresServer, RedisServer]
) -> None:
    postgres, redis = servers
    database = ready.services["postgres"].partition("databases: [")[2].partition("]")[0]
    postgres.execute("CREATE TABLE large AS SELECT repeat('x', 900) FROM generate_series(1, 20000)", database)
    with _Watch() as watch:
        for _ in range(5):  # a watch that had no time while the children were there has to look again
            dump = ready.backup("postgres", "--kind", "dump")
            ready.recoup("restore", dump, "--force")
            if watch.saw(b"pg_dump") and watch.saw(b"pg_restore"):
                break
        ready.backup("postgres", "--kind", "base")
        rdb = ready.backup("redis")
        ready.recoup("restore", dump, "--into", "elsewhere", "--destination", postgres.url(), environment={"X": "y"})
        ready.recoup("restore", rdb, "--force")
        ready.recoup("check", expect=None)
    seen = b"\n".join(watch.lines)
    assert b"pg_dump" in seen, "the watch saw no children: it proves nothing"
    assert b"pg_restore" in seen
    own = os.fsencode(RECOUP)  # what a user types into an address is in that one command line, and nowhere else
    for secret in ready.secrets:
        bare = [line for line in watch.lines if secret.encode() in line and own not in line]
        assert bare == [], secret
    for log in (postgres.log_tail(1 << 20), redis.log_tail(1 << 20)):
        assert not any(secret in log for secret in ready.secrets)
    assert KEY in ready.secrets
    ready.assert_no_secret_on_disk()
