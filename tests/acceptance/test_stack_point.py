"""Stack recovery points without Compose: real servers, one label over all of them, and back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from recoup.demo.host import wait_until
from recoup.demo.programs import Programs, find_postgres, find_redis
from recoup.demo.servers import PostgresServer, RedisServer
from recoup.kernel import clock
from tests.acceptance.counting import counting, state
from tests.acceptance.daemon_place import daemon
from tests.acceptance.workplace import Workplace
from tests.cable import Cable
from tests.real import require_found

pytestmark = [pytest.mark.postgres, pytest.mark.redis]

#: A command of Redis has the time at which the daemon read it, which on a busy machine is late.
_SLACK = timedelta(milliseconds=1500)


def _git(folder: Path, *argv: str) -> str:
    done = subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *argv],
        cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.fixture
def shop(work: Workplace, postgres17: PostgresServer, redis7: RedisServer) -> tuple[Workplace, str]:
    """A plan over PostgreSQL, Redis, and a configuration under Git; and the database's name."""
    database = postgres17.new_database("shop")
    postgres17.execute("create table ticks (n int primary key)", database)
    configuration = work.folder / "configuration"
    configuration.mkdir()
    (configuration / "shop.conf").write_text("version = 1\n")
    _git(configuration, "init", "-q")
    _git(configuration, "add", ".")
    _git(configuration, "commit", "-qm", "first")
    work.add_postgres(postgres17, database)
    work.add_redis(redis7)
    work.services["configuration"] = "{engine: files, paths: [configuration/shop.conf], git: configuration}"
    work.write_plan()
    return work, database


def _restored_redis(server: RedisServer, folder: Path) -> dict[bytes, bytes | None]:
    """The strings of a restored data folder, as a Redis of its own that starts on it sees them."""
    with RedisServer(Programs(path=server.program)) as second:
        second.stop()
        shutil.copytree(folder, second.folder, dirs_exist_ok=True)
        for path in second.folder.rglob("*"):
            if second.owner is not None:
                os.chown(path, *second.owner)
        second.start()
        with second.client() as client:
            return {key: client.get(key) for key in client.scan_iter()}


def _came_back(work: Workplace, postgres: PostgresServer, redis: RedisServer, database: str) -> tuple[int, int]:
    """The newest number in what was restored into ``back``, in PostgreSQL (which has all before it) and in Redis."""
    back = work.folder / "back"
    back.chmod(0o755)
    with PostgresServer(Programs(path=postgres.bin), data_folder=back / "postgres") as copy:
        ((newest, count),) = copy.execute("select max(n), count(*) from ticks", database)
    assert count == newest + 1
    return newest, int(_restored_redis(redis, back / "redis")[b"ticks"] or b"")


def _point(said: dict[str, Any]) -> dict[str, Any]:
    point = said["point"]
    assert isinstance(point, dict)
    return point


def test_one_label_brings_back_what_belongs_together(
    shop: tuple[Workplace, str], postgres17: PostgresServer, redis7: RedisServer
) -> None:
    work, database = shop
    with (
        psycopg.connect(postgres17.url(database), autocommit=True) as session,
        redis7.client() as cache,
        counting(
            lambda n: session.execute("insert into ticks values (%s)", [n]), lambda n: cache.set("ticks", n)
        ) as written,
    ):
        before = len(written.redis)
        point = _point(work.json("backup", "--stack", "--name", "before-2.4", "--quiet"))
        assert wait_until(lambda: len(written.redis) > before + 50, limit_seconds=30)
    commit = _git(work.folder / "configuration", "rev-parse", "HEAD")
    members = {one["service"]: one for one in point["members"]}
    assert members["configuration"]["position"]["commit"] == commit
    assert "lsn" in members["postgres"]["position"]
    assert "offset" in members["redis"]["position"]

    _git(work.folder / "configuration", "commit", "-q", "--allow-empty", "-m", "second")
    restored = work.json("restore", "--stack", "latest", "--destination", "back", "--quiet")
    assert _point(restored)["name"] == "before-2.4"
    assert _git(work.folder / "back" / "configuration" / "configuration", "rev-parse", "HEAD") == commit
    in_database, in_redis = _came_back(work, postgres17, redis7, database)
    assert before <= in_database < len(written.database) - 1
    assert written.apart(in_database, in_redis) <= timedelta(milliseconds=point["apart_ms"])


