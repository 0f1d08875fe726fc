"""What rows must be to each other: foreign keys, unique keys, exclusion constraints. No index is trusted for it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from recoup.engines.postgres.session import identifier
from recoup.engines.postgres.soundness_ask import DAMAGED_HINT, WITHOUT_INDEXES, Examiner, Refusal
from recoup.engines.postgres.soundness_tally import Tally, many
from recoup.kernel.finding import Finding

# -- foreign keys ---------------------------------------------------------------------------------------------------

#: One for each declaration: those the server makes for partitions (conparentid) say nothing more. conpfeqop compares a
#: referenced column with a referencing one. Between plain tables four triggers keep a key, two on each side; partitions
#: share those of their tables in other ways.
_FOREIGN: Final = """
SELECT quote_ident(k.conname), k.conrelid::regclass::text, k.confrelid::regclass::text, f.relkind, p.relkind,
       k.confmatchtype, {period}, k.convalidated{enforced},
       (SELECT json_agg(json_build_array(fa.attname, pa.attname, quote_ident(n.nspname), o.oprname,
                  CASE WHEN pa.attcollation <> 0 AND fa.attcollation <> 0 AND pa.attcollation <> fa.attcollation
                       THEN (SELECT quote_ident(cn.nspname) || '.' || quote_ident(c.collname) FROM pg_collation c
                               JOIN pg_namespace cn ON cn.oid = c.collnamespace WHERE c.oid = pa.attcollation) END)
                ORDER BY i)
          FROM generate_subscripts(k.conkey, 1) i
          JOIN pg_attribute fa ON fa.attrelid = k.conrelid AND fa.attnum = k.conkey[i]
          JOIN pg_attribute pa ON pa.attrelid = k.confrelid AND pa.attnum = k.confkey[i]
          JOIN pg_operator o ON o.oid = k.conpfeqop[i] JOIN pg_namespace n ON n.oid = o.oprnamespace),
       cardinality(k.conkey),
       CASE WHEN f.relkind = 'r' AND p.relkind = 'r'
            THEN (SELECT count(*) FROM pg_trigger t WHERE t.tgconstraint = k.oid) ELSE 4 END
  FROM pg_constraint k JOIN pg_class f ON f.oid = k.conrelid JOIN pg_class p ON p.oid = k.confrelid
 WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY 2, 1"""

_KEEPERS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One column of a foreign key, the column it refers to, and how the two are compared."""

    column: str
    target: str
    operator: str  #: as SQL writes it: ``OPERATOR(pg_catalog.=)``
    collation: str | None = None  #: that of the target, where the two differ

    def matches(self) -> str:
        """The SQL condition for a row ``p`` that a row ``f`` refers to."""
        collate = f" COLLATE {self.collation}" if self.collation else ""
        return f"p.{identifier(self.target)} {self.operator} f.{identifier(self.column)}{collate}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A foreign key. The tables are as SQL writes them, with ONLY where their children are not meant."""

    table: str
    target: str
    pairs: Sequence[Pair]
    full: bool  #: MATCH FULL: all columns are null, or none
    period: bool = False  #: the last column is a period that must be covered (18)

    def broken(self) -> str:
        """The query that counts the rows which refer to nothing."""
        null = [f"f.{identifier(pair.column)}" for pair in self.pairs]
        given = f"num_nulls({', '.join(null)}) = 0"
        equal = self.pairs[:-1] if self.period else self.pairs
        where = " AND ".join(pair.matches() for pair in equal) or "true"
        if self.period:
            last = self.pairs[-1]
            covered = f"SELECT range_agg(p.{identifier(last.target)}) AS r FROM {self.target} p WHERE {where}"
            found = f"SELECT FROM ({covered}) c WHERE f.{identifier(last.column)} OPERATOR(pg_catalog.<@) c.r"
        else:
            found = f"SELECT FROM {self.target} p WHERE {where}"
        mixed = f" OR num_nulls({', '.join(null)}) BETWEEN 1 AND {len(null) - 1}" if self.full else ""
        return f"SELECT count(*) FROM {self.table} f WHERE ({given} AND NOT EXISTS ({found})){mixed}"


