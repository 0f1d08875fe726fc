"""Would a base backup of this server work today? For ``recoup check``; it changes nothing on the server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from recoup.engines.postgres.access import DirectAccess, ServerAccess, open_maintenance
from recoup.engines.postgres.server_facts import as_rows
from recoup.engines.postgres.wire import check_major, connect
from recoup.kernel.errors import EngineError, RecoupError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.secret import Secret
from recoup.kernel.units import show_size

_STATE = """
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int / 10000 AS major,
       current_setting('wal_level') AS wal_level, current_setting('max_wal_senders')::int AS max_wal_senders,
       (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender') AS used_wal_senders,
       current_setting('data_checksums') AS data_checksums, current_setting('archive_mode') AS archive_mode,
       pg_is_in_recovery() AS standby, current_user AS role,
       (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user) AS may_replicate,
       (SELECT count(*) FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global')) AS tablespaces"""
_SIZES = """
SELECT d.datname AS name, CASE WHEN has_database_privilege(d.oid, 'CONNECT')
       OR pg_has_role('pg_read_all_stats', 'MEMBER') THEN pg_database_size(d.oid) END AS bytes
FROM pg_database d WHERE d.datallowconn ORDER BY 2 DESC NULLS LAST"""
#: What zstd -3 leaves of typical data files; an estimate for the disk the copies go to, never a promise.
_COMPRESSED_TO = 0.35


def check_server(url: Secret) -> list[Finding]:
    """Look at a server by its address: reachable, supported, enough rights and senders, checksums, sizes.

    Never raises for what the server says or is: each trouble is a finding with a hint. ``UsageError`` for an address
    that cannot be understood.
    """
    access = DirectAccess(url, statement_timeout_seconds=30)
    findings, _ = _by_sql(access)
    findings.append(_replication(url, access.place))
    return findings


def check_by_sql(access: ServerAccess) -> list[Finding]:
    """The same for a server that is reached inside its container only, where ``pg_basebackup`` will take the copy."""
    findings, state = _by_sql(access)
    if state is not None and state["tablespaces"]:
        findings.append(
            Finding(
                check="pg_basebackup can send the whole cluster",
                subject=access.place,
                verdict=Verdict.FAILED,
                detail=f"{state['tablespaces']} tablespaces, which it cannot write through a pipe",
                hint="Give the plan an address of the server (url:), so that the replication protocol can be used.",
            )
        )
    return findings


def _by_sql(access: ServerAccess) -> tuple[list[Finding], dict[str, Any] | None]:
    try:
        with open_maintenance(access) as session:
            state = as_rows(session, _STATE)[0]
            sizes = as_rows(session, _SIZES)
    except EngineError as failure:
        silent = Finding(
            check="PostgreSQL answers", subject=access.place, verdict=Verdict.FAILED, detail=failure.message,
            hint=failure.hint,
        )  # fmt: skip
        return [silent], None
    place = access.place
    return [*_about_server(place, state), *_about_replication(place, state), _about_size(access, sizes)], state


def _about_server(place: str, state: dict[str, Any]) -> Iterator[Finding]:
    role = " (a standby)" if state["standby"] else ""
    yield Finding(
        check="PostgreSQL answers", subject=place, verdict=Verdict.OK, detail=f"version {state['version']}{role}"
    )
    try:
        check_major(state["major"], place)
    except EngineError as wrong:
        yield Finding(
            check="the version is supported", subject=place, verdict=Verdict.FAILED, detail=wrong.message,
            hint=wrong.hint,
        )  # fmt: skip
    checksums = state["data_checksums"] == "on"
    yield Finding(
        check="damaged pages would be noticed",
        subject=place,
        # A recovery works without them; what is missing is early notice of damage, which is said and not judged.
        verdict=Verdict.OK,
        detail="data checksums are on" if checksums else "only where PostgreSQL stumbles over them",
        not_checked=""
        if checksums
        else "damage inside pages, which a base backup carries forward: data checksums are off "
        "(turn them on while the server is stopped: pg_checksums --enable -D DATAFOLDER)",
    )


def _about_replication(place: str, state: dict[str, Any]) -> Iterator[Finding]:
    yield Finding(
        check="the role may replicate",
        subject=f"{state['role']} at {place}",
        verdict=Verdict.OK if state["may_replicate"] else Verdict.FAILED,
        detail="" if state["may_replicate"] else "the role has no REPLICATION attribute",
        hint=None if state["may_replicate"] else f'As a superuser: ALTER ROLE "{state["role"]}" REPLICATION.',
    )
    enough = state["wal_level"] in ("replica", "logical")
    yield Finding(
        check="the server writes enough WAL for a base backup",
        subject=place,
        verdict=Verdict.OK if enough else Verdict.FAILED,
        detail=f"wal_level is {state['wal_level']}",
        hint=None if enough else "Set wal_level = replica; this needs a restart of the server.",
    )
    free = state["max_wal_senders"] - state["used_wal_senders"]
    yield Finding(
        check="a WAL sender is free",
        subject=place,
        verdict=Verdict.OK if free >= 1 else Verdict.FAILED,
        detail=f"{state['used_wal_senders']} of {state['max_wal_senders']} are used",
        hint=None if free >= 1 else "Raise max_wal_senders; this needs a restart of the server.",
    )


def _about_size(access: ServerAccess, sizes: list[dict[str, Any]]) -> Finding:
    known = sum(row["bytes"] or 0 for row in sizes)
    hidden = [row["name"] for row in sizes if row["bytes"] is None]
    named = ", ".join(f"{row['name']} {show_size(row['bytes'])}" for row in sizes[:6] if row["bytes"] is not None)
    more = f" and {len(sizes) - 6} more" if len(sizes) > 6 else ""
    return Finding(
        check="the size of the databases",
        subject=access.place,
        verdict=Verdict.OK if not hidden else Verdict.UNKNOWN,
        detail=f"{show_size(known)} ({named}{more}); a copy takes about {show_size(round(known * _COMPRESSED_TO))}",
        hint=f"To see {', '.join(hidden[:3])} too: GRANT pg_read_all_stats to the role." if hidden else None,
        not_checked="how well these data compress" + ("; the size of " + ", ".join(hidden) if hidden else ""),
    )


def _replication(url: Secret, place: str) -> Finding:
    """Only a connection proves that ``pg_hba.conf``, the firewall and the role allow one."""
    check = "a replication connection works"
    try:
        with connect(url) as wire:
            identity = wire.identify()
    except RecoupError as failure:
        return Finding(check=check, subject=place, verdict=Verdict.FAILED, detail=failure.message, hint=failure.hint)
    return Finding(
        check=check, subject=place, verdict=Verdict.OK,
        detail=f"cluster {identity.system_identifier}, timeline {identity.timeline}, WAL at {identity.position}",
    )  # fmt: skip
