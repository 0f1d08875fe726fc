from datetime import UTC, datetime

import redis

from recoup.demo.marketplace import Size, load, write_some_more
from recoup.demo.servers import PostgresServer, RedisServer

_NOW = datetime(2026, 11, 23, 6, 0, tzinfo=UTC)
_SMALL = Size(clients=300, contractors=80, orders=500, messages=900, contracts=5)
_TABLES = ("clients", "contractors", "orders", "payments", "messages", "conversations")


def _digest(server: PostgresServer, database: str) -> dict[str, str]:
    return {
        table: server.execute(f"SELECT md5(string_agg(t::text, chr(10) ORDER BY t::text)) FROM {table} t", database)[0][
            0
        ]
        for table in _TABLES
    }


def test_the_same_seed_and_instant_give_the_same_rows(postgres17: PostgresServer) -> None:
    first, second, other = (postgres17.new_database("market") for _ in range(3))
    for database, seed in ((first, 1), (second, 1), (other, 2)):
        load(postgres17.url(database), seed=seed, now=_NOW, size=_SMALL)
    assert _digest(postgres17, first) == _digest(postgres17, second)
    assert _digest(postgres17, first)["orders"] != _digest(postgres17, other)["orders"]


def test_the_marketplace_is_of_a_useful_size_and_its_counters_are_right(any_postgres: PostgresServer) -> None:
    database = any_postgres.new_database("market")
    written = load(any_postgres.url(database), now=_NOW)
    assert written.rows > 50_000
    [(messages, conversations)] = any_postgres.execute(
        "SELECT (SELECT count(*) FROM messages), (SELECT sum(messages) FROM conversations)", database
    )
    assert messages == conversations == written.added["messages"]
    assert any_postgres.execute("SELECT count(*) FROM pg_largeobject_metadata", database) == [(24,)]
    [(open_orders,)] = any_postgres.execute("SELECT count(*) FROM open_orders", database)
    assert 0 < open_orders < written.added["orders"]


def test_writing_some_more_says_what_it_wrote(postgres17: PostgresServer, redis8: RedisServer) -> None:
    database = postgres17.new_database("market")
    before = load(postgres17.url(database), redis8.url(), now=_NOW, size=_SMALL)
    more = write_some_more(postgres17.url(database), redis8.url(), now=_NOW, orders=10, messages=30)
    counted = dict(
        postgres17.execute(
            "SELECT 'orders', count(*) FROM orders UNION ALL SELECT 'messages', count(*) FROM messages", database
        )
    )
    assert counted["orders"] == before.added["orders"] + 10 == before.added["orders"] + more.added["orders"]
    assert counted["messages"] == before.added["messages"] + 30 - more.deleted["messages"]
    assert more.changed["orders"] > 0
    # Numbers go on where they stopped: the next order must not meet an existing one.
    assert postgres17.execute("SELECT nextval('order_numbers') > (SELECT max(id) FROM orders)", database) == [(True,)]


def test_redis_holds_every_type_with_and_without_expiry(any_redis: RedisServer, postgres17: PostgresServer) -> None:
    database = postgres17.new_database("market")
    written = load(postgres17.url(database), any_redis.url(), size=_SMALL)
    kinds: set[bytes] = set()
    for number in (0, 1, 2):
        client: redis.Redis = any_redis.client(number)
        try:
            kinds |= {client.type(key) for key in client.scan_iter(count=1000)}
            facts = client.info("keyspace")[f"db{number}"]
            assert 0 < facts["expires"] < facts["keys"]
        finally:
            client.close()
    assert kinds == {b"string", b"list", b"set", b"zset", b"hash", b"stream"}
    assert written.redis_keys > 1_000
