"""Fingerprints of real databases: equal after a dump and a restore, different after any change."""

from __future__ import annotations

import copy as copies

import pytest

from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.comparison import CopyMode, compare
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from tests.integration.logical import both_ways, direct, nasty_database

CHANGES = [
    ("UPDATE numbers SET n = 1.000 WHERE n = 1.00 AND f = '-0'", '"public"."numbers"'),
    ("UPDATE numbers SET f = 0 WHERE n = 1.00 AND f = '-0'", '"public"."numbers"'),
    ("UPDATE numbers SET i = '1 mon' WHERE i::text = '30 days'", '"public"."numbers"'),
    ("UPDATE moments SET tt = '03:00+00' WHERE tt IS NOT NULL", '"public"."moments"'),
    ("UPDATE moments SET t = t + interval '1 microsecond' WHERE isfinite(t)", '"public"."moments"'),
    ("""UPDATE documents SET jb = '{"b":1, "a": 1.000}' WHERE jb <> 'null'""", '"public"."documents"'),
    ("""UPDATE documents SET j = '{"b":1, "a": 1.0}' WHERE j IS NOT NULL""", '"public"."documents"'),
    ('UPDATE documents SET h = \'{a,NULL,NULL,"{\\"",""}\' WHERE h[1] = \'a\'', '"public"."documents"'),
    ("UPDATE documents SET n = '{{1.0,2},{3,4.00}}' WHERE n IS NOT NULL", '"public"."documents"'),
    ("UPDATE documents SET c = ROW(1, '') WHERE c IS DISTINCT FROM NULL", '"public"."documents"'),
    ("UPDATE documents SET e = 'ok' WHERE e = 'happy'", '"public"."documents"'),
    ("UPDATE blobs SET b = set_byte(b, 3, 0) WHERE id = 101", '"public"."blobs"'),
    ("UPDATE blobs SET b = NULL WHERE id = 100", '"public"."blobs"'),
    ("UPDATE shapes SET p = '(1.5,0)'", '"public"."shapes"'),
    ("INSERT INTO duplicates VALUES (1, 'same'), (1, 'same')", '"public"."duplicates"'),
    ("DELETE FROM duplicates WHERE ctid IN (SELECT ctid FROM duplicates WHERE a = 1 LIMIT 2)", '"public"."duplicates"'),
    ("UPDATE child SET own = 4", '"public"."child"'),
    ("UPDATE measures SET v = v + 0.001 WHERE at = '2026-01-05'", '"public"."measures_2026_a"'),
    ("UPDATE sessions SET data = 'x' WHERE id = 3", '"public"."sessions"'),
    ("TRUNCATE generated", '"public"."generated"'),
    ("DROP TABLE nothing", '"public"."nothing"'),
    ("CREATE TABLE extra ()", '"public"."extra"'),
    ("SELECT setval('down', 100)", '"public"."down"'),
    ("SELECT lo_put((SELECT min(oid) FROM pg_largeobject_metadata), 3, '\\x01')", "large objects"),
    ("SELECT lo_unlink(max(oid)) FROM pg_largeobject_metadata", "large objects"),
    (
        "CREATE OR REPLACE FUNCTION quoted() RETURNS text LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'",
        "function public.quoted()",
    ),
    ("ALTER TABLE checked DROP CONSTRAINT checked_q_check", "constraint public.checked checked_q_check"),
    (
        "ALTER TABLE checked DROP CONSTRAINT checked_q_check, ADD CONSTRAINT checked_q_check CHECK (q < 99)",
        "constraint public.checked checked_q_check",
    ),
    ("ALTER TABLE blobs ENABLE TRIGGER touched", "trigger public.blobs touched"),
    ("DROP POLICY own_rows ON secrets", "policy public.secrets own_rows"),
    ("ALTER TABLE secrets DISABLE ROW LEVEL SECURITY", "table public.secrets"),
    ("GRANT DELETE ON secrets TO PUBLIC", "table public.secrets"),
    ("ALTER TYPE mood ADD VALUE 'new'", "type public.mood"),
    ("DROP EXTENSION plpgsql CASCADE", "plpgsql"),
]


def test_both_kinds_of_session_give_the_same_fingerprint(any_postgres: PostgresServer) -> None:
    name = nasty_database(any_postgres)
    found = []
    for access in both_ways(any_postgres):
        with access.session(name) as session:
            found.append(fingerprint_database(session))
    assert found[0] == found[1]
    assert found[0]["tables"]['"public"."duplicates"']["method"] == "record"
    assert found[0]["tables"]['"public"."numbers"']["method"] == "text"


