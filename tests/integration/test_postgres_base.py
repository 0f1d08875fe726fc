"""Base backups of real servers: taken, restored into a folder, booted, compared."""

from __future__ import annotations

import os
from pathlib import Path

from recoup.demo.host import wait_until
from recoup.demo.programs import Programs, find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_check import check_base_copy
from recoup.engines.postgres.control import ClusterState, parse_control
from recoup.engines.postgres.identity import describe_folder
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from tests.integration.postgres_copies import MemoryCopy
from tests.real import require_found


def take(server: PostgresServer, **options: object) -> MemoryCopy:
    copy = MemoryCopy()
    copy.copy_facts = take_base_backup(Secret(server.url()), copy, label="it's a test", **options)  # type: ignore[arg-type]
    return copy


def programs_of(server: PostgresServer) -> Programs:
    return Programs(path=server.bin)


def test_a_restored_copy_with_a_tablespace_starts_and_holds_every_row(
    any_postgres: PostgresServer, server_folder: Path
) -> None:
    server = any_postgres
    space = server_folder / "space"
    space.mkdir()
    if server.owner:
        os.chown(space, *server.owner)
    database = server.new_database("base")
    server.execute(f"CREATE TABLESPACE fast_{database} LOCATION '{space}'")
    try:
        server.execute(
            f"CREATE TABLE far TABLESPACE fast_{database} AS SELECT i, md5(i::text) t FROM generate_series(1, 30000) i",
            database,
        )
        server.execute(
            "CREATE TABLE near AS SELECT i, repeat(md5(i::text), 40) AS t FROM generate_series(1, 9999) i", database
        )
        server.execute("CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS x", database)
        server.execute("CREATE SEQUENCE counter; SELECT nextval('counter') FROM generate_series(1, 41)", database)
        copy = take(server)
        facts = copy.facts
        assert overall(check_base_copy(copy)) is Verdict.OK
        placed = restore_base_to_folder(copy, server_folder / "restored", owner=server.owner)
        oid = facts["tablespaces"][0]["oid"]
        assert facts["tablespaces"] == [{"oid": oid, "path": str(space)}]
        assert placed.tablespaces == {oid: server_folder / "restored-tablespaces" / str(oid)}
        assert placed.system_identifier == facts["system_identifier"]
        assert any(what.endswith("public.fleeting") for what, _ in copy.copy_facts.left_out)  # type: ignore[union-attr]
        with PostgresServer(programs_of(server), data_folder=placed.folder) as restored:
            assert restored.execute(
                "SELECT (SELECT count(*) FROM far), (SELECT count(*) FROM near), (SELECT count(*) FROM fleeting)",
                database,
            ) == [(30000, 9999, 0)]
            assert restored.execute("SELECT last_value >= 41 FROM counter", database) == [(True,)]
            where = restored.execute(
                "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname LIKE 'fast_%'"
            )
            assert where == [(str(placed.tablespaces[oid]),)]
    finally:
        server.execute(f'DROP DATABASE "{database}"')
        server.execute(f"DROP TABLESPACE fast_{database}")


def test_pg_control_is_read_as_the_server_reads_it(any_postgres: PostgresServer) -> None:
    control = parse_control((any_postgres.data_folder / "global/pg_control").read_bytes())
    ((system, version, catalog),) = any_postgres.execute(
        "SELECT system_identifier::text, pg_control_version, catalog_version_no FROM pg_control_system()"
    )
    ((block, relation, wal_block, wal_segment, checksums),) = any_postgres.execute(
        "SELECT database_block_size, blocks_per_segment, wal_block_size, bytes_per_wal_segment,"
        " data_page_checksum_version FROM pg_control_init()"
    )
    assert (control.system_identifier, control.control_version, control.catalog_version) == (system, version, catalog)
    assert (control.block_bytes, control.relation_segment_blocks) == (block, relation)
    assert (control.wal_block_bytes, control.wal_segment_bytes) == (wal_block, wal_segment)
    assert control.data_checksums is (checksums != 0)
    assert control.state is ClusterState.IN_PRODUCTION
    assert any_postgres.major in control.majors
    seen = describe_folder(any_postgres.data_folder)
    assert (seen.system_identifier, seen.major, seen.running) == (system, any_postgres.major, True)


def test_small_wal_segments_and_group_access_make_no_difference(server_folder: Path) -> None:
    programs = require_found(lambda: find_postgres(15))
    with PostgresServer(programs, initdb_arguments=["--wal-segsize=1", "--allow-group-access"]) as server:
        server.execute("CREATE TABLE t AS SELECT i FROM generate_series(1, 100000) i")
        copy = take(server)
        assert copy.facts["wal_segment_bytes"] == 1 << 20
        assert overall(check_base_copy(copy)) is Verdict.OK
        placed = restore_base_to_folder(copy, server_folder / "restored", owner=server.owner)
        assert placed.folder.stat().st_mode & 0o777 == 0o750
        with PostgresServer(programs, data_folder=placed.folder) as restored:
            assert restored.execute("SELECT count(*) FROM t") == [(100000,)]


def test_a_copy_of_a_standby_comes_back_on_its_own_feet(postgres17: PostgresServer, server_folder: Path) -> None:
    programs = programs_of(postgres17)
    postgres17.execute("DROP TABLE IF EXISTS followed; CREATE TABLE followed AS SELECT 1 AS x")
    folder = restore_base_to_folder(take(postgres17), server_folder / "standby", owner=postgres17.owner).folder
    (folder / "standby.signal").touch()
    with PostgresServer(programs, data_folder=folder, settings={"primary_conninfo": postgres17.url()}) as standby:
        assert standby.execute("SELECT pg_is_in_recovery()") == [(True,)]
        postgres17.execute("INSERT INTO followed VALUES (2)")
        assert wait_until(lambda: standby.execute("SELECT count(*) FROM followed") == [(2,)], limit_seconds=120)
        postgres17.execute("CHECKPOINT")
        copy = take(standby)
        assert overall(check_base_copy(copy)) is Verdict.OK
        assert "standby.signal" in {member.path for member in copy.members("base.tar")}
        again = restore_base_to_folder(copy, server_folder / "again", owner=postgres17.owner).folder
    with PostgresServer(programs, data_folder=again) as alone:
        assert alone.execute("SELECT pg_is_in_recovery(), (SELECT count(*) FROM followed)") == [(False, 2)]
