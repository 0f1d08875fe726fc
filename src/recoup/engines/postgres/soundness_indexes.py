"""Indexes against their tables: by ``amcheck``, and by counting what each finds.

amcheck (documentation, appendix F) proves that every row is in each B-tree index, and that pages make sense. It does
not see an index entry too many; counting through the index does. Where the extension is missing, reading each row
through the index stands in for a part of it, and the rest is *unknown*.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from recoup.engines.postgres.session import Row, identifier
from recoup.engines.postgres.soundness_ask import DAMAGED_HINT, WITHOUT_INDEXES, Examiner, Refusal
from recoup.engines.postgres.soundness_catalog import collations_differ
from recoup.engines.postgres.soundness_files import ZeroedTable
from recoup.engines.postgres.soundness_tally import Tally, many
from recoup.kernel.finding import Finding, Verdict

Answer = list[Row] | Refusal

_SCHEMA: Final = "recoup_amcheck"

# -- amcheck --------------------------------------------------------------------------------------------------------

_HEAPS: Final = """
SELECT c.oid, c.oid::regclass::text FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam
 WHERE c.relkind IN ({kinds}) AND (c.relkind = 'S' OR a.amname = 'heap') AND c.relpersistence <> 't'
   AND (NOT c.relisshared OR {shared}) ORDER BY c.oid"""
_TREES: Final = """
SELECT c.oid, c.oid::regclass::text, a.amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam
  JOIN pg_index i ON i.indexrelid = c.oid
 WHERE c.relkind = 'i' AND i.indisvalid AND i.indisready AND c.relpersistence <> 't'
   AND (NOT c.relisshared OR {shared}) ORDER BY c.oid"""


def check_by_amcheck(examiner: Examiner, *, shared: bool) -> tuple[list[Finding], bool]:
    """Every table and every B-tree (18: and GIN) index, and whether the extension could be used at all."""
    flag = "true" if shared else "false"
    heaps = Tally("the pages of tables make sense (amcheck)", examiner.named("tables"), unit="tables")
    trees = Tally("every row is in its indexes (amcheck)", examiner.named("indexes"), unit="indexes")
    installed = examiner.ask("SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace "
                             "WHERE e.extname = 'amcheck'")  # fmt: skip
    missing = installed if isinstance(installed, Refusal) else None
    schema = _SCHEMA
    own = missing is None and not installed
    if not isinstance(installed, Refusal) and installed:
        schema = str(installed[0][0])
    elif own:
        examiner.run(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
        missing = examiner.run(f"CREATE SCHEMA {_SCHEMA}") or examiner.run(
            f"CREATE EXTENSION amcheck SCHEMA {_SCHEMA}"
        )  # fmt: skip
    try:
        if missing is not None:
            trees.unknown(
                examiner.named("extension amcheck"),
                f"it cannot be used here, so neither indexes nor the pages of tables are looked into: {missing.detail}",
                hint="Install the server's contrib package (postgresql-contrib) where the sandbox runs, or use the "
                "service's own image.",
            )
            return trees.findings(), False
        _check_heaps(examiner, heaps, identifier(schema), flag)
        _check_trees(examiner, trees, identifier(schema), flag)
    finally:
        if own:
            examiner.run(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
    return [*heaps.findings(), *trees.findings()], True


def _check_heaps(examiner: Examiner, tally: Tally, schema: str, shared: str) -> None:
    # Sequences are looked at from 17 on (src/bin/pg_amcheck/pg_amcheck.c).
    kinds = "'r', 'm', 't', 'S'" if examiner.server.major >= 17 else "'r', 'm', 't'"
    for oid, name in examiner.facts(_HEAPS.format(kinds=kinds, shared=shared)):
        answer = examiner.ask(
            f"SELECT count(*), min(format('page %s, row %s: %s', blkno, offnum, msg)) "
            f"FROM {schema}.verify_heapam({oid}, check_toast => true)"
        )
        tally.examined += 1
        if isinstance(answer, Refusal):
            tally.refused(examiner.named(name), answer)
        elif answer[0][0] != "0":
            tally.failed(examiner.named(name), f"{many(answer[0][0], 'fault')}: {answer[0][1]}", hint=DAMAGED_HINT)


def _check_trees(examiner: Examiner, tally: Tally, schema: str, shared: str) -> None:
    descend = "true" if collations_differ(examiner) else "false"
    others: list[str] = []
    for oid, name, method in examiner.facts(_TREES.format(shared=shared)):
        if method == "btree":
            sql = f"{schema}.bt_index_parent_check({oid}, heapallindexed => true, rootdescend => {descend})"
        elif method == "gin" and examiner.server.major >= 18:
            sql = f"{schema}.gin_index_check({oid})"
        else:
            others.append(f"{name} ({method})")
            continue
        tally.examined += 1
        # The function returns nothing; a query of it returns a row with an empty text.
        answer = examiner.ask(f"SELECT {sql}")
        if isinstance(answer, Refusal):
            tally.refused(examiner.named(name), answer)
    if descend == "true":
        tally.also.append("each row looked for from the root, as collations differ")
    tally.leave_out("indexes of other kinds than B-tree", others)


# -- counting through an index --------------------------------------------------------------------------------------

_SCANNED: Final = """
SELECT i.indexrelid, c.relname, i.indexrelid::regclass::text, i.indrelid::regclass::text, i.indrelid,
       pg_get_expr(i.indpred, i.indrelid), a.amname, pg_get_indexdef(i.indexrelid, 1, false),
       (SELECT quote_ident(cn.nspname) || '.' || quote_ident(co.collname) FROM pg_collation co
          JOIN pg_namespace cn ON cn.oid = co.collnamespace WHERE co.oid = i.indcollation[0]),
       (SELECT format('OPERATOR(%I.%s)', n.nspname, o.oprname)
          FROM pg_opclass k JOIN pg_amop m ON m.amopfamily = k.opcfamily AND m.amoplefttype = k.opcintype
                                          AND m.amoprighttype = k.opcintype
          JOIN pg_operator o ON o.oid = m.amopopr JOIN pg_namespace n ON n.oid = o.oprnamespace
         WHERE k.oid = i.indclass[0] AND m.amopstrategy = CASE WHEN i.indoption[0] & 1 = 0 THEN 1 ELSE 5 END),
       i.indoption[0] & 2 = 2,
       (SELECT string_agg(quote_ident(k.attname), ', ' ORDER BY n)
          FROM generate_series(1, i.indnkeyatts) n JOIN pg_attribute k ON k.attrelid = i.indrelid
                                                                   AND k.attnum = i.indkey[n - 1]
        HAVING count(*) = i.indnkeyatts)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
  JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace s ON s.oid = t.relnamespace
 WHERE c.relkind = 'i' AND i.indisvalid AND i.indisready AND t.relkind IN ('r', 'm') AND t.relispopulated
   AND t.relpersistence <> 't' AND a.amname IN ('btree', 'gist', 'spgist')
   AND s.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY i.indrelid, i.indexrelid"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScannedIndex:
    """An index that can be read from one end to the other."""

    oid: int
    bare: str  #: its name without the schema, as EXPLAIN prints it
    name: str
    table: str
    table_oid: int
    where: str | None
    method: str
    first_key: str
    collation: str | None
    before: str | None  #: the operator that orders its first key, as SQL writes it
    nulls_first: bool
    columns: str | None  #: the columns it holds, or None when it holds expressions

    @property
    def _filter(self) -> str:
        return f" WHERE {self.where}" if self.where else ""

    def counted(self) -> str:
        """The query for how many rows there are that the index should hold."""
        return f"SELECT count(*) FROM ONLY {self.table}{self._filter}"

    def keys(self) -> str:
        """The query for a sum over what the index holds, from the index when only that is read."""
        return (
            f"SELECT count(*), coalesce(sum(hash_record_extended(ROW({self.columns}), 0)), 0) "
            f"FROM ONLY {self.table}{self._filter}"
        )

    def in_order(self) -> str:
        """The query for all rows, read from the table in the order of the index: count, and a sum of their places."""
        collate = f" COLLATE {self.collation}" if self.collation else ""
        using = f" USING {self.before}" if self.before else ""
        nulls = "FIRST" if self.nulls_first else "LAST"
        return (
            f"SELECT count(*), coalesce(sum(hashtidextended(place, 0)), 0) FROM (SELECT ctid AS place FROM ONLY "
            f"{self.table}{self._filter} ORDER BY ({self.first_key}){collate}{using} NULLS {nulls} OFFSET 0) AS r"
        )

    def unordered(self) -> str:
        """The same, read from the table alone."""
        return f"SELECT count(*), coalesce(sum(hashtidextended(ctid, 0)), 0) FROM ONLY {self.table}{self._filter}"


