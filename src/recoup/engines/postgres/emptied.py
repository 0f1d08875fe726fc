"""A database without its rows, for as long as a transaction lasts, that is then rolled back. For sandboxes only.

``TRUNCATE`` gives each table a new, empty file and throws that away with the transaction, so it costs a few files for
each table, however large it is, and the rows are never touched. What is left as it is: foreign tables (their rows live
elsewhere, and ``TRUNCATE`` would go there), tables that an extension created and fills itself, large objects.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from recoup.engines.postgres.heartbeat import NOT_OURS
from recoup.engines.postgres.session import Session

#: Emptying takes time with the number of tables, not with their size.
_ALLOWED_SECONDS: Final = 600

_OURS = (
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND n.nspname !~ '^pg_(toast_)?temp_' "
    "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid "
    f"AND d.deptype = 'e') AND {NOT_OURS}"  # it is there before anything is: a check that it satisfies proves nothing
)


@contextlib.contextmanager
def emptied(session: Session) -> Iterator[None]:
    """Inside, the session sees every table empty, every sequence at its start, and may only read.

    Nobody else may use the database meanwhile: the tables are locked. Raise ``SqlError`` when they cannot be emptied
    (too many for ``max_locks_per_transaction``, no disk), ``EngineError`` when the connection is lost.
    """
    session.execute("BEGIN READ WRITE")
    try:
        session.execute(f"SET LOCAL statement_timeout = '{_ALLOWED_SECONDS}s'")
        # No trigger of the user's has a say: neither those on TRUNCATE, nor those on events of definitions.
        session.execute("SET LOCAL session_replication_role = replica")
        tables = _names(session, "c.relkind = 'r'")
        if tables:
            # One by one and with ONLY, as the partitions of a table may be foreign; CASCADE for the keys between them.
            session.execute(f"TRUNCATE {', '.join(f'ONLY {name}' for name in tables)} CASCADE")
        for name in _names(session, "c.relkind = 'S'"):
            session.execute(f"ALTER SEQUENCE {name} RESTART")
        for name in _names(session, "c.relkind = 'm' AND c.relispopulated"):
            session.execute(f"REFRESH MATERIALIZED VIEW {name} WITH NO DATA")  # reading it is then an error
        session.execute("SET LOCAL session_replication_role = origin")
        session.execute("SET TRANSACTION READ ONLY")
        yield
    finally:
        session.execute("ROLLBACK")


def _names(session: Session, condition: str) -> list[str]:
    rows = session.query(f"SELECT format('%I.%I', n.nspname, c.relname) {_OURS} AND {condition} ORDER BY 1")
    return [str(name) for (name,) in rows]
