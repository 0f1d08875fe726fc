"""``recoup recover`` for databases that are reached by an address: a folder that a person places, a running Redis."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer, RedisServer
from tests.acceptance.workplace import Workplace
from tests.real import require_found

_ASKED = ("--yes", "--confirm", "Shop", "--force")


def _journal(work: Workplace) -> dict[str, dict[str, object]]:
    (path,) = work.state.glob("*/runs/*/journal")
    lines = [json.loads(line.partition(" ")[2]) for line in path.read_text().splitlines()]
    return {one["data"]["step"]: one["data"] for one in lines if one["event"] == "step-done"}


def test_a_server_of_somebody_else_is_restored_beside_and_counts_when_it_runs_on_that(work: Workplace) -> None:
    with PostgresServer(require_found(lambda: find_postgres(17))) as server:
        database = server.new_database()
        server.execute("create table orders as select generate_series(1, 500) id", database)
        work.add_postgres(server, database)
        work.write_plan()
        work.backup("postgres", "--kind", "base")
        server.execute("delete from orders", database)

        stopped = work.json("recover", "database-corruption", *_ASKED, expect=1)
        assert stopped["stopped_at"] == "start-postgres"
        assert "place-postgres" in _journal(work), "nobody was there, so it is not known whether it was done"
        assert "the server was started on the restored data" in stopped["detail"]
        restored = Path(str(_journal(work)["restore-postgres"]["data"]["folder"]))  # type: ignore[index]
        assert server.execute("select count(*) from orders", database) == [(0,)], "nothing of it was touched"

        server.stop()
        shutil.move(server.data_folder, server.data_folder.with_name("old"))
        shutil.move(restored, server.data_folder)
        server.adopt()
        server.start()
        done = work.json("recover", "--resume", *_ASKED, expect=4)
        assert done["finished"], done
        assert server.execute("select count(*) from orders", database) == [(500,)]


def test_an_emptied_redis_with_an_address_takes_its_data_in(work: Workplace, redis7: RedisServer) -> None:
    redis7.client().set("basket:7", "three apples")
    work.add_redis(redis7)
    work.write_plan()
    work.backup("redis")
    redis7.client().flushall()
    done = work.json("recover", "redis-loss", "--yes", "--confirm", "Shop", expect=4)
    assert done["finished"], done
    assert redis7.client().get("basket:7") == b"three apples"
