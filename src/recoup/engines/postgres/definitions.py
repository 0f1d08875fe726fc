"""What a database is besides rows: tables, indexes, constraints, views, functions, triggers, policies, rights.

Each object becomes a short digest of its definition as the server prints it. The printing is not stable over a
restore in one respect: the server may add or move casts and brackets when it reads its own text again
(``(ARRAY['a'::varchar])::text[]`` comes back as ``ARRAY[('a'::varchar)::text]``). So digests are taken without
brackets, casts, letter case of keywords and white space, and do not see a change in those alone. Bodies of functions
are digested as they are.
"""

from __future__ import annotations

import hashlib
import re

from recoup.engines.postgres.session import Session

_CAST = re.compile(
    r'::\s*(?:"(?:[^"]|"")*"|[\w.]|\[|\]|\(\d+(?:,\d+)?\)| (?:varying|precision|with(?:out)? time zone))+'
)
_NOISE = re.compile(r"[()\s]+")

_OURS = "n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_'"
_NOT_EXTENSION = (
    "NOT EXISTS (SELECT FROM pg_depend x WHERE x.deptype = 'e' AND x.objid = {oid} AND x.classid = '{table}'::regclass)"
)


def _acl(column: str, kind: str, owner: str) -> str:
    # No stored rights means the default ones; a restore may write them out.
    return (
        f"(SELECT string_agg(a::text, ',' ORDER BY a::text COLLATE \"C\") "
        f"FROM unnest(coalesce({column}, acldefault('{kind}', {owner}))) a)"
    )


