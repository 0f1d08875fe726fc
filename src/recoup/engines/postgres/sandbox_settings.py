"""The settings of a server in a sandbox: it listens to nobody but us, sends nothing, fetches nothing, runs no jobs.

They stand on the command line, where they win over the copy's own files, and those that a database or a role may
have of its own (``ALTER DATABASE … SET``) again in each of our connections, where they win over these.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_CLOSED: Final = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_permissions": "0700",
    "ssl": "off",
    "bonjour": "off",
    # It sends nothing anywhere and fetches nothing.
    "archive_mode": "off",
    "archive_command": "",
    "restore_command": "",
    "archive_cleanup_command": "",
    "recovery_end_command": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "synchronous_standby_names": "",
    "max_wal_senders": "0",
    # No background worker can be registered: neither subscriptions nor jobs of extensions run, whatever is loaded.
    "max_worker_processes": "0",
    "max_logical_replication_workers": "0",
    "shared_preload_libraries": "",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "jit": "off",
    "autovacuum": "off",
    # What it says, it says to its standard error, which is a file of the sandbox.
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_min_messages": "warning",
    "log_line_prefix": "%b ",
    "log_statement": "none",
    "lc_messages": "C",
    # It is thrown away afterwards.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_size": "256MB",
    # It leaves nothing outside its folder, and takes little of this machine.
    "dynamic_shared_memory_type": "mmap",
    "huge_pages": "off",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "64MB",
    "max_connections": "20",
    # Recovery fails without a place for everything that was in use in production.
    "max_locks_per_transaction": "4096",  # a check may lock every table at once (emptied.py)
    "max_replication_slots": "1000",
}

#: What nobody may have set for a database or a role: it would hide damage, or start something at each connection.
_SESSION: Final = {
    "zero_damaged_pages": "off",
    "ignore_checksum_failure": "off",
    "session_preload_libraries": "",
    "local_preload_libraries": "",
    "default_transaction_read_only": "off",
    "default_tablespace": "",
    "temp_tablespaces": "",
    "synchronous_commit": "off",
    "role": "none",
    "jit": "off",
}


def closed_settings(major: int, facts: Mapping[str, Any] | None = None) -> dict[str, str]:
    """The settings of a server of this major version over a copy with these facts."""
    told = (facts or {}).get("settings") or {}
    prepared = str(told.get("max_prepared_transactions", "0"))
    settings = {**_CLOSED, "max_prepared_transactions": prepared if prepared.isdigit() else "0"}
    if major >= 17:
        settings |= {"event_triggers": "off", "summarize_wal": "off"}
    if major >= 18:
        settings["max_active_replication_origins"] = "1000"
    return settings


def session_options(major: int) -> str:
    """``options`` of a connection as superuser (PostgreSQL documentation, "Database Connection Control Functions")."""
    wanted = {**_SESSION, **({"event_triggers": "off"} if major >= 17 else {})}
    return " ".join(f"-c {name}={value}" for name, value in wanted.items())


def preloaded(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The libraries that the copied server had loaded from its start on."""
    text = str((facts.get("settings") or {}).get("shared_preload_libraries") or "")
    return tuple(part for raw in text.split(",") if (part := raw.strip().strip('"')))
