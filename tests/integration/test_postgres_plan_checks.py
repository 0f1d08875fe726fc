"""The plan's own checks on real databases: asked as the application asks, only believed when they prove something."""

from __future__ import annotations

import pytest

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.postgres.plan_checks import PlanCheck, check_plan
from recoup.engines.postgres.session import Session
from recoup.kernel.finding import Finding, Verdict
from tests.integration.restored import Restored

_SHOP = """
CREATE SCHEMA app;
CREATE TABLE app.customers (id serial PRIMARY KEY, name text);
CREATE TABLE app.orders (id int, at date, customer int REFERENCES app.customers, total numeric, PRIMARY KEY (id, at))
  PARTITION BY RANGE (at);
CREATE TABLE app.orders_old PARTITION OF app.orders FOR VALUES FROM ('2020-01-01') TO ('2026-01-01');
CREATE TABLE app.orders_new PARTITION OF app.orders FOR VALUES FROM ('2026-01-01') TO ('2030-01-01');
CREATE TABLE app.items (id int, order_id int, order_at date, FOREIGN KEY (order_id, order_at) REFERENCES app.orders);
CREATE TABLE app.parent (a int); CREATE TABLE app.child (b int) INHERITS (app.parent);
INSERT INTO app.customers (name) SELECT 'c' || g FROM generate_series(1, 10) g;
INSERT INTO app.orders SELECT g, date '2025-06-01' + g * 10, 1 + g % 10, g FROM generate_series(1, 100) g;
INSERT INTO app.items SELECT g, g, date '2025-06-01' + g * 10 FROM generate_series(1, 100) g;
INSERT INTO app.child VALUES (1, 2);
CREATE MATERIALIZED VIEW app.totals AS SELECT sum(total) AS total FROM app.orders;
CREATE FUNCTION app.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'nobody empties this'; END $$;
CREATE TRIGGER kept BEFORE TRUNCATE ON app.customers EXECUTE FUNCTION app.refuse();
CREATE FUNCTION app.no_definitions() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no DDL'; END $$;
CREATE EVENT TRIGGER no_definitions ON ddl_command_start EXECUTE FUNCTION app.no_definitions();
"""
OK, FAILED, UNKNOWN = Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN


@pytest.fixture(scope="module")
def shop15(postgres15: PostgresServer) -> Restored:
    return shop(postgres15)


def shop(server: PostgresServer) -> Restored:
    name = server.new_database("shop")
    with server.connect(name) as connection:
        connection.execute(_SHOP)
    server.execute(f'ALTER DATABASE "{name}" SET search_path TO app')
    server.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only TO on')
    return Restored(server, (name, "postgres"))


def one(server: Restored, sql: str, **expected: float | bool | str) -> Finding:
    (found,) = check_plan(server, [PlanCheck(sql=sql, **expected)], allowed_seconds=240)
    return found


def test_a_check_that_only_the_data_satisfy_is_ok_and_nothing_is_changed(any_postgres: PostgresServer) -> None:
    server = shop(any_postgres)
    with server.session(server.names[0]) as session:
        before = fingerprint_database(session)
    found = one(server, "SELECT count(*) FROM orders; ", at_least=100)
    assert (found.verdict, found.detail) == (OK, "the answer is 100, and at least 100 was asked")
    with server.session(server.names[0]) as session:
        assert fingerprint_database(session) == before


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", {"equals": 1}),
        ("SELECT count(*) FROM items WHERE order_id NOT IN (SELECT id FROM orders)", {"equals": 0}),
        ("SELECT count(*) FROM pg_class", {"at_least": 100}),
        ("SELECT count(*) FROM customers -- all of them", {"at_least": 0}),
        ("SELECT coalesce(max(total), 7) FROM orders", {"at_least": 7}),
    ],
)
def test_a_check_that_an_empty_database_passes_too_is_unknown(
    shop15: Restored, sql: str, expected: dict[str, int]
) -> None:
    found = one(shop15, sql, **expected)
    assert found.verdict is UNKNOWN
    assert "on an empty database it holds too" in found.detail
    assert "proves nothing" in found.detail
    assert "CASE WHEN" in str(found.hint)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT CASE WHEN count(*) > 0 THEN count(*) FILTER (WHERE total < 0) END FROM orders", {"equals": 0}),
        ("SELECT last_value FROM customers_id_seq", {"at_least": 10}),
        ("SELECT total FROM totals", {"equals": 5050}),
        ("SELECT 100 / count(*) FROM orders", {"equals": 1}),
        ("SELECT count(*) FROM child", {"equals": 1}),
        ("WITH big AS (SELECT * FROM orders WHERE total > 50) SELECT count(*) FROM big", {"equals": 50}),
        ("TABLE parent", {"equals": 1}),
        ("SELECT bool_and(total > 0) FROM orders", {"equals": True}),
        ("SELECT name FROM customers ORDER BY id DESC", {"equals": "c10"}),
    ],
)
def test_a_check_that_an_empty_database_fails_is_ok(
    shop15: Restored, sql: str, expected: dict[str, float | bool | str]
) -> None:
    found = one(shop15, sql, **expected)
    assert found.verdict is OK, found