def _statements(version: int) -> dict[str, str]:
    """One query per kind of object; each returns (name, definition)."""
    full = "quote_ident(n.nspname) || '.' || quote_ident(c.relname)"
    visible = f"{_OURS} AND {_NOT_EXTENSION.format(oid='c.oid', table='pg_class')}"
    relation = "JOIN pg_class c ON c.oid = {column} JOIN pg_namespace n ON n.oid = c.relnamespace"
    # 18 keeps NOT NULL as named constraints; they say what the column already says.
    not_null = "AND k.contype <> 'n'" if version >= 180000 else ""
    return {
        "table": f"""
            SELECT {full}, concat_ws(' ', c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), c.relrowsecurity,
                     c.relforcerowsecurity, c.relreplident, array_to_string(c.reloptions, ','),
                     pg_get_expr(c.relpartbound, c.oid), pg_get_partkeydef(c.oid),
                     {_acl("c.relacl", "r", "c.relowner")},
                     (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), format_type(a.atttypid, a.atttypmod),
                        a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid),
                        a.attacl::text), ', ' ORDER BY a.attname COLLATE "C")
                        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
                       WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
                     (SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno)
                        FROM pg_inherits i WHERE i.inhrelid = c.oid))
              FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('r', 'p', 'f', 'm', 'v') AND {visible}""",
        "view": f"""
            SELECT {full}, pg_get_viewdef(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind IN ('v', 'm') AND {visible}""",
        "index": f"""
            SELECT {full}, concat_ws(' ', pg_get_indexdef(c.oid), i.indisvalid, i.indisreplident, i.indisclustered)
              FROM pg_index i {relation.format(column="i.indexrelid")} WHERE {visible}""",
        "constraint": f"""
            SELECT {full} || ' ' || quote_ident(k.conname), concat_ws(' ', pg_get_constraintdef(k.oid), k.convalidated)
              FROM pg_constraint k {relation.format(column="k.conrelid")} WHERE {visible} {not_null}""",
        "trigger": f"""
            SELECT {full} || ' ' || quote_ident(t.tgname), concat_ws(' ', pg_get_triggerdef(t.oid), t.tgenabled)
              FROM pg_trigger t {relation.format(column="t.tgrelid")} WHERE NOT t.tgisinternal AND {visible}""",
        "policy": f"""
            SELECT {full} || ' ' || quote_ident(p.polname), concat_ws(' ', p.polcmd, p.polpermissive,
                     (SELECT string_agg(CASE WHEN r = 0 THEN 'public' ELSE pg_get_userbyid(r) END, ',' ORDER BY 1)
                        FROM unnest(p.polroles) r),
                     pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
              FROM pg_policy p {relation.format(column="p.polrelid")} WHERE {visible}""",
        "rule": f"""
            SELECT {full} || ' ' || quote_ident(r.rulename), pg_get_ruledef(r.oid)
              FROM pg_rewrite r {relation.format(column="r.ev_class")} WHERE r.rulename <> '_RETURN' AND {visible}""",
        "function": f"""
            SELECT quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '('
                     || pg_get_function_identity_arguments(p.oid) || ')',
                   concat_ws(' ', p.prokind, l.lanname, p.prosecdef, p.proleakproof, p.proisstrict, p.provolatile,
                     p.proparallel, array_to_string(p.proconfig, ','), pg_get_function_arguments(p.oid),
                     pg_get_function_result(p.oid), pg_get_userbyid(p.proowner), p.probin,
                     {_acl("p.proacl", "f", "p.proowner")}) || E'\\x01' || coalesce(p.prosrc, '')
                     || E'\\x01' || CASE WHEN p.prokind = 'a' OR p.prosqlbody IS NULL THEN ''
                                        ELSE pg_get_function_sqlbody(p.oid) END
              FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
             WHERE {_OURS} AND {_NOT_EXTENSION.format(oid="p.oid", table="pg_proc")}""",
        "type": f"""
            SELECT quote_ident(n.nspname) || '.' || quote_ident(t.typname),
                   concat_ws(' ', t.typtype, t.typnotnull, t.typdefault, pg_get_userbyid(t.typowner),
                     CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END,
                     (SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder)
                        FROM pg_enum e WHERE e.enumtypid = t.oid),
                     (SELECT string_agg(pg_get_constraintdef(k.oid), ',' ORDER BY k.conname)
                        FROM pg_constraint k WHERE k.contypid = t.oid),
                     (SELECT string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ','
                                        ORDER BY a.attnum)
                        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'c'
                       WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))
              FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
             WHERE t.typtype IN ('d', 'e', 'r', 'c') AND {_OURS}
               AND {_NOT_EXTENSION.format(oid="t.oid", table="pg_type")}
               AND (t.typrelid = 0 OR EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind = 'c'))""",
        "schema": f"""
            SELECT quote_ident(n.nspname), concat_ws(' ', pg_get_userbyid(n.nspowner),
                     {_acl("n.nspacl", "n", "n.nspowner")})
              FROM pg_namespace n WHERE {_OURS} AND {_NOT_EXTENSION.format(oid="n.oid", table="pg_namespace")}""",
        "setting": """
            SELECT coalesce('role ' || quote_ident(r.rolname), 'everyone'), string_agg(c, ',' ORDER BY c COLLATE "C")
              FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole, unnest(s.setconfig) c
             WHERE s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND c NOT LIKE 'recoup.%' GROUP BY 1""",
    }


def read_definitions(session: Session, version: int) -> dict[str, str]:
    """``{"view public.v": digest}`` for every object outside the system and its extensions."""
    found: dict[str, str] = {}
    for kind, sql in _statements(version).items():
        for name, definition in session.query(sql):
            found[f"{kind} {name}"] = digest_of(definition or "")
    return found


def digest_of(definition: str) -> str:
    """64 bits in hexadecimal over ``definition`` without casts, brackets and white space.

    After the first character \\x01 the text is a function's body and counts as it is.
    """
    head, _, body = definition.partition("\x01")
    plain = _NOISE.sub("", _CAST.sub("", head)).lower() + "\x01" + body
    return hashlib.sha256(plain.encode("utf-8", "surrogateescape")).hexdigest()[:16]