def check_foreign_keys(examiner: Examiner) -> list[Finding]:
    """Every row that refers to another finds it."""
    tally = Tally("every foreign key leads to a row", examiner.named("foreign keys"), unit="foreign keys")
    new = examiner.server.major >= 18
    sql = _FOREIGN.format(period="k.conperiod" if new else "false", enforced=" AND k.conenforced" if new else "")
    skipped: list[str] = []
    with examiner.settings(WITHOUT_INDEXES):
        for name, table, target, kind, target_kind, match, period, valid, pairs, width, keepers in examiner.facts(sql):
            what = f"{table}, constraint {name}"
            if valid != "t":
                skipped.append(what)
                continue
            tally.examined += 1
            told = json.loads(pairs or "[]")
            if len(told) != int(width or 0):
                tally.failed(examiner.named(what), "its columns or operators are not in the catalogues")
                continue
            key = ForeignKey(
                table=_whole(str(table), kind), target=_whole(str(target), target_kind), pairs=_pairs(told),
                full=match == "f", period=period == "t",
            )  # fmt: skip
            answer = examiner.ask(key.broken())
            if isinstance(answer, Refusal):
                tally.refused(examiner.named(what), answer)
            elif answer[0][0] != "0":
                tally.failed(
                    examiner.named(what),
                    f"{many(answer[0][0], 'row')} with a reference to {target} that leads nowhere",
                    hint=DAMAGED_HINT,
                )  # fmt: skip
            if int(keepers or 0) < _KEEPERS:
                tally.unknown(
                    examiner.named(what),
                    f"it has {keepers} of the {_KEEPERS} triggers that keep it: what is written may break it",
                    hint="Drop it and add it again, on production too. Detaching a partition left keys like this "
                    "before 15.9, 16.5 and 17.1; otherwise the catalogues are damaged.",
                )
    tally.leave_out("foreign keys that production has not validated", skipped)
    return tally.findings()


def _pairs(told: list[list[Any]]) -> list[Pair]:
    return [
        Pair(column=column, target=target, operator=f"OPERATOR({schema}.{operator})", collation=collation)
        for column, target, schema, operator, collation in told
    ]


def _whole(table: str, kind: str | None) -> str:
    """A partitioned table is all of its partitions; children of another kind have keys of their own."""
    return table if kind == "p" else f"ONLY {table}"


# -- unique keys ----------------------------------------------------------------------------------------------------

_UNIQUE: Final = """
SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text, pg_get_expr(i.indpred, i.indrelid), {nulls},
       (SELECT json_agg(json_build_array(pg_get_indexdef(i.indexrelid, n, false),
                  (SELECT quote_ident(cn.nspname) || '.' || quote_ident(c.collname) FROM pg_collation c
                     JOIN pg_namespace cn ON cn.oid = c.collnamespace WHERE c.oid = i.indcollation[n - 1])) ORDER BY n)
          FROM generate_series(1, i.indnkeyatts) n)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
 WHERE i.indisunique AND NOT i.indisexclusion AND i.indisvalid AND c.relkind IN ('r', 'm', 't')
   AND c.relpersistence <> 't' AND c.relispopulated AND (NOT c.relisshared OR {shared}) ORDER BY 2, 1"""


def duplicates(table: str, keys: Sequence[tuple[str, str | None]], *, where: str | None, nulls_equal: bool) -> str:
    """The query that counts the keys which more than one row of ``table`` has. ``keys``: expression and collation."""
    written = [f"({key}){f' COLLATE {collation}' if collation else ''}" for key, collation in keys]
    conditions = [f"({where})"] if where else []
    if not nulls_equal:
        conditions.append(f"num_nulls({', '.join(key for key, _ in keys)}) = 0")
    filtered = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return (
        f"SELECT count(*) FROM (SELECT FROM ONLY {table}{filtered} GROUP BY {', '.join(written)} "
        "HAVING count(*) > 1) AS recoup_twice"
    )


def check_unique_keys(examiner: Examiner, *, shared: bool) -> list[Finding]:
    """No two rows have the same unique key. ``shared``: also the catalogues that all databases share."""
    tally = Tally("no unique key is there twice", examiner.named("unique keys"), unit="unique indexes")
    nulls = "i.indnullsnotdistinct" if examiner.server.major >= 15 else "false"
    with examiner.settings(WITHOUT_INDEXES):
        for index, table, where, equal, keys in examiner.facts(
            _UNIQUE.format(nulls=nulls, shared="true" if shared else "false")
        ):
            columns = [(str(key), collation) for key, collation in json.loads(keys or "[]")]
            answer = examiner.ask(duplicates(str(table), columns, where=where, nulls_equal=equal == "t"), opinion=True)
            tally.examined += 1
            if isinstance(answer, Refusal):
                tally.refused(examiner.named(index), answer)
            elif answer[0][0] != "0":
                tally.failed(
                    examiner.named(index),
                    f"{many(answer[0][0], 'key')} in more than one row of {table}",
                    hint=DAMAGED_HINT,
                )
    return tally.findings()


