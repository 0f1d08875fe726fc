"""Damage inside of a production database: its copies are stored, intact and boot, and `recoup verify` still says no."""

from __future__ import annotations

from recoup.demo.servers import PostgresServer
from tests.acceptance.workplace import new_workplace


def test_a_copy_of_a_damaged_database_is_not_sound_and_the_objects_are_named(postgres15: PostgresServer) -> None:
    database = postgres15.new_database("damaged")
    with postgres15.connect(database) as connection:
        connection.execute(
            "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE lines (order_id int REFERENCES orders);"
            "INSERT INTO orders SELECT generate_series(1, 100); INSERT INTO lines SELECT generate_series(1, 100);"
        )
    try:
        with new_workplace() as work:
            work.add_postgres(postgres15, database)
            work.write_plan()
            work.backup("--kind", "dump")
            sound = work.recoup("verify", "--grade", "sound")
            assert "proven sound" in sound.out
            # Behind the back of the foreign key and of the index.
            with postgres15.connect(database) as connection:
                connection.execute("SET session_replication_role = replica")
                connection.execute("INSERT INTO lines VALUES (4711)")
                told = "WHERE indexrelid = 'orders_pkey'::regclass"
                connection.execute(f"UPDATE pg_index SET indisready = false {told}".encode())
                connection.execute("INSERT INTO orders VALUES (101)")
                connection.execute(f"UPDATE pg_index SET indisready = true {told}".encode())
            work.backup("--kind", "base")
            bad = work.json("verify", "--grade", "sound", "--service", "postgres", expect=3)
    finally:
        postgres15.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
    failed = {
        finding["subject"]
        for artefact in bad["artefacts"]
        for rung in artefact.get("rungs", [artefact])
        for finding in rung["findings"]
        if finding["verdict"] == "failed" and finding["subject"].startswith(f"{database}: ")
    }
    assert failed == {
        f"{database}: public.lines, constraint lines_order_id_fkey",
        f"{database}: public.orders_pkey",
    }
