"""Settings for a restored folder that has none of its own.

On Debian and Ubuntu the server's configuration lies in ``/etc/postgresql``, outside the data folder and so outside
every base backup; without it the restored folder would not start. What is written here starts it on the local socket,
closed to the network, and says where the originals were. It never copies the originals: their ``data_directory`` names
the production's folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: A server that replays WAL refuses to start with less than its origin had (documentation, "Hot Standby").
_AT_LEAST = (
    "max_connections",
    "max_worker_processes",
    "max_wal_senders",
    "max_prepared_transactions",
    "max_locks_per_transaction",
)
_NOTE = """\
# Written by Recoup, because the copy holds no {name}: on the server that was
# backed up it lay outside the data folder. Replace this file by the original when you have it.
"""
_HBA = "local  all  all  peer\nhost  all  all  127.0.0.1/32  scram-sha-256\nhost  all  all  ::1/128  scram-sha-256\n"


def place_missing_settings(folder: Path, facts: Mapping[str, Any], owner: tuple[int, int] | None) -> tuple[str, ...]:
    """Write ``postgresql.conf``, ``pg_hba.conf`` and ``pg_ident.conf`` where they are missing; return their names."""
    known = facts.get("settings", {})
    lines = [f"{name} = {int(known[name])}\n" for name in _AT_LEAST if str(known.get(name, "")).isdigit()]
    if libraries := known.get("shared_preload_libraries"):
        quoted = str(libraries).replace("'", "''").replace("\n", " ")
        lines.append(f"#shared_preload_libraries = '{quoted}'  # as it was; install them first\n")
    contents = {"postgresql.conf": "listen_addresses = ''\n" + "".join(lines), "pg_hba.conf": _HBA, "pg_ident.conf": ""}
    written = []
    for name, text in contents.items():
        path = folder / name
        if path.exists():
            continue
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(handle, "w", encoding="utf-8") as out:
            out.write(_NOTE.format(name=name) + text)
            if owner is not None:
                os.fchown(handle, *owner)
        written.append(name)
    return tuple(written)
