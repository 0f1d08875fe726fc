"""Sessions over the protocol and through psql must not be told apart."""

from __future__ import annotations

import pytest

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.access import DirectAccess, open_maintenance
from recoup.engines.postgres.session import SqlError, identifier, literal
from recoup.kernel.errors import EngineError
from recoup.kernel.secret import Secret
from tests.integration.logical import both_ways, direct, through_programs

HARD = "tab\t, line\n, return\r, \\ \\. 'quote' \"double\" :name :'x' $$ ünïcode \u2028 \x01\x1f"


def test_any_text_comes_back_as_it_was(any_postgres: PostgresServer) -> None:
    for access in both_ways(any_postgres):
        with access.session() as session:
            rows = session.query(
                f"SELECT {literal(HARD)} AS {identifier(HARD)}, NULL, '', 1 UNION ALL SELECT '', '', NULL, 2"
            )
            assert rows == [(HARD, None, "", "1"), ("", "", None, "2")]
            assert session.query("SELECT 1 WHERE false") == []


def test_a_refused_statement_names_its_sqlstate_and_the_session_goes_on(any_postgres: PostgresServer) -> None:
    for access in both_ways(any_postgres):
        with access.session() as session:
            for sql, state in (
                ("SELECT 1 / (5 - g) FROM generate_series(1, 9) g", "22012"),
                ("SELEC 1", "42601"),
                ("SELECT * FROM nothing_there", "42P01"),
            ):
                with pytest.raises(SqlError, match=state) as refused:
                    session.query(sql)
                assert refused.value.sqlstate == state
            assert session.query("SELECT 7") == [("7",)]


def test_settings_that_change_printing_are_pinned(any_postgres: PostgresServer) -> None:
    name = any_postgres.new_database("pinned")
    any_postgres.execute(f"ALTER DATABASE {name} SET TimeZone TO 'Asia/Tokyo'")
    any_postgres.execute(f"ALTER DATABASE {name} SET extra_float_digits TO 0")
    any_postgres.execute(f"ALTER DATABASE {name} SET bytea_output TO 'escape'")
    any_postgres.execute(f"ALTER DATABASE {name} SET DateStyle TO 'German'")
    any_postgres.execute(f"ALTER DATABASE {name} SET IntervalStyle TO 'iso_8601'")
    for access in both_ways(any_postgres):
        with access.session(name) as session:
            assert session.query(
                "SELECT '2026-01-01 00:00+09'::timestamptz, 0.1::float8 + 0.2, '\\x00ff'::bytea, '1 day'::interval"
            ) == [("2025-12-31 15:00:00+00", "0.30000000000000004", "\\x00ff", "1 day")]


def test_the_end_of_the_server_is_an_error_that_may_be_tried_again(postgres15: PostgresServer) -> None:
    for access in both_ways(postgres15):
        with access.session() as session:
            pid = session.query("SELECT pg_backend_pid()")[0][0]
            postgres15.execute(f"SELECT pg_terminate_backend({pid})")
            with pytest.raises(EngineError) as lost:
                session.query("SELECT 1")
            assert not isinstance(lost.value, SqlError)
            assert lost.value.may_retry


def test_a_missing_database_is_named(postgres15: PostgresServer) -> None:
    for access in both_ways(postgres15):
        with pytest.raises(EngineError, match='database "not_there" does not exist') as missing:
            access.session("not_there")
        assert missing.value.hint


def test_a_password_is_in_no_text_and_in_no_argument(postgres15: PostgresServer) -> None:
    word = "pa55word-of-the-test"
    address = Secret(f"postgresql://nobody:{word}@127.0.0.1:1/db")
    with pytest.raises(EngineError) as refused:
        DirectAccess(address).session()
    assert word not in str(refused.value) + str(refused.value.hint)
    with pytest.raises(EngineError, match="cannot be read") as unreadable:
        DirectAccess(Secret(f"host=x password={word} nonsense"))
    assert word not in str(unreadable.value)
    with postgres15.connect() as connection:
        connection.execute(f"CREATE ROLE speaker LOGIN SUPERUSER PASSWORD '{word}'")
    access = DirectAccess(Secret(postgres15.url(user="speaker", password=word)), folders=[postgres15.bin])
    command = access.command("pg_dump", "--version")
    assert word not in str(command) + repr(command)
    assert command.environment["PGPASSWORD"] == Secret(word)


def test_programs_get_the_password_that_the_environment_has_for_an_address_without_one(
    postgres15: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "of-the-environment")
    monkeypatch.setenv("PGPORT", "1")
    access = DirectAccess(Secret(postgres15.url()), folders=[postgres15.bin])
    command = access.command("pg_dump", "--version")
    assert command.environment["PGPASSWORD"] == Secret("of-the-environment")
    assert command.environment["PGPORT"] == str(postgres15.port)  # what the address says comes first


def test_a_snapshot_is_read_only_and_others_can_join_it(any_postgres: PostgresServer) -> None:
    for access in both_ways(any_postgres):
        with access.session() as session, access.session() as other:
            snapshot = session.export_snapshot()
            other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            other.execute(f"SET TRANSACTION SNAPSHOT {literal(snapshot)}")
            other.execute("ROLLBACK")
            with pytest.raises(SqlError, match="read-only"):
                session.execute("CREATE TABLE t ()")


def test_programs_of_the_servers_own_version_are_found(any_postgres: PostgresServer) -> None:
    for access in both_ways(any_postgres):
        assert access.programs().version[0] == any_postgres.major


def test_maintenance_avoids_the_database_that_is_to_be_renamed(postgres15: PostgresServer) -> None:
    for access in (direct(postgres15), through_programs(postgres15)):
        with open_maintenance(access, avoid="postgres") as session:
            assert session.query("SELECT current_database()") == [("template1",)]