# -- exclusion constraints ------------------------------------------------------------------------------------------

#: WITHOUT OVERLAPS of 18 is one of these as well. Strategy 3 of a range's GiST class is "overlaps".
_EXCLUSION: Final = """
SELECT quote_ident(k.conname), k.conrelid::regclass::text, pg_get_expr(i.indpred, i.indrelid), c.relkind,
       (SELECT json_agg(json_build_array(pg_get_indexdef(i.indexrelid, n, false), quote_ident(s.nspname), o.oprname,
                  o.oid = '&&(anyrange,anyrange)'::regoperator, o.oprcanhash) ORDER BY n)
          FROM generate_subscripts(k.conexclop, 1) n JOIN pg_operator o ON o.oid = k.conexclop[n]
          JOIN pg_namespace s ON s.oid = o.oprnamespace)
  FROM pg_constraint k JOIN pg_index i ON i.indexrelid = k.conindid JOIN pg_class c ON c.oid = k.conrelid
 WHERE k.conexclop IS NOT NULL AND c.relkind = 'r' ORDER BY 2, 1"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """One part of an exclusion constraint: an expression and the operator that must not hold for two rows."""

    expression: str
    operator: str
    overlaps: bool = False  #: it is ``&&`` of ranges
    equals: bool = False  #: it can be hashed, so it is an equality


def excluded_pairs(table: str, parts: Sequence[Excluded], where: str | None) -> str:
    """The query that counts rows which exclude each other (in the first form, at least one for each such pair).

    Equalities and one overlap of ranges: sorted by range, two that overlap have a neighbour that overlaps. Otherwise
    each row is compared with each other one that has equal parts.
    """
    names = [f"k{n}" for n in range(len(parts))]
    columns = ", ".join(f"{part.expression} AS {name}" for part, name in zip(parts, names, strict=True))
    rows = f"SELECT ctid AS place, {columns} FROM ONLY {table}{f' WHERE {where}' if where else ''}"
    given = f"num_nulls({', '.join(names)}) = 0"
    ranges = [name for part, name in zip(parts, names, strict=True) if part.overlaps]
    if len(ranges) == 1 and all(part.equals or part.overlaps for part in parts):
        partition = ", ".join(name for name in names if name not in ranges)
        window = f"OVER ({f'PARTITION BY {partition} ' if partition else ''}ORDER BY {ranges[0]})"
        return (
            f"SELECT count(*) FROM (SELECT {ranges[0]} AS this, lag({ranges[0]}) {window} AS before "
            f"FROM ({rows}) r WHERE {given} AND NOT isempty({ranges[0]})) s WHERE this && before"
        )
    both = " AND ".join(f"a.{name} {part.operator} b.{name}" for part, name in zip(parts, names, strict=True))
    return f"WITH r AS MATERIALIZED ({rows}) SELECT count(*) FROM r a JOIN r b ON a.place < b.place AND {both}"


def check_exclusions(examiner: Examiner) -> list[Finding]:
    """No two rows exclude each other."""
    tally = Tally("no two rows exclude each other", examiner.named("exclusion constraints"), unit="constraints")
    with examiner.settings(WITHOUT_INDEXES):
        for name, table, where, _, parts in examiner.facts(_EXCLUSION):
            told = [
                Excluded(expression=e, operator=f"OPERATOR({schema}.{operator})", overlaps=overlaps, equals=equals)
                for e, schema, operator, overlaps, equals in json.loads(parts or "[]")
            ]
            what = examiner.named(f"{table}, constraint {name}")
            answer = examiner.ask(excluded_pairs(str(table), told, where), opinion=True, patience=0.3)
            tally.examined += 1
            if isinstance(answer, Refusal):
                tally.refused(what, answer)
            elif answer[0][0] != "0":
                tally.failed(what, f"{many(answer[0][0], 'row')} in conflict with another one", hint=DAMAGED_HINT)
    return tally.findings()
