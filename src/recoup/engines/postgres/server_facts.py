"""What a server says about itself: the facts a restore needs, and an inventory of what the copy holds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from psycopg.pq import ConnStatus

from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.session import Session
from recoup.engines.postgres.wire import Wire
from recoup.kernel.errors import EngineError

#: Settings that must be at least as large, or the same, where the copy is started; and those that explain a failure.
RESTORE_SETTINGS = (
    "max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_transactions",
    "max_locks_per_transaction", "wal_level", "archive_mode", "shared_preload_libraries", "port", "lc_messages",
    "full_page_writes", "ssl", "listen_addresses",
)  # fmt: skip
_MOST_DATABASES = 100

_DATABASES = """
SELECT d.oid::bigint AS oid, d.datname AS name, pg_encoding_to_char(d.encoding) AS encoding, d.datcollate AS collate,
       d.datctype AS ctype, to_jsonb(d)->>'datlocprovider' AS locale_provider,
       to_jsonb(d)->>'datcollversion' AS collation_version, d.datallowconn AS connectable,
       CASE WHEN has_database_privilege(d.oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'MEMBER')
            THEN pg_database_size(d.oid) END AS bytes
FROM pg_database d ORDER BY d.datname"""
_EXTENSIONS = "SELECT extname AS name, extversion AS version FROM pg_extension ORDER BY extname"
_UNLOGGED = """
SELECT n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence = 'u' AND c.relkind IN ('r', 'm') ORDER BY 1 LIMIT 200"""
# A role without pg_read_all_settings does not see these settings at all: then nothing is known to lie outside.
_OUTSIDE_FILES = """
SELECT s.name AS name, s.setting AS path FROM pg_settings s, pg_settings d
WHERE d.name = 'data_directory' AND s.name IN ('config_file', 'hba_file', 'ident_file')
  AND NOT starts_with(s.setting, d.setting || '/')"""
_BY_SQL = """
SELECT system_identifier::text AS system_identifier, current_setting('server_version') AS server_version,
       current_setting('server_version_num')::int AS version_num,
       pg_size_bytes(current_setting('wal_segment_size')) AS wal_segment_bytes,
       current_setting('block_size')::int AS block_bytes, current_setting('data_checksums') = 'on' AS data_checksums
FROM pg_control_system()"""


def settings_over_wire(wire: Wire) -> dict[str, Any]:
    """The facts that every replication connection can give, whatever rights it has elsewhere."""
    version = wire.pgconn.server_version
    return {
        "server_version": wire.show("server_version"),
        "version_num": version,
        "major": version // 10_000,
        "wal_segment_bytes": parse_setting_size(wire.show("wal_segment_size")),
        "block_bytes": int(wire.show("block_size")),
        "data_checksums": wire.show("data_checksums") == "on",
        "settings": {name: shown for name in RESTORE_SETTINGS if (shown := _show_if_allowed(wire, name)) is not None},
    }


def settings_by_sql(session: Session) -> dict[str, Any]:
    """The same facts, and the system identifier, from an ordinary session. Raise ``EngineError``."""
    facts = as_rows(session, _BY_SQL)[0]
    names = ", ".join(f"'{name}'" for name in RESTORE_SETTINGS)
    query = f"SELECT name, current_setting(name, true) AS shown FROM pg_settings WHERE name IN ({names})"
    shown = as_rows(session, query)
    settings = {row["name"]: row["shown"] for row in shown if row["shown"] is not None}
    return {**facts, "major": facts["version_num"] // 10_000, "settings": settings}


def as_rows(session: Session, query: str) -> list[dict[str, Any]]:
    """Run a query whose columns have names; return its rows with their types."""
    text = session.query(f"SELECT coalesce(json_agg(row_to_json(q)), '[]')::text FROM ({query}) q")[0][0]
    rows = json.loads(text or "[]")
    assert isinstance(rows, list)
    return rows


def _show_if_allowed(wire: Wire, name: str) -> str | None:
    try:
        return wire.show(name)
    except EngineError:
        if wire.pgconn.status != ConnStatus.OK:
            raise
        return None  # only for members of pg_read_all_settings; the copy does not depend on it


def parse_setting_size(text: str) -> int:
    """Given a size as SHOW prints it (``16MB``, ``1GB``, ``8kB``, ``4096``), return bytes."""
    units = {"": 1, "B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40}
    digits = text.rstrip("kMGTB")
    return int(digits) * units[text[len(digits) :]]


def inventory(access: ServerAccess) -> dict[str, Any]:
    """Databases with their oids, encodings, collation versions and sizes; extensions and unlogged tables of each.

    Raise ``EngineError`` when no session can be opened. A database that cannot be entered is listed with the reason.
    """
    with open_maintenance(access) as session:
        databases = as_rows(session, _DATABASES)
        outside = as_rows(session, _OUTSIDE_FILES)
    for database in databases[:_MOST_DATABASES]:
        if database["connectable"] and database["name"] != "template1":
            database.update(_inside(access, str(database["name"])))
    return {"databases": databases, "files_outside": outside}


def _inside(access: ServerAccess, database: str) -> Mapping[str, Any]:
    try:
        with access.session(database) as session:
            extensions = {row["name"]: row["version"] for row in as_rows(session, _EXTENSIONS)}
            unlogged = [row["name"] for row in as_rows(session, _UNLOGGED)]
    except EngineError as failure:
        return {"not_read": failure.message}
    return {"extensions": extensions, "unlogged_tables": unlogged}


def left_out_of(found: Mapping[str, Any] | None) -> tuple[tuple[str, str], ...]:
    """What a base backup does not hold, and why, for the manifest."""
    out: list[tuple[str, str]] = []
    for database in (found or {}).get("databases", ()):
        out += [
            (f"rows of unlogged table {database['name']}.{table}", "PostgreSQL empties unlogged tables after a restore")
            for table in database.get("unlogged_tables", ())
        ]
    out += [
        (row["path"], f"{row['name']} lies outside the data folder, which is all a base backup covers")
        for row in (found or {}).get("files_outside", ())
    ]
    out.append(("replication slots", "PostgreSQL leaves them out of every base backup"))
    return tuple(out)
