"""Tables and B-tree indexes by the extension ``amcheck`` (PostgreSQL documentation, appendix F).

It proves that the pages make sense and that every row is in its indexes; an index entry too many it does not see. It is
asked relation by relation, as ``pg_amcheck`` does, so that what was not reached can be named. Where the copy does not
have the extension, it is made for that long, in a schema of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from recoup.engines.postgres.session import literal
from recoup.engines.postgres.soundness_ask import DAMAGED_HINT, Examiner, Refusal
from recoup.engines.postgres.soundness_catalog import collations_differ
from recoup.engines.postgres.soundness_tally import Tally, many
from recoup.kernel.finding import Finding, Verdict

_SCHEMA: Final = "recoup_amcheck"
_HEAPS: Final = """
SELECT c.oid, c.oid::regclass::text FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam
 WHERE c.relkind IN ({kinds}) AND (c.relkind = 'S' OR a.amname = 'heap') AND c.relpersistence <> 't'
   AND (NOT c.relisshared OR {shared}) ORDER BY c.oid"""
_TREES: Final = """
SELECT c.oid, c.oid::regclass::text, a.amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam
  JOIN pg_index i ON i.indexrelid = c.oid
 WHERE c.relkind = 'i' AND i.indisvalid AND i.indisready AND c.relpersistence <> 't'
   AND (NOT c.relisshared OR {shared}) ORDER BY c.oid"""


def check_by_amcheck(examiner: Examiner, *, shared: bool, gently: bool = False) -> tuple[list[Finding], bool]:
    """Every table and every B-tree (18: and GIN) index, and whether the extension could be used at all.

    ``gently`` is for a server that is in use: nothing is made on it, so that the extension has to be there, and no
    lock is taken that writers wait for; how the pages of an index hang together is not looked at then.
    """
    flag = "true" if shared else "false"
    heaps = Tally("the pages of tables make sense (amcheck)", examiner.named("tables"), unit="tables")
    trees = Tally("every row is in its indexes (amcheck)", examiner.named("indexes"), unit="indexes")
    with _extension(examiner, make=not gently) as schema:
        if isinstance(schema, Refusal):
            trees.unknown(
                examiner.named("extension amcheck"),
                f"it cannot be used here, so neither indexes nor the pages of tables are looked into: {schema.detail}",
                hint=schema.hint,
            )
            return trees.findings(), False
        _check_heaps(examiner, heaps, schema, flag)
        _check_trees(examiner, trees, schema, flag, gently=gently)
    return [*heaps.findings(), *trees.findings()], True


@contextlib.contextmanager
def _extension(examiner: Examiner, *, make: bool) -> Iterator[str | Refusal]:
    """The schema, as SQL writes it, in which the extension is: the copy's own, or one that is there for this long."""
    installed = examiner.ask(_INSTALLED)
    if isinstance(installed, Refusal):
        yield installed
    elif installed:
        schema, version = str(installed[0][0]), installed[0][1]
        if (missing := _function_missing(examiner, schema)) is None:
            yield schema
        else:
            hint = "ALTER EXTENSION amcheck UPDATE on production."
            yield replace(missing, detail=f"the database has version {version} of it", hint=hint)
    elif not make:
        yield Refusal(verdict=Verdict.UNKNOWN, detail="the database does not have it", hint=_CREATE)
    else:
        examiner.run(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
        refused = examiner.run(f"CREATE SCHEMA {_SCHEMA}") or examiner.run(f"CREATE EXTENSION amcheck SCHEMA {_SCHEMA}")
        try:
            yield _SCHEMA if refused is None else replace(refused, hint=_INSTALL)
        finally:
            examiner.run(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")


def _function_missing(examiner: Examiner, schema: str) -> Refusal | None:
    """verify_heapam came with amcheck 1.3, which has all that is used here of the others as well."""
    found = examiner.ask(f"SELECT count(*) FROM pg_proc WHERE oid = to_regproc({literal(schema + '.verify_heapam')})")
    if isinstance(found, Refusal):
        return found
    return None if found[0][0] == "1" else Refusal(verdict=Verdict.UNKNOWN, detail="verify_heapam is not there")


_INSTALLED: Final = """
SELECT quote_ident(n.nspname), e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'amcheck'"""
_CREATE: Final = "CREATE EXTENSION amcheck in it, while all is well: the next look then names damaged indexes as well."
_INSTALL: Final = (
    "Install the server's contrib package (postgresql-contrib) where the sandbox runs, or use the service's own image."
)


def _check_heaps(examiner: Examiner, tally: Tally, schema: str, shared: str) -> None:
    # Sequences are looked at from 17 on (src/bin/pg_amcheck/pg_amcheck.c).
    kinds = "'r', 'm', 't', 'S'" if examiner.server.major >= 17 else "'r', 'm', 't'"
    listing = _HEAPS.format(kinds=kinds, shared=shared)
    for row in examiner.facts(listing):
        oid, name = row
        answer = examiner.ask(
            f"SELECT count(*), min(format('page %s, row %s: %s', blkno, offnum, msg)) "
            f"FROM {schema}.verify_heapam({oid}, check_toast => true)"
        )
        tally.examined += 1
        if isinstance(answer, Refusal):
            tally.refused(examiner.named(name), examiner.weighed(answer, listing, [row]))
        elif answer[0][0] != "0":
            tally.failed(examiner.named(name), f"{many(answer[0][0], 'fault')}: {answer[0][1]}", hint=DAMAGED_HINT)


def _check_trees(examiner: Examiner, tally: Tally, schema: str, shared: str, *, gently: bool) -> None:
    descend = "true" if not gently and collations_differ(examiner) else "false"
    others: list[str] = []
    listing = _TREES.format(shared=shared)
    for row in examiner.facts(listing):
        oid, name, method = row
        if method == "btree":
            sql = f"{schema}.bt_index_parent_check({oid}, heapallindexed => true, rootdescend => {descend})"
            if gently:
                sql = f"{schema}.bt_index_check({oid}, heapallindexed => true)"
        elif method == "gin" and examiner.server.major >= 18:
            sql = f"{schema}.gin_index_check({oid})"
        else:
            others.append(f"{name} ({method})")
            continue
        tally.examined += 1
        # The function returns nothing; a query of it returns a row with an empty text.
        # It calls the functions of indexes on expressions: what those refuse is no damage, which has codes of its own.
        answer = examiner.ask(f"SELECT {sql}", opinion=True)
        if isinstance(answer, Refusal):
            tally.refused(examiner.named(name), examiner.weighed(answer, listing, [row]))
    if descend == "true":
        tally.also.append("each row looked for from the root, as collations differ")
    tally.leave_out("indexes of other kinds than B-tree", others)
