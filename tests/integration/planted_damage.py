"""Damage of every kind that a PostgreSQL cluster can have: lies in its catalogues, bytes of its files."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

PAGE = 8192
DATABASE, BROKEN = "shop", "broken"


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One kind. ``tables`` are the statements that make what is damaged; ``subject`` must be in the finding's subject.

    ``lie``: statements of a superuser in replica mode that may change catalogues. ``edit``: changes bytes of a stopped
    cluster, given the paths of the relations in ``files``.
    """

    name: str  #: as the page of the documentation has it
    subject: str
    tables: str
    lie: str = ""
    files: tuple[str, ...] = ()
    edit: Callable[..., None] | None = None
    database: str = DATABASE
    hidden: bool = field(default=False)  #: nothing but the grade same can see it


def rows(table: str, *, key: str = "PRIMARY KEY", count: int = 2000) -> str:
    return (
        f"CREATE TABLE {table} (id int {key}, note text);"
        f"INSERT INTO {table} SELECT g, 'note number ' || g FROM generate_series(1, {count}) g;"
    )


def change(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int, bit: int) -> None:
    with open(path, "rb") as file:
        file.seek(offset)
        byte = file.read(1)[0]
    change(path, offset, bytes([byte ^ (1 << bit)]))


def line_pointer(page: bytes, number: int) -> tuple[int, int, int]:
    """Offset, flags and length of an item (src/include/storage/itemid.h)."""
    (word,) = struct.unpack_from("<I", page, 24 + 4 * (number - 1))
    return word & 0x7FFF, word >> 15 & 3, word >> 17


def item(path: Path, page: int, number: int) -> int:
    """Where in a file an item begins."""
    data = path.read_bytes()[page * PAGE : (page + 1) * PAGE]
    return page * PAGE + line_pointer(data, number)[0]


def flip_in_text(table: Path) -> None:
    place = table.read_bytes().index(b"note number 77")
    flip(table, place, 7)


def flip_in_key(table: Path) -> None:
    flip(table, item(table, 0, 5) + 24, 6)  # the first column begins behind a header of 24 bytes


def flip_in_header(table: Path) -> None:
    flip(table, item(table, 0, 5) + 22, 5)  # t_hoff


def swap(one: Path, other: Path) -> None:
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


def forget_row(table: Path) -> None:
    change(table, 24 + 4 * 4, bytes(4))  # the fifth line pointer: not used


def forget_piece(toast: Path) -> None:
    change(toast, 24 + 4 * 2, bytes(4))  # the third of the four pieces that a page holds


def wrong_row(index: Path) -> None:
    # Page 0 is about the index, page 1 its only leaf; a tuple begins with the place of its row.
    change(index, item(index, 1, 2), (index.read_bytes()[item(index, 1, 3) :])[:6])


def zero_page(number: int) -> Callable[[Path], None]:
    return lambda path: change(path, number * PAGE, bytes(PAGE))


