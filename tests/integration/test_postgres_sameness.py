"""The grade *same*: what a restored copy has otherwise than the fingerprint in its manifest is found and named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.postgres.sameness import INEXACT, compare_with_recorded, settle
from recoup.kernel.finding import Finding, Verdict, overall
from tests.integration.restored import Restored

_SHOP = """
CREATE TABLE orders (id int PRIMARY KEY, note text, price numeric);
INSERT INTO orders SELECT g, 'order ' || g, g FROM generate_series(1, 200) g;
CREATE TABLE invoices (LIKE orders INCLUDING ALL);
INSERT INTO invoices SELECT g, 'invoice ' || g, g FROM generate_series(1, 200) g;
CREATE TABLE log (line text);
INSERT INTO log VALUES ('a'), ('b'), ('b'), ('c');
CREATE UNLOGGED TABLE sessions (id int);
INSERT INTO sessions VALUES (1);
CREATE TABLE places (at point, said json);
INSERT INTO places VALUES ('(1,2)', '{"a": 1}');
CREATE SEQUENCE numbers;
SELECT setval('numbers', 1000);
"""


def shop(server: PostgresServer) -> tuple[str, dict[str, Any]]:
    """A database, and its fingerprint as it comes back from a manifest."""
    name = server.new_database("shop")
    with server.connect(name) as connection:
        connection.execute(_SHOP)
    with Restored(server, (name,)).session(name) as session:
        return name, json.loads(json.dumps(fingerprint_database(session)))


def compared(server: PostgresServer, name: str, fingerprint: Mapping[str, Any], *, exact: bool = True) -> list[Finding]:
    recorded = {"exact": exact, "databases": {name: fingerprint}}
    return compare_with_recorded(Restored(server, (name,)), recorded, {"major": fingerprint["server_major"]})


def damage(server: PostgresServer, name: str, sql: str) -> None:
    with server.connect(name) as connection:
        connection.execute(sql.encode())


PLANTED = [
    pytest.param(
        "UPDATE orders SET price = price + 0.01 WHERE id = 77",
        {'"public"."orders"'}, "200 rows on both sides, and at least one differs", id="a row changed on the way",
    ),
    pytest.param(
        "ALTER TABLE orders RENAME TO between; ALTER TABLE invoices RENAME TO orders; "
        "ALTER TABLE between RENAME TO invoices",
        {'"public"."orders"', '"public"."invoices"'}, "200 rows on both sides, and at least one differs",
        id="two tables swapped by name",
    ),
    pytest.param(
        "UPDATE log SET line = 'a' WHERE line = 'c'",
        {'"public"."log"'}, "4 rows on both sides, and at least one differs", id="a row twice in the place of another",
    ),
    pytest.param(
        "INSERT INTO log VALUES ('c'), ('c')",
        {'"public"."log"'}, "4 rows were copied, 6 are there", id="a row twice more, which cancels out in an XOR",
    ),
    pytest.param("TRUNCATE orders", {'"public"."orders"'}, "200 rows were copied, 0 are there", id="a table emptied"),
    pytest.param("SELECT setval('numbers', 900)", {'"public"."numbers"'}, "was at 1000, is at 900, behind",
                 id="a sequence moved back"),
    pytest.param("UPDATE places SET said = '{\"a\":1}'", {'"public"."places"'}, "1 rows on both sides",
                 id="a type without a hash, printed in another way"),
]  # fmt: skip


def test_every_planted_difference_fails_and_is_named(any_postgres: PostgresServer) -> None:
    name, fingerprint = shop(any_postgres)
    assert overall(compared(any_postgres, name, fingerprint)) is Verdict.OK
    for planted in PLANTED:
        sql, tables, said = planted.values
        copy = any_postgres.new_database("planted")
        any_postgres.execute(f'DROP DATABASE "{copy}"')
        any_postgres.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{name}"')
        damage(any_postgres, copy, str(sql))
        found = compared(any_postgres, copy, fingerprint)
        bad = [one for one in found if one.verdict is not Verdict.OK]
        rows = {one.subject.removeprefix(f"{copy}: ") for one in bad if not one.check.startswith("the definition")}
        assert rows == tables, (planted.id, bad)
        assert all(one.verdict is Verdict.FAILED and one.hint for one in bad)
        assert any(str(said) in one.detail for one in bad), (planted.id, bad)
        any_postgres.execute(f'DROP DATABASE "{copy}"')


def test_what_is_equal_and_what_cannot_be_compared_is_said_beside_a_difference(postgres15: PostgresServer) -> None:
    name, fingerprint = shop(postgres15)
    (whole,) = compared(postgres15, name, fingerprint)
    assert "4 tables with 405 rows" in whole.detail
    assert '"public"."sessions": an unlogged table is empty after a physical restore' in whole.not_checked
    damage(postgres15, name, "DELETE FROM log")
    bad, rest = compared(postgres15, name, fingerprint)
    assert (bad.verdict, bad.subject) == (Verdict.FAILED, f'{name}: "public"."log"')
    assert (rest.verdict, rest.detail) == (Verdict.OK, "3 of 5 tables")
    assert '"public"."sessions"' in rest.not_checked


def test_a_copy_without_a_fingerprint_is_unknown_and_says_what_to_do(postgres15: PostgresServer) -> None:
    (found,) = compare_with_recorded(Restored(postgres15, ("postgres",)), None, {"major": 15})
    assert found.verdict is Verdict.UNKNOWN
    assert "fingerprint: true" in str(found.hint)


def test_a_missing_database_fails_and_one_without_a_fingerprint_is_named(postgres15: PostgresServer) -> None:
    name, fingerprint = shop(postgres15)
    recorded = {"exact": True, "databases": {name: fingerprint, "gone": fingerprint}}
    found = compare_with_recorded(Restored(postgres15, (name, "other")), recorded, {"major": 15})
    assert [(one.subject, one.verdict) for one in found] == [(name, Verdict.OK), ("gone", Verdict.FAILED)]
    assert found[-1].not_checked == "databases without a fingerprint: other"


def test_a_difference_from_an_inexact_fingerprint_is_unknown_until_the_cross_chain_settles_it(
    postgres15: PostgresServer,
) -> None:
    name, fingerprint = shop(postgres15)
    damage(postgres15, name, "DELETE FROM log WHERE line = 'a'")
    found = compared(postgres15, name, fingerprint, exact=False)
    doubtful = [one for one in found if one.verdict is not Verdict.OK]
    assert [(one.check, one.verdict) for one in doubtful] == [(INEXACT, Verdict.UNKNOWN)]
    assert "cross-chain" in str(doubtful[0].hint)

    def crossed(verdict: Verdict) -> list[Finding]:
        return [Finding(check="crossed", subject="all", verdict=verdict)]

    assert overall(settle(found, crossed(Verdict.OK))) is Verdict.OK
    assert '"public"."log"' in str(settle(found, crossed(Verdict.OK)))
    assert overall(settle(found, crossed(Verdict.UNKNOWN))) is Verdict.UNKNOWN
    assert overall(settle(found, crossed(Verdict.FAILED))) is Verdict.FAILED
    assert overall(settle(found, [])) is Verdict.UNKNOWN


def test_the_cross_chain_does_not_settle_what_an_exact_fingerprint_shows(postgres15: PostgresServer) -> None:
    name, fingerprint = shop(postgres15)
    damage(postgres15, name, "DELETE FROM log WHERE line = 'a'")
    found = compared(postgres15, name, fingerprint)
    crossed = [Finding(check="crossed", subject="all", verdict=Verdict.OK)]
    assert overall(settle(found, crossed)) is Verdict.FAILED


def test_a_table_whose_type_lacks_its_library_is_unknown_and_the_library_is_named(postgres17: PostgresServer) -> None:
    name = postgres17.new_database("library")
    damage(postgres17, name, "CREATE EXTENSION hstore; CREATE TABLE kept (h hstore); INSERT INTO kept VALUES ('a=>1')")
    with Restored(postgres17, (name,)).session(name) as session:
        fingerprint = fingerprint_database(session)
    damage(postgres17, name, "UPDATE pg_proc SET probin = '$libdir/not_installed' WHERE probin LIKE '%hstore'")
    bad = [one for one in compared(postgres17, name, fingerprint) if one.verdict is not Verdict.OK]
    assert [(one.subject, one.verdict) for one in bad] == [(f'{name}: "public"."kept"', Verdict.UNKNOWN)]
    assert "not_installed" in bad[0].detail
    assert "package" in str(bad[0].hint)