def check_by_counting(examiner: Examiner, zeroed: list[ZeroedTable], *, amcheck: bool) -> list[Finding]:
    """What each index finds is what its table holds, no more and no less.

    Each table is vacuumed first: afterwards nobody looks into it to learn whether a row that an index leads to is still
    there, so the index is taken at its word, and one row too many is seen.
    ``zeroed``: tables with pages of zeros; no index may know of rows there. ``amcheck``: whether that was used.
    """
    tally = Tally(
        "an index finds as many rows as its table holds", examiner.named("indexes"), unit="indexes",
        not_checked="indexes of the kinds hash, GIN and BRIN: nothing reads those from end to end",
    )  # fmt: skip
    holes = Tally("no page of a table was replaced by zeros", examiner.named("tables"), unit="tables")
    suspects = {table.name: table for table in zeroed}
    judged: set[str] = set()
    vacuumed: set[str] = set()
    for index in list(_indexes(examiner)):
        if index.table not in vacuumed:
            vacuumed.add(index.table)
            examiner.run(f"VACUUM (TRUNCATE off, INDEX_CLEANUP on) {index.table}")
        tally.examined += 1
        with examiner.settings(WITHOUT_INDEXES):
            fetches = _check_count(examiner, tally, index)
            if fetches is not None and not amcheck and index.method == "btree":
                _compare_places(examiner, tally, index)
                _compare_keys(examiner, tally, index)
        if fetches is None or index.table not in suspects or index.where is not None:
            continue
        judged.add(index.table)
        if fetches:
            holes.failed(
                examiner.named(index.table),
                f"the index {index.name} knows of {many(fetches, 'row')} on pages that are empty now; "
                f"all zeros: {many(suspects[index.table].pages, 'page')}",
                hint=DAMAGED_HINT,
            )
    for name, suspect in suspects.items():
        holes.examined += 1
        if name not in judged and suspect.inner:
            holes.unknown(
                examiner.named(name),
                f"all zeros: {many(suspect.inner, 'page')} between others, and no index says whether there were rows",
                hint="The grade same compares the rows with those of the backup. VACUUM FULL of the table on "
                "production removes such pages.",
            )
    return [*tally.findings(), *(holes.findings() if suspects else [])]


