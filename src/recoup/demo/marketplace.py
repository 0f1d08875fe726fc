"""The sample marketplace: its schema, its rows in PostgreSQL, its sessions and queues in Redis."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from recoup.demo.marketplace_redis import add_redis, load_redis
from recoup.demo.marketplace_rows import Order, Rows, Size
from recoup.kernel import clock

_Connection = psycopg.Connection[tuple[Any, ...]]

_COLUMNS = {
    "clients": "id public_id name email phone preferences tags balance joined_at deleted_at",
    "contractors": "company email trades hourly_rate rating available home licence verified network",
    "orders": "id client_id contractor_id status title description details price duration due created_at updated_at",
    "payments": "id order_id amount fee currency method answer paid_at",
    "messages": "order_id sender body attachment sent_at read_at",
}
_FIRST_ORDER = 100_000
_PARTITIONED_MONTHS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How many rows were added, changed and deleted in each table, and how many keys in Redis."""

    added: Mapping[str, int] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    deleted: Mapping[str, int] = field(default_factory=dict)
    redis_keys: int = 0

    @property
    def rows(self) -> int:
        """All rows that were touched."""
        return sum(sum(part.values()) for part in (self.added, self.changed, self.deleted))


def load(
    postgres_url: str,
    redis_url: str | None = None,
    *,
    seed: int = 1,
    now: datetime | None = None,
    size: Size | None = None,
) -> Written:
    """Given the address of an empty database, and of a Redis server, fill both. The same seed and instant give the
    same data."""
    now, size = now or clock.now(), size or Size()
    rows = Rows(seed=seed, now=now, size=size)
    with psycopg.connect(postgres_url, connect_timeout=10) as connection:
        connection.execute(resources.files(__package__).joinpath("marketplace.sql").read_bytes())
        _add_partitions(connection, now)
        _copy(connection, "clients", rows.clients())
        _copy(connection, "contractors", rows.contractors())
        orders = _add_orders(connection, rows, _FIRST_ORDER, size.orders, days=110)
        _copy(connection, "payments", rows.payments(orders))
        _copy(connection, "messages", rows.messages(orders, size.messages))
        for order_id, document in rows.documents(orders):
            connection.execute(
                "INSERT INTO contracts SELECT %s, lo_from_bytea(0, %s), %s",
                (order_id, document, hashlib.sha256(document).digest()),
            )
        # Identities that were given by hand do not move their sequence.
        connection.execute("SELECT setval(pg_get_serial_sequence('clients', 'id'), (SELECT max(id) FROM clients))")
        connection.execute("REFRESH MATERIALIZED VIEW revenue")
    with psycopg.connect(postgres_url, connect_timeout=10, autocommit=True) as connection:
        connection.execute("ANALYZE")
        added = count_rows(connection)
    return Written(added=added, redis_keys=load_redis(redis_url, seed=seed, now=now) if redis_url else 0)


def write_some_more(
    postgres_url: str,
    redis_url: str | None = None,
    *,
    seed: int = 2,
    now: datetime | None = None,
    orders: int = 40,
    messages: int = 200,
) -> Written:
    """The marketplace goes on: new orders, payments and messages, prices changed, old messages deleted."""
    now = now or clock.now()
    with psycopg.connect(postgres_url, connect_timeout=10) as connection:
        before = count_rows(connection)
        size = Size(clients=before["clients"], contractors=before["contractors"], orders=orders, messages=messages)
        rows = Rows(seed=seed, now=now, size=size)
        first = _number(connection, "SELECT max(id) + 7 FROM orders")
        fresh = _add_orders(connection, rows, first, orders, days=0.01)
        _copy(connection, "payments", rows.payments(fresh))
        _copy(connection, "messages", rows.messages(fresh, messages))
        between = count_rows(connection)
        changed = connection.execute("UPDATE orders SET price = price + 1, updated_at = now() WHERE status = 'open'")
        deleted = connection.execute(
            "DELETE FROM messages WHERE (id, sent_at) IN (SELECT id, sent_at FROM messages ORDER BY sent_at LIMIT 25)"
        )
    return Written(
        added={table: between[table] - before[table] for table in between if between[table] != before[table]},
        changed={"orders": changed.rowcount},
        deleted={"messages": deleted.rowcount},
        redis_keys=add_redis(redis_url, seed=seed, now=now) if redis_url else 0,
    )


def count_rows(connection: _Connection) -> dict[str, int]:
    """How many rows each table of the marketplace has."""
    return {
        table: _number(connection, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table)))
        for table in (*_COLUMNS, "contracts", "conversations")
    }


def _number(connection: _Connection, query: sql.SQL | sql.Composed | str) -> int:
    row = connection.execute(query.encode() if isinstance(query, str) else query).fetchone()
    assert row is not None, "an aggregate always gives a row"
    return int(row[0])


def _add_orders(connection: _Connection, rows: Rows, first: int, count: int, *, days: float) -> list[Order]:
    made = list(rows.orders(first, count, days=days))
    _copy(connection, "orders", (row for _, row in made))
    connection.execute("SELECT setval('order_numbers', %s)", (first + 7 * count,))
    return [order for order, _ in made]


def _copy(connection: _Connection, table: str, rows: Iterator[Sequence[Any]]) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS[table].split()))
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(sql.Identifier(table), columns)
    with connection.cursor().copy(statement) as copy:
        for row in rows:
            copy.write_row([Jsonb(value) if isinstance(value, dict) else value for value in row])


def _add_partitions(connection: _Connection, now: datetime) -> None:
    """One partition for each of the last months; what is older goes to the default one."""
    year, month = now.year, now.month
    upper = _month(year, month, 1)
    for back in range(_PARTITIONED_MONTHS):
        lower = _month(year, month, -back)
        connection.execute(
            sql.SQL("CREATE TABLE {} PARTITION OF messages FOR VALUES FROM ({}) TO ({})").format(
                sql.Identifier(f"messages_{lower[:4]}_{lower[5:7]}"), sql.Literal(lower), sql.Literal(upper)
            )
        )
        upper = lower


def _month(year: int, month: int, offset: int) -> str:
    years, month = divmod(year * 12 + month - 1 + offset, 12)
    return f"{years:04}-{month + 1:02}-01 00:00:00+00"
