"""Writing a restore point into the WAL (``pg_create_restore_point``): a name that a recovery can stop at."""

from __future__ import annotations

from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.session import literal


def create_restore_point(access: ServerAccess, name: str) -> Lsn:
    """Write the restore point ``name`` (at most 63 bytes) and return where it ends.

    Raise ``EngineError`` when the role may not: it takes a superuser, or EXECUTE on the function.
    Documentation: "System Administration Functions", "Backup Control Functions".
    """
    with open_maintenance(access) as session:
        return Lsn.parse(str(session.query(f"SELECT pg_create_restore_point({literal(name)})::text")[0][0]))
