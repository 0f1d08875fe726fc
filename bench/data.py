"""The data set that everything is measured on: rows of the kinds a production has, compressible and not.

Everything follows from a seed inside the server, so two runs have the same rows. Shares of the size: accounts with
narrow columns and an index (a quarter), orders with text, numeric, timestamps and jsonb and two indexes (half),
attachments as random bytes that do not compress (an eighth), messages of prose (an eighth).
"""

from __future__ import annotations

import psycopg

_MIB = 1 << 20

_SETUP = """
select setseed(0.42);
create table accounts (aid bigint primary key, bid int, balance int, filler char(84));
create table orders (id bigint primary key, client int not null, placed timestamptz not null, total numeric(12,2),
  status text not null, lines jsonb, note text);
create table attachments (id bigint primary key, body bytea);
alter table attachments alter column body set storage external;
create table messages (id bigint primary key, sender int, sent timestamptz, body text);
create table words as select g as n, md5(g::text) as word from generate_series(0, 1999) g;
"""

# Bytes of heap and indexes per row, measured; they turn a wanted size into numbers of rows.
_ROW_BYTES = {"accounts": 155, "orders": 395, "attachments": 8_240, "messages": 520}
_SHARES = {"accounts": 0.25, "orders": 0.5, "attachments": 0.125, "messages": 0.125}

_FILL = {
    "accounts": "insert into accounts select g, g %% 100, (random() * 1e6)::int, '' from generate_series(%s, %s) g",
    "orders": """insert into orders select g, (random() * 50000)::int, timestamptz '2026-01-01' + g * interval '7 s',
        (random() * 10000)::numeric(12,2), (array['new','paid','sent','done','refunded'])[1 + (random() * 4)::int],
        jsonb_build_array(jsonb_build_object('sku', (random() * 9999)::int, 'qty', 1 + (random() * 5)::int),
          jsonb_build_object('sku', (random() * 9999)::int, 'qty', 1 + (random() * 5)::int)),
        md5(g::text) || ' ' || md5((g / 7)::text) from generate_series(%s, %s) g""",
    "attachments": """insert into attachments select g, decode((select string_agg(md5(random()::text || i || g), '')
        from generate_series(1, 500) i), 'hex') from generate_series(%s, %s) g""",
    "messages": """insert into messages select g, (random() * 50000)::int,
        timestamptz '2026-01-01' + g * interval '3 s',
        (select string_agg(left(word, 3 + (n * g) %% 9), ' ') from words
          where n between (g * 37) %% 1950 and (g * 37) %% 1950 + 50)
        from generate_series(%s, %s) g""",
}


def fill(url: str, size_mib: int) -> int:
    """Fill the database at ``url`` with about ``size_mib`` MiB and return its real size in bytes."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set synchronous_commit = off")
        for statement in _SETUP.strip().split(";\n"):
            if statement.strip(" ;\n"):
                connection.execute(statement)
        connection.execute("create index on words (n)")
        for table, share in _SHARES.items():
            rows = int(size_mib * _MIB * share / _ROW_BYTES[table])
            for low in range(1, rows + 1, 200_000):
                with psycopg.ClientCursor(connection) as cursor:
                    cursor.execute(_FILL[table], (low, min(low + 199_999, rows)))
        connection.execute("create index on orders (client)")
        connection.execute("create index on orders (placed)")
        connection.execute("vacuum analyze")
        connection.execute("checkpoint")
        row = connection.execute("select sum(pg_database_size(oid)) from pg_database").fetchone()
        assert row is not None
        return int(row[0])
