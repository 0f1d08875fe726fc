"""A tiny committed transaction, so that an idle server is provably alive and its WAL has a time in it.

``pg_logical_emit_message`` needs no table and no right, and works with every ``wal_level``. It is transactional here:
only a commit carries a time, and a recovery to a time ends only at a commit behind it. On an idle server without it, a
restore to five minutes ago would never find its end. It costs one transaction id and some hundred bytes of WAL.

Where the plan asks for it and ``recoup check --prepare`` made the table, the transaction writes a row instead: the
newest record that a recovery can bring back. The table is in the database ``postgres``, so no database of the user's
changes, no publication carries it to subscribers, and the connection keeps none from being dropped.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from recoup.engines.postgres.session import Session, SqlError

PREFIX = "recoup"
#: The only database that the row is ever in. Never ``template1``: every new database would have it.
DATABASE: Final = "postgres"
SCHEMA: Final = "recoup"
NAME: Final = "heartbeat"
TABLE: Final = f"{SCHEMA}.{NAME}"
#: A condition for queries of catalogues with ``n`` (pg_namespace) and ``c`` (pg_class): what is not ours.
NOT_OURS: Final = f"NOT (n.nspname = '{SCHEMA}' AND c.relname = '{NAME}')"

CREATE: Final = (
    f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}",
    f"CREATE TABLE IF NOT EXISTS {TABLE} (one boolean PRIMARY KEY DEFAULT true CHECK (one), at timestamptz NOT NULL)",
)
DROP: Final = (f"DROP TABLE IF EXISTS {TABLE}", f"DROP SCHEMA IF EXISTS {SCHEMA}")

_MESSAGE: Final = f"SELECT pg_logical_emit_message(true, '{PREFIX}', 'heartbeat')"
_ROW: Final = (
    f"INSERT INTO {TABLE} (one, at) VALUES (true, clock_timestamp()) ON CONFLICT (one) DO UPDATE SET at = excluded.at"
)
_THERE: Final = f"SELECT to_regclass('{TABLE}') IS NOT NULL, current_database()"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def beat(session: Session, *, row: bool = False) -> str | None:
    """Commit the message, or with ``row`` the row. It waits for no standby, and a second at most for a lock.

    Return why the row could not be written; then the message was. Raise ``EngineError``, on a standby too.
    """
    why = _write_row(session) if row else None
    if not row or why is not None:
        _commit(session, _MESSAGE)
    return why


def _write_row(session: Session) -> str | None:
    there, database = session.query(_THERE)[0]
    if there != "t" or database != DATABASE:
        return f"there is no table {TABLE} in the database {DATABASE}"
    try:
        _commit(session, _ROW)
    except SqlError as refused:
        if refused.sqlstate == "25006":  # read_only_sql_transaction: a standby, where the message fails as well
            raise
        return refused.message
    return None


def _commit(session: Session, statement: str) -> None:
    session.execute("BEGIN")
    try:
        session.execute("SET LOCAL synchronous_commit = local")
        session.execute("SET LOCAL lock_timeout = '1s'")
        session.execute(statement)
    except BaseException:
        session.execute("ROLLBACK")
        raise
    session.execute("COMMIT")


def newest_beat(session: Session) -> datetime | None:
    """When the row in the database of ``session`` was written; None where there is none. Raise ``EngineError``."""
    if session.query(_THERE)[0][0] != "t":
        return None
    rows = session.query(f"SELECT (extract(epoch FROM at) * 1000000)::bigint FROM {TABLE}")
    return _EPOCH + timedelta(microseconds=int(rows[0][0])) if rows and rows[0][0] is not None else None
