"""Copies of real servers brought to life in a sandbox: whole ones boot, with every version; others say why not."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from recoup.demo.host import temporary_folder, wait_until
from recoup.demo.programs import Programs, find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.engine import CopyReader
from recoup.engines.postgres import sandbox_programs
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.dump import DumpFormat
from recoup.engines.postgres.live import LiveRequest, open_postgres_live
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.engines.postgres.sandbox_restore import RESTORED
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.kernel.process import run
from recoup.kernel.secret import Secret
from recoup.verification.grade import Grade, Rung
from recoup.verification.live import climb
from recoup.verification.verify import Verification
from tests.integration.incrementals import summarizing, take_chain
from tests.integration.logical import direct, dumped, nasty_database, small_database
from tests.integration.postgres_copies import MemoryCopy
from tests.real import require_found

ROWS = 2000


@pytest.fixture
def root(server_folder: Path) -> Iterator[Path]:
    """Where sandboxes are made. Nothing of them is left when the test ends."""
    folder = server_folder / "sandboxes"
    yield folder
    assert not folder.exists() or [path.name for path in folder.iterdir()] == ["door.lock"]


def base_of(server: PostgresServer) -> MemoryCopy:
    copy = MemoryCopy()
    copy.copy_facts = take_base_backup(Secret(server.url()), copy, label="live")
    return copy


def boots(root: Path, *chain: CopyReader) -> Sequence[Finding]:
    with open_postgres_live(chain, root, LiveRequest()) as live:
        return live.boots()


def climbed(root: Path, copy: CopyReader) -> Rung:
    """As `recoup verify --grade boots` has it, after the bytes were found right."""
    start = Verification(artefact_id="it", asked=Grade.BOOTS, rungs=())
    done = climb(start, Grade.BOOTS, lambda: open_postgres_live([copy], root, LiveRequest()))
    assert [rung.grade for rung in done.rungs] == [Grade.BOOTS]
    return done.rungs[0]


# -- what boots --------------------------------------------------------------------------------------------------

HOSTILE = """
archive_mode = on
archive_command = 'touch {0}/archived'
restore_command = 'touch {0}/fetched'
archive_cleanup_command = 'touch {0}/cleaned'
recovery_end_command = 'touch {0}/ended'
primary_conninfo = 'host=127.0.0.1 port=1'
listen_addresses = '*'
ssl = on
unix_socket_directories = '{0}'
external_pid_file = '{0}/pid'
logging_collector = on
log_directory = '{0}/log'
shared_preload_libraries = 'pg_cron, no_such_library'
hba_file = '{0}/hba'
data_directory = '{0}/elsewhere'
include = 'no_such_file'
"""


@pytest.mark.parametrize("major", [15, 16, 17, 18])
def test_a_base_backup_boots_whatever_it_was_configured_to_do(root: Path, server_folder: Path, major: int) -> None:
    marks, space = server_folder / "marks", server_folder / "space"
    for folder in (marks, space):
        folder.mkdir()
        shutil.chown(folder, server_folder.owner())
    with PostgresServer(require_found(lambda: find_postgres(major)), user="the boss") as server:
        server.execute(f"CREATE TABLESPACE far LOCATION '{space}'")
        server.execute(f"CREATE TABLE kept TABLESPACE far AS SELECT i FROM generate_series(1, {ROWS}) i")
        server.execute("CREATE ROLE postgres LOGIN")
        server.execute("CREATE DATABASE other")
        server.execute("ALTER DATABASE other SET session_preload_libraries = 'no_such_library'")
        server.execute("ALTER DATABASE postgres SET zero_damaged_pages = on")
        for name in ("postgresql.conf", "postgresql.auto.conf"):
            with open(server.data_folder / name, "a") as out:
                out.write(HOSTILE.format(marks))
        (server.data_folder / "pg_hba.conf").write_text("local all all reject\n")
        (server.data_folder / "standby.signal").touch()
        copy = base_of(server)
    assert "standby.signal" in {member.path for member in copy.members("base.tar")}
    before = sorted(path.stat().st_mtime_ns for path in space.rglob("*"))
    with open_postgres_live([copy], root, LiveRequest()) as live:
        findings = live.boots()
        assert overall(findings) is Verdict.OK, findings
        assert f"PostgreSQL {major}." in findings[0].detail
        assert live.server.superuser == "the boss"
        with live.server.session() as session:
            assert session.query("SELECT count(*) FROM public.kept") == [(str(ROWS),)]
            assert session.query("SELECT current_setting('zero_damaged_pages')") == [("off",)]
            far = session.query("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'far'")
        assert root in Path(str(far[0][0])).parents
        said = run(live.server.command([live.server.program("psql"), "-XAtc", "SELECT 1"], database="postgres"))
        assert said.stdout == b"1\n"
    assert list(marks.iterdir()) == []
    assert sorted(path.stat().st_mtime_ns for path in space.rglob("*")) == before


def test_a_chain_of_incremental_backups_with_tablespaces_boots(root: Path) -> None:
    with summarizing(17) as server, temporary_folder("chain") as space:
        chain = take_chain(server, space)
        findings = boots(root, *chain.copies)
    assert overall(findings) is Verdict.OK, findings
    assert chain.database in {finding.subject for finding in findings}


def test_a_copy_taken_from_a_standby_with_prepared_transactions_and_origins_boots(
    root: Path, server_folder: Path
) -> None:
    in_use = {"max_prepared_transactions": "5", "wal_level": "logical"}
    with PostgresServer(require_found(lambda: find_postgres(17)), settings=in_use) as server:
        server.execute("SELECT pg_create_logical_replication_slot('slot', 'pgoutput')")
        server.execute("SELECT pg_replication_origin_create('origin')")
        server.execute(f"CREATE TABLE kept AS SELECT i FROM generate_series(1, {ROWS}) i")
        with server.connect() as connection:
            connection.execute("BEGIN")
            connection.execute("INSERT INTO kept VALUES (0)")
            connection.execute("PREPARE TRANSACTION 'waiting'")
        folder = server_folder / "standby"
        restore_base_to_folder(base_of(server), folder, owner=server.owner)
        (folder / "standby.signal").touch()
        with open(folder / "postgresql.auto.conf", "a") as out:
            out.write(f"primary_conninfo = 'host=127.0.0.1 port={server.port} user=postgres'\n")
        with PostgresServer(Programs(path=server.bin), data_folder=folder, settings=in_use) as standby:
            server.execute(f"INSERT INTO kept SELECT 1 FROM generate_series(1, {ROWS})")
            assert wait_until(lambda: standby.execute("SELECT count(*) FROM kept") == [(2 * ROWS,)], limit_seconds=120)
            server.execute("CHECKPOINT")
            standby.execute("CHECKPOINT")
            copy = base_of(standby)
    with open_postgres_live([copy], root, LiveRequest()) as live:
        findings = live.boots()
        assert overall(findings) is Verdict.OK, findings
        with live.server.session() as session:
            assert session.query("SELECT count(*) FROM public.kept") == [(str(2 * ROWS),)]
            assert session.query("SELECT gid FROM pg_prepared_xacts") == [("waiting",)]


@pytest.mark.parametrize("form", list(DumpFormat))
def test_a_dump_boots_in_a_new_cluster_with_its_roles(postgres17: PostgresServer, root: Path, form: DumpFormat) -> None:
    name = nasty_database(postgres17)
    copy = dumped(direct(postgres17), name, form=form)
    with open_postgres_live([copy], root, LiveRequest()) as live:
        findings = live.boots()
        assert overall(findings) is Verdict.OK, findings
        assert [one.subject for one in findings if one.check == RESTORED] == [name]
        assert overall(live.same()) is Verdict.OK
        with live.server.session(name) as session:
            rights = "SELECT datacl::text FROM pg_database WHERE datname = current_database()"
            assert "recoup_owner=C*" in str(session.query(rights)[0][0])


def test_a_path_too_long_for_a_socket_is_no_hindrance(postgres16: PostgresServer, root: Path) -> None:
    deep = root
    for _ in range(4):
        deep = deep / ("x" * 40)
    deep.mkdir(parents=True)
    deep.chmod(0o755)
    with open_postgres_live([dumped(direct(postgres16), small_database(postgres16))], deep, LiveRequest()) as live:
        assert overall(live.boots()) is Verdict.OK
        assert len(str(live.server.socket_folder)) > 108
        said = run(live.server.command([live.server.program("psql"), "-XAtc", "SELECT 1"], database="postgres"))
        assert said.stdout == b"1\n"
    for folder in (deep, *list(deep.parents)[:4]):
        for left in folder.glob("door.lock"):
            left.unlink()
        folder.rmdir()


def test_programs_that_its_user_cannot_reach_are_put_into_the_sandbox(
    postgres16: PostgresServer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_found(lambda: find_postgres(16))
    monkeypatch.setattr(sandbox_programs, "may_enter", lambda *_: False)
    with open_postgres_live([dumped(direct(postgres16), small_database(postgres16))], root, LiveRequest()) as live:
        assert overall(live.boots()) is Verdict.OK
        if os.geteuid() == 0:
            assert root in live.server.programs.parents


# -- what does not -----------------------------------------------------------------------------------------------


def rewritten(copy: MemoryCopy, change: Callable[[str, bytes], bytes | None]) -> MemoryCopy:
    """The same copy with other content, or without a file where ``change`` says None."""
    mine = MemoryCopy()
    mine.data, mine.contents, mine.copy_facts = dict(copy.data), dict(copy.contents), copy.copy_facts
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(copy.data["base.tar"])) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            handle = old.extractfile(member) if member.isfile() else None
            if handle is None:
                new.addfile(member)
                continue
            data = change(member.name.removeprefix("./"), handle.read())
            if data is not None:
                member.size = len(data)
                new.addfile(member, io.BytesIO(data))
    mine.replace("base.tar", out.getvalue())
    return mine


@pytest.fixture(scope="module")
def taken() -> MemoryCopy:
    """A small base backup of a PostgreSQL 16, for tests to damage."""
    with PostgresServer(require_found(lambda: find_postgres(16))) as server:
        server.execute(f"CREATE TABLE kept AS SELECT i FROM generate_series(1, {ROWS}) i")
        return base_of(server)


def without_wal(name: str, data: bytes) -> bytes | None:
    return None if name.startswith("pg_wal/0000") else data


def zeroed_wal(name: str, data: bytes) -> bytes | None:
    return bytes(len(data)) if name.startswith("pg_wal/0000") else data


def other_version(name: str, data: bytes) -> bytes | None:
    return b"15\n" if name == "PG_VERSION" else data


def truncated_catalogue(name: str, data: bytes) -> bytes | None:
    # 1259 is pg_class of every database, 1260 pg_authid of the cluster: nobody can log in without.
    return b"" if name == "global/1260" else data


def no_checkpoint(name: str, data: bytes) -> bytes | None:
    return data.replace(b"CHECKPOINT LOCATION: 0", b"CHECKPOINT LOCATION: 7") if name == "backup_label" else data


@pytest.mark.parametrize("damage", [without_wal, zeroed_wal, other_version, truncated_catalogue, no_checkpoint])
def test_a_damaged_base_backup_fails(
    taken: MemoryCopy, root: Path, damage: Callable[[str, bytes], bytes | None]
) -> None:
    rung = climbed(root, rewritten(taken, damage))
    assert rung.verdict is Verdict.FAILED, rung.findings


def test_a_recovery_that_ended_too_early_fails(taken: MemoryCopy, root: Path) -> None:
    assert taken.copy_facts is not None
    mine = rewritten(taken, lambda _, data: data)
    facts = {**taken.facts, "end_lsn": "7/0"}
    mine.copy_facts = type(taken.copy_facts)(facts=facts)
    rung = climbed(root, mine)
    assert rung.verdict is Verdict.FAILED
    assert any("before the end of the backup at 7/0" in one.detail for one in rung.findings)


def test_without_programs_of_its_version_a_copy_is_unknown_and_says_what_to_install(
    taken: MemoryCopy, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_programs, "_PACKAGES", {})
    rung = climbed(root, taken)
    if any("bringing the copy to life" not in one.detail for one in rung.findings):
        pytest.skip("a PostgreSQL 16 is installed here")
    assert rung.verdict is Verdict.UNKNOWN
    assert "apt-get install postgresql-16" in str(rung.findings[0].hint)


def test_a_missing_extension_is_unknown_with_its_name(postgres17: PostgresServer, root: Path) -> None:
    name = small_database(postgres17)
    copy = dumped(direct(postgres17), name)
    assert copy.fingerprint is not None
    copy.fingerprint["databases"][name]["extensions"]["no_such_extension"] = {"version": "1.0"}
    rung = climbed(root, copy)
    assert rung.verdict is Verdict.UNKNOWN
    assert "no_such_extension" in next(one.detail for one in rung.findings if one.check == RESTORED)


def test_a_dump_that_does_not_go_in_fails(postgres17: PostgresServer, root: Path) -> None:
    name = small_database(postgres17)
    copy = dumped(direct(postgres17), name, form=DumpFormat.PLAIN)
    stream = copy.facts["databases"][name]["stream"]
    twice = b"7\torder 7\n"
    assert copy.data[stream].count(twice) == 1
    copy.data[stream] = copy.data[stream].replace(twice, twice * 2)
    rung = climbed(root, copy)
    assert rung.verdict is Verdict.FAILED
    assert "orders_pkey" in next(one.detail for one in rung.findings if one.check == RESTORED)


def test_grades_above_need_a_server_that_was_started(taken: MemoryCopy, root: Path) -> None:
    with open_postgres_live([taken], root, LiveRequest()) as live, pytest.raises(EngineError, match="not started"):
        live.works()
