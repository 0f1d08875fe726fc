"""One database of a cluster: what it was created with, and how to create another like it.

pg_dump without ``--create`` carries none of this: encoding, locale, owner, rights and settings are the cluster's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from recoup.engines.postgres.access import server_version
from recoup.engines.postgres.session import Session, identifier, literal

_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


def list_databases(session: Session) -> dict[str, bool]:
    """Every database that is no template, and whether it accepts connections."""
    rows = session.query("SELECT datname, datallowconn FROM pg_database WHERE NOT datistemplate ORDER BY datname")
    return {str(name): connectable == "t" for name, connectable in rows}


def database_exists(session: Session, name: str) -> bool:
    """Whether there is a database of that name, template or not."""
    return bool(session.query(f"SELECT 1 FROM pg_database WHERE datname = {literal(name)}"))


def describe_database(session: Session, name: str) -> dict[str, Any]:
    """What ``create_database`` needs to make another like ``name``. Values go to JSON."""
    version = server_version(session)
    provider = "datlocprovider" if version >= 150000 else "'c'"
    locale = "datlocale" if version >= 170000 else "daticulocale" if version >= 150000 else "NULL::text"
    rules = "daticurules" if version >= 160000 else "NULL::text"
    rows = session.query(
        f"""SELECT pg_encoding_to_char(encoding), datcollate, datctype, {provider}, {locale}, {rules},
                   pg_get_userbyid(datdba), spcname, datconnlimit, pg_database_size(d.oid),
                   (SELECT json_agg(json_build_array(
                             CASE WHEN a.grantee = 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END,
                             a.privilege_type, a.is_grantable))
                      FROM aclexplode(d.datacl) a),
                   (SELECT json_agg(json_build_array(r.rolname,
                             ARRAY(SELECT c FROM unnest(s.setconfig) c WHERE c NOT LIKE 'recoup.%')))
                      FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole
                     WHERE s.setdatabase = d.oid),
                   shobj_description(d.oid, 'pg_database')
              FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace
             WHERE d.datname = {literal(name)}"""
    )
    encoding, collate, ctype, kind, loc, icu_rules, owner, tablespace, limit, size, acl, settings, comment = rows[0]
    return {
        "encoding": encoding,
        "collate": collate,
        "ctype": ctype,
        "locale_provider": _PROVIDERS.get(str(kind), str(kind)),
        "locale": loc,
        "icu_rules": icu_rules,
        "owner": owner,
        "tablespace": tablespace,
        "connection_limit": int(limit or -1),
        "size_bytes": int(size or 0),
        "rights": None if acl is None else json.loads(acl),
        "settings": json.loads(settings or "[]"),
        "comment": comment,
    }


def referenced_roles(session: Session) -> list[str]:
    """The roles that own something in the session's database, or were given a right in it: a restore needs them."""
    rows = session.query(
        """SELECT pg_get_userbyid(refobjid) FROM pg_shdepend d
            WHERE refclassid = 'pg_authid'::regclass
              AND (dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
                   OR (dbid = 0 AND classid = 'pg_database'::regclass
                       AND objid = (SELECT oid FROM pg_database WHERE datname = current_database())))
           UNION SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()
           UNION SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid >= 16384
           UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE oid >= 16384
           ORDER BY 1"""
    )
    return [str(name) for (name,) in rows if not str(name).startswith("pg_")]


def create_database(session: Session, name: str, like: Mapping[str, Any]) -> None:
    """Create the empty database ``name`` from template0 with the encoding, locale and owner of ``like``.

    Raise ``SqlError`` (for example when the system lacks the locale).
    """
    version = server_version(session)
    parts = [f"CREATE DATABASE {identifier(name)} TEMPLATE template0"]
    if like.get("owner"):
        parts.append(f"OWNER {identifier(like['owner'])}")
    if like.get("encoding"):
        parts.append(f"ENCODING {literal(like['encoding'])}")
    if like.get("collate"):
        parts.append(f"LC_COLLATE {literal(like['collate'])} LC_CTYPE {literal(like['ctype'])}")
    provider = like.get("locale_provider", "libc")
    if version >= 150000 and like.get("encoding"):
        parts.append(f"LOCALE_PROVIDER {provider}")
        if provider == "icu" and like.get("locale"):
            parts.append(f"ICU_LOCALE {literal(like['locale'])}")
            if like.get("icu_rules"):
                parts.append(f"ICU_RULES {literal(like['icu_rules'])}")
        elif provider == "builtin" and like.get("locale"):
            parts.append(f"BUILTIN_LOCALE {literal(like['locale'])}")
    session.execute(" ".join(parts))


def apply_rights_and_settings(session: Session, name: str, like: Mapping[str, Any], roles: set[str]) -> list[str]:
    """Give the database ``name`` the rights, settings, limit and comment of ``like``. Repeating is harmless.

    Return what could not be given because its role does not exist here.
    """
    skipped: list[str] = []
    quoted = identifier(name)
    if like.get("rights") is not None:
        session.execute(f"REVOKE ALL ON DATABASE {quoted} FROM PUBLIC")
        for grantee, privilege, grantable in like["rights"]:
            if grantee is not None and grantee not in roles:
                skipped.append(f"right {privilege} for role {grantee}")
                continue
            who = "PUBLIC" if grantee is None else identifier(grantee)
            option = " WITH GRANT OPTION" if grantable and grantee is not None and grantee != like.get("owner") else ""
            session.execute(f"GRANT {privilege} ON DATABASE {quoted} TO {who}{option}")
    for role, configured in like.get("settings", []):
        if role is not None and role not in roles:
            skipped.append(f"settings of role {role}")
            continue
        whose = f"ALTER DATABASE {quoted}" if role is None else f"ALTER ROLE {identifier(role)} IN DATABASE {quoted}"
        for assignment in configured:
            key, _, value = assignment.partition("=")
            session.execute(f"{whose} SET {_setting(key, value)}")
    if like.get("connection_limit", -1) != -1:
        session.execute(f"ALTER DATABASE {quoted} CONNECTION LIMIT {int(like['connection_limit'])}")
    if like.get("comment"):
        session.execute(f"COMMENT ON DATABASE {quoted} IS {literal(like['comment'])}")
    return skipped


# These hold lists of quoted names; as one quoted text they would name a single, wrong thing
# (variable_is_guc_list_quote in src/bin/pg_dump/dumputils.c).
_LISTS = ("search_path", "local_preload_libraries", "session_preload_libraries", "shared_preload_libraries")
_LISTS_MORE = ("temp_tablespaces", "unix_socket_directories")


def _setting(key: str, value: str) -> str:
    name = ".".join(identifier(part) for part in key.split("."))
    if key.lower() not in (*_LISTS, *_LISTS_MORE):
        return f"{name} TO {literal(value)}"
    parts = [part.strip().removeprefix('"').removesuffix('"').replace('""', '"') for part in value.split(",")]
    return f"{name} TO " + (", ".join(literal(part) for part in parts))
