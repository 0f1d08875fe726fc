"""Base backups through the server's own ``pg_basebackup``, as they are taken inside a container."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recoup.demo.programs import Programs, find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.access import ProgramAccess
from recoup.engines.postgres.base_by_program import take_base_backup_by_program
from recoup.engines.postgres.base_check import check_base_copy
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.engines.postgres.server_check import check_by_sql
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.process import LocalRunner
from recoup.kernel.secret import Secret
from tests.integration.postgres_copies import MemoryCopy
from tests.real import require_found


def access_to(server: PostgresServer, **options: object) -> ProgramAccess:
    socket = {"PGHOST": str(server.socket_folder), "PGPORT": str(server.port)}
    return ProgramAccess(LocalRunner(), folder=server.bin, environment=socket, **options)  # type: ignore[arg-type]


def test_the_servers_own_program_gives_the_same_copy(any_postgres: PostgresServer, server_folder: Path) -> None:
    database = any_postgres.new_database("program")
    any_postgres.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS t FROM generate_series(1, 50000) i", database)
    copy = MemoryCopy()
    copy.copy_facts = take_base_backup_by_program(access_to(any_postgres), copy, label="in the container")
    assert list(copy.data) == ["base.tar"]
    ((identifier,),) = any_postgres.execute("SELECT system_identifier::text FROM pg_control_system()")
    assert copy.facts["system_identifier"] == identifier
    assert copy.facts["major"] == any_postgres.major
    assert overall(check_base_copy(copy)) is Verdict.OK
    placed = restore_base_to_folder(copy, server_folder / "restored", owner=any_postgres.owner)
    assert (placed.folder / "backup_manifest").exists()
    with PostgresServer(Programs(path=any_postgres.bin), data_folder=placed.folder) as restored:
        assert restored.execute("SELECT count(*) FROM t", database) == [(50000,)]


def test_another_cluster_is_refused(postgres17: PostgresServer) -> None:
    copy = MemoryCopy()
    with pytest.raises(RefusedError, match="another cluster"):
        take_base_backup_by_program(access_to(postgres17), copy, label="x", expected_system_identifier="1")
    assert copy.data == {}


def test_tablespaces_are_refused_with_the_way_out(server_folder: Path) -> None:
    with PostgresServer(require_found(lambda: find_postgres(17))) as server:
        space = server_folder / "space"
        space.mkdir()
        if server.owner is not None:
            os.chown(space, *server.owner)
        server.execute(f"CREATE TABLESPACE far LOCATION '{space}'")
        copy = MemoryCopy()
        with pytest.raises(RefusedError, match="tablespaces") as refusal:
            take_base_backup_by_program(access_to(server), copy, label="x")
        assert "replication connection" in str(refusal.value.hint)
        assert copy.data == {}
        warned = [found for found in check_by_sql(access_to(server)) if found.verdict is not Verdict.OK]
        assert [found.check for found in warned] == ["pg_basebackup can send the whole cluster"]


def test_a_program_that_fails_leaves_no_copy_and_its_last_words(server_folder: Path) -> None:
    with PostgresServer(require_found(lambda: find_postgres(17)), settings={"max_wal_senders": "0"}) as server:
        copy = MemoryCopy()
        with pytest.raises(EngineError, match="max_wal_senders"):
            take_base_backup_by_program(access_to(server), copy, label="x")
        assert copy.discarded


def test_a_damaged_page_fails_the_copy(server_folder: Path) -> None:
    with PostgresServer(require_found(lambda: find_postgres(15))) as server:
        server.execute("CREATE TABLE t AS SELECT i, repeat(md5(i::text), 30) AS t FROM generate_series(1, 9000) i")
        ((relative,),) = server.execute("SELECT pg_relation_filepath('t')")
        server.stop()
        with open(server.data_folder / relative, "r+b") as table:
            table.seek(3 * 8192 + 1000)
            table.write(b"damage")
        server.start()
        copy = MemoryCopy()
        with pytest.raises(EngineError, match="checksum"):
            take_base_backup_by_program(access_to(server), copy, label="x")
        assert copy.discarded


def test_the_password_travels_in_the_environment_only() -> None:
    with PostgresServer(require_found(lambda: find_postgres(17)), auth="scram-sha-256") as server:
        assert server.password is not None
        access = access_to(server, password=Secret(server.password))
        assert server.password not in " ".join(access.command("pg_basebackup").argv)
        copy = MemoryCopy()
        copy.copy_facts = take_base_backup_by_program(access, copy, label="x")
        assert overall(check_base_copy(copy)) is Verdict.OK
        with pytest.raises(EngineError, match="password authentication failed") as failure:
            take_base_backup_by_program(access_to(server, password=Secret("not-the-one")), MemoryCopy(), label="x")
        assert "not-the-one" not in str(failure.value)