def test_redis_is_asked_before_the_wal_of_postgresqls_backup_has_come_and_the_distance_is_not_understated(
    shop: tuple[Workplace, str], postgres17: PostgresServer, redis7: RedisServer
) -> None:
    work, database = shop
    stopped, go = threading.Event(), threading.Event()
    tail_bytes = 0

    def hold_the_tail(data: bytes) -> None:
        nonlocal tail_bytes
        if tail_bytes or b"pg_wal/0000" in data:
            tail_bytes += len(data)
        if tail_bytes > 1 << 20:  # the first segment is on its way, and the file's header has come for certain
            stopped.set()
            go.wait(240)

    with (
        Cable(postgres17.port, on_answer=hold_the_tail) as cable,
        psycopg.connect(postgres17.url(database), autocommit=True) as session,
        redis7.client() as cache,
        counting(
            lambda n: session.execute("insert into ticks values (%s)", [n]), lambda n: cache.set("ticks", n)
        ) as written,
    ):
        work.services["postgres"] = work.services["postgres"].replace(f":{postgres17.port}/", f":{cable.port}/")
        work.write_plan()
        asked = cache.info("stats")["sync_full"]
        process = work.start("backup", "--stack", "--name", "one", "--json", "--quiet")
        try:
            assert stopped.wait(120)
            there = len(written.database)
            assert wait_until(lambda: cache.info("stats")["sync_full"] > asked, limit_seconds=60), "Redis is not asked"
            assert wait_until(lambda: len(written.redis) > there + 50, limit_seconds=120)
            held_until = clock.now()
        finally:
            go.set()
            point = _point(work.finish(process).json)
        there_at_end = len(written.redis)
        assert wait_until(lambda: len(written.redis) > there_at_end + 2, limit_seconds=60)
    moments = {one["service"]: clock.from_text(one["moment"]) for one in point["members"]}
    assert moments["postgres"] < held_until
    work.json("restore", "--stack", "one", "--destination", "back", "--quiet")
    in_database, in_redis = _came_back(work, postgres17, redis7, database)
    assert in_database <= there, "what is written while the tail comes is not in the copy"
    assert written.apart(in_database, in_redis) <= timedelta(milliseconds=point["apart_ms"])


def test_a_service_that_fails_means_no_point_and_says_which(shop: tuple[Workplace, str], redis7: RedisServer) -> None:
    work, _ = shop
    (work.folder / "configuration" / "shop.conf").unlink()
    failed = work.recoup("backup", "--stack", "--name", "half", expect=1)
    assert "no stack point half: configuration files failed: no such file or folder" in failed.err
    assert not work.listed("stack")
    assert len(work.listed()) == 2, "what was copied by then is an ordinary copy"
    redis7.stop()
    try:
        failed = work.recoup("backup", "--stack", "--name", "half", expect=None)
        assert failed.code != 0
        assert "no stack point half: redis rdb failed" in failed.err
        assert "not copied any more: configuration" in failed.err
    finally:
        redis7.start()
    assert "no artefact is called 'half'" in work.recoup("restore", "--stack", "half", expect=2).err


def test_a_name_is_given_once_and_nothing_is_copied_for_one_that_cannot_be(shop: tuple[Workplace, str]) -> None:
    work, _ = shop
    for arguments in (
        ("--stack", "--name=../../etc"), ("--stack", "--name="), ("--name", "x"), ("redis", "--stack"),
    ):  # fmt: skip
        work.recoup("backup", *arguments, expect=2)
    assert not work.local.exists()
    work.recoup("backup", "--stack", "--name", "one")
    held = work.listed()
    again = work.recoup("backup", "--stack", "--name", "one", expect=5)
    assert "there is a stack point 'one' already" in again.err
    plan = work.recoup("backup", "--stack", "--plan").out
    assert [line.split()[0] for line in plan.splitlines()[1:]] == ["postgres", "redis", "configuration"]
    assert work.listed() == held, "nothing was copied"
    assert {one["label"] for one in work.json("list", "stack")["artefacts"]} == {"one"}


def test_a_restore_that_is_killed_goes_on_with_the_rest(shop: tuple[Workplace, str]) -> None:
    work, _ = shop
    work.recoup("backup", "--stack", "--name", "one")
    command = ("restore", "--stack", "one", "--destination", "back")
    steps = work.json(*command, "--plan")["steps"]
    assert [step.split()[1] for step in steps] == ["postgres", "redis", "configuration"]
    for wanted in ("1/3", "2/3"):
        process = work.start(*command)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(wanted) or "1/1" in line:
                break
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    done = work.recoup(*command)
    assert "restored the stack point one" in done.out
    assert (work.folder / "back" / "postgres" / "PG_VERSION").is_file()
    assert (work.folder / "back" / "configuration" / "configuration" / "shop.conf").is_file()
    assert not work.unfinished()
    refused = work.recoup(*command, expect=5)
    assert "back/postgres" in refused.err


