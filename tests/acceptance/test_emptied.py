"""After a loss, what was started empty is copied like anything else: *latest* must not bring nothing back."""

from __future__ import annotations

from recoup.demo.servers import PostgresServer, RedisServer
from tests.acceptance.workplace import Workplace
from tests.integration.logical import small_database


def test_latest_is_not_a_copy_of_nothing_when_the_one_before_holds_keys(work: Workplace, redis7: RedisServer) -> None:
    client = redis7.client()
    client.flushall()
    client.mset({f"cart:{number}": "full" for number in range(40)})
    work.add_redis(redis7)
    work.write_plan()
    try:
        full = work.backup()
        client.flushall()  # the volume was lost, and the container started with a new one
        empty = work.backup()
        refused = work.recoup("restore", "latest", "--service", "redis", "--force", expect=5)
        assert f"{empty}, is empty, and {full} before it holds 40 keys" in refused.err
        assert f"recoup restore {full}" in refused.err
        work.recoup("restore", full, "--force", "--quiet")
        assert client.dbsize() == 40
        work.recoup("restore", empty, "--force", "--quiet")  # whoever names it means it
        assert client.dbsize() == 0
    finally:
        client.flushall()
        client.close()


def test_a_service_that_was_always_empty_is_restored_by_latest(work: Workplace, redis7: RedisServer) -> None:
    client = redis7.client()
    client.flushall()
    client.close()
    work.add_redis(redis7)
    work.write_plan()
    work.backup()
    work.backup()
    work.recoup("restore", "latest", "--service", "redis", "--quiet")


def test_a_dump_without_a_row_is_not_latest_either(work: Workplace, postgres17: PostgresServer) -> None:
    database = small_database(postgres17, rows=25)
    work.add_postgres(postgres17, database)
    work.write_plan()
    full = work.backup("--kind", "dump")
    with postgres17.connect(database) as connection:
        connection.execute("TRUNCATE orders")
    work.backup("--kind", "dump")
    refused = work.recoup("restore", "latest", "--kind", "dump", "--into", "checked", expect=5)
    assert f"{full} before it holds 25 rows" in refused.err
