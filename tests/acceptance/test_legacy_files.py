"""Backup files that a shell script made with ``pg_dump``, ``gzip`` and ``openssl enc``, restored by ``recoup restore``.

Such a file carries no fingerprint. So a restore that went well ends with 4: done, and nothing proves the content.
"""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.comparison import CopyMode, compare
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.kernel.finding import Verdict, overall
from tests.acceptance.workplace import KEY, Workplace
from tests.integration.logical import databases_of, direct, nasty_database
from tests.real import require

_OLD_KEY = "S3cret backup $key of 2025"


def _encrypt(source: Path, key: str, *options: str) -> Path:
    """What the old script did: ``openssl enc -aes-256-cbc -salt -k KEY``."""
    target = source.with_name(source.name + ".enc")
    argv = [require("openssl"), "enc", "-aes-256-cbc", "-salt", "-k", key, *options, "-in", source, "-out", target]
    subprocess.run(argv, check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def dumped(postgres15: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], bytes]:
    """A database, its fingerprint, and ``pg_dump`` of it as SQL."""
    database = nasty_database(postgres15)
    environment = {**os.environ, "PGHOST": "127.0.0.1", "PGPORT": str(postgres15.port), "PGUSER": postgres15.user}
    argv = [postgres15.program("pg_dump"), database]
    done = subprocess.run(argv, env=environment, check=True, capture_output=True)
    with direct(postgres15).session(database) as session:
        return database, fingerprint_database(session), done.stdout


@pytest.fixture
def ready(work: Workplace, postgres15: PostgresServer) -> Workplace:
    """A plan for an empty database, and the key of the old files in ``old.key``."""
    work.add_postgres(postgres15, postgres15.new_database("shop"))
    work.write_plan()
    (work.folder / "key").write_text(_OLD_KEY + "\n")
    work.secrets.add(_OLD_KEY)
    return work


def _database(work: Workplace) -> str:
    return work.services["postgres"].partition("databases: [")[2].partition("]")[0]


def _same(server: PostgresServer, database: str, before: dict[str, Any]) -> None:
    with direct(server).session(database) as session:
        now = fingerprint_database(session)
    # SQL text of one database does not carry the database's own owner, rights and settings.
    findings = compare({**before, "definitions": now["definitions"]}, now, mode=CopyMode.LOGICAL)
    assert overall(findings) is Verdict.OK, findings


@pytest.mark.parametrize("shape", ["sql", "sql.gz", "sql.gz.enc", "sql.enc", "sql.gz.enc md5", "sql.gz.enc pbkdf2"])
def test_a_file_of_the_old_script_is_restored_into_an_empty_database(
    ready: Workplace, postgres15: PostgresServer, dumped: tuple[str, dict[str, Any], bytes], shape: str
) -> None:
    _, before, sql = dumped
    suffix, _, how = shape.partition(" ")
    file = ready.folder / "postgres-backup-20251130-020000.sql"
    file.write_bytes(sql)
    if ".gz" in suffix:
        plain, file = file, file.with_name(file.name + ".gz")
        file.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    if suffix.endswith(".enc"):
        options = {"": [], "md5": ["-md", "md5"], "pbkdf2": ["-pbkdf2"]}[how]
        plain, file = file, _encrypt(file, _OLD_KEY, *options)
        plain.unlink()
    report = ready.json("restore", file.name, "--service", "postgres", "--key-file", "key", expect=4)
    assert [one["verdict"] for one in report["findings"]] == ["ok", "unknown"]
    assert report["findings"][1]["hint"]
    assert report["where"].startswith(f"database {_database(ready)} on ")
    _same(postgres15, _database(ready), before)


def test_the_key_of_the_plan_opens_a_file_made_with_it(
    ready: Workplace, postgres15: PostgresServer, dumped: tuple[str, dict[str, Any], bytes]
) -> None:
    file = ready.folder / "postgres-backup-20251130-020000.sql.gz"
    file.write_bytes(gzip.compress(dumped[2]))
    _encrypt(file, KEY)
    ready.recoup("restore", f"./{file.name}.enc", "--into", "by_plan_key", expect=4)
    _same(postgres15, "by_plan_key", dumped[1])


