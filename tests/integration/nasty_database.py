"""A database with the types and objects that break naive dumps and naive comparisons."""

from __future__ import annotations

NASTY_ROLES = ("recoup_owner", 'recoup "odd" reader')

NASTY = r"""
CREATE SCHEMA "odd ""schema""\ with;everything";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE DOMAIN price AS numeric CHECK (VALUE >= 0);
CREATE TYPE pair AS (a int, b text);

CREATE TABLE "odd ""schema""\ with;everything"."ta'ble
two lines" ("co""l 1" int, "$$" text, "ünïcode" text DEFAULT 'x\y');
INSERT INTO "odd ""schema""\ with;everything"."ta'ble
two lines" VALUES (1, E'a\tb\nc\\d', NULL), (2, '\.', ''), (3, '$$;', 'O''Brien');

CREATE TABLE numbers (n numeric, p price, f float8, r real, m money, i interval);
INSERT INTO numbers VALUES (1.0, 2.50, 0.1::float8 + 0.2, 1e-7, 12.34, '1 mon'),
  (1.00, 2.5, '-0', 'NaN', -5, '30 days'), (NULL, NULL, NULL, NULL, NULL, NULL),
  ('NaN', 0, 'Infinity', 0, 0, '-1 year 2 mons 3 days 04:05:06.789');

CREATE TABLE moments (t timestamptz, l timestamp, d date, tt timetz, r tstzrange);
INSERT INTO moments VALUES ('2026-03-29 02:30:00+01', '0044-03-15 12:00 BC', 'infinity', '12:00+09',
  '[2026-01-01 00:00+09, 2026-02-01)'), ('infinity', '-infinity', '4713-01-01 BC', NULL, 'empty');

CREATE TABLE documents (j json, jb jsonb, x /*xml*/text, h text[], n numeric[][], c pair, e mood, es mood[]);
INSERT INTO documents VALUES ('{"b":1,  "a": 1.0}', '{"b":1, "a": 1.00}', '<a>&amp;</a>',
  ARRAY['a', NULL, 'NULL', '{"', ''], '[2:3][0:1]={{1.0,2},{3,4.00}}', ROW(1, NULL), 'happy', '{sad,ok}'),
  (NULL, 'null', NULL, '{}', NULL, NULL, NULL, NULL);

CREATE TABLE blobs (id int PRIMARY KEY, b bytea);
INSERT INTO blobs SELECT g, decode(repeat(md5(g::text), 1 + g * 40), 'hex') FROM generate_series(0, 60) g;
INSERT INTO blobs VALUES (100, ''), (101, '\x00ff5c2e0a');

CREATE TABLE shapes (p point, b box, c circle, po polygon, bi bit(5), v varbit, ip inet, mac macaddr, ts tsvector);
INSERT INTO shapes VALUES ('(1.5,-0)', '(1,1),(0,0)', '<(0,0),1>', '((0,0),(1,1),(1,0))', B'10101', B'1', '10.0.0.1/8',
  '08:00:2b:01:02:03', 'a:1 b:2');

CREATE TABLE duplicates (a int, b text);
INSERT INTO duplicates SELECT 1, 'same' FROM generate_series(1, 8);
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;

CREATE TABLE generated (id int GENERATED ALWAYS AS IDENTITY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO generated (a) SELECT g FROM generate_series(1, 50) g;
ALTER TABLE generated ADD COLUMN gone text;
ALTER TABLE generated DROP COLUMN gone;
ALTER TABLE generated ADD COLUMN later text DEFAULT 'filled';

CREATE TABLE parent (a int, b text);
CREATE TABLE child (own int) INHERITS (parent);
ALTER TABLE parent ADD COLUMN added text DEFAULT 'late';
INSERT INTO parent VALUES (1, 'p');
INSERT INTO child VALUES (2, 'c', 3, 'x');

CREATE TABLE measures (at date NOT NULL, city int, v numeric(8,3)) PARTITION BY RANGE (at);
CREATE TABLE measures_2025 PARTITION OF measures FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE measures_2026 PARTITION OF measures FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')
  PARTITION BY LIST (city);
CREATE TABLE measures_2026_a PARTITION OF measures_2026 FOR VALUES IN (1);
CREATE TABLE measures_rest PARTITION OF measures DEFAULT;
INSERT INTO measures SELECT date '2025-06-01' + g, 1, g / 7.0 FROM generate_series(0, 300) g;
INSERT INTO measures VALUES ('1999-01-01', 5, 0);
CREATE INDEX ON measures (city, at);

CREATE UNLOGGED TABLE sessions (id int, data text);
INSERT INTO sessions SELECT g, md5(g::text) FROM generate_series(1, 20) g;

CREATE SEQUENCE down INCREMENT -5 START 100 MINVALUE -1000 MAXVALUE 100;
SELECT nextval('down'), nextval('down');
CREATE SEQUENCE untouched START 42;

CREATE VIEW view_in AS SELECT e FROM documents WHERE e::text IN ('happy', 'sad');
CREATE TABLE checked (s varchar(20) CHECK (s IN ('new', 'paid', 'sent')), q int CHECK (q BETWEEN 1 AND 9));
INSERT INTO checked VALUES ('new', 1), ('paid', 9);
CREATE MATERIALIZED VIEW counted AS SELECT a, count(*) FROM duplicates GROUP BY a;
INSERT INTO duplicates VALUES (2, 'after the view was filled');
CREATE MATERIALIZED VIEW never_filled AS SELECT 1 AS one WITH NO DATA;

CREATE FUNCTION quoted() RETURNS text LANGUAGE plpgsql AS $f$
BEGIN
  -- \! touch /tmp/never
  RETURN 'COPY x FROM stdin; \connect y';
END $f$;
CREATE FUNCTION standard(a int) RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT a + 1; SELECT a + 2; END;
CREATE AGGREGATE summed (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER touched BEFORE UPDATE ON blobs FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE blobs DISABLE TRIGGER touched;

CREATE TABLE secrets (owner text, word text);
INSERT INTO secrets VALUES ('a', 'x'), ('b', 'y');
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON secrets USING (owner = current_user);
ALTER TABLE secrets OWNER TO recoup_owner;
GRANT SELECT ON secrets TO "recoup ""odd"" reader";
COMMENT ON TABLE secrets IS 'a ''comment'' with \ and
two lines';

SELECT lo_from_bytea(0, decode(repeat('00ff', 3000), 'hex'));
SELECT lo_from_bytea(0, '');
SELECT lo_from_bytea(0, decode(md5('x'), 'hex'));
"""


def nasty(*, with_xml: bool) -> str:
    """The statements; ``xml`` only where the server was built with it."""
    return NASTY.replace("/*xml*/text", "xml") if with_xml else NASTY


# A hole of zero pages: a restore writes the zeros out.
HOLE = """
DO $$
DECLARE object oid := lo_create(0); handle int;
BEGIN
  handle := lo_open(object, 131072);
  PERFORM lo_lseek64(handle, 100000, 0);
  PERFORM lowrite(handle, '\\x41');
  PERFORM lo_close(handle);
END $$
"""
