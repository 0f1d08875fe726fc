"""A small cluster with everything in it that is going to be damaged, the damage done, and what was seen of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from recoup.demo.programs import Programs
from recoup.demo.servers import PostgresServer
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import Command, run
from tests.integration.planted_damage import BROKEN, DAMAGES, DATABASE, PAGE, fitting, flip_in_key


def prepare(programs: Programs, folder: Path, also: Callable[[PostgresServer], object]) -> None:
    """Make a small cluster in ``folder`` that holds everything that is going to be damaged, undamaged."""
    with PostgresServer(programs, initdb_arguments=["--wal-segsize=1"]) as server:
        for name in (DATABASE, BROKEN):
            server.execute(f"CREATE DATABASE {name}")
        for damage in DAMAGES:
            server.execute(fitting(damage.tables, server.major), damage.database)
        also(server)
        _grow(server)
        server.execute("DROP DATABASE postgres", DATABASE)
        server.stop()
        shutil.copytree(server.data_folder, folder)


def _grow(server: PostgresServer) -> None:
    """Make a page of zeros between others that is no damage, as a crash leaves it that met a growing table."""
    server.execute("CREATE TABLE grown (id int PRIMARY KEY)", DATABASE)
    server.execute("INSERT INTO grown SELECT generate_series(1, 1000)", DATABASE)
    path = _file(server, "grown")
    server.stop()
    with open(path, "ab") as file:
        file.write(bytes(2 * PAGE))
    server.start()
    server.execute("INSERT INTO grown SELECT generate_series(1001, 2000)", DATABASE)


def plant(programs: Programs, folder: Path) -> None:
    """Do all the damage to a cluster that ``prepare`` made. Page checksums are turned off before."""
    with PostgresServer(programs, data_folder=folder) as server:
        without_checksums(server)
        for database in (DATABASE, BROKEN):
            with server.connect(database, options="-c allow_system_table_mods=on -c session_replication_role=replica "
                                "-c search_path=public,pg_catalog") as connection:  # fmt: skip
                for damage in DAMAGES:
                    for statement in (
                        fitting(damage.lie, server.major).split(";") if damage.database == database else ()
                    ):
                        if statement.strip():
                            connection.execute(statement.encode())
        edits = [(damage, [_file(server, name) for name in damage.files]) for damage in DAMAGES if damage.edit]
        server.execute(f"ALTER DATABASE {BROKEN} ALLOW_CONNECTIONS false", DATABASE)
        server.execute("CHECKPOINT", DATABASE)
        server.stop()
        for damage, paths in edits:
            assert damage.edit is not None
            damage.edit(*paths)


def _file(server: PostgresServer, name: str) -> Path:
    table, _, toast = name.partition("/")
    relation = f"(SELECT reltoastrelid FROM pg_class WHERE oid = '{table}'::regclass)" if toast else f"'{table}'"
    return server.data_folder / str(server.execute(f"SELECT pg_relation_filepath({relation})", DATABASE)[0][0])


def without_checksums(server: PostgresServer) -> None:
    """Turn page checksums off."""
    server.stop()
    argv = [server.program("pg_checksums"), "--disable", "-D", str(server.data_folder)]
    run(Command(argv=argv, user=server.owner, folder=server.root))
    server.start()


def seen(found: Sequence[Finding], major: int) -> dict[str, dict[str, Verdict]]:
    """For each damage, the checks that named its object, and what they said of it."""
    return {
        damage.name: {
            finding.check: finding.verdict
            for finding in found
            if finding.verdict is not Verdict.OK and fitting(damage.subject, major) in finding.subject
        }
        for damage in DAMAGES
    }


def as_table(usual: Mapping[str, Mapping[str, Verdict]], bare: Mapping[str, Mapping[str, Verdict]]) -> str:
    """The matrix as the page has it. ``bare``: what was seen where there was no amcheck."""
    lines = ["| damage | seen by | without amcheck |", "| --- | --- | --- |"]
    for damage in DAMAGES:
        one, other = _cell(usual[damage.name]), _cell(bare[damage.name])
        if usual[damage.name] and not bare[damage.name]:
            other = "nothing: that amcheck is missing is said (unknown)"
        lines.append(f"| {damage.name} | {one} | {'the same' if one == other else other} |")
    return "\n".join(lines)


def _cell(checks: Mapping[str, Verdict]) -> str:
    marked = [
        f"{check} (unknown)" if verdict is Verdict.UNKNOWN else check for check, verdict in sorted(checks.items())
    ]
    return "; ".join(marked) or "**nothing**: only by the grade *same*"


def flip_one(programs: Programs, folder: Path) -> str:
    """Flip a bit that nothing but a checksum sees, in a cluster that has checksums; return the table's name."""
    with PostgresServer(programs, data_folder=folder) as server:
        path = _file(server, "bit_hidden")
        server.stop()
    flip_in_key(path)
    return "public.bit_hidden"
