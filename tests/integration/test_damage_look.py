"""The short look for damage in a server that others work on: what goes or changes meanwhile is not called hurt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.access import DirectAccess, connectable
from recoup.engines.postgres.damage_look import look_for_damage
from recoup.engines.postgres.session import Row, Session
from recoup.kernel.finding import Verdict
from recoup.kernel.secret import Secret
from tests.integration.planted_cluster import without_checksums
from tests.integration.planted_damage import flip_in_header, rows
from tests.real import require_found

TABLES = ("hurt", "dropped", "indexless", "gone", "renamed", "narrowed")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer(require_found(lambda: find_postgres(17))) as found:
        without_checksums(found)
        yield found


class Busy(DirectAccess):
    """A server on which others work: before the first question with these words, they run these statements."""

    def __init__(self, server: PostgresServer, database: str, deeds: dict[str, str]) -> None:
        super().__init__(Secret(server.url()))
        self.server, self.database, self.deeds = server, database, deeds

    def session(self, database: str | None = None) -> Session:
        return Watched(super().session(database), self)  # type: ignore[return-value]

    def others_work(self, sql: str) -> None:
        for words in [one for one in self.deeds if one in sql]:
            self.server.execute(self.deeds.pop(words), self.database)


class Watched:
    def __init__(self, session: Session, access: Busy) -> None:
        self.session, self.access = session, access

    def query(self, sql: str) -> list[Row]:
        self.access.others_work(sql)
        return self.session.query(sql)

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: Any) -> None:
        self.session.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)


def test_what_is_dropped_or_changed_while_it_is_looked_at_is_not_called_hurt(server: PostgresServer) -> None:
    name = server.new_database()
    server.execute("CREATE EXTENSION amcheck", name)
    for statement in "".join(rows(table, count=50) for table in TABLES).split(";")[:-1]:
        server.execute(statement, name)
    server.execute("CHECKPOINT", name)
    path = server.data_folder / str(server.execute("SELECT pg_relation_filepath('hurt')", name)[0][0])
    server.stop()
    flip_in_header(path)
    server.start()
    access = Busy(server, name, {
        "verify_heapam(": "DROP TABLE dropped",
        "bt_index_check(": "ALTER TABLE indexless DROP CONSTRAINT indexless_pkey",
        "FROM ONLY ": "DROP TABLE gone; ALTER TABLE renamed RENAME TO other; ALTER TABLE narrowed DROP COLUMN note",
    })  # fmt: skip
    found = [one for one in look_for_damage(access, seconds=240) if one.verdict is not Verdict.OK]
    assert not access.deeds, "others worked in the middle of every look"
    damaged = {one.subject for one in found if one.verdict is Verdict.FAILED}
    assert damaged >= {f"{name}: public.hurt"}, "what is hurt is named as ever"
    assert damaged <= {f"{name}: public.hurt", f"{name}: public.hurt_pkey"}, found
    meanwhile = {
        one.subject: one.detail for one in found if one.verdict is Verdict.UNKNOWN and "public." in one.subject
    }
    for table in ("dropped", "indexless_pkey", "gone", "renamed", "narrowed"):
        assert "dropped or changed while this was looked at" in meanwhile[f"{name}: public.{table}"]


def test_a_database_that_was_dropped_by_half_is_not_asked(server: PostgresServer) -> None:
    name, half = server.new_database(), server.new_database()
    server.execute(f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{half}'")  # as a DROP DATABASE begins
    found = connectable(DirectAccess(Secret(server.url())))
    assert name in found
    assert half not in found
    assert found[-1] == "template1", "those of users come first"
