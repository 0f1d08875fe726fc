"""Base backups of real servers: taken, restored into a folder, booted, compared."""

from __future__ import annotations

import os
from pathlib import Path

from recoup.demo.programs import Programs
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_check import check_base_copy
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from tests.integration.postgres_copies import MemoryCopy


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