@pytest.mark.parametrize(
    ("sql", "verdict", "said"),
    [
        ("SELECT count(*) FROM orders", FAILED, "the answer is 100, and at least 101 was asked"),
        ("SELECT max(total) FROM orders WHERE id < 0", FAILED, "the answer is NULL"),
        ("SELECT total FROM orders WHERE id < 0", FAILED, "the answer has no row"),
        ("SELECT name FROM customers", UNKNOWN, "it is not a number"),
        ("SELECT count(*) FROM nowhere", UNKNOWN, 'relation "nowhere" does not exist'),
        ("SELECT count(*) FRM orders", UNKNOWN, "syntax error"),
        ("SELECT pg_sleep(60)", UNKNOWN, "no answer within"),
        ("SELECT nextval('customers_id_seq')", UNKNOWN, "read-only transaction"),
        ("SELECT 1; DROP TABLE app.items", UNKNOWN, "syntax error"),
    ],
)
def test_wrong_answers_fail_and_errors_are_unknown_in_exact_words(
    shop15: Restored, sql: str, verdict: Verdict, said: str
) -> None:
    patience = 0.3 if "pg_sleep" in sql else 240.0
    (found,) = check_plan(shop15, [PlanCheck(sql=sql, at_least=101)], allowed_seconds=patience)
    assert found.verdict is verdict
    assert said in found.detail
    assert found.verdict is not UNKNOWN or "not a number" in said or found.hint
    assert ("schema" in str(found.hint)) is ("does not exist" in said)


def test_without_checks_it_is_unknown_and_says_how_to_write_one(shop15: Restored) -> None:
    (found,) = check_plan(shop15, [])
    assert found.verdict is UNKNOWN
    assert "SELECT count(*) FROM orders" in str(found.hint)


def test_each_check_is_asked_in_its_own_database_and_answered_in_order(postgres15: PostgresServer) -> None:
    here, there = postgres15.new_database("here"), postgres15.new_database("there")
    for name, rows in ((here, 3), (there, 5)):
        with postgres15.connect(name) as connection:
            connection.execute("CREATE TABLE t (a int)")
            connection.execute(f"INSERT INTO t SELECT generate_series(1, {rows})".encode())
    server = Restored(postgres15, (here, there, "postgres"))
    count = "SELECT count(*) FROM t"
    found = check_plan(
        server,
        [
            PlanCheck(sql=count, equals=5, database=there, name="five there"),
            PlanCheck(sql=count, equals=3),
            PlanCheck(sql=count, equals=3, database="gone"),
            PlanCheck(sql=count, equals=4, database=there),
        ],
        default_database=here,
    )
    assert [(one.subject, one.verdict) for one in found] == [
        ("five there", OK),
        (count, OK),
        (count, FAILED),
        (count, FAILED),
    ]
    assert "no database 'gone'" in found[2].detail
    (undecided,) = check_plan(server, [PlanCheck(sql=count, equals=3)])
    assert undecided.verdict is UNKNOWN
    assert "several databases" in undecided.detail


def test_emptying_never_goes_to_another_server(postgres17: PostgresServer) -> None:
    name = postgres17.new_database("far")
    with postgres17.connect(name) as connection:
        connection.execute("CREATE EXTENSION postgres_fdw")
        connection.execute("CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere')")
        connection.execute("CREATE USER MAPPING FOR PUBLIC SERVER far")
        connection.execute("CREATE TABLE kept (a int) PARTITION BY LIST (a)")
        connection.execute("CREATE TABLE kept_1 PARTITION OF kept FOR VALUES IN (1)")
        connection.execute("CREATE FOREIGN TABLE kept_2 PARTITION OF kept FOR VALUES IN (2) SERVER far")
        connection.execute("INSERT INTO kept_1 VALUES (1)")
    server = Restored(postgres17, (name,))
    near, far = check_plan(
        server,
        [PlanCheck(sql="SELECT count(*) FROM kept_1", equals=1), PlanCheck(sql="SELECT count(*) FROM kept", equals=1)],
    )
    assert near.verdict is OK
    assert far.verdict is UNKNOWN
    assert 'server "far"' in far.detail


class Impatient(Restored):
    """Its sessions wait for no lock."""

    def session(self, database: str = "postgres") -> Session:
        session = Restored.session(self, database)
        session.execute("SET lock_timeout TO '50ms'")
        return session


def test_when_the_tables_cannot_be_emptied_a_check_that_holds_is_unknown(postgres15: PostgresServer) -> None:
    server = shop(postgres15)
    with server.session(server.names[0]) as other:
        other.execute("BEGIN READ WRITE")
        other.execute("LOCK TABLE app.orders_old IN ROW EXCLUSIVE MODE")
        impatient = Impatient(server.server, server.names)
        (found,) = check_plan(impatient, [PlanCheck(sql="SELECT count(*) FROM orders", equals=100)])
    assert found.verdict is UNKNOWN
    assert "the tables could not be emptied" in found.detail
