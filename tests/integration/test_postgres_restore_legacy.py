"""Files of other scripts, restored into real servers: whole, or not at all."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.legacy_sql import restore_legacy
from recoup.kernel.errors import DamageError, EngineError, RecoupError, RefusedError, WrongKeyError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from tests.integration.logical import (
    both_ways,
    databases_of,
    direct,
    nasty_database,
    replacing,
    small_database,
    through_programs,
)
from tests.real import require

SWITCHED = "SELECT set_config('standard_conforming' || '_strings', 'off', false);\n"
KEY = Secret("the key of the old script")


def plain_dump(server: PostgresServer, database: str, *options: str) -> bytes:
    done = subprocess.run([server.program("pg_dump"), *options, server.url(database)], capture_output=True, check=True)
    return done.stdout


def sealed(data: bytes, path: Path) -> Path:
    """As the common script does: ``gzip | openssl enc -aes-256-cbc -salt -k KEY``."""
    openssl = str(require("openssl"))
    done = subprocess.run(
        [openssl, "enc", "-aes-256-cbc", "-salt", "-k", KEY.reveal()], input=data, capture_output=True, check=False
    )
    assert done.returncode == 0
    path.write_bytes(done.stdout)
    return path


@pytest.mark.parametrize("major", [15, 18])
@pytest.mark.parametrize(
    "options", [[], ["--clean", "--if-exists"], ["--create"], ["--create", "--clean"], ["-Fc"], ["--column-inserts"]]
)
def test_a_legacy_file_replaces_a_full_database_whole(
    major: int, request: pytest.FixtureRequest, tmp_path: Path, options: list[str]
) -> None:
    server: PostgresServer = request.getfixturevalue(f"postgres{major}")
    name = nasty_database(server)
    path = sealed(gzip.compress(plain_dump(server, name, *options)), tmp_path / "postgres-backup.sql.gz.enc")
    server.execute("TRUNCATE blobs, numbers", name)
    done = restore_legacy(direct(server), path, KEY, replacing(name, force=True))
    assert done.kept is not None
    assert server.execute("SELECT count(*) FROM blobs", name) == [(63,)]
    assert server.execute("SELECT count(*) FROM blobs", done.kept) == [(0,)]
    assert server.execute("SHOW work_mem", name) == [("8MB",)], "settings come from the replaced database"
    assert overall(done.findings) is Verdict.UNKNOWN, "without a fingerprint nothing proves the content"
    assert any("CREATE DATABASE" in note for note in done.notes) == ("--create" in options)


def test_a_legacy_file_goes_in_through_the_container_too(any_postgres: PostgresServer, tmp_path: Path) -> None:
    name = small_database(any_postgres)
    path = tmp_path / "old.sql"
    path.write_bytes(plain_dump(any_postgres, name))
    for access in both_ways(any_postgres):
        any_postgres.execute(f"DROP DATABASE {name}")
        assert restore_legacy(access, path, None, replacing(name)).kept is None
        assert any_postgres.execute("SELECT count(*) FROM orders", name) == [(100,)]


@pytest.mark.parametrize("form", ["sql", "sql.gz", "sql.gz.enc"])
def test_an_error_in_the_middle_names_its_line_and_leaves_the_old_database(
    any_postgres: PostgresServer, tmp_path: Path, form: str
) -> None:
    name = small_database(any_postgres)
    text = plain_dump(any_postgres, name).replace(b"ALTER TABLE ONLY public.orders", b"ALTER TABLE ONLY public.odrers")
    line = text[: text.index(b"odrers")].count(b"\n") + 1
    data = gzip.compress(text) if "gz" in form else text
    path = tmp_path / f"old.{form}"
    if form.endswith("enc"):
        sealed(data, path)
    else:
        path.write_bytes(data)
    before = databases_of(any_postgres)
    for access in both_ways(any_postgres):
        with pytest.raises(EngineError, match=rf'(?s)psql.*:{line + 1}: ERROR:.*"public.odrers" does not exist'):
            restore_legacy(access, path, KEY, replacing(name, force=True))
        assert databases_of(any_postgres) == before
        assert any_postgres.execute("SELECT count(*) FROM orders", name) == [(100,)]


def test_a_wrong_key_or_a_cut_file_changes_nothing(postgres15: PostgresServer, tmp_path: Path) -> None:
    name = small_database(postgres15, rows=50_000)
    path = sealed(gzip.compress(plain_dump(postgres15, name)), tmp_path / "old.sql.gz.enc")
    before = databases_of(postgres15)
    with pytest.raises(WrongKeyError):
        restore_legacy(direct(postgres15), path, Secret("another"), replacing(name, force=True))
    whole = path.read_bytes()
    for length in (5000, len(whole) // 2, len(whole) - 16):
        path.write_bytes(whole[:length])
        with pytest.raises(DamageError):
            restore_legacy(direct(postgres15), path, KEY, replacing(name, force=True))
    text = plain_dump(postgres15, name)
    for cut in (text.index(b"COPY public.orders") + 4000, text.index(b"ALTER TABLE ONLY") + 5, len(text) - 200):
        (tmp_path / "cut.sql").write_bytes(text[:cut])
        with pytest.raises(RecoupError):
            restore_legacy(direct(postgres15), tmp_path / "cut.sql", None, replacing(name, force=True))
    assert databases_of(postgres15) == before
    assert postgres15.execute("SELECT count(*) FROM orders", name) == [(50_000,)]


# 15.20 can lock psql, 17.10 cannot: there the text itself must be beyond doubt.
@pytest.mark.parametrize("major", [15, 17])
@pytest.mark.parametrize(
    "hostile",
    [
        "\\! touch {proof}",
        "\\copy orders to program 'touch {proof}'",
        "\\o |touch {proof}",
        "SELECT 'x' \\g |touch {proof}",
        "SELECT '\\' ' \\! touch {proof}\n-- ' ;",
        f"{SWITCHED}SELECT '\\' ' \\! touch {{proof}}\n-- ' ;",
        "\\unrestrict x\n\\! touch {proof}",
        "\\connect postgres\nCREATE TABLE escaped ();",
    ],
)
def test_a_hostile_file_starts_no_program_here_and_never_leaves_the_fresh_database(
    major: int, request: pytest.FixtureRequest, tmp_path: Path, hostile: str
) -> None:
    server: PostgresServer = request.getfixturevalue(f"postgres{major}")
    name = small_database(server)
    proof = tmp_path / "proof"
    before = databases_of(server)
    path = tmp_path / "hostile.sql"
    path.write_text("CREATE TABLE t ();\n" + hostile.format(proof=proof) + "\nSELECT nonsense;\n")
    with pytest.raises((RefusedError, EngineError, DamageError)):
        restore_legacy(direct(server), path, None, replacing(name, force=True))
    assert not proof.exists()
    with pytest.raises((RefusedError, EngineError, DamageError)):
        restore_legacy(through_programs(server), path, None, replacing(name, force=True))
    assert server.execute("SELECT count(*) FROM pg_class WHERE relname = 'escaped'") == [(0,)]
    assert databases_of(server) == before


def test_a_dump_of_a_whole_cluster_is_refused(postgres15: PostgresServer, tmp_path: Path) -> None:
    done = subprocess.run([postgres15.program("pg_dumpall"), "-d", postgres15.url()], capture_output=True, check=True)
    (tmp_path / "all.sql").write_bytes(done.stdout)
    before = databases_of(postgres15)
    with pytest.raises(RefusedError, match="whole cluster"):
        restore_legacy(direct(postgres15), tmp_path / "all.sql", None, replacing("all_in_one"))
    assert databases_of(postgres15) == before


def test_a_file_without_any_sql_is_damaged(postgres15: PostgresServer, tmp_path: Path) -> None:
    for text in (b"\n\n", b"SELECT 1;\n", b"-- PostgreSQL database dump\n"):
        (tmp_path / "none.sql").write_bytes(text)
        with pytest.raises(DamageError):
            restore_legacy(direct(postgres15), tmp_path / "none.sql", None, replacing("from_nothing"))
    assert "from_nothing" not in databases_of(postgres15)
