"""What each row must be by itself: not null, check constraints, domains, the bounds of partitions, generated values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from recoup.engines.postgres.session import identifier
from recoup.engines.postgres.soundness_ask import DAMAGED_HINT, WITHOUT_INDEXES, Examiner, Refusal
from recoup.engines.postgres.soundness_tally import Tally, many
from recoup.kernel.finding import Finding

#: The server's own catalogues are left to the check of their references. attnotnull says more than pg_constraint
#: before 18; from 18 on a constraint of kind n may be not validated, and then says nothing of the rows.
_NOT_NULL: Final = """
SELECT a.attrelid::regclass::text, 'NOT NULL of ' || quote_ident(a.attname), quote_ident(a.attname), 'null'
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE a.attnotnull AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v' AND c.relkind = 'r'
   AND c.relpersistence <> 't'
   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = a.attrelid AND k.contype = 'n'
                      AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated)"""
_CHECKS: Final = """
SELECT k.conrelid::regclass::text, 'constraint ' || quote_ident(k.conname), pg_get_expr(k.conbin, k.conrelid), 'check'
  FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
 WHERE k.contype = 'c' AND k.convalidated AND c.relkind = 'r'"""
#: A partition that pg_inherits does not know has no bounds that could be asked for; that it is so, another check says.
_BOUNDS: Final = """
SELECT table_, 'the bounds of the partition', bounds, 'check'
  FROM (SELECT c.oid::regclass::text AS table_, CASE WHEN EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
                                                     THEN pg_get_partition_constraintdef(c.oid) END AS bounds
          FROM pg_class c WHERE c.relkind = 'r' AND c.relispartition) AS partitions
 WHERE bounds IS NOT NULL"""
#: Compared by their bytes: not every type has an operator that compares.
_GENERATED: Final = """
SELECT a.attrelid::regclass::text, 'generated ' || quote_ident(a.attname),
       quote_ident(a.attname) || E'\\x01' || pg_get_expr(d.adbin, d.adrelid), 'generated'
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relpersistence <> 't'
  JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attgenerated = 's' AND NOT a.attisdropped"""
#: VALUE in a domain's expression is the name of a column in the query that tests it.
_DOMAINS: Final = """
WITH RECURSIVE domains AS (
  SELECT t.oid AS domain, t.oid AS part, t.typbasetype, t.typtypmod FROM pg_type t WHERE t.typtype = 'd'
   UNION ALL
  SELECT d.domain, t.oid, t.typbasetype, t.typtypmod FROM domains d JOIN pg_type t ON t.oid = d.typbasetype
   WHERE t.typtype = 'd')
SELECT a.attrelid::regclass::text,
       'constraint ' || quote_ident(k.conname) || ' of the domain of ' || quote_ident(a.attname),
       quote_ident(a.attname) || '::' || format_type(d.typbasetype, d.typtypmod) || E'\\x01' ||
       pg_get_expr(k.conbin, 0), 'domain'
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r' AND c.relpersistence <> 't'
  JOIN domains d ON d.domain = a.atttypid JOIN pg_constraint k ON k.contypid = d.part
 WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v' AND k.contype = 'c' AND k.convalidated"""
_NOT_VALID: Final = """
SELECT quote_ident(k.conname) || ' of ' || coalesce(nullif(k.conrelid, 0)::regclass::text, k.contypid::regtype::text)
  FROM pg_constraint k
 WHERE k.contype IN ('c', 'n') AND NOT k.convalidated AND (k.conrelid <> 0 OR k.contypid <> 0)"""
_ENFORCED: Final = " AND k.conenforced"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowRule:
    """One thing that must hold for every row of a table by itself. ``kind``: null, check, domain or generated."""

    table: str  #: as SQL writes it
    name: str
    expression: str
    kind: str

    @property
    def broken(self) -> str:
        """The SQL condition that is true for a row which breaks the rule.

        num_nulls and not IS NULL: the planner of 17 and newer takes the latter for false where NOT NULL is declared.
        """
        if self.kind == "null":
            return f"num_nulls({self.expression}) > 0"
        if self.kind == "domain":
            value, _, expression = self.expression.partition("\x01")
            return f"(SELECT NOT ({expression}) FROM (SELECT {value} AS value) AS recoup_value)"
        if self.kind == "generated":
            value, _, expression = self.expression.partition("\x01")
            return f"record_image_ne(ROW({value}), ROW({expression}))"
        return f"NOT ({self.expression})"