def test_a_full_database_is_only_replaced_with_force_and_kept(
    ready: Workplace, postgres15: PostgresServer, dumped: tuple[str, dict[str, Any], bytes]
) -> None:
    database = _database(ready)
    postgres15.execute("CREATE TABLE precious AS SELECT 42 AS answer", database)
    (ready.folder / "old.sql").write_bytes(dumped[2])
    refused = ready.recoup("restore", "old.sql", expect=5)
    assert f"database '{database}' holds 1 tables" in refused.err
    assert "With --force it is replaced, and kept as" in refused.err
    assert postgres15.execute("SELECT answer FROM precious", database) == [(42,)]
    report = ready.json("restore", "old.sql", "--force", expect=4)
    kept = report["kept"].removeprefix("database ")
    assert postgres15.execute("SELECT answer FROM precious", kept) == [(42,)]
    _same(postgres15, database, dumped[1])


@pytest.mark.parametrize("harm", ["an error in the middle", "cut", "cut gzip", "flipped gzip", "empty", "no dump"])
def test_a_file_that_is_wrong_leaves_the_old_database_untouched(
    ready: Workplace, postgres15: PostgresServer, dumped: tuple[str, dict[str, Any], bytes], harm: str
) -> None:
    database, sql = _database(ready), dumped[2]
    postgres15.execute("CREATE TABLE precious AS SELECT 42 AS answer", database)
    packed = bytearray(gzip.compress(sql))
    packed[len(packed) // 2] ^= 0x10
    middle = sql.index(b"\nALTER TABLE", len(sql) // 2)
    content, name, code = {
        "an error in the middle": (sql[:middle] + b"\nSELECT no_such_function();\n" + sql[middle:], "a.sql", 1),
        "cut": (sql[:middle], "a.sql", 3),
        "cut gzip": (gzip.compress(sql)[:-200], "a.sql.gz", 3),
        "flipped gzip": (bytes(packed), "a.sql.gz", 3),
        "empty": (b"", "a.sql", 3),
        "no dump": (b"\x7fELF" + bytes(100), "a.sql", 4),
    }[harm]
    (ready.folder / name).write_bytes(content)
    before = databases_of(postgres15)
    ended = ready.recoup("restore", name, "--force", expect=None)
    assert ended.code == code, ended
    if harm == "an error in the middle":
        assert "no_such_function" in ended.err
    assert postgres15.execute("SELECT answer FROM precious", database) == [(42,)]
    assert databases_of(postgres15) == before


def test_a_wrong_and_a_missing_key_are_said_to_be_that(
    ready: Workplace, postgres15: PostgresServer, dumped: tuple[str, dict[str, Any], bytes]
) -> None:
    file = ready.folder / "old.sql.gz"
    file.write_bytes(gzip.compress(dumped[2]))
    _encrypt(file, _OLD_KEY)
    before = databases_of(postgres15)
    wrong = ready.recoup("restore", "old.sql.gz.enc", "--key-file", "other.key", expect=12)
    assert "the key does not open" in wrong.err
    assert "hint: " in wrong.err
    missing = ready.recoup("restore", "old.sql.gz.enc", "--key-file", "nowhere", expect=12)
    assert "cannot read the key file" in missing.err
    ready.recoup("restore", "nowhere.sql.gz.enc", "--key-file", "key", expect=1)
    assert databases_of(postgres15) == before


def test_it_must_be_clear_where_a_file_goes(
    ready: Workplace, postgres15: PostgresServer, postgres16: PostgresServer
) -> None:
    (ready.folder / "old.sql").write_text("SELECT 1;\n")
    ready.add_postgres(postgres16, "postgres", name="other")
    ready.write_plan()
    assert "which PostgreSQL?" in ready.recoup("restore", "old.sql", expect=2).err
    assert "which PostgreSQL?" in ready.recoup("restore", "old.sql", "--service", "nobody", expect=2).err
    address = postgres15.url("postgres")
    assert "into which database?" in ready.recoup("restore", "old.sql", "--destination", address, expect=2).err
    assert "cannot go to" in ready.recoup("restore", "old.sql", "--destination", "/tmp/folder", expect=2).err