def cut(path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size // PAGE // 2 * PAGE)


#: An index that is not told of a change.
def behind_its_back(index: str, statement: str) -> str:
    told = f"WHERE indexrelid = '{index}'::regclass"
    return (
        f"UPDATE pg_index SET indisready = false, indisvalid = false {told};{statement};"
        f"UPDATE pg_index SET indisready = true, indisvalid = true {told};"
    )


DAMAGES = (
    Damage(
        name="a bit flipped in a text", subject="public.bit_text", tables=rows("bit_text"),
        files=("bit_text",), edit=flip_in_text,
    ),
    Damage(
        name="a bit flipped in an indexed value", subject="public.bit_key", tables=rows("bit_key"),
        files=("bit_key",), edit=flip_in_key,
    ),
    Damage(
        name="a bit flipped in the head of a row", subject="public.bit_header", tables=rows("bit_header"),
        files=("bit_header",), edit=flip_in_header,
    ),
    Damage(
        name="a bit flipped in a value without an index", subject="public.bit_hidden", hidden=True,
        tables=rows("bit_hidden", key=""), files=("bit_hidden",), edit=flip_in_key,
    ),
    Damage(
        name="a page of a table zeroed", subject="public.zeroed_new", tables=rows("zeroed_new"),
        files=("zeroed_new",), edit=zero_page(3),
    ),
    Damage(
        name="a page of a vacuumed table zeroed", subject="public.zeroed_old", tables=rows("zeroed_old", key=""),
        lie="VACUUM zeroed_old", files=("zeroed_old",), edit=zero_page(3),
    ),
    Damage(
        name="a page of a table without any index zeroed", subject="public.zeroed_bare",
        tables=rows("zeroed_bare", key=""), files=("zeroed_bare",), edit=zero_page(3),
    ),
    Damage(
        name="a page of an index zeroed", subject="public.zeroed_index_pkey", tables=rows("zeroed_index"),
        files=("zeroed_index_pkey",), edit=zero_page(2),
    ),
    Damage(
        name="the files of two tables swapped", subject="public.swapped_a",
        tables=rows("swapped_a") + "CREATE TABLE swapped_b (at timestamptz, n numeric, id int PRIMARY KEY);"
        "INSERT INTO swapped_b SELECT '2026-01-01', g, g FROM generate_series(1, 500) g;",
        files=("swapped_a", "swapped_b"), edit=swap,
    ),
    Damage(
        name="the files of two partitions swapped", subject="public.part_1",
        tables="CREATE TABLE part (id int, note text) PARTITION BY RANGE (id);"
        "CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (1) TO (1000);"
        "CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (1000) TO (2000);"
        "INSERT INTO part SELECT g, 'note' FROM generate_series(1, 1999) g;",
        files=("part_1", "part_2"), edit=swap,
    ),
    Damage(
        name="the files of two alike tables without any index swapped", subject="public.alike_1", hidden=True,
        tables=rows("alike_1", key="", count=10) + rows("alike_2", key="", count=20),
        files=("alike_1", "alike_2"), edit=swap,
    ),
    Damage(
        name="the file of a table missing", subject="public.vanished", tables=rows("vanished"),
        files=("vanished",), edit=Path.unlink,
    ),
    Damage(
        name="the file of a table cut short", subject="public.cut", tables=rows("cut"), files=("cut",), edit=cut,
    ),
    Damage(
        name="a row lost from its page", subject="public.lost_row", tables=rows("lost_row"),
        files=("lost_row",), edit=forget_row,
    ),
    Damage(
        name="an index entry missing", subject="public.unlisted_pkey", tables=rows("unlisted"),
        lie=behind_its_back("unlisted_pkey", "INSERT INTO unlisted VALUES (5000, 'not listed')"),
    ),
    Damage(
        name="an index entry that leads to another row", subject="public.astray_pkey",
        tables=rows("astray", count=20), files=("astray_pkey",), edit=wrong_row,
    ),
    Damage(
        name="an index of a function that changed", subject="public.changed_f",
        tables=rows("changed", key="") + "CREATE FUNCTION f(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i';"
        "CREATE INDEX changed_f ON changed (public.f(id));",
        lie="CREATE OR REPLACE FUNCTION f(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT -i'",
    ),
    Damage(
        name="an index marked as not valid", subject="public.invalid_note",
        tables=rows("invalid") + "CREATE INDEX invalid_note ON invalid (note);",
        lie="UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'invalid_note'::regclass",
    ),
    Damage(
        name="a primary key marked as not valid", subject="public.powerless_pkey", tables=rows("powerless"),
        lie="UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'powerless_pkey'::regclass",
    ),
    Damage(
        name="a key in two rows", subject="public.twice_pkey", tables=rows("twice"),
        lie=behind_its_back("twice_pkey", "INSERT INTO twice VALUES (7, 'again')"),
    ),
    Damage(
        name="two rows that exclude each other", subject="public.booked, constraint no_overlap",
        tables="CREATE TABLE booked (during int4range, CONSTRAINT no_overlap EXCLUDE USING gist (during WITH &&));"
        "INSERT INTO booked SELECT int4range(g * 10, g * 10 + 5) FROM generate_series(1, 50) g;",
        lie=behind_its_back("no_overlap", "INSERT INTO booked VALUES ('[12,14)')"),
    ),
    Damage(
        name="a foreign key that leads nowhere", subject="public.line, constraint line_order_id_fkey",
        tables=rows("orders") + "CREATE TABLE line (order_id int REFERENCES orders);"
        "INSERT INTO line VALUES (1), (NULL);",
        lie="INSERT INTO line VALUES (987654)",
    ),
    Damage(
        name="a foreign key with MATCH FULL given by half", subject="public.half, constraint half_a_b_fkey",
        tables="CREATE TABLE whole (a int, b int, PRIMARY KEY (a, b));"
        "CREATE TABLE half (a int, b int, FOREIGN KEY (a, b) REFERENCES whole MATCH FULL);",
        lie="INSERT INTO half VALUES (1, NULL)",
    ),
    Damage(
        name="a foreign key between partitioned tables that leads nowhere",
        subject="public.visit, constraint visit_at_fkey",
        tables="CREATE TABLE days (at date PRIMARY KEY) PARTITION BY RANGE (at);"
        "CREATE TABLE days_all PARTITION OF days FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');"
        "INSERT INTO days VALUES ('2026-01-01');"
        "CREATE TABLE visit (at date REFERENCES days) PARTITION BY RANGE (at);"
        "CREATE TABLE visit_all PARTITION OF visit FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');"
        "INSERT INTO visit VALUES ('2026-01-01');",
        lie="INSERT INTO visit VALUES ('2026-01-02')",
    ),
    Damage(
        name="a check constraint broken", subject="public.priced, constraint positive",
        tables="CREATE TABLE priced (price int);INSERT INTO priced VALUES (1), (-5);",
        lie="ALTER TABLE priced ADD CONSTRAINT positive CHECK (price > 0) NOT VALID;"
        "UPDATE pg_constraint SET convalidated = true WHERE conname = 'positive'",
    ),
    Damage(
        name="a check constraint broken that asks for the time", subject="public.timed, constraint past",
        tables="CREATE TABLE timed (at timestamptz, CONSTRAINT past CHECK (at < now()));",
        lie="ALTER TABLE timed DROP CONSTRAINT past;INSERT INTO timed VALUES ('infinity');"
        "ALTER TABLE timed ADD CONSTRAINT past CHECK (at < now()) NOT VALID;"
        "UPDATE pg_constraint SET convalidated = true WHERE conname = 'past'",
    ),
    Damage(
        name="a null where NOT NULL is declared", subject="public.nulled, NOT NULL of name",
        tables="CREATE TABLE nulled (name text);INSERT INTO nulled VALUES ('a'), (NULL);",
        lie="UPDATE pg_attribute SET attnotnull = true WHERE attrelid = 'nulled'::regclass AND attname = 'name'",
    ),
    Damage(
        name="a value that its domain forbids", subject="constraint even of the domain of n",
        tables="CREATE DOMAIN even_int AS int;CREATE TABLE domained (n even_int);INSERT INTO domained VALUES (2), (3);",
        lie="ALTER DOMAIN even_int ADD CONSTRAINT even CHECK (VALUE % 2 = 0) NOT VALID;"
        "UPDATE pg_constraint SET convalidated = true WHERE conname = 'even'",
    ),
    Damage(
        name="a long value whose pieces are gone", subject="public.toasted",
        tables="CREATE TABLE toasted (id int PRIMARY KEY, body text);"
        "ALTER TABLE toasted ALTER body SET STORAGE external;"
        "INSERT INTO toasted SELECT g, repeat('long', 5000) FROM generate_series(1, 5) g;",
        files=("toasted/toast",), edit=zero_page(1),
    ),
    Damage(
        name="a sequence moved back", subject="public.counted_id_seq",
        tables="CREATE TABLE counted (id serial PRIMARY KEY);INSERT INTO counted SELECT FROM generate_series(1, 50);",
        lie="SELECT setval('counted_id_seq', 3)",
    ),
    Damage(
        name="a sequence that counts down moved back", subject="public.down_id_seq",
        tables="CREATE TABLE down (id int GENERATED ALWAYS AS IDENTITY (INCREMENT -1 MINVALUE -9999 MAXVALUE 0));"
        "INSERT INTO down SELECT FROM generate_series(1, 50);",
        lie="SELECT setval('down_id_seq', -3)",
    ),
    Damage(
        name="a value far ahead of its sequence", subject="public.far_id_seq",
        tables="CREATE TABLE far (id serial PRIMARY KEY);INSERT INTO far SELECT FROM generate_series(1, 5);",
        lie="INSERT INTO far VALUES (999999)",
    ),
    Damage(
        name="text ordered by other rules", subject='collation public."old rules"',
        tables="""CREATE COLLATION "old rules" (provider = libc, locale = 'C');
        CREATE TABLE sorted (w text COLLATE "old rules" PRIMARY KEY);""",
        lie="UPDATE pg_collation SET collversion = '0.1' WHERE collname = 'old rules'",
    ),
    Damage(
        name="the library of an extension missing", subject="extension {extension}",
        tables="CREATE EXTENSION {extension};CREATE TABLE extended (v {extension});"
        "INSERT INTO extended VALUES ('{value}');",
        lie="UPDATE pg_proc SET probin = '$libdir/lost_{extension}' WHERE probin LIKE '%/{extension}'",
    ),
    Damage(
        name="a large object without its owner and rights", subject="pg_largeobject (loid)",
        tables="SELECT lo_from_bytea(4711, 'content');", lie="DELETE FROM pg_largeobject_metadata WHERE oid = 4711",
    ),
    Damage(
        name="a type gone from the catalogues", subject="pg_attribute (atttypid)", database=BROKEN,
        tables="CREATE TYPE mood AS ENUM ('sad', 'ok');CREATE TABLE felt (m mood);INSERT INTO felt VALUES ('ok');",
        lie="DELETE FROM pg_type WHERE typname = 'mood'",
    ),
    Damage(
        name="a column gone from the catalogues", subject="public.narrow", database=BROKEN, tables=rows("narrow"),
        lie="DELETE FROM pg_attribute WHERE attrelid = 'narrow'::regclass AND attname = 'note'",
    ),
    Damage(
        name="a partition that its table does not know", subject="public.apart_1",
        tables="CREATE TABLE apart (id int) PARTITION BY RANGE (id);"
        "CREATE TABLE apart_1 PARTITION OF apart FOR VALUES FROM (0) TO (100);"
        "CREATE TABLE apart_2 PARTITION OF apart FOR VALUES FROM (100) TO (200);"
        "INSERT INTO apart SELECT generate_series(0, 199);",
        lie="DELETE FROM pg_inherits WHERE inhrelid = 'apart_1'::regclass",
    ),
    Damage(
        name="a table that says it has no children", subject="public.childless",
        tables="CREATE TABLE childless (id int);CREATE TABLE child () INHERITS (childless);"
        "INSERT INTO child SELECT generate_series(1, 50);",
        lie="UPDATE pg_class SET relhassubclass = false WHERE oid = 'childless'::regclass",
    ),
    Damage(
        name="a table that says it has no indexes", subject="public.unlooked", tables=rows("unlooked"),
        lie="UPDATE pg_class SET relhasindex = false WHERE oid = 'unlooked'::regclass",
    ),
    Damage(
        name="a table that says it has no triggers", subject="public.unkept",
        tables=rows("kept") + "CREATE TABLE unkept (id int REFERENCES kept);INSERT INTO unkept VALUES (1);",
        lie="UPDATE pg_class SET relhastriggers = false WHERE oid = 'unkept'::regclass",
    ),
    Damage(
        name="a table that says it has no check constraints", subject="public.uncounted",
        tables="CREATE TABLE uncounted (id int CHECK (id > 0));INSERT INTO uncounted VALUES (1);",
        lie="UPDATE pg_class SET relchecks = 0 WHERE oid = 'uncounted'::regclass",
    ),
    Damage(
        name="a foreign key without the triggers that keep it", subject="public.unguarded, constraint to_guarded",
        tables=rows("guarded") + "CREATE TABLE unguarded (id int CONSTRAINT to_guarded REFERENCES guarded);"
        "INSERT INTO unguarded VALUES (1);",
        lie="DELETE FROM pg_depend WHERE classid = 'pg_trigger'::regclass AND objid IN "
        "(SELECT oid FROM pg_trigger WHERE tgrelid = 'unguarded'::regclass);"
        "DELETE FROM pg_trigger WHERE tgrelid = 'unguarded'::regclass",
    ),
    Damage(
        name="a sequence gone from the catalogues", subject="public.stopped_id_seq",
        tables="CREATE TABLE stopped (id serial PRIMARY KEY);INSERT INTO stopped SELECT FROM generate_series(1, 20);",
        lie="DELETE FROM pg_sequence WHERE seqrelid = 'stopped_id_seq'::regclass",
    ),
    Damage(
        name="a generated value whose function changed", subject="public.doubled, generated twice",
        tables="CREATE FUNCTION g(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i * 2';"
        "CREATE TABLE doubled (id int, twice int GENERATED ALWAYS AS (public.g(id)) STORED);"
        "INSERT INTO doubled SELECT generate_series(1, 100);",
        lie="CREATE OR REPLACE FUNCTION g(i int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT i * 3'",
    ),
    Damage(
        name="a sequence that only a default names moved back", subject="public.lent_seq",
        tables="CREATE SEQUENCE lent_seq;CREATE TABLE lent (id bigint PRIMARY KEY DEFAULT nextval('lent_seq'));"
        "INSERT INTO lent SELECT FROM generate_series(1, 50);",
        lie="SELECT setval('lent_seq', 3)",
    ),
    Damage(
        name="one piece of a long value gone", subject="public.pieced",
        tables="CREATE TABLE pieced (id int PRIMARY KEY, body text);"
        "ALTER TABLE pieced ALTER body SET STORAGE external;"
        "INSERT INTO pieced SELECT g, repeat('long', 5000) FROM generate_series(1, 5) g;",
        files=("pieced/toast",), edit=forget_piece,
    ),
    Damage(
        name="a piece of a large object gone", subject="pg_largeobject (4712)", hidden=True,
        tables="SELECT lo_from_bytea(4712, decode(repeat('ab', 20000), 'hex'));",
        lie="DELETE FROM pg_largeobject WHERE loid = 4712 AND pageno = 3",
    ),
    Damage(
        name="the value that a later column has in older rows gone", subject="public.older", hidden=True,
        tables="CREATE TABLE older (id int);INSERT INTO older SELECT generate_series(1, 50);"
        "ALTER TABLE older ADD COLUMN state text DEFAULT 'paid';",
        lie="UPDATE pg_attribute SET atthasmissing = false, attmissingval = NULL "
        "WHERE attrelid = 'older'::regclass AND attname = 'state'",
    ),
    Damage(
        name="a schema gone from the catalogues", subject="pg_class (relnamespace)", database=BROKEN,
        tables="CREATE SCHEMA lost;CREATE TABLE lost.thing (id int);",
        lie="DELETE FROM pg_namespace WHERE nspname = 'lost'",
    ),
)  # fmt: skip


def fitting(statement: str, major: int) -> str:
    """The only extension with a type that this test's PostgreSQL 16 has is another one."""
    extension, value = ("vector", "[1,2]") if major == 16 else ("hstore", "a=>1")
    return statement.replace("{extension}", extension).replace("{value}", value)
