"""Shared by the tests of dumps: access to a test server in both ways, and a database full of nasty things."""

from __future__ import annotations

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.access import DirectAccess, ProgramAccess, ServerAccess
from recoup.engines.postgres.dump import DumpFormat, DumpRequest, take_dump
from recoup.engines.postgres.replace_database import Replacement
from recoup.kernel import clock
from recoup.kernel.ids import new_id
from recoup.kernel.process import LocalRunner
from recoup.kernel.secret import Secret
from tests.integration.held_copy import HeldCopy
from tests.integration.nasty_database import HOLE, NASTY_ROLES, nasty


def direct(server: PostgresServer) -> DirectAccess:
    return DirectAccess(Secret(server.url()), folders=[server.bin])


def through_programs(server: PostgresServer) -> ProgramAccess:
    return ProgramAccess(
        LocalRunner(),
        user=server.user,
        environment={"PGHOST": str(server.socket_folder), "PGPORT": str(server.port)},
        folder=server.bin,
    )


def both_ways(server: PostgresServer) -> list[ServerAccess]:
    return [direct(server), through_programs(server)]


def make_roles(server: PostgresServer, *names: str) -> None:
    present = {name for (name,) in server.execute("SELECT rolname FROM pg_roles")}
    for name in set(names) - present:
        server.execute('CREATE ROLE "{}"'.format(name.replace('"', '""')))


def nasty_database(server: PostgresServer) -> str:
    make_roles(server, *NASTY_ROLES)
    name = server.new_database("nasty")
    with_xml = "--with-libxml" in str(server.execute("SELECT setting FROM pg_config() WHERE name = 'CONFIGURE'"))
    with server.connect(name) as connection:
        connection.execute(nasty(with_xml=with_xml).encode())
        connection.execute(HOLE)
    server.execute(f'ALTER DATABASE "{name}" SET search_path TO public, "a ""b"')
    server.execute(f"ALTER DATABASE \"{name}\" SET work_mem TO '8MB'")
    server.execute(f'REVOKE TEMPORARY ON DATABASE "{name}" FROM PUBLIC')
    server.execute(f'GRANT CREATE ON DATABASE "{name}" TO recoup_owner WITH GRANT OPTION')
    return name


def small_database(server: PostgresServer, *, rows: int = 100) -> str:
    name = server.new_database("small")
    with server.connect(name) as connection:
        connection.execute("CREATE TABLE orders (id int PRIMARY KEY, note text)")
        connection.execute(f"INSERT INTO orders SELECT g, 'order ' || g FROM generate_series(1, {rows}) g")
    return name


def dumped(access: ServerAccess, *databases: str, form: DumpFormat = DumpFormat.CUSTOM) -> HeldCopy:
    copy = HeldCopy()
    return copy.complete(take_dump(access, copy, DumpRequest(databases=databases, format=form)))


def replacing(database: str, *, force: bool = False) -> Replacement:
    return Replacement(database=database, run_id=new_id(clock.now()), force=force)


def databases_of(server: PostgresServer) -> set[str]:
    return {name for (name,) in server.execute("SELECT datname FROM pg_database")}
