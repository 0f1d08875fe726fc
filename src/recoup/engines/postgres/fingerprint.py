"""The fingerprint of a database: small enough for a manifest, exact enough to prove that nothing changed.

Per table: the number of rows and two sums of 64-bit hashes over all rows, independent of their order. Sums and not
exclusive-or, which cancels two equal rows. Rows are hashed in one of two ways, chosen per table and recorded:

``record``  ``hash_record_extended``: fast (measured: 2 to 3 times), and blind to what the types call equal: numeric 1.0
            and 1.00, interval '1 mon' and '30 days', float 0 and -0; and it hashes an enum by an oid that a restore
            changes. Used only when every column has a type in ``FAITHFUL_TYPES``.
``text``    ``hashtextextended`` over the row's text, under pinned settings: sees every printed difference. Works for
            every type, also for those without a hash (json, xml, point).

Columns are taken by name order, so that inherited tables whose columns come back in another order stay equal.
Not cryptographic: the hashes catch accidents, not an attacker who knows them.

What the reading role may not read is recorded as unknown, never skipped. The cost is one sequential scan of each table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from recoup.engines.postgres.access import server_version
from recoup.engines.postgres.definitions import read_definitions
from recoup.engines.postgres.heartbeat import NOT_OURS
from recoup.engines.postgres.session import Row, Session, SqlError, identifier

FINGERPRINT_VERSION = 1

FAITHFUL_TYPES = frozenset(
    {"bool", "char", "int2", "int4", "int8", "oid", "text", "varchar", "name", "bytea", "uuid", "date", "time"}
    | {"timestamp", "timestamptz", "macaddr", "macaddr8"}
)
"""Types of ``pg_catalog`` whose hash differs whenever the value's bytes differ, the same before and after a restore."""

_SEEDS = (0, 7046029254386353131)

# Everything with rows of its own, outside the system's schemas and other sessions' temporary tables. ``extension``
# is set for tables that an extension created: a dump carries their rows only where the extension asks for it. Our own
# row changes by itself, on an idle server too: it says nothing of the data.
_TABLES = f"""
SELECT n.nspname, c.relname, c.relkind, c.relpersistence, c.relispopulated, e.extname,
       (SELECT json_agg(json_build_array(a.attname, b.typname, bn.nspname, b.typtype, a.attgenerated,
                                         coalesce(co.collisdeterministic, true))
                        ORDER BY a.attname COLLATE "C")
          FROM pg_attribute a
          JOIN pg_type t ON t.oid = a.atttypid
          JOIN pg_type b ON b.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
          JOIN pg_namespace bn ON bn.oid = b.typnamespace
          LEFT JOIN pg_collation co ON co.oid = a.attcollation
         WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
       e.extconfig IS NOT NULL AND c.oid = ANY (e.extconfig)
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  LEFT JOIN pg_extension e ON e.oid = d.refobjid
 WHERE c.relkind IN ('r', 'm', 'f', 'p')
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'
   AND {NOT_OURS}
 ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""

_DATABASE = """
SELECT d.datname, pg_encoding_to_char(d.encoding), d.datcollate, d.datctype, pg_get_userbyid(d.datdba),
       current_setting('server_version'), pg_is_in_recovery()::text
  FROM pg_database d WHERE d.datname = current_database()
"""

# 15 introduced the version of the database's own collation, 17 renamed ICU's locale; only these columns are common.
_COLLATIONS = """
SELECT n.nspname || '.' || c.collname, c.collversion, pg_collation_actual_version(c.oid)
  FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
 WHERE c.collversion IS NOT NULL AND EXISTS (
   SELECT FROM pg_attribute a JOIN pg_class r ON r.oid = a.attrelid
    WHERE a.attcollation = c.oid AND r.relkind IN ('r', 'm', 'i', 'p') AND a.attrelid >= 16384)
"""
_DATABASE_COLLATION = """
SELECT 'the database', datcollversion, pg_database_collation_actual_version(oid)
  FROM pg_database WHERE datname = current_database() AND datcollversion IS NOT NULL
