"""Indexes against their tables, by counting what each finds.

An index entry too many, or a row that is gone from its page, is seen by no check of pages. Where amcheck is missing,
reading each row through the index, and the values in it, stands in for a part of that.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from recoup.engines.postgres.session import Row
from recoup.engines.postgres.soundness_ask import DAMAGED_HINT, WITHOUT_INDEXES, Examiner, Refusal
from recoup.engines.postgres.soundness_files import ZeroedTable
from recoup.engines.postgres.soundness_tally import Tally, many
from recoup.kernel.finding import Finding, Verdict

Answer = list[Row] | Refusal
_READ_THROUGH: Final = ("btree", "gist", "spgist")

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
   AND t.relpersistence <> 't'
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
        "an index finds as many rows as its table holds", examiner.named("indexes"), unit="indexes"
    )  # fmt: skip
    holes = Tally(
        "no page of a table was replaced by zeros", examiner.named("tables"), unit="tables with pages of zeros",
        not_checked="pages of zeros at the end of a table without an index: tables grow like that",
    )  # fmt: skip
    suspects = {table.name: table for table in zeroed}
    judged: set[str] = set()
    vacuumed: set[str] = set()
    others: list[str] = []
    for index in list(_indexes(examiner)):
        if index.method not in _READ_THROUGH:
            others.append(f"{index.name} ({index.method})")
            continue
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
            _judge_holes(examiner, holes, index, suspects[index.table], fetches)
    tally.leave_out("indexes of kinds that nothing reads from end to end", others)
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


def _judge_holes(examiner: Examiner, holes: Tally, index: ScannedIndex, table: ZeroedTable, fetches: int) -> None:
    """The index leads to ``fetches`` rows on pages that are not known to be all visible: are those the zeroed ones?

    After a VACUUM all others are, unless a prepared transaction is in the way.
    """
    subject = examiner.named(index.table)
    told = f"the index {index.name} knows of {many(fetches, 'row')}"
    zeros = f"all zeros: {many(table.pages, 'page')}"
    unseen = examiner.ask(f"SELECT relpages - relallvisible FROM pg_class WHERE oid = {index.table_oid}")
    if isinstance(unseen, Refusal):
        holes.refused(subject, unseen)
    elif unseen[0][0] == str(table.pages):
        holes.failed(subject, f"{told} on pages that are empty now; {zeros}", hint=DAMAGED_HINT)
    else:
        hint = "End the prepared transactions on production, or compare the rows (grade same)."
        holes.unknown(subject, f"{told} that may be on them; {zeros}", hint=hint)


def _check_count(examiner: Examiner, tally: Tally, index: ScannedIndex) -> int | None:
    """Count; return for how many rows the table had to be looked at, or None when there is no answer."""
    subject = examiner.named(index.name)
    table = examiner.ask(index.counted(), opinion=True)
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
    by_table = examiner.ask(index.unordered(), opinion=True)
    by_index = _only_by(examiner, index, index.in_order())
    _compare(examiner, tally, index, plan, by_table, by_index, "leads to other rows than")


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
        return examiner.ask(sql, opinion=True)
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