def _check_count(examiner: Examiner, tally: Tally, index: ScannedIndex) -> int | None:
    """Count; return for how many rows the table had to be looked at, or None when there is no answer."""
    subject = examiner.named(index.name)
    table = examiner.ask(index.counted())
    answer = _only_by(examiner, index, f"EXPLAIN (ANALYZE, TIMING off, FORMAT json) {index.counted()}")
    if isinstance(table, Refusal):
        tally.refused(subject, table)
        return None
    if isinstance(answer, Refusal):
        tally.refused(subject, answer)
        return None
    node = _scan_of(answer, "Index Only Scan", index)
    if node is None:
        tally.refused(subject, _not_used(index))
        return None
    rows = round(float(node["Actual Rows"]) * float(node["Actual Loops"]))
    if rows != int(table[0][0] or 0):
        tally.failed(
            subject, f"finds {many(rows, 'row')}, and {index.table} holds {table[0][0]}",
            hint=f"REINDEX INDEX {index.name} after a restore, and find out whether the table lost rows.",
        )  # fmt: skip
    return int(node.get("Heap Fetches", 0))


def _indexes(examiner: Examiner) -> Iterator[ScannedIndex]:
    for row in examiner.facts(_SCANNED):
        oid, bare, name, table, table_oid, where, method, key, collation, before, nulls, columns = row
        yield ScannedIndex(
            oid=int(oid or 0), bare=str(bare), name=str(name), table=str(table), table_oid=int(table_oid or 0),
            where=where, method=str(method), first_key=str(key), collation=collation, before=before,
            nulls_first=nulls == "t", columns=columns,
        )  # fmt: skip


