"""A tiny committed transaction, so that an idle server is provably alive and its WAL has a time in it.

``pg_logical_emit_message`` needs no table and no right, and works with every ``wal_level``. It is transactional here:
only a commit carries a time, and a recovery to a time ends only at a commit behind it. On an idle server without it, a
restore to five minutes ago would never find its end. It costs one transaction id and some hundred bytes of WAL.
"""

from __future__ import annotations

from recoup.engines.postgres.session import Session

PREFIX = "recoup"


def beat(session: Session) -> None:
    """Commit the message. It waits for no standby. Raise ``EngineError``, on a standby too."""
    session.execute("BEGIN")
    try:
        session.execute("SET LOCAL synchronous_commit = local")
        session.execute(f"SELECT pg_logical_emit_message(true, '{PREFIX}', 'heartbeat')")
    except BaseException:
        session.execute("ROLLBACK")
        raise
    session.execute("COMMIT")
