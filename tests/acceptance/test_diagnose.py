"""``recoup diagnose`` on real servers: what is lost is told from what is only stopped, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recoup.demo.programs import find_postgres, find_redis
from recoup.demo.servers import PostgresServer, RedisServer
from tests.acceptance.test_compose_stack import Operator, _lose, operator
from tests.acceptance.workplace import Workplace
from tests.integration.logical import small_database
from tests.real import require_found
from tests.testhost.fixtures import Stack

__all__ = ["operator"]


def test_lost_rows_a_stopped_server_and_an_emptied_redis_are_told_apart(work: Workplace) -> None:
    with (
        PostgresServer(require_found(lambda: find_postgres(17))) as server,
        RedisServer(require_found(lambda: find_redis(7))) as cache,
    ):
        database = small_database(server)
        check = ', checks: [{name: orders are there, sql: "SELECT count(*) FROM orders", at_least: 100}]'
        work.add_postgres(server, database, more=check)
        work.add_redis(cache)
        work.write_plan()
        client = cache.client()
        client.mset({"a": "1", "b": "2"})
        work.recoup("backup", "--quiet")
        well = work.json("diagnose")
        assert (well["situation"], well["verdict"]) == ("nothing", "ok")

        with server.connect(database) as connection:
            connection.execute("DELETE FROM orders WHERE id > 60")
        rows = work.recoup("diagnose", expect=3)
        assert "data-loss: data are lost" in rows.out
        assert "postgres: orders are there: the answer is 60, and at least 100 was asked" in rows.out
        with server.connect(database) as connection:
            connection.execute("INSERT INTO orders SELECT g, 'x' FROM generate_series(61, 100) g")

        with server.connect(database) as connection:
            connection.execute("ALTER TABLE orders RENAME TO orders_old")
        gone = work.json("diagnose", expect=3)
        assert gone["situation"] == "data-loss"
        assert 'relation "orders" does not exist' in gone["because"][0]
        with server.connect(database) as connection:
            connection.execute("ALTER TABLE orders_old RENAME TO orders")
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE orders")  # somebody is at work: that says nothing about the data
            blind = work.json("diagnose", expect=4)
            assert (blind["situation"], blind["concerned"]) == ("unknown", ["postgres"])

        client.flushall()
        emptied = work.json("diagnose", expect=3)
        assert (emptied["situation"], emptied["concerned"]) == ("redis-loss", ["redis"])
        assert "recoup restore latest --service redis" in [one["command"] for one in emptied["advice"]]
        client.set("a", "1")
        client.close()

        server.stop()
        stopped = work.json("diagnose", expect=3)
        assert (stopped["situation"], stopped["concerned"]) == ("stopped", ["postgres"])
        server.start()
        assert work.json("diagnose")["situation"] == "nothing"


def test_damage_that_the_server_itself_meets_is_a_corruption(work: Workplace) -> None:
    with PostgresServer(require_found(lambda: find_postgres(18))) as server:  # with checksums by default
        database = small_database(server, rows=2000)
        check = ', checks: [{name: orders are there, sql: "SELECT count(note) FROM orders", at_least: 1}]'
        work.add_postgres(server, database, more=check)
        work.write_plan()
        work.recoup("backup", "--quiet")
        with server.connect(database) as connection:
            ((path,),) = connection.execute("SELECT pg_relation_filepath('orders')").fetchall()
            connection.execute("CHECKPOINT")
        server.stop()
        with open(server.data_folder / path, "r+b") as relation:
            relation.seek(8192 + 5000)
            relation.write(b"\xff\x00\xff")
        server.start()
        found = work.json("diagnose", expect=3)
        assert found["situation"] == "database-corruption"
        assert any("orders are there: invalid page" in one for one in found["because"])


def _diagnosed(operator: Operator, expect: int) -> dict[str, Any]:
    document = operator.run("diagnose", "--json", expect=expect)
    found = json.loads(document)
    assert isinstance(found, dict)
    return found


@pytest.mark.testhost
@pytest.mark.xdist_group("testhost")
def test_in_a_compose_stack_a_start_is_told_from_a_restore(operator: Operator) -> None:
    stack: Stack = operator.stack
    assert stack.answers()
    plan = stack.folder / "recoup.yaml"
    kept = [line for line in plan.read_text().splitlines() if "health:" not in line]  # the test is not on the machine
    plan.write_text("\n".join(kept) + "\n")
    operator.run("backup", "--quiet")
    assert _diagnosed(operator, 0)["situation"] == "nothing"

    stack.compose("stop", "postgres")
    stopped = _diagnosed(operator, 3)
    assert (stopped["situation"], stopped["concerned"]) == ("stopped", ["postgres"])
    assert stopped["advice"][0]["command"] == "docker compose up -d postgres"

    _lose(stack, "postgres")
    volumes = stack.machine.docker("volume", "ls", "--quiet")
    lost = _diagnosed(operator, 3)
    assert (lost["situation"], lost["concerned"]) == ("data-loss", ["postgres"])
    assert stack.machine.docker("volume", "ls", "--quiet") == volumes, "looking makes no volume"

    stack.compose("up", "--detach", "--wait", "postgres")  # as somebody in a hurry would
    fresh = _diagnosed(operator, 3)
    assert fresh["situation"] == "data-loss"
    assert "after the newest copy. A lost volume leaves that behind" in fresh["because"][0]
    command = next(one["command"] for one in fresh["advice"] if one["command"].startswith("recoup restore"))
    operator.run(*command.split()[1:], "--yes", "--quiet")
    assert _diagnosed(operator, 0)["situation"] == "nothing"