def broken_rows(table: str, rules: Sequence[RowRule]) -> str:
    """The query that counts, for each rule, the rows of ``table`` that break it."""
    counts = ", ".join(f"count(*) FILTER (WHERE {rule.broken})" for rule in rules)
    return f"SELECT {counts} FROM ONLY {table}"


def check_row_rules(examiner: Examiner) -> list[Finding]:
    """Every row holds what is declared of it alone. One pass over a table; only what is broken is asked for again."""
    tally = Tally("every row keeps the rules of its table", examiner.named("constraints"), unit="rules")
    enforced = _ENFORCED if examiner.server.major >= 18 else ""
    rules: dict[str, list[RowRule]] = {}
    for sql in (_NOT_NULL, _CHECKS + enforced, _BOUNDS, _DOMAINS + enforced, _GENERATED):
        for table, name, expression, kind in examiner.facts(sql + _OURS):
            rule = RowRule(table=str(table), name=str(name), expression=str(expression), kind=str(kind))
            rules.setdefault(rule.table, []).append(rule)
    # Expressions were written out with full names; the functions they call may count on the database's own path.
    with examiner.settings({**WITHOUT_INDEXES, "search_path": "DEFAULT"}):
        for table, its in rules.items():
            tally.examined += len(its)
            for begin in range(0, len(its), _AT_ONCE):
                _check_table(examiner, tally, table, its[begin : begin + _AT_ONCE])
    tally.leave_out("rules that production has not validated", [str(row[0]) for row in examiner.facts(_NOT_VALID)])
    tally.leave_out("domains inside of arrays and rows")
    return tally.findings()


_AT_ONCE: Final = 500
_OURS: Final = " ORDER BY 1, 2"


def _check_table(examiner: Examiner, tally: Tally, table: str, rules: Sequence[RowRule]) -> None:
    answer = examiner.ask(broken_rows(table, rules), opinion=True)
    if isinstance(answer, Refusal):
        if len(rules) == 1 or answer.out_of_time:
            for rule in rules:
                tally.refused(examiner.named(f"{table}, {rule.name}"), answer)
            return
        for rule in rules:
            _check_table(examiner, tally, table, [rule])
        return
    for rule, count in zip(rules, answer[0], strict=True):
        if count == "0":
            continue
        subject, detail = examiner.named(f"{table}, {rule.name}"), f"broken by {many(count, 'row')}: {_words(rule)}"
        if rule.kind == "generated":
            tally.unknown(
                subject,
                f"{many(count, 'row')} with another value than is computed of the row now: {_words(rule)}",
                hint="A function that it uses changed since, or does not give the same everywhere; or the value is "
                "damaged. Ask production the same; UPDATE of the rows there computes it anew.",
            )
        elif rule.kind == "check" and not _depends_on_row_alone(examiner, table, rule):
            tally.unknown(
                subject,
                f"{detail}; but what it says depends on more than the row (the time, another table, a setting)",
                hint="A constraint like this may be broken on production as well; ask there.",
            )
        else:
            tally.failed(subject, detail, hint=DAMAGED_HINT)


def _words(rule: RowRule) -> str:
    if rule.kind == "null":
        return f"{rule.expression} is null"
    return rule.expression.replace("\x01", " is " if rule.kind == "generated" else " in ")


def _depends_on_row_alone(examiner: Examiner, table: str, rule: RowRule) -> bool:
    """Whether the expression is immutable: only then the server takes it for the predicate of an index."""
    probe = identifier("recoup_probe")
    refused = examiner.run(f"CREATE TEMPORARY TABLE {probe} (LIKE {table})") or examiner.run(
        f"CREATE INDEX ON pg_temp.{probe} ((1)) WHERE {rule.expression}"
    )
    examiner.run(f"DROP TABLE IF EXISTS pg_temp.{probe}")
    return refused is None
