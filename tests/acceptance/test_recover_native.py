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


def _rot(work: Workplace, kind: str) -> str:
    """Change one bit in the newest copy of a kind, as a disk does that nobody reads; its id."""
    newest = str(next(one["id"] for one in work.json("list")["artefacts"] if one["kind"] == kind))
    largest = max(work.objects(newest), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.chmod(0o600)
    largest.write_bytes(data)
    return newest


def test_after_the_loss_of_a_server_a_newest_copy_that_rotted_is_passed_over_for_the_one_before(
    work: Workplace, redis7: RedisServer
) -> None:
    work.add_redis(redis7)
    with PostgresServer(require_found(lambda: find_postgres(17))) as server:
        work.add_postgres(server, server.new_database())
        work.write_plan()
        for number in ("one", "two"):
            redis7.client().set("basket:7", number)
            work.backup("postgres", "--kind", "base")
            work.backup("redis")
        redis7.client().flushall()
        base, rdb = _rot(work, "base"), _rot(work, "rdb")

        stopped = work.json("recover", "server-loss", *_ASKED, expect=1)
        assert stopped["stopped_at"] == "swap-redis", stopped
        assert base not in str(_journal(work)["restore-postgres"]), "the one before was restored in the next attempt"
        assert f"passed over: {base}" in str(_journal(work)["choose-postgres"]["detail"])
        assert "Chosen instead: the copy" in stopped["detail"]
        assert f"passed over: {rdb}" in stopped["detail"]
        assert stopped["hint"] == "The same command goes on with that."
        work.json("recover", "server-loss", *_ASKED, expect=1)
        assert "swap-redis" in _journal(work)
        assert redis7.client().get("basket:7") == b"one"


def test_when_the_only_copy_rotted_it_is_said_what_people_can_do(work: Workplace, redis7: RedisServer) -> None:
    redis7.client().set("basket:7", "three apples")
    work.add_redis(redis7)
    work.write_plan()
    work.backup("redis")
    rdb = _rot(work, "rdb")
    stopped = work.json("recover", "server-loss", *_ASKED, expect=1)
    assert stopped["stopped_at"] == "swap-redis"
    assert "every recovery point of redis is damaged" in stopped["detail"]
    assert rdb in stopped["detail"]
    assert "The data of redis were not replaced" in stopped["hint"]
    assert "--to-time" in stopped["hint"]
    assert redis7.client().get("basket:7") == b"three apples"
