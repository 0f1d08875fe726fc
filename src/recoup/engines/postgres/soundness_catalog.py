"""The catalogues of a database: do their references lead somewhere, are the libraries and collations those it needs?

What refers to what is the server's own list, ``pg_get_catalog_foreign_keys()`` (14 and newer), read as its own
regression test reads it (src/test/regress/sql/oidjoins.sql).
"""

from __future__ import annotations

from typing import Final

from recoup.engines.postgres.session import identifier
from recoup.engines.postgres.soundness_ask import DAMAGED_HINT, Examiner, Refusal
from recoup.engines.postgres.soundness_tally import Tally, many
from recoup.kernel.finding import Finding

_KEYS: Final = """
SELECT fktable::text, array_to_string(fkcols, ','), pktable::text, array_to_string(pkcols, ','), is_array, is_opt
  FROM pg_get_catalog_foreign_keys() ORDER BY 1, 2"""


def catalog_reference(
    table: str, columns: list[str], target: str, keys: list[str], *, array: bool, optional: bool
) -> str:
    """The query for the rows of one catalogue that refer to nothing in another.

    Returns how many there are, and where the first stands. ``array``: the last column is an array of references.
    ``optional``: zero means that there is none.
    """
    names = [identifier(column) for column in columns]
    source = f"SELECT ctid AS place, {', '.join(names)} FROM {table}"
    if array:
        rest = "".join(f"{name}, " for name in names[:-1])
        source = f"SELECT ctid AS place, {rest}unnest({names[-1]}) AS {names[-1]} FROM {table}"
    zero = "".join(f"fk.{name} <> 0 AND " for name in names) if optional else ""
    matches = " AND ".join(f"pk.{identifier(key)} = fk.{name}" for key, name in zip(keys, names, strict=True))
    shown = " || ', ' || ".join(f"coalesce(fk.{name}::text, 'null')" for name in names)
    return (
        f"SELECT count(*), min(fk.place), min({shown}) FROM ({source}) fk "
        f"WHERE {zero}NOT EXISTS (SELECT FROM {target} pk WHERE {matches})"
    )


def check_references(examiner: Examiner) -> list[Finding]:
    """Every reference from one catalogue to another leads to a row."""
    tally = Tally(
        "every reference in the catalogues leads to something", examiner.named("catalogues"), unit="kinds of reference",
        not_checked="references inside stored expressions, which are read when the expression is",
    )  # fmt: skip
    for table, columns, target, keys, array, optional in examiner.facts(_KEYS):
        fkcols, pkcols = str(columns).split(","), str(keys).split(",")
        sql = catalog_reference(
            str(table), fkcols, str(target), pkcols, array=array == "t", optional=optional == "t"
        )  # fmt: skip
        answer = examiner.ask(sql)
        subject = examiner.named(f"{table} ({columns})")
        if isinstance(answer, Refusal):
            tally.refused(subject, answer)
        elif answer[0][0] != "0":
            count, place, shown = answer[0]
            tally.failed(
                subject,
                f"{many(count, 'row')} with a reference to {target} that leads nowhere; the first is {shown} "
                f"at {place}",
                hint=DAMAGED_HINT,
            )
        tally.examined += 1
    for what, sql in (*_LOST_OBJECTS, *_INCOMPLETE):
        answer = examiner.ask(sql)
        if isinstance(answer, Refusal):
            tally.refused(examiner.named(what), answer)
        else:
            for lost, detail in answer:
                tally.failed(examiner.named(lost), str(detail), hint=DAMAGED_HINT)
        tally.examined += 1
    return tally.findings()