def _compare_places(examiner: Examiner, tally: Tally, index: ScannedIndex) -> None:
    """Whether the index leads to just the rows that the table holds."""
    plan = _only_by(examiner, index, f"EXPLAIN (FORMAT json) {index.in_order()}")
    if not isinstance(plan, Refusal) and _scan_of(plan, "Index Scan", index) is None:
        plan = _not_used(index)
    _compare(
        examiner, tally, index, plan, examiner.ask(index.unordered()), _only_by(examiner, index, index.in_order()),
        "leads to other rows than",
    )  # fmt: skip


def _compare_keys(examiner: Examiner, tally: Tally, index: ScannedIndex) -> None:
    """Whether the index holds the values that the table holds. What cannot be hashed is left out."""
    if index.columns is None:
        return
    plan = _only_by(examiner, index, f"EXPLAIN (FORMAT json) {index.keys()}")
    if isinstance(plan, Refusal) or _scan_of(plan, "Index Only Scan", index) is None:
        return
    by_table = examiner.ask(index.keys(), opinion=True)
    if isinstance(by_table, Refusal) and not by_table.out_of_time:
        return
    _compare(examiner, tally, index, plan, by_table, _only_by(examiner, index, index.keys()), "holds other values than")


def _compare(
    examiner: Examiner, tally: Tally, index: ScannedIndex, plan: Answer, by_table: Answer, by_index: Answer, how: str
) -> None:
    subject = examiner.named(index.name)
    refused = next((one for one in (plan, by_table, by_index) if isinstance(one, Refusal)), None)
    if refused is not None:
        tally.refused(subject, refused)
    elif by_table != by_index:
        tally.failed(subject, f"{how} {index.table}", hint=f"REINDEX INDEX {index.name} after a restore.")


def _not_used(index: ScannedIndex) -> Refusal:
    return Refusal(verdict=Verdict.UNKNOWN, detail=f"the planner does not read {index.name} from end to end")


_BY_INDEX: Final = (
    "SET LOCAL enable_indexscan = on", "SET LOCAL enable_indexonlyscan = on", "SET LOCAL enable_seqscan = off",
    "SET LOCAL enable_bitmapscan = off", "SET LOCAL enable_sort = off", "SET LOCAL enable_tidscan = off",
)  # fmt: skip


def _only_by(examiner: Examiner, index: ScannedIndex, sql: str) -> Answer:
    """Ask while no other index of the table can be used, and the table cannot be read by itself.

    The others are marked as not valid in a transaction that is rolled back.
    """
    others = f"UPDATE pg_index SET indisvalid = false WHERE indrelid = {index.table_oid} AND indexrelid <> {index.oid}"
    try:
        for statement in ("BEGIN", others, *_BY_INDEX):
            refused = examiner.run(statement)
            if refused is not None:
                return refused
        return examiner.ask(sql)
    finally:
        examiner.rollback()


def _scan_of(plan: list[Row], kind: str, index: ScannedIndex) -> dict[str, Any] | None:
    """The node of a plan that reads the index, or None."""
    nodes = [part["Plan"] for part in json.loads(str(plan[0][0]))]
    while nodes:
        node = nodes.pop()
        if node.get("Node Type") == kind and node.get("Index Name") == index.bare:
            return dict(node)
        nodes += node.get("Plans", [])
    return None