"""


def fingerprint_database(session: Session) -> dict[str, Any]:
    """The fingerprint of the session's database, as one snapshot. Values go to JSON and back unchanged.

    Joins the session's snapshot when one is open, else takes its own. Reads only. Raise ``EngineError`` when the
    connection is lost; a table that cannot be read is recorded with the reason under ``unknown``.
    """
    own = not session.in_snapshot
    session.begin_snapshot()
    try:
        version = server_version(session)
        name, encoding, collate, ctype, owner, release, standby = session.query(_DATABASE)[0]
        collations = _COLLATIONS if version < 150000 else f"{_COLLATIONS} UNION ALL {_DATABASE_COLLATION}"
        return {
            "version": FINGERPRINT_VERSION,
            "database": name,
            "server_version": release,
            "server_major": version // 10000,
            "encoding": encoding,
            "collate": collate,
            "ctype": ctype,
            "owner": owner,
            "tables": _tables(session, standby == "true"),
            "sequences": read_sequences(session),
            "large_objects": _large_objects(session),
            "extensions": {str(e): v for e, v in session.query("SELECT extname, extversion FROM pg_extension")},
            "roles": [r for (r,) in session.query("SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")],
            "collations": {str(c): [recorded, actual] for c, recorded, actual in session.query(collations)},
            "definitions": read_definitions(session, version),
        }
    finally:
        if own:
            session.end_snapshot()


def _tables(session: Session, standby: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for schema, table, kind, persistence, populated, extension, columns, configured in session.query(_TABLES):
        name = f"{identifier(str(schema))}.{identifier(str(table))}"
        entry: dict[str, Any] = {"kind": _KINDS[str(kind)]}
        if persistence == "u":
            entry["unlogged"] = True
        if extension is not None:
            entry["extension"] = extension
            entry["in_dump"] = configured == "t"
        if kind == "p":
            continue  # holds no rows itself: its leaves are listed
        if kind == "f":
            entry["not_compared"] = "a foreign table: its rows live on another server"
        elif populated != "t":
            entry["not_compared"] = "a materialized view that has never been filled"
        elif persistence == "u" and standby:
            entry["not_compared"] = "an unlogged table cannot be read on a standby"
        else:
            entry |= _rows(session, name, json.loads(columns or "[]"))
        found[name] = entry
    return found


_KINDS = {"r": "table", "m": "materialized view", "f": "foreign table", "p": "partitioned table"}


def _rows(session: Session, name: str, columns: list[list[Any]]) -> dict[str, Any]:
    # Virtual generated columns (18) hold nothing; their expression is part of the definitions.
    stored = [column for column in columns if column[4] != "v"]
    row = "ROW(" + ", ".join("recoup_row." + identifier(column[0]) for column in stored) + ")"
    method = "record" if stored and all(_is_faithful(column) for column in stored) else "text"
    value, hashed = (row, "hash_record_extended") if method == "record" else (f"({row})::text", "hashtextextended")
    collation = "" if method == "record" else ' COLLATE "C"'
    sums = ", ".join(f"coalesce(sum({hashed}(recoup_value{collation}, {seed})), 0)::text" for seed in _SEEDS)
    # OFFSET 0 keeps the planner from making the row's text once for each lane.
    answer = attempt(
        session,
        f"SELECT count(*)::text, {sums} "
        f"FROM (SELECT {value} AS recoup_value FROM ONLY {name} AS recoup_row OFFSET 0) AS recoup_rows",
    )
    if isinstance(answer, SqlError):
        return {"unknown": answer.message}
    count, first, second = answer[0]
    return {"rows": int(count or 0), "lanes": [first, second], "method": method}


def _is_faithful(column: list[Any]) -> bool:
    _, type_name, schema, type_type, _, deterministic = column
    return schema == "pg_catalog" and type_type == "b" and type_name in FAITHFUL_TYPES and bool(deterministic)


def attempt(session: Session, sql: str) -> list[Row] | SqlError:
    """Query inside a savepoint, so that a refused statement does not end the snapshot. Return the refusal."""
    session.execute("SAVEPOINT recoup_attempt")
    try:
        rows = session.query(sql)
    except SqlError as refused:
        if refused.sqlstate == "57014" and "user request" in refused.message:
            raise  # the caller gave up; that says nothing about the table
        session.execute("ROLLBACK TO SAVEPOINT recoup_attempt")
        return refused
    session.execute("RELEASE SAVEPOINT recoup_attempt")
    return rows


def read_sequences(session: Session) -> dict[str, Any]:
    """Every sequence: its last value, whether that was handed out, its step, cache and whether it cycles.

    Sequences stand outside snapshots: what is read is the present state.
    """
    found: dict[str, Any] = {}
    listed = session.query(
        "SELECT n.nspname, c.relname, s.seqincrement, s.seqcache, s.seqcycle, c.relpersistence FROM pg_sequence s "
        "JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname !~ '^pg_(toast_)?temp_' ORDER BY 1, 2"
    )
    for schema, sequence, step, cache, cycle, persistence in listed:
        name = f"{identifier(str(schema))}.{identifier(str(sequence))}"
        entry: dict[str, Any] = {"step": int(step or 1), "cache": int(cache or 1), "cycles": cycle == "t"}
        if persistence == "u":
            entry["unlogged"] = True
        answer = attempt(session, f"SELECT last_value, is_called FROM {name}")
        if isinstance(answer, SqlError):
            entry["unknown"] = answer.message
        else:
            entry |= {"last": int(answer[0][0] or 0), "called": answer[0][1] == "t"}
        found[name] = entry
    return found


def _large_objects(session: Session) -> dict[str, Any]:
    """Count, and two lanes over every page without trailing zero bytes, and every size.

    A restore writes zero pages where the original had holes; both read the same, so both must hash the same.
    """
    count = int(session.query("SELECT count(*) FROM pg_largeobject_metadata")[0][0] or 0)
    if count == 0:
        return {"count": 0, "lanes": ["0", "0"], "method": "pages"}
    trimmed = "rtrim(data, '\\x00'::bytea)"
    pages = ", ".join(
        f"coalesce(sum(hash_record_extended(ROW(loid, pageno, {trimmed}), {seed})) FILTER (WHERE {trimmed} <> ''), 0)"
        for seed in _SEEDS
    )
    sizes = ", ".join(f"coalesce(sum(hash_record_extended(ROW(loid, size), {seed})), 0)" for seed in _SEEDS)
    answer = attempt(
        session,
        f"SELECT (p.a + s.a)::text, (p.b + s.b)::text FROM (SELECT {pages} FROM pg_largeobject) AS p(a, b), "
        f"(SELECT {sizes} FROM (SELECT loid, max(pageno::bigint * 2048 + length(data)) AS size "
        "FROM pg_largeobject GROUP BY loid) AS l) AS s(a, b)",
    )
    method = "pages"
    if isinstance(answer, SqlError):  # reading pg_largeobject takes a superuser; lo_get takes rights on each object
        method = "whole"
        lanes = ", ".join(f"sum(hash_record_extended(ROW(oid, lo_get(oid)), {seed}))::text" for seed in _SEEDS)
        answer = attempt(session, f"SELECT {lanes} FROM pg_largeobject_metadata")
    if isinstance(answer, SqlError):
        return {"count": count, "unknown": answer.message}
    return {"count": count, "lanes": list(answer[0]), "method": method}


def with_later_sequences(fingerprint: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """``fingerprint`` with the values ``latest`` that its sequences had when the copy was complete.

    A copy holds each sequence at some instant between the two readings; a comparison accepts what lies between.
    """
    sequences = {
        name: {**entry, "latest": later[name]["last"]} if "last" in later.get(name, {}) else dict(entry)
        for name, entry in fingerprint["sequences"].items()
    }
    return {**fingerprint, "sequences": sequences}