#: pg_describe_object is NULL for an object that is not there. Numbers below 16384 are the server's own catalogues.
_LOST_OBJECTS: Final = tuple(
    (
        f"pg_depend ({column}id)",
        f"""
SELECT 'pg_depend (' || '{column}id' || ')', format('%s is listed and is not there', string_agg(object, ', '))
  FROM (SELECT DISTINCT format('object %s of %s', {column}id, {klass}::regclass) AS object FROM pg_depend
         WHERE {klass} BETWEEN 1 AND 16383 AND pg_describe_object({klass}, {column}id, 0) IS NULL LIMIT 10) lost
HAVING count(*) > 0""",
    )
    for column, klass in (("obj", "classid"), ("refobj", "refclassid"))
)
_INCOMPLETE: Final = (
    (
        "pg_attribute",
        """
SELECT coalesce(c.oid::regclass::text, c.relname), format('has %s columns, and %s of them are described',
                                                          c.relnatts, count(a.attnum))
  FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
 GROUP BY c.oid, c.relname, c.relnatts HAVING count(a.attnum) <> c.relnatts LIMIT 100""",
    ),
    (
        "pg_attrdef",
        """
SELECT a.attrelid::regclass || '.' || quote_ident(a.attname), 'has a default that is not stored'
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.atthasdef AND d.oid IS NULL LIMIT 100""",
    ),
    (
        "pg_index",
        """
SELECT c.oid::regclass::text, 'is an index that pg_index does not describe'
  FROM pg_class c LEFT JOIN pg_index i ON i.indexrelid = c.oid
 WHERE c.relkind IN ('i', 'I') AND i.indexrelid IS NULL LIMIT 100""",
    ),
    (
        "pg_rewrite",
        """
SELECT c.oid::regclass::text, 'is a view without a definition'
  FROM pg_class c WHERE c.relkind = 'v'
   AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type = '1') LIMIT 100""",
    ),
    (
        "pg_class (relkind)",
        """
SELECT c.oid::regclass::text, format('is described by no row of %s', kinds.described)
  FROM pg_class c JOIN (VALUES ('p', 'pg_partitioned_table'), ('S', 'pg_sequence'), ('f', 'pg_foreign_table'))
       AS kinds (kind, described) ON c.relkind::text = kinds.kind
 WHERE NOT CASE c.relkind WHEN 'p' THEN EXISTS (SELECT FROM pg_partitioned_table d WHERE d.partrelid = c.oid)
                          WHEN 'S' THEN EXISTS (SELECT FROM pg_sequence d WHERE d.seqrelid = c.oid)
                          ELSE EXISTS (SELECT FROM pg_foreign_table d WHERE d.ftrelid = c.oid) END LIMIT 100""",
    ),
    (
        "pg_inherits",
        """
SELECT c.oid::regclass::text, 'is a partition, and of what is not said: queries do not find its rows'
  FROM pg_class c WHERE c.relispartition AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
 UNION ALL
SELECT c.oid::regclass::text, format('is listed below %s, and is not marked as a partition', p.oid::regclass)
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
 WHERE p.relkind = 'p' AND NOT c.relispartition LIMIT 100""",
    ),
    # The server believes what a table says of itself: with the mark gone, the rest is there and counts for nothing.
    (
        "pg_class (marks)",
        """
SELECT c.oid::regclass::text, format('says that it has no %s, and has some', marks.what)
  FROM pg_class c, LATERAL (VALUES
       ('children', c.relhassubclass OR c.relkind NOT IN ('r', 'p', 'f')
                    OR NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid)),
       ('indexes', c.relhasindex OR NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indislive)),
       ('triggers', c.relhastriggers OR NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid)),
       ('rules', c.relhasrules OR NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid))) AS marks (what, well)
 WHERE NOT marks.well LIMIT 100""",
    ),
    (
        "pg_class (relchecks)",
        """
SELECT c.oid::regclass::text, format('says that it has %s check constraints, and has %s', c.relchecks, count(k.oid))
  FROM pg_class c LEFT JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'c'
 GROUP BY c.oid, c.relchecks HAVING count(k.oid) <> c.relchecks LIMIT 100""",
    ),
)


# -- libraries ------------------------------------------------------------------------------------------------------

#: Where the server looks for a library (src/backend/utils/fmgr/dfmgr.c): a name without a slash in each folder of
#: dynamic_library_path, $libdir is the folder it was installed with, and the system's ending may be left out.
_LIBRARIES: Final = """
WITH place AS (SELECT setting AS libdir FROM pg_config() WHERE name = 'PKGLIBDIR'),
wanted AS (
  SELECT p.probin, min(e.extname) AS extension, count(*) AS functions
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang AND l.lanname = 'c'
    LEFT JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                         AND d.refclassid = 'pg_extension'::regclass
    LEFT JOIN pg_extension e ON e.oid = d.refobjid
   WHERE p.probin IS NOT NULL GROUP BY p.probin),
candidates AS (
  SELECT w.*, replace(CASE WHEN strpos(w.probin, '/') > 0 THEN w.probin ELSE folder || '/' || w.probin END,
                      '$libdir', place.libdir) AS path
    FROM wanted w, place, regexp_split_to_table(current_setting('dynamic_library_path'), ':') AS folder)
SELECT probin, extension, functions,
       bool_or(EXISTS (SELECT FROM unnest(ARRAY['', '.so', '.dylib']) AS ending
                        WHERE (pg_stat_file(path || ending, true)).size IS NOT NULL))
  FROM candidates GROUP BY 1, 2, 3 ORDER BY 1"""


