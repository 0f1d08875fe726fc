"""Every row of every table is read, and every value turned into text: what is compressed or stored apart is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from recoup.engines.postgres.session import Row, identifier, literal
from recoup.engines.postgres.soundness_ask import WITHOUT_INDEXES, Examiner, Refusal
from recoup.engines.postgres.soundness_tally import Tally
from recoup.kernel.finding import Finding, Verdict

_TABLES: Final = """
SELECT c.oid, c.oid::regclass::text, c.relkind, c.relispopulated, c.relpersistence, c.relisshared
  FROM pg_class c
 WHERE c.relkind IN ('r', 'm', 'f', 'S') AND c.relpersistence <> 't' ORDER BY c.oid"""
#: Virtual generated columns (18) store nothing. Types that any bits are a value of need no decoding.
_COLUMNS: Final = """
SELECT a.attrelid, a.attname, CASE WHEN t.oid = 'bytea'::regtype THEN 'bytes'
         WHEN t.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'oid'::regtype, 'float4'::regtype,
                        'float8'::regtype, 'bool'::regtype, '"char"'::regtype, 'xid'::regtype, 'cid'::regtype,
                        'tid'::regtype) THEN 'plain'
         WHEN t.typlen = -1 AND t.oid <> 'numeric'::regtype THEN 'text' ELSE 'other' END
  FROM pg_attribute a LEFT JOIN pg_type t ON t.oid = a.atttypid
 WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v'
   AND EXISTS (SELECT FROM pg_class c WHERE c.oid = a.attrelid AND c.relkind IN ('r', 'm'))
 ORDER BY a.attrelid, a.attnum"""
_ENCODING: Final = """
SELECT pg_encoding_to_char(encoding), pg_encoding_max_length(encoding) FROM pg_database
 WHERE datname = current_database()"""


_FOREIGN: Final = "foreign tables, whose rows are on another server"
_NEVER_FILLED: Final = "materialized views that were never filled"
_UNLOGGED: Final = "what unlogged tables held, which no copy has"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column to read. ``kind``: plain, bytes, text (may hold text of the database's encoding), other."""

    name: str
    kind: str


def decode(table: str, columns: Sequence[Column], *, encoding: str | None, where: str = "") -> str:
    """The query that turns every value of ``table`` (a quoted name) into text and counts the rows.

    With ``encoding`` text is also proven to be text in it. Nothing is put together, so no row is too long.
    """
    return (
        f"SELECT {', '.join(['count(*)', *(_value(column, encoding) for column in columns)])} FROM ONLY {table}{where}"
    )


def _value(column: Column, encoding: str | None) -> str:
    name = identifier(column.name)
    if column.kind == "plain":
        return f"count({name})"
    if column.kind == "bytes":
        return f"count(md5({name}))"
    # concat calls the type's own output function, whatever casts exist.
    if column.kind == "text" and encoding is not None:
        return f"count(octet_length(convert_to(concat({name}), {literal(encoding)})))"
    return f"count(concat({name}))"


def check_rows(examiner: Examiner, *, shared: bool) -> list[Finding]:
    """Every row of every table, materialized view, sequence and large object decodes.

    ``shared``: also the catalogues that all databases share.
    """
    tally = Tally("every row can be read", examiner.named("tables"), unit="tables")
    encoding, width = examiner.facts(_ENCODING)[0]
    columns: dict[str | None, list[Row]] = {}
    for row in examiner.facts(_COLUMNS):
        columns.setdefault(row[0], []).append(row)
    rows = 0
    skipped: dict[str, list[str]] = {}
    tables = examiner.facts(_TABLES)
    with examiner.settings(WITHOUT_INDEXES):
        for listed in tables:
            oid, name, kind, filled, persistence, is_shared = listed
            table = str(name)
            if is_shared == "t" and not shared:
                continue
            if kind == "f" or filled != "t":
                skipped.setdefault(_FOREIGN if kind == "f" else _NEVER_FILLED, []).append(table)
                continue
            if persistence == "u":
                skipped.setdefault(_UNLOGGED, []).append(table)
            mine = columns.get(oid, [])
            wanted = [Column(name=str(column), kind=str(how)) for _, column, how in mine]
            if kind == "S":
                wanted = [Column(name="last_value", kind="plain")]
            sql = decode(table, wanted, encoding=encoding if int(width or 1) > 1 else None)
            answer = examiner.ask(sql)
            if isinstance(answer, Refusal):
                answer = examiner.weighed(answer, _TABLES, [listed])
                answer = examiner.weighed(answer, _COLUMNS, mine)
                tally.refused(examiner.named(table), _located(examiner, table, sql, answer))
            else:
                rows += int(answer[0][0] or 0)
            tally.examined += 1
    tally.also.append(f"{rows} rows")
    for why, names in sorted(skipped.items()):
        tally.leave_out(why, names)
    tally.leave_out("whether the values are the right ones")
    return tally.findings()


def _located(examiner: Examiner, table: str, sql: str, refusal: Refusal) -> Refusal:
    """The same refusal with the first page that cannot be read, found by halves."""
    if refusal.verdict is Verdict.UNKNOWN:
        return refusal
    pages = examiner.ask(
        f"SELECT (pg_relation_size({literal(table)}) / current_setting('block_size')::int)::text", patience=0.1
    )
    if isinstance(pages, Refusal):
        return refusal
    low, high = 0, int(pages[0][0] or 0)
    while high - low > 1:
        middle = (low + high) // 2
        answer = examiner.ask(f"{sql} WHERE ctid >= '({low},0)' AND ctid < '({middle},0)'", patience=0.5)
        if isinstance(answer, Refusal):
            if answer.out_of_time:
                return refusal
            high = middle
        else:
            low = middle
    if high == 0:
        return refusal
    return Refusal(verdict=refusal.verdict, detail=f"{refusal.detail} (page {low} of {table})", hint=refusal.hint)