def test_in_place_the_order_is_shown_and_what_differs_is_kept_aside(
    shop: tuple[Workplace, str], redis7: RedisServer
) -> None:
    work, _ = shop
    with redis7.client() as cache:
        cache.set("basket", "apples")
    work.recoup("backup", "--stack", "--name", "one")
    refused = work.recoup("restore", "--stack", "one", expect=2)
    assert "--without postgres" in refused.err
    conf = work.folder / "configuration" / "shop.conf"
    conf.write_text("version = 2\n")
    rest = ("restore", "--stack", "one", "--without", "postgres")
    assert "holds 1 keys" in work.recoup(*rest, expect=5).err
    with redis7.client() as cache:
        cache.flushall()
    assert "configuration/shop.conf, which differ" in work.recoup(*rest, expect=5).err
    done = work.json(*rest, "--yes")
    assert conf.read_text() == "version = 1\n"
    kept = work.folder / done["kept"]["configuration"]
    assert (kept / "configuration" / "shop.conf").read_text() == "version = 2\n"
    with redis7.client() as cache:
        assert cache.get("basket") == b"apples"
    assert {one["verdict"] for one in done["findings"]} == {"ok"}


def test_a_point_with_a_lost_member_is_found_bad_and_not_restored(shop: tuple[Workplace, str]) -> None:
    work, _ = shop
    point = _point(work.json("backup", "--stack", "--name", "one", "--quiet"))
    work.recoup("verify", "--all")
    lost = next(one["artefact"] for one in point["members"] if one["service"] == "redis")
    (work.local / "manifests" / f"{lost}.json").unlink()
    for reference in (("one", "--service", "stack"), ("latest", "--service", "stack"), (point["id"],)):
        assert lost in work.recoup("verify", *reference, expect=3).out
    failed = work.recoup("restore", "--stack", "one", "--destination", "back", expect=None)
    assert failed.code != 0
    assert not (work.folder / "back").exists(), "nothing was begun"


def test_the_whole_stack_goes_back_to_an_instant(work: Workplace) -> None:
    with (
        PostgresServer(require_found(lambda: find_postgres(17))) as server,
        RedisServer(require_found(lambda: find_redis(7))) as store,
    ):
        server.execute("create table ticks (n int primary key)")
        work.add_postgres(server, "postgres", more=", base: daily 02:00, wal: continuous")
        work.add_redis(store)
        work.services["redis"] = work.services["redis"].removesuffix("}") + ", rdb: daily 02:15, stream: continuous}"
        (work.folder / "shop.conf").write_text("version = 1\n")
        work.services["configuration"] = "{engine: files, paths: [shop.conf]}"
        work.write_plan()
        with daemon(work, "--grace", "40s") as running:
            _wait_for_stream(work)
            point = _point(work.json("backup", "--stack", "--name", "start", "--quiet"))
            (work.folder / "shop.conf").write_text("version = 2\n")
            with (
                psycopg.connect(server.url(), autocommit=True) as session,
                store.client() as cache,
                counting(
                    lambda n: session.execute("insert into ticks values (%s)", [n]), lambda n: cache.set("ticks", n)
                ) as written,
            ):
                assert wait_until(lambda: len(written.redis) > 100, limit_seconds=30)
                instant = clock.now()
                there = len(written.redis)
                assert wait_until(lambda: len(written.redis) > there + 100, limit_seconds=30)
            to_time = ("restore", "--stack", "latest", "--to-time", instant.isoformat(), "--destination", "back")
            assert wait_until(
                lambda: work.recoup(*to_time, "--plan", expect=None).code == 0, limit_seconds=40, every=0.5
            )
            running.signal(signal.SIGTERM)
            running.ends(0)
        unreachable = ("restore", "--stack", "latest", "--to-time", "2020-01-01T00:00:00Z")
        assert "postgres cannot be brought there" in work.recoup(*unreachable, expect=5).err
        members = {one["service"]: one for one in point["members"]}
        assert "restore_point_lsn" in members["postgres"]["position"]
        named = ("restore", "--to-name", "start", "--service", "postgres", "--destination", "named")
        assert "the restore point 'start'" in work.recoup(*named, "--plan").out
        done = work.json(*to_time, "--quiet")
        assert all(one["verdict"] == "ok" for one in done["findings"]), done["findings"]
        back = work.folder / "back"
        back.chmod(0o755)
        with PostgresServer(Programs(path=server.bin), data_folder=back / "postgres") as copy:
            ((in_database,),) = copy.execute("select max(n) from ticks")
        in_redis = int(_restored_redis(store, back / "redis")[b"ticks"] or b"")
        then = state(written.database, in_database)
        assert then.sent <= instant <= then.answered
        then = state(written.redis, in_redis)
        assert then.sent - _SLACK <= instant <= then.answered + _SLACK
        assert (back / "configuration" / "shop.conf").read_text() == "version = 1\n"


def _wait_for_stream(work: Workplace) -> None:
    """Until both logs have a window, which is when the daemon has taken their first copies."""

    def there() -> bool:
        said = work.recoup("windows", "--json", expect=None)
        known = {one["service"]: one["windows"] for one in said.json.get("services", ())}
        return bool(known.get("postgres")) and bool(known.get("redis"))

    assert wait_until(there, limit_seconds=60, every=0.5)