def check_libraries(examiner: Examiner) -> list[Finding]:
    """The libraries of all functions in C are where this server looks for them. Notes whose they are."""
    tally = Tally(
        "the library of every extension is here", examiner.named("extensions"), unit="libraries",
        not_checked="whether the libraries here do what production's do",
    )  # fmt: skip
    for library, extension, functions, found in examiner.facts(_LIBRARIES):
        if extension is not None:
            examiner.extensions[str(library)] = extension
        if found != "t":
            tally.unknown(
                examiner.named(f"extension {extension}" if extension else f"library {library}"),
                f"the library {library} is not on this machine; it is needed by {many(functions, 'function')}",
                hint="Install the extension where the sandbox runs, or use the service's own image; "
                "what is stored with it cannot be proven otherwise.",
            )
        tally.examined += 1
    return tally.findings()


# -- collations -----------------------------------------------------------------------------------------------------

#: What was recorded when indexes were built, and what this machine's C library or ICU says of itself.
_COLLATIONS: Final = """
SELECT 'collation ' || quote_ident(n.nspname) || '.' || quote_ident(c.collname), c.collversion,
       pg_collation_actual_version(c.oid)
  FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
 WHERE c.collversion IS NOT NULL AND c.collencoding IN (-1, (SELECT encoding FROM pg_database
                                                               WHERE datname = current_database()))
   AND (n.nspname <> 'pg_catalog'
        OR EXISTS (SELECT FROM pg_depend d WHERE d.refclassid = 'pg_collation'::regclass AND d.refobjid = c.oid)
        OR EXISTS (SELECT FROM pg_attribute a WHERE a.attcollation = c.oid AND a.attnum > 0)
        OR EXISTS (SELECT FROM pg_index i WHERE c.oid = ANY (i.indcollation)))"""
_DEFAULT_COLLATION: Final = """
SELECT 'the default collation', datcollversion, pg_database_collation_actual_version(oid)
  FROM pg_database WHERE datname = current_database() AND datcollversion IS NOT NULL"""


def collations_differ(examiner: Examiner) -> bool:
    """Whether text may be ordered otherwise here than where the copy was taken."""
    rows = _collation_rows(examiner)
    return any(recorded != actual for _, recorded, actual in rows)


def _collation_rows(examiner: Examiner) -> list[tuple[str | None, ...]]:
    default = _DEFAULT_COLLATION if examiner.server.major >= 15 else ""
    return examiner.facts(_COLLATIONS + (f" UNION ALL {default}" if default else "") + " ORDER BY 1")


def check_collations(examiner: Examiner) -> list[Finding]:
    """The rules by which text is ordered are those of the machine that the copy comes from."""
    tally = Tally(
        "text is ordered here as it was there", examiner.named("collations"), unit="versioned collations",
        not_checked="collations without a version, such as C and, before PostgreSQL 15, the database's default",
    )  # fmt: skip
    for name, recorded, actual in _collation_rows(examiner):
        if recorded != actual:
            tally.unknown(
                examiner.named(name),
                f"has version {recorded} in the copy and {actual or 'none'} on this machine: indexes on text are "
                "in the order of there",
                hint="Verify with the service's own image. On a machine like this one, REINDEX what uses the collation "
                "before the copy is used.",
            )
        tally.examined += 1
    return tally.findings()


# -- indexes that are not valid -------------------------------------------------------------------------------------

_INVALID: Final = """
SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text,
       (SELECT min(conname) FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x')),
       i.indisvalid AND i.indisready AND i.indislive
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relkind IN ('i', 'I')"""


def check_valid_indexes(examiner: Examiner) -> list[Finding]:
    """No index is marked as not valid."""
    tally = Tally("every index is valid", examiner.named("indexes"), unit="indexes")
    for index, table, constraint, valid in examiner.facts(_INVALID):
        if valid != "t" and constraint is not None:
            tally.failed(
                examiner.named(index),
                f"is not valid, and the constraint {constraint} of {table} rests on it",
                hint=f"REINDEX INDEX {index}; what the constraint forbids may be in the table.",
            )
        elif valid != "t":
            tally.unknown(
                examiner.named(index),
                f"is marked as not valid: building it on {table} did not end, or not on all partitions; what it holds "
                "is not checked",
                hint=f"On production: REINDEX INDEX CONCURRENTLY {index}, or drop it.",
            )
        tally.examined += 1
    return tally.findings()
