"""The main job on the command line: copies of every kind and version, listed, shown, proven, and brought back."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recoup.demo.programs import find_postgres, find_redis
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.engines.postgres.comparison import CopyMode, compare
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.redis import fingerprint as redis_fingerprint
from recoup.kernel.finding import Verdict, overall
from tests.acceptance.workplace import Workplace, new_workplace, s3_environment
from tests.integration import redis_copies
from tests.integration.logical import databases_of, direct, nasty_database
from tests.real import require_found

_MAJORS = [15, 16, 17, 18]


def _fingerprint(server: PostgresServer, database: str) -> dict[str, Any]:
    with direct(server).session(database) as session:
        return fingerprint_database(session)


@pytest.fixture(scope="module", params=_MAJORS, ids=lambda major: f"postgres{major}")
def protected(request: pytest.FixtureRequest, s3: S3Server) -> Iterator[tuple[Workplace, PostgresServer, str, str]]:
    """A base backup of each version in a folder and a bucket; also its id."""
    server = request.getfixturevalue(f"postgres{request.param}")
    database = nasty_database(server)
    with new_workplace() as work:
        work.add_postgres(server, database)
        work.add_bucket(s3)
        work.write_plan()
        document = work.json("backup", "--label", "nightly")
        assert document["schema"] == "recoup.backup/1"
        (copy,) = document["copies"]
        assert copy["kind"] == "base"
        assert copy["repositories"] == ["local", "offsite"]
        assert copy["grade"] == "intact"
        assert copy["exit_code"] == 0
        yield work, server, database, copy["id"]


def test_a_base_backup_is_listed_shown_and_proven_in_both_repositories(
    protected: tuple[Workplace, PostgresServer, str, str],
) -> None:
    work, server, database, artefact = protected
    (entry,) = work.json("list")["artefacts"]
    assert (entry["id"], entry["label"], entry["repositories"]) == (artefact, "nightly", ["local", "offsite"])
    shown = work.json("show", "latest", "--service", "postgres")
    assert shown["schema"] == "recoup.artefact/1"
    assert shown["facts"]["system_identifier"] == str(
        server.execute("SELECT system_identifier FROM pg_control_system()")[0][0]
    )
    assert shown["objects"][0]["stream"] == "base.tar"
    assert database in shown["fingerprint"]["databases"]
    proven = work.json("verify", artefact)
    assert proven["schema"] == "recoup.verify/1"
    assert (proven["artefacts"][0]["verdict"], proven["artefacts"][0]["reached"]) == ("ok", "intact")


@pytest.mark.parametrize("source", ["local", "offsite"])
def test_a_base_backup_comes_back_from_each_repository_alone_and_boots_with_equal_content(
    protected: tuple[Workplace, PostgresServer, str, str], source: str
) -> None:
    work, server, _, artefact = protected
    folder = work.folder.parent / f"restored-{source}"
    report = work.json("restore", artefact, "--from", source, "--destination", str(folder))
    assert report["schema"] == "recoup.restore/1"
    assert report["where"] == str(folder)
    fingerprint = work.json("show", artefact)["fingerprint"]
    with PostgresServer(require_found(lambda: find_postgres(server.major)), data_folder=folder) as restored:
        findings = compare_with_base(fingerprint, direct(restored))
    assert overall(findings) is Verdict.OK, findings
    shutil.rmtree(folder)


def test_a_repository_s_address_and_the_key_are_enough_on_a_machine_without_the_plan(
    postgres17: PostgresServer, s3: S3Server, work: Workplace
) -> None:
    database = nasty_database(postgres17)
    before = _fingerprint(postgres17, database)
    work.add_postgres(postgres17, database)
    bucket = work.add_bucket(s3)
    work.write_plan()
    artefact = work.backup("postgres", "--kind", "dump")
    with new_workplace() as blank:  # another machine: no plan, no state, only the key
        blank.environment |= {**s3_environment(s3), "PATH": work.environment["PATH"]}
        for address in (str(work.local), f"s3://{bucket}/production"):
            there = ["--from", address, "--key-file", str(blank.key_file)]
            assert list(blank.listed(*there)) == [artefact]
            assert blank.json("verify", *there)["artefacts"][0]["reached"] == "intact"
            new = f"again_{len(address)}"
            report = blank.json(
                "restore", "latest", *there, "--destination", postgres17.url(), "--into", new, "--create-roles"
            )
            assert {finding["verdict"] for finding in report["findings"]} == {"ok"}
            findings = compare(before, _fingerprint(postgres17, new), mode=CopyMode.LOGICAL)
            assert overall(findings) is Verdict.OK, findings
        folder = blank.folder / "loose"
        blank.recoup("restore", artefact[-6:], *there, "--destination", str(folder))
        assert {path.suffix for path in folder.iterdir()} == {".dump", ".sql"}


@pytest.mark.parametrize(
    ("major", "form", "compression"),
    [
        (15, "custom", "zstd"),
        (16, "plain", "zstd"),
        (17, "custom", "gzip"),
        (18, "custom", "zstd"),
        (15, "plain", "gzip"),
        (18, "plain", "gzip"),
    ],
)
def test_a_dump_comes_back_beside_and_instead_of_the_database_with_equal_content(
    request: pytest.FixtureRequest, work: Workplace, major: int, form: str, compression: str
) -> None:
    server: PostgresServer = request.getfixturevalue(f"postgres{major}")
    database = nasty_database(server)
    before = _fingerprint(server, database)
    work.add_postgres(server, database)
    work.write_plan()
    artefact = work.backup("postgres", "--kind", "dump", "--format", form, "--compression", compression)
    stamp = artefact[:15]
    suffix = ("dump" if form == "custom" else "sql") + (".gz.enc" if compression == "gzip" else ".zst.enc")
    assert f"postgres-backup-{stamp}.{suffix}" in {path.name for path in work.objects(artefact)}
    refused = work.recoup("restore", artefact, expect=5)
    assert f"database '{database}' holds" in refused.err
    assert "--force" in refused.err
    work.recoup("restore", artefact, "--into", f"beside_{stamp[-6:]}_{major}", "--quiet")
    server.execute("CREATE TABLE later (a int)", database)
    report = work.json("restore", artefact, "--force")
    kept = report["kept"].removeprefix("database ")
    for name in (database, f"beside_{stamp[-6:]}_{major}"):
        findings = compare(before, _fingerprint(server, name), mode=CopyMode.LOGICAL)
        assert overall(findings) is Verdict.OK, findings
    assert server.execute("SELECT count(*) FROM later", kept) == [(0,)]
    assert not [name for name in databases_of(server) if "_recoup_" in name]


@pytest.mark.parametrize(("major", "appendonly"), [(6, True), (7, False), (7, True), (8, True)])
def test_a_redis_comes_back_into_the_running_server_and_keeps_its_append_only_log(
    request: pytest.FixtureRequest, work: Workplace, major: int, appendonly: bool
) -> None:
    any_redis: RedisServer = request.getfixturevalue(f"redis{major}")
    client = any_redis.client()
    client.config_set("appendonly", "yes" if appendonly else "no")
    redis_copies.fill(any_redis)
    work.add_redis(any_redis)
    work.write_plan()
    try:
        artefact = work.backup()
        fingerprint = work.json("show", artefact)["fingerprint"]
        refused = work.recoup("restore", "latest", "--service", "redis", expect=5)
        assert "keys in database 0" in refused.err
        client.flushall()
        client.set("wrong", "data")
        report = work.json("restore", "latest", "--service", "redis", "--force")
        assert {finding["verdict"] for finding in report["findings"]} == {"ok"}
        assert client.get("wrong") is None
        now = redis_copies.fingerprint_now(any_redis, fingerprint)
        assert overall(redis_fingerprint.compare(fingerprint, now)) is Verdict.OK
        assert client.config_get("appendonly") == {"appendonly": "yes" if appendonly else "no"}
        assert client.info("replication")["role"] == "master"
        # What was replaced is an artefact; it is never 'latest', so the same command means the same copy.
        assert work.json("show", "latest", "--service", "redis")["id"] == artefact
        replaced = next(one for one in work.json("list")["artefacts"] if one["label"] == "replaced")
        work.recoup("restore", replaced["id"], "--force", "--quiet")
        assert client.get("wrong") == b"data"
    finally:
        client.config_set("appendonly", "no")
        client.close()


@pytest.mark.parametrize(("major", "appendonly"), [(6, True), (6, False), (7, True), (8, True)])
def test_a_redis_folder_restored_from_the_command_line_starts_with_the_data(
    request: pytest.FixtureRequest, work: Workplace, major: int, appendonly: bool
) -> None:
    any_redis: RedisServer = request.getfixturevalue(f"redis{major}")
    redis_copies.fill(any_redis)
    client = any_redis.client()
    client.config_set("appendonly", "yes" if appendonly else "no")
    work.add_redis(any_redis)
    work.write_plan()
    try:
        artefact = work.backup()
    finally:
        client.config_set("appendonly", "no")
        client.close()
    fingerprint = work.json("show", artefact)["fingerprint"]
    with RedisServer(require_found(lambda: find_redis(major)), appendonly=appendonly) as fresh:
        fresh.wipe()
        work.recoup("restore", artefact, "--destination", str(fresh.folder))
        subprocess.run(["chown", "-R", f"--reference={fresh.root}", str(fresh.folder)], check=True)
        fresh.start()
        now = redis_copies.fingerprint_now(fresh, fingerprint)
        assert overall(redis_fingerprint.compare(fingerprint, now)) is Verdict.OK
        again = fresh.client()
        assert again.config_get("appendonly") == {"appendonly": "yes" if appendonly else "no"}
        again.close()


def _git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("source", ["local", "offsite"])
def test_files_and_the_git_state_come_back_from_each_repository(work: Workplace, s3: S3Server, source: str) -> None:
    work.add_bucket(s3)
    uploads = work.folder / "uploads"
    (uploads / "ünï").mkdir(parents=True)
    (uploads / "ünï" / "a b.txt").write_text("text")
    (uploads / "empty").touch()
    (uploads / "big.bin").write_bytes(bytes(range(256)) * 5000)
    (uploads / "link").symlink_to("empty")
    code = work.folder / "code"
    code.mkdir()
    _git(code, "init", "--quiet")
    (code / "app.py").write_text("print('one')\n")
    _git(code, "add", ".")
    _git(code, "commit", "--quiet", "-m", "first")
    (code / "app.py").write_text("print('two')\n")
    work.services["assets"] = "{engine: files, paths: [uploads], git: code}"
    work.write_plan()
    artefact = work.backup()
    before = _digests(uploads)
    shutil.rmtree(uploads)
    target = work.folder.parent / "restored"
    work.recoup("restore", artefact, "--from", source, "--destination", str(target))
    found = next(path for path in target.rglob("uploads") if path.is_dir())
    assert _digests(found) == before
    assert (found / "link").readlink() == Path("empty")
    (checkout,) = (path.parent for path in target.rglob("app.py"))
    assert (checkout / "app.py").read_text() == "print('two')\n"
    assert _git(checkout, "log", "--format=%s") == "first"
    assert _git(checkout, "status", "--porcelain").split() == ["M", "app.py"]
    # Once more over the same folder: nothing to do, nothing lost.
    work.recoup("restore", artefact, "--destination", str(target))
    assert _digests(found) == before


def test_the_catalog_is_rebuilt_when_it_is_missing_or_damaged(work: Workplace) -> None:
    (work.folder / "data").mkdir()
    (work.folder / "data" / "one").write_text("1")
    work.services["files"] = "{engine: files, paths: [data]}"
    work.write_plan()
    artefacts = [work.backup() for _ in range(2)]
    assert sorted(work.listed()) == sorted(artefacts)
    (catalog,) = work.state.rglob("catalog-*.sqlite")
    catalog.write_bytes(b"this is no database at all" * 1000)
    assert sorted(work.listed()) == sorted(artefacts)
    shutil.rmtree(work.state)
    assert sorted(work.listed()) == sorted(artefacts)


def test_without_services_everything_is_copied_that_holds_data_and_plans_change_nothing(
    work: Workplace, postgres18: PostgresServer, redis8: RedisServer
) -> None:
    work.add_postgres(postgres18, nasty_database(postgres18), more=", base: daily 02:00, dump: daily 03:00")
    work.add_redis(redis8)
    work.services["files"] = "{engine: files, paths: [recoup.yaml]}"
    work.services["api"] = "{engine: compose, after: [postgres]}"
    work.extra = "compose: {file: compose.yml}\n"
    work.write_plan()
    planned = work.json("backup", "--plan")
    assert planned["schema"] == "recoup.backup-plan/1"
    wanted = [("postgres", "base"), ("postgres", "dump"), ("redis", "rdb"), ("files", "files")]
    assert [(one["service"], one["kind"]) for one in planned["copies"]] == wanted
    assert not work.local.exists()
    document = work.json("backup")
    assert [(one["service"], one["kind"]) for one in document["copies"]] == wanted
    assert {one["grade"] for one in document["copies"]} == {"intact"}
    assert work.json("verify", "--all", "--grade", "stored")["artefacts"][3]["reached"] == "stored"
    plan = work.json("restore", "latest", "--service", "redis", "--dry-run")
    assert plan["schema"] == "recoup.restore-plan/1"
    assert work.recoup("check", expect=None).code in (0, 3, 4)
