"""Wrong keys, no repository, unknown formats, foreign data, busy services: each ends with its own exit code."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
from recoup.repository import layout
from recoup.repository.seal import Key, authenticate
from tests.acceptance.workplace import KEY, OTHER_KEY, Ended, Workplace, kill, s3_environment, wait_for
from tests.integration.logical import databases_of, small_database
from tests.real import require_found


@pytest.fixture
def filed(work: Workplace) -> tuple[Workplace, str]:
    """A plan with one file set, and a copy of it."""
    (work.folder / "data").mkdir()
    (work.folder / "data" / "one").write_text("one")
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    return work, work.backup()


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


#: How often it is tried to hit something in its middle: where we are slow, it may be over before we strike.
_AGAIN = 8

_COMMANDS = [
    ("backup",),
    ("list",),
    ("show", "latest"),
    ("verify",),
    ("verify", "--all", "--grade", "stored"),
    ("restore", "latest", "--destination", "out"),
]


def test_a_wrong_key_ends_every_command_with_12_before_anything_is_done(filed: tuple[Workplace, str]) -> None:
    work, _ = filed
    before = _snapshot(work.local)
    work.key_file.write_text(OTHER_KEY + "\n")
    for command in _COMMANDS:
        ended = work.recoup(*command, "--json", expect=12)
        assert "key" in ended.error["message"]
        assert ended.error["hint"], command
    assert work.recoup("check", expect=3).out.count("hint: ") >= 1
    assert _snapshot(work.local) == before
    assert not (work.folder / "out").exists()


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe\x00", b"key\r\n"])
def test_a_key_that_is_missing_empty_or_no_text_is_a_missing_key(
    filed: tuple[Workplace, str], content: bytes | None
) -> None:
    work, artefact = filed
    for file in (work.key_file, work.folder / "given"):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
    for arguments in (
        ("list",),
        ("list", "--key-file", "given"),
        ("list", "--from", "./backups", "--key-file", "given"),
    ):
        ended = work.recoup(*arguments, expect=12)
        assert "hint: " in ended.err, arguments
    # The right key, given by hand, still opens everything.
    (work.folder / "given").write_text(KEY)
    assert list(work.listed("--key-file", "given")) == [artefact]


def test_where_no_repository_is_every_reading_command_ends_with_10(work: Workplace, s3: S3Server) -> None:
    bucket = work.add_bucket(s3)
    (work.folder / "data").mkdir()
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    for command in _COMMANDS[1:]:
        assert work.recoup(*command, "--json", "--from", "local", expect=10).error["hint"]
    work.local.mkdir()
    work.recoup("list", expect=10)  # an empty folder, an empty bucket
    work.recoup("list", "--from", "offsite", expect=10)
    addresses = [str(work.local), "./nowhere", str(work.folder / "data")]
    for address in addresses:
        ended = work.recoup("list", "--from", address, "--key-file", "recoup.key", expect=10)
        assert "hint: " in ended.err
    work.environment |= s3_environment(s3)
    for address in (f"s3://{bucket}/production", f"s3://{bucket}-nowhere/production"):
        ended = work.recoup("list", "--from", address, "--key-file", "recoup.key", expect=10)
        assert "hint: " in ended.err


def test_a_folder_with_something_else_in_it_does_not_become_a_repository(work: Workplace) -> None:
    (work.folder / "data").mkdir()
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    work.local.mkdir()
    (work.local / "precious").write_text("precious")
    ended = work.recoup("backup", expect=5)
    assert "precious" in ended.err
    assert "hint: " in ended.err
    assert [path.name for path in work.local.iterdir() if path.name != ".incoming"] == ["precious"]


def test_a_format_from_the_future_is_refused_as_unknown_and_not_touched(filed: tuple[Workplace, str]) -> None:
    work, artefact = filed
    key = Key.from_text(KEY)
    manifest = work.local / layout.manifest_key(artefact)
    body = json.loads(manifest.read_text().rpartition('{"authentication"')[0])
    text = json.dumps({**body, "recoup_manifest": 7}, indent=1, sort_keys=True).encode() + b"\n"
    manifest.write_bytes(authenticate(key, "manifest", layout.manifest_key(artefact), text))
    for command in (("show", artefact), ("verify", artefact), ("restore", artefact, "--destination", "out")):
        ended = work.recoup(*command, "--json", expect=4)
        assert "version 7" in ended.error["message"]
        assert "Recoup" in ended.error["hint"]
    listed = work.recoup("list", "--json", expect=4)
    assert "version 7" in listed.json["problems"][0]["what"]
    assert "damaged" not in listed.said
    other = work.backup()  # one manifest that is not understood does not stop the protection
    work.recoup("verify", other)

    marker = work.local / layout.MARKER
    body = json.loads(marker.read_text().rpartition('{"authentication"')[0])
    text = json.dumps({**body, "recoup_repository": 7}, indent=1, sort_keys=True).encode() + b"\n"
    marker.write_bytes(authenticate(key, "repository", layout.MARKER, text))
    before = _snapshot(work.local)
    for command in _COMMANDS:
        ended = work.recoup(*command, expect=4)
        assert "format 7" in ended.err
    assert _snapshot(work.local) == before


def test_another_cluster_at_the_same_address_is_not_taken_for_the_protected_one(work: Workplace) -> None:
    programs = require_found(lambda: find_postgres(17))
    with PostgresServer(programs) as first, PostgresServer(programs) as second:
        work.add_postgres(first)
        work.write_plan()
        artefact = work.backup()
        work.add_postgres(second)
        work.write_plan()
        ended = work.recoup("backup", expect=5)
        assert "--other-cluster" in ended.err
        assert list(work.listed()) == [artefact]
        work.backup("--other-cluster")
        # A folder that holds a cluster, be it the right or a foreign one, is never restored over.
        second.stop()
        before = (second.data_folder / "global" / "pg_control").read_bytes()
        for force in ((), ("--force",)):
            ended = work.recoup("restore", artefact, "--destination", str(second.data_folder), *force, expect=5)
            assert str(second.data_folder) in ended.err
        assert (second.data_folder / "global" / "pg_control").read_bytes() == before


def test_data_of_another_origin_are_named_and_with_force_they_are_kept(
    work: Workplace, postgres17: PostgresServer, redis7: RedisServer
) -> None:
    database = small_database(postgres17)
    work.add_postgres(postgres17, database)
    work.add_redis(redis7)
    client = redis7.client()
    client.set("of", "the copy")
    work.write_plan()
    dump, rdb = work.backup("postgres", "--kind", "dump"), work.backup("redis")

    foreign = postgres17.new_database("foreign")
    postgres17.execute("CREATE TABLE precious AS SELECT 1 AS a", foreign)
    ended = work.recoup("restore", dump, "--into", foreign, expect=5)
    assert f"database '{foreign}' holds 1 tables" in ended.err
    assert "--force" in ended.err
    report = work.json("restore", dump, "--into", foreign, "--force")
    assert postgres17.execute("SELECT a FROM precious", report["kept"].removeprefix("database ")) == [(1,)]

    folder = work.folder / "redis-data"
    folder.mkdir()
    (folder / "dump.rdb").write_bytes(b"precious")
    ended = work.recoup("restore", rdb, "--destination", str(folder), expect=5)
    assert "dump.rdb" in ended.err
    assert (folder / "dump.rdb").read_bytes() == b"precious"
    report = work.json("restore", rdb, "--destination", str(folder), "--force")
    kept = [path for path in Path(report["kept"]).rglob("*") if path.name == "dump.rdb"]
    assert [path.read_bytes() for path in kept] == [b"precious"]
    client.close()


def test_files_that_differ_are_named_and_with_force_they_are_kept(filed: tuple[Workplace, str]) -> None:
    work, artefact = filed
    out = work.folder / "out"
    (out / "data").mkdir(parents=True)
    (out / "data" / "one").write_text("changed since")
    (out / "data" / "two").write_text("not in the copy")
    ended = work.recoup("restore", artefact, "--destination", "out", expect=5)
    assert "data/one" in ended.err
    assert "--force" in ended.err
    assert (out / "data" / "one").read_text() == "changed since"
    report = work.json("restore", artefact, "--destination", "out", "--force")
    assert (out / "data" / "one").read_text() == "one"
    assert (out / "data" / "two").read_text() == "not in the copy"
    kept = Path(report["kept"].rpartition(" (")[0])
    assert [path.read_text() for path in (work.folder / kept).rglob("one")] == ["changed since"]


def _stopped_backup(work: Workplace) -> subprocess.Popen[str]:
    """A base backup that has stopped in its middle: it holds the lease for as long as that takes."""
    for _ in range(_AGAIN):
        there = set(work.local.glob(".incoming/*"))
        first = work.start("backup", "postgres", "--kind", "base")
        # Not earlier: a connection that is being made would run into its time-out meanwhile.
        begun = lambda: set(work.local.glob(".incoming/*")) - there or first.poll() is not None  # noqa: B023, E731
        wait_for(begun, "bytes arrive")
        first.send_signal(signal.SIGSTOP)
        if first.poll() is None and work.unfinished():
            return first
        kill(first)  # it was over before it could be stopped
    raise AssertionError("no backup could be stopped")


def _copying(work: Workplace) -> bool:
    return any(work.local.glob(".incoming/*")) and any(work.state.glob("*/unfinished/*.json"))


def test_a_second_backup_and_a_restore_are_refused_while_a_backup_runs(
    work: Workplace, postgres18: PostgresServer
) -> None:
    database = postgres18.new_database("large")
    postgres18.execute(
        "CREATE TABLE t AS SELECT repeat(md5(g::text), 20) AS a FROM generate_series(1, 60000) g", database
    )
    work.add_postgres(postgres18, database)
    (work.folder / "data").mkdir()
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    dump = work.backup("postgres", "--kind", "dump")
    first = _stopped_backup(work)
    try:
        before = databases_of(postgres18)
        for command in (("backup", "postgres", "--kind", "dump"), ("restore", dump, "--force")):
            ended = work.recoup(*command, expect=6)
            assert f"backup of postgres (base), process {first.pid}" in ended.err
            assert "hint: " in ended.err
        assert databases_of(postgres18) == before
        work.recoup("backup", "files")  # another service is not concerned
        first.send_signal(signal.SIGCONT)
        assert work.finish(first).code == 0
    finally:
        kill(first)
    work.recoup("backup", "postgres", "--kind", "dump")


@pytest.mark.parametrize("kind", ["base", "dump"])
def test_a_postgres_that_goes_away_in_the_middle_fails_the_backup_and_leaves_nothing(
    work: Workplace, kind: str
) -> None:
    with PostgresServer(require_found(lambda: find_postgres(17))) as server:
        database = server.new_database("large")
        server.execute(
            "CREATE TABLE t AS SELECT repeat(md5(g::text), 20) AS a FROM generate_series(1, 99000) g", database
        )
        work.add_postgres(server, database)
        work.write_plan()
        busy = "SELECT count(pg_terminate_backend(pid)) FROM " + (
            "pg_stat_replication WHERE state = 'backup'"
            if kind == "base"
            else "pg_stat_activity WHERE query ~ '^COPY' AND state = 'active'"
        )
        ended = _fails(work, lambda: server.execute(busy) != [(0,)], "--kind", kind)
        assert "127.0.0.1" in ended.err or "pg_dump" in ended.err
        assert work.strays() == []

        def kill_server() -> bool:
            if _copying(work):
                server.kill()
                return True
            return False

        ended = _fails(work, kill_server, "--kind", kind, before=server.start)
        assert "hint: " in ended.err
        assert work.strays() == []
        there = set(work.listed())
        ended = work.recoup("backup", "--kind", kind, expect=1)  # it is still down
        assert "hint: " in ended.err
        server.start()
        artefact = work.backup("--kind", kind)
        assert set(work.listed()) == {artefact, *there}


def _fails(
    work: Workplace, strike: Callable[[], bool], *arguments: str, before: Callable[[], None] | None = None
) -> Ended:
    """A backup fails in whose middle we ``strike``, which says whether it has, and nothing is listed of it."""
    for _ in range(_AGAIN):
        if before is not None:
            before()
        there = set(work.listed()) if work.local.exists() else set()
        process = work.start("backup", *arguments)
        wait_until(lambda: strike() or process.poll() is not None, limit_seconds=120, every=0)  # noqa: B023
        ended = work.finish(process, expect=None)
        if ended.code != 0:
            break
    assert ended.code == 1, ended
    assert set(work.listed()) == there
    return ended


def test_a_redis_that_drops_the_transfer_fails_the_backup_and_leaves_nothing(
    work: Workplace, redis7: RedisServer
) -> None:
    client = redis7.client()
    client.execute_command("DEBUG", "POPULATE", 400_000, "key", 60)
    work.add_redis(redis7)
    work.write_plan()
    drop = ("CLIENT", "KILL", "TYPE", "replica")
    ended = _fails(work, lambda: _copying(work) and client.execute_command(*drop) > 0)
    assert "redis" in ended.err
    assert work.strays() == []
    client.flushall()
    client.close()

    work.backup()


def test_the_programs_that_a_dump_needs_are_named_when_they_are_missing(
    work: Workplace, postgres18: PostgresServer
) -> None:
    work.add_postgres(postgres18, small_database(postgres18))
    work.write_plan()
    ended = work.recoup("backup", "--kind", "dump", expect=1, environment={"PATH": "/usr/bin:/bin"})
    assert "postgresql-client-18" in ended.err