def test_a_fingerprint_does_not_depend_on_the_settings_of_the_role(postgres15: PostgresServer) -> None:
    name = nasty_database(postgres15)
    with direct(postgres15).session(name) as session:
        before = fingerprint_database(session)
    for setting in ("TimeZone TO 'Asia/Tokyo'", "extra_float_digits TO 0", "bytea_output TO 'escape'"):
        postgres15.execute(f"ALTER ROLE postgres SET {setting}")
    try:
        with direct(postgres15).session(name) as session:
            after = fingerprint_database(session)
    finally:
        postgres15.execute("ALTER ROLE postgres RESET ALL")
    assert after == before


def test_every_change_is_seen_and_named(any_postgres: PostgresServer) -> None:
    name = nasty_database(any_postgres)
    missed = []
    with direct(any_postgres).session(name) as session:
        before = fingerprint_database(session)
        assert overall(compare(before, before, mode=CopyMode.PHYSICAL)) is Verdict.OK
        for statement, subject in CHANGES:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            session._in_snapshot = True  # type: ignore[attr-defined]  # the change is undone with the transaction
            session.execute("SET LOCAL search_path = public, pg_catalog")
            session.execute(statement)
            session.execute("SET LOCAL search_path = pg_catalog")
            after = fingerprint_database(session)
            session.end_snapshot()
            failed = {f.subject for f in compare(before, after, mode=CopyMode.LOGICAL) if f.verdict is Verdict.FAILED}
            if subject not in failed:
                missed.append((statement, failed))
            if "setval" in statement:  # sequences do not roll back
                session.execute("SELECT setval('public.down', 95)")
    assert missed == []


def test_a_table_without_rights_is_unknown_and_never_skipped(any_postgres: PostgresServer) -> None:
    name = nasty_database(any_postgres)
    any_postgres.execute("DROP ROLE IF EXISTS reader")
    any_postgres.execute("CREATE ROLE reader LOGIN")
    any_postgres.execute("GRANT SELECT ON numbers, secrets TO reader", name)
    try:
        access = DirectAccess(Secret(any_postgres.url(user="reader")))
        with access.session(name) as session:
            seen = fingerprint_database(session)
    finally:
        any_postgres.execute("REVOKE ALL ON numbers, secrets FROM reader", name)
    tables = seen["tables"]
    assert tables['"public"."numbers"']["rows"] == 4
    assert "permission denied" in tables['"public"."blobs"']["unknown"]
    assert "row-level security" in tables['"public"."secrets"']["unknown"], "hidden rows must not look like no rows"
    assert "unknown" in seen["large_objects"]
    assert overall(compare(seen, seen, mode=CopyMode.PHYSICAL)) is Verdict.UNKNOWN


def test_extensions_and_their_tables_are_told_apart(postgres17: PostgresServer) -> None:
    name = postgres17.new_database("extended")
    postgres17.execute("CREATE EXTENSION citext", name)
    postgres17.execute("CREATE TABLE words (w citext)", name)
    postgres17.execute("INSERT INTO words VALUES ('Case')", name)
    with direct(postgres17).session(name) as session:
        before = fingerprint_database(session)
    postgres17.execute("UPDATE words SET w = 'case'", name)
    with direct(postgres17).session(name) as session:
        after = fingerprint_database(session)
    assert "citext" in before["extensions"]
    assert not any("citext" in definition for definition in before["definitions"] if definition.startswith("function"))
    assert [f.subject for f in compare(before, after, mode=CopyMode.LOGICAL)] == ['"public"."words"']


@pytest.mark.parametrize("mode", list(CopyMode))
def test_unlogged_tables_count_after_a_dump_and_not_after_a_physical_restore(
    postgres15: PostgresServer, mode: CopyMode
) -> None:
    name = nasty_database(postgres15)
    with direct(postgres15).session(name) as session:
        before = fingerprint_database(session)
    after = copies.deepcopy(before)
    after["tables"]['"public"."sessions"'] |= {"rows": 0, "lanes": ["0", "0"]}
    findings = compare(before, after, mode=mode)
    if mode is CopyMode.LOGICAL:
        assert [(f.subject, f.verdict) for f in findings] == [('"public"."sessions"', Verdict.FAILED)]
    else:
        assert overall(findings) is Verdict.OK
        assert '"public"."sessions"' in findings[-1].not_checked
