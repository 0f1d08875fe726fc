"""Incremental backups on the command line: taken, listed, proven, restored, and refused where they cannot be."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.host import temporary_folder, wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer, S3Server
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.kernel.finding import Verdict, overall
from tests.acceptance.workplace import Workplace, kill, new_workplace
from tests.integration.incrementals import summarizing
from tests.integration.logical import direct
from tests.real import require_found


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with summarizing(18) as found:
        yield found


@pytest.fixture
def chain(server: PostgresServer, s3: S3Server) -> Iterator[tuple[Workplace, str, list[str]]]:
    """A base backup and two incremental ones, in a folder and a bucket: their ids."""
    database = server.new_database("shop")
    server.execute(
        "CREATE TABLE orders AS SELECT i, repeat(md5(i::text), 5) AS t FROM generate_series(1, 20000) i", database
    )
    with new_workplace() as work:
        work.add_postgres(server, database, more=", base: daily 02:00, incremental: every 6h")
        work.add_bucket(s3)
        work.write_plan()
        found = [work.backup("postgres", "--kind", "base")]
        for number in (1, 2):
            server.execute(f"UPDATE orders SET t = 'changed {number}' WHERE i % 500 = {number}", database)
            server.execute(f"CREATE TABLE new{number} AS SELECT generate_series(1, 1000) AS i", database)
            found.append(work.backup("postgres", "--kind", "incremental"))
        yield work, database, found


def boots_as_copied(work: Workplace, server: PostgresServer, artefact: str, folder: Path) -> None:
    fingerprint = work.json("show", artefact)["fingerprint"]
    spaces = Path(f"{folder}-tablespaces")
    for path in [spaces, *spaces.rglob("*")] if server.owner is not None and spaces.exists() else []:
        os.chown(path, *server.owner)
    with PostgresServer(require_found(lambda: find_postgres(server.major)), data_folder=folder) as restored:
        findings = compare_with_base(fingerprint, direct(restored))
    assert overall(findings) is Verdict.OK, findings


def test_a_chain_is_listed_shown_proven_and_comes_back_from_one_repository(
    server: PostgresServer, chain: tuple[Workplace, str, list[str]]
) -> None:
    work, _, ids = chain
    listed = {one["id"]: one for one in work.json("list")["artefacts"]}
    assert [listed[one]["kind"] for one in ids] == ["base", "incremental", "incremental"]
    assert [listed[one]["depends_on"] for one in ids] == [[], ids[:1], ids[:2]]
    assert listed[ids[2]]["stored_bytes"] < listed[ids[0]]["stored_bytes"] / 3
    assert ids[1] in work.recoup("list").out.splitlines()[1]
    assert f"builds on:     {ids[0]}, {ids[1]}" in work.recoup("show", ids[2]).out
    (proven,) = work.json("verify", ids[2])["artefacts"]
    assert (proven["verdict"], proven["reached"]) == ("ok", "intact")
    folder = work.folder.parent / "restored"
    report = work.json("restore", "latest", "--from", "offsite", "--destination", str(folder))
    assert ids[2] in report["what"]
    boots_as_copied(work, server, ids[2], folder)
    shutil.rmtree(folder)


def test_without_a_parent_it_is_not_proven_not_restored_and_not_built_on(
    server: PostgresServer, chain: tuple[Workplace, str, list[str]]
) -> None:
    work, _, ids = chain
    folder = work.folder.parent / "restored"
    work.objects(ids[1])[0].unlink()
    failed = work.json("verify", ids[2], expect=3)["artefacts"][0]
    assert any(one["check"] == "what it builds on is stored" and ids[1] in one["subject"] and one["verdict"] == "failed"
               for one in failed["findings"])  # fmt: skip
    # the other repository has it: a restore takes the missing object from there
    report = work.json("restore", ids[2], "--destination", str(folder))
    assert any("read from another repository" in note for note in report["notes"])
    shutil.rmtree(folder)
    said = work.recoup("restore", ids[2], "--from", "local", "--destination", str(folder), expect=None)
    assert said.code in (1, 3), said
    work.recoup("restore", ids[0], "--from", "local", "--destination", str(folder))
    shutil.rmtree(folder)
    # the base backup is still whole: the next one builds on that, and not on what is broken
    newest = work.backup("postgres", "--kind", "incremental")
    assert work.json("show", newest)["depends_on"] == ids[:1]
    (work.local / f"manifests/{ids[0]}.json").unlink()
    said = work.recoup("restore", newest, "--from", "local", "--destination", str(folder), expect=3)
    assert f"{ids[0]}, without which it cannot be restored" in said.err
    said = work.recoup("backup", "postgres", "--kind", "incremental", expect=5)
    assert "is not in local" in said.err
    assert "Take a base backup" in said.err


def test_a_restore_killed_while_it_combines_is_finished_by_the_same_command(
    server: PostgresServer, tablespaces: tuple[Workplace, str, Path]
) -> None:
    work, artefact, _ = tablespaces
    folder, slow = work.folder.parent / "restored", work.folder.parent / "slow"
    slow.mkdir()
    real = server.bin / "pg_combinebackup"
    (slow / "pg_combinebackup").write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {real} --version\n{real} "$@"\necho $$ > {slow}/pid\nexec sleep 600\n'
    )
    (slow / "pg_combinebackup").chmod(0o755)
    command = ["restore", artefact, "--destination", str(folder)]
    process = work.start(*command, environment={"PATH": f"{slow}{os.pathsep}{work.environment['PATH']}"})
    try:
        assert wait_until(
            lambda: (slow / "pid").exists() and bool((slow / "pid").read_text().strip()), limit_seconds=120
        )
        os.kill(process.pid, signal.SIGKILL)  # it alone: the program must notice by itself
        child = int((slow / "pid").read_text())
        assert wait_until(lambda: not running(child), limit_seconds=120)
    finally:
        kill(process)
    assert not (folder / "global" / "pg_control").exists()
    work.recoup(*command)
    assert not list(folder.rglob("recoup-*"))
    boots_as_copied(work, server, artefact, folder)
    shutil.rmtree(folder)


def running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    return False


def test_what_cannot_be_is_refused_and_checked(
    server: PostgresServer, postgres16: PostgresServer, work: Workplace
) -> None:
    work.add_postgres(server, more=", base: daily 02:00, incremental: every 6h")
    work.add_postgres(postgres16, name="old", more=", base: daily 02:00, incremental: every 6h")
    work.write_plan()
    said = work.recoup("backup", "postgres", "--kind", "incremental", expect=5)
    assert "there is no base backup of postgres" in said.err
    assert "Take a base backup" in said.err
    work.backup("postgres", "--kind", "base")
    work.backup("old", "--kind", "base")
    said = work.recoup("backup", "old", "--kind", "incremental", expect=5)
    assert "they came with PostgreSQL 17" in said.err
    server.execute("ALTER SYSTEM SET summarize_wal = off")  # the command line of the fixture wins over it
    findings = {one["subject"]: one for one in work.json("check", expect=None)["findings"]
                if one["check"] == "incremental backups are possible"}  # fmt: skip
    assert {one["verdict"] for one in findings.values()} == {"ok", "failed"}
    server.execute("ALTER SYSTEM RESET summarize_wal")


def test_a_plan_of_incrementals_without_their_base_is_refused(server: PostgresServer, work: Workplace) -> None:
    work.add_postgres(server, more=", incremental: every 6h")
    work.repositories["narrow"] = "{path: narrow, copy: [incremental]}"
    work.write_plan()
    said = work.recoup("backup", "--plan", expect=2).err
    assert "incremental backups build on a base backup" in said
    assert "incremental backups can only be restored with their base backup" in said


def test_the_plan_s_schedule_takes_a_base_backup_first_and_incremental_ones_after_it(
    server: PostgresServer, work: Workplace
) -> None:
    work.add_postgres(server, more=", fingerprint: false, base: every 7d, incremental: every 1h")
    work.extra = "verify: {after_backup: stored}\n"
    work.write_plan()
    assert [one["kind"] for one in work.json("backup")["copies"]] == ["base"]
    assert [one["kind"] for one in work.json("backup", "--due")["copies"]] == ["incremental"]
    assert work.json("backup", "--due").get("copies", []) == []


@pytest.mark.parametrize("shell", ["dash", "busybox"])
def test_stock_tools_put_a_chain_with_a_tablespace_together(
    tablespaces: tuple[Workplace, str, Path], server: PostgresServer, shell: str
) -> None:
    work, artefact, space = tablespaces
    folder = work.folder.parent / f"stock-{shell}"
    before = {path: path.stat().st_mtime_ns for path in space.rglob("*")}
    script = [*(["busybox", "sh"] if shell == "busybox" else [shell]), str(work.local / "restore.sh")]
    done = subprocess.run(
        [*script, "--key-file", str(work.key_file), "restore", artefact, str(folder)],
        env={"PATH": f"{server.bin}:/usr/bin:/bin"}, cwd="/", capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not Path(f"{folder}.recoup-parts").exists()
    boots_as_copied(work, server, artefact, folder)
    assert before == {path: path.stat().st_mtime_ns for path in space.rglob("*")}
    shutil.rmtree(folder)


def test_stock_tools_bring_no_deleted_row_back_through_an_index(work: Workplace) -> None:
    with summarizing(17, autovacuum="off") as server, temporary_folder("space") as space:
        server.execute(f"CREATE TABLESPACE far LOCATION '{space}'")
        for table, place in (("near", ""), ("away", "TABLESPACE far")):
            server.execute(
                f"CREATE TABLE {table} {place} AS SELECT i, repeat('x', 99) x FROM generate_series(1, 9000) i"
            )
            server.execute(f"ALTER TABLE {table} ADD PRIMARY KEY (i)")
            server.execute(f"VACUUM (FREEZE) {table}")
        work.add_postgres(server, "postgres")
        work.write_plan()
        work.backup("postgres", "--kind", "base")
        for table in ("near", "away"):
            server.execute(f"DELETE FROM {table} WHERE i % 100 = 0")
        artefact, folder = work.backup("postgres", "--kind", "incremental"), work.folder.parent / "stock-17"
        done = subprocess.run(
            ["sh", str(work.local / "restore.sh"), "--key-file", str(work.key_file), "restore", artefact, str(folder)],
            env={"PATH": f"{server.bin}:/usr/bin:/bin"}, cwd="/", capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    spaces = Path(f"{folder}-tablespaces")
    for path in [spaces, *spaces.rglob("*")] if server.owner is not None else []:
        os.chown(path, *server.owner)
    server = PostgresServer(require_found(lambda: find_postgres(17)), data_folder=folder)
    with server as restored, restored.connect() as asked:
        for setting in ("enable_seqscan", "enable_bitmapscan", "enable_indexscan"):
            asked.execute(f"SET {setting} = off".encode())
        for table in ("near", "away"):
            assert asked.execute(f"SELECT count(*) FROM {table} WHERE i > 0".encode()).fetchall() == [(8910,)]


@pytest.fixture(scope="module")
def tablespaces(server: PostgresServer) -> Iterator[tuple[Workplace, str, Path]]:
    """An incremental backup of a cluster with a tablespace, which lies outside of the data folder."""
    with temporary_folder("space") as space, new_workplace() as work:
        server.execute(f"CREATE TABLESPACE far LOCATION '{space}'")
        database = server.new_database("far")
        server.execute(
            "CREATE TABLE far TABLESPACE far AS SELECT i, md5(i::text) t FROM generate_series(1, 9000) i", database
        )
        work.add_postgres(server, database)
        work.write_plan()
        work.backup("postgres", "--kind", "base")
        server.execute("UPDATE far SET t = 'changed' WHERE i % 700 = 1", database)
        artefact = work.backup("postgres", "--kind", "incremental")
        yield work, artefact, space
        server.execute(f'DROP DATABASE "{database}"')
        server.execute("DROP TABLESPACE far")


def test_pruning_keeps_what_a_kept_backup_builds_on_and_removes_a_chain_with_its_end(
    server: PostgresServer, work: Workplace
) -> None:
    work.add_postgres(server, more=", fingerprint: false")
    work.extra = "retention: {last: 1, minimum: 1}\n"
    work.write_plan()
    first = work.backup("postgres", "--kind", "base")
    child = work.backup("postgres", "--kind", "incremental")
    second = work.backup("postgres", "--kind", "base")
    assert f"{child} depends on it" in work.recoup("prune", "--dry-run").out
    work.recoup("prune")
    assert set(work.listed()) == {first, child, second}
    newest = work.backup("postgres", "--kind", "incremental")
    assert work.json("show", newest)["depends_on"] == [second]
    work.recoup("prune")
    assert set(work.listed()) == {second, newest}
    assert work.json("verify", newest)["artefacts"][0]["reached"] == "intact"
