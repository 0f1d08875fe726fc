"""A chain for tests: a base backup and two incremental ones of one server, with what its content was at each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_fingerprint import take_with_fingerprint
from recoup.engines.postgres.earlier import earlier_backup
from recoup.kernel.secret import Secret
from tests.integration.postgres_copies import MemoryCopy
from tests.real import require_found

ROWS = 30_000


@dataclass(frozen=True, kw_only=True)
class Chain:
    """``copies`` are the backups, the oldest first; ``prints`` the fingerprint at each of them."""

    server: PostgresServer
    database: str
    copies: Sequence[MemoryCopy]
    prints: Sequence[Mapping[str, Any] | None]


@contextmanager
def summarizing(major: int, **settings: str) -> Iterator[PostgresServer]:
    """A server of its own that writes WAL summaries."""
    with PostgresServer(
        require_found(lambda: find_postgres(major)), settings={"summarize_wal": "on", **settings}
    ) as server:
        yield server


def take(server: PostgresServer, since: MemoryCopy | None = None, *, name: str = "earlier") -> MemoryCopy:
    """A base backup, or with ``since`` an incremental one."""
    copy = MemoryCopy()
    earlier = None if since is None else earlier_backup(name, since)
    copy.copy_facts = take_base_backup(Secret(server.url()), copy, label="chain", since=earlier)
    return copy


def take_chain(server: PostgresServer, space: Path) -> Chain:
    """Fill a database, and take a backup; change it all over, twice, and take an incremental backup each time.

    Between them: scattered updates, new, dropped and truncated tables, tables in a tablespace, a new tablespace, a
    dropped one, a new and a dropped database.
    """
    for name in ("stays", "goes", "comes"):
        (space / name).mkdir()
        if server.owner is not None:
            os.chown(space / name, *server.owner)
    database = server.new_database("chain")
    other = server.new_database("other")
    access = DirectAccess(Secret(server.url()))
    copies: list[MemoryCopy] = []
    prints = []

    def run(*statements: str) -> None:
        for statement in statements:
            server.execute(statement, database)

    def backup() -> None:
        copy = MemoryCopy()
        since = earlier_backup(f"copy{len(copies)}", copies[-1]) if copies else None
        facts = take_with_fingerprint(
            access, [database], lambda: take_base_backup(Secret(server.url()), copy, label="chain", since=since)
        )
        copy.copy_facts = replace(facts, fingerprint=None)
        copies.append(copy)
        prints.append(facts.fingerprint)

    run(
        f"CREATE TABLESPACE stays LOCATION '{space}/stays'",
        f"CREATE TABLESPACE goes LOCATION '{space}/goes'",
        f"CREATE TABLE wide AS SELECT i, repeat(md5(i::text), 6) AS t FROM generate_series(1, {ROWS}) i",
        "ALTER TABLE wide ADD PRIMARY KEY (i)",
        "CREATE TABLE far TABLESPACE stays AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) i",
        "CREATE TABLE lost TABLESPACE goes AS SELECT i FROM generate_series(1, 5000) i",
        "CREATE TABLE dropped AS SELECT i FROM generate_series(1, 5000) i",
        "CREATE TABLE emptied AS SELECT i FROM generate_series(1, 50000) i",
        "CREATE TABLE still AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) i",
        "VACUUM ANALYZE",
    )
    backup()
    run(
        "UPDATE wide SET t = 'once' WHERE i % 400 = 7",
        "UPDATE far SET t = 'once' WHERE i % 999 = 1",
        "DROP TABLE dropped, lost",
        "DROP TABLESPACE goes",
        "TRUNCATE emptied",
        "CREATE TABLE fresh AS SELECT i, md5(i::text) AS t FROM generate_series(1, 10000) i",
        f'DROP DATABASE "{other}"',
    )
    backup()
    run(
        "UPDATE wide SET t = 'twice' WHERE i % 300 = 11",
        "DELETE FROM still WHERE i > 15000",
        "VACUUM still",
        f"CREATE TABLESPACE comes LOCATION '{space}/comes'",
        "CREATE TABLE newer TABLESPACE comes AS SELECT i FROM generate_series(1, 8000) i",
        "INSERT INTO emptied SELECT generate_series(1, 100)",
        "UPDATE fresh SET t = 'thrice' WHERE i % 50 = 0",
    )
    server.new_database("young")
    backup()
    return Chain(server=server, database=database, copies=copies, prints=prints)
