"""Whether a Redis could be backed up, and restored, right now. Asks only; changes nothing and forks nothing."""

from __future__ import annotations

from collections.abc import Mapping

from recoup.engines.redis.connection import (
    Connection,
    RefusedByServerError,
    connect,
    read_info,
    read_keyspace,
    read_settings,
)
from recoup.engines.redis.rdb import NEWEST_VERSION
from recoup.engines.redis.seal import newest_loadable
from recoup.kernel.errors import EngineError, UnknownFormatError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.secret import Secret
from recoup.kernel.units import show_size

_OLDEST_TESTED, _NEWEST_TESTED = (6, 0), (8, 2)
_SETTINGS = ("appendonly", "save", "rdbchecksum", "maxmemory", "maxmemory-policy")
_REPLICATION = ("PSYNC", "REPLCONF")


def check_server(url: Secret | str) -> list[Finding]:
    """Ask a Redis all that a backup needs to know. A server that cannot be reached gives one failed finding.

    Raise ``UsageError`` for a wrong URL.
    """
    try:
        connection = connect(url)
    except EngineError as failure:
        return [_finding("the server answers", "redis", Verdict.FAILED, failure.message, failure.hint)]
    with connection:
        where = str(connection.address)
        try:
            info = read_info(connection, "server", "replication", "persistence", "memory", "keyspace")
            findings = [_answers(where, info), _version(where, info), _role(where, info), _rights(connection, where)]
            findings += _persistence(connection, where, info)
            findings.append(_memory(where, info))
        except EngineError as failure:
            return [_finding("the server answers", where, Verdict.FAILED, failure.message, failure.hint)]
    return findings


def _answers(where: str, info: Mapping[str, str]) -> Finding:
    keys = read_keyspace(info)
    held = ", ".join(f"database {database}: {count} keys" for database, count in sorted(keys.items())) or "no keys"
    return _finding("the server answers", where, Verdict.OK, held)


def _version(where: str, info: Mapping[str, str]) -> Finding:
    check, version = "the version is one that is tested", info.get("redis_version", "")
    try:
        parts = tuple(int(part) for part in version.split(".")[:2])
        known = newest_loadable(version) <= NEWEST_VERSION and _OLDEST_TESTED <= parts <= _NEWEST_TESTED
    except (ValueError, UnknownFormatError):
        known = False
    if known:
        return _finding(check, where, Verdict.OK, f"Redis {version}")
    tested = f"{_OLDEST_TESTED[0]}.{_OLDEST_TESTED[1]} to {_NEWEST_TESTED[0]}.{_NEWEST_TESTED[1]}"
    return _finding(
        check,
        where,
        Verdict.UNKNOWN,
        f"Redis {version or 'of an unknown version'}; tested are {tested}",
        "Try a backup and a restore of it before you rely on it.",
    )


def _role(where: str, info: Mapping[str, str]) -> Finding:
    check = "the data set is whole on this server"
    if info.get("redis_mode") == "cluster":
        return _finding(
            check,
            where,
            Verdict.UNKNOWN,
            "a node of a Redis Cluster holds a part of the data only",
            "Recoup does not protect clusters; back up each node with the cluster's own means.",
        )
    if info.get("role") == "master":
        return _finding(check, where, Verdict.OK, f"a master with {info.get('connected_slaves', '0')} replicas")
    master = f"a replica of {info.get('master_host')}:{info.get('master_port')}"
    if info.get("master_link_status") != "up":
        hint = "Repair the replication, or use the master's address."
        return _finding(check, where, Verdict.FAILED, f"{master}, not connected to it", hint)
    lag = info.get("master_last_io_seconds_ago", "?")
    return _finding(check, where, Verdict.OK, f"{master}, which it heard {lag} s ago")


def _rights(connection: Connection, where: str) -> Finding:
    check = "the user may copy the data (PSYNC, REPLCONF)"
    try:
        user = connection.text("ACL", "WHOAMI")
        for name in _REPLICATION:
            arguments = ("?", "-1") if name == "PSYNC" else ("capa", "eof")
            answer = connection.text("ACL", "DRYRUN", user, name, *arguments)
            if answer != "OK":
                rights = "+psync +replconf +ping +info +time +config|get +acl|whoami +acl|dryrun"
                hint = f"Run ACL SETUSER {user} {rights}, and save it."
                return _finding(check, where, Verdict.FAILED, answer, hint)
    except RefusedByServerError:
        return _rights_by_listing(connection, where, check)
    return _finding(check, where, Verdict.OK, f"user {user}")


def _rights_by_listing(connection: Connection, where: str, check: str) -> Finding:
    """Before 7.0 (and where ACL DRYRUN is not allowed) only a user with all rights can be told from others."""
    try:
        rights = connection.command("ACL", "GETUSER", connection.text("ACL", "WHOAMI"))
        words = rights if isinstance(rights, list) else []
        commands = words[words.index(b"commands") + 1] if b"commands" in words else b""
        if commands == b"+@all":
            return _finding(check, where, Verdict.OK, "all rights")
    except RefusedByServerError as refusal:
        return _finding(check, where, Verdict.UNKNOWN, refusal.message, "Try one backup.")
    return _finding(check, where, Verdict.UNKNOWN, "the user has some rights; which ones shows in a backup only")


def _persistence(connection: Connection, where: str, info: Mapping[str, str]) -> list[Finding]:
    findings = []
    check = "the server can save its data"
    failures = [
        what
        for field, what in (
            ("rdb_last_bgsave_status", "its last BGSAVE failed"),
            ("aof_last_bgrewrite_status", "its last rewrite of the append-only log failed"),
            ("aof_last_write_status", "its last write to the append-only log failed"),
        )
        if info.get(field, "ok") != "ok"
    ]
    if failures:
        hint = "Look at the log of the Redis server: disk space, rights of its data folder, memory for a fork."
        findings.append(_finding(check, where, Verdict.FAILED, "; ".join(failures), hint))
    try:
        settings = read_settings(connection, *_SETTINGS)
    except RefusedByServerError as refusal:
        hint = "Allow +config|get; without it a restore must be told how the server persists its data."
        return [*findings, _finding("the settings can be read", where, Verdict.UNKNOWN, refusal.message, hint)]
    if not failures:
        how = f"appendonly {settings.get('appendonly', '?')}, save {settings.get('save') or 'never'!r}"
        findings.append(_finding(check, where, Verdict.OK, how))
    if settings.get("rdbchecksum") == "no":
        hint = "Set rdbchecksum yes in the configuration and restart Redis; it cannot be changed while it runs."
        detail = "rdbchecksum no: nothing will prove that a copy is what the server held"
        findings.append(_finding("copies carry a checksum", where, Verdict.UNKNOWN, detail, hint))
    return findings


def _memory(where: str, info: Mapping[str, str]) -> Finding:
    """A fork shares its memory with the server, but for what is written meanwhile: at worst all of it."""
    check = "there is memory for the fork of a backup"
    used, total = int(info.get("used_memory_rss", "0")), int(info.get("total_system_memory", "0"))
    detail = f"uses {show_size(used)} of {show_size(total)}"
    if not used or not total:
        return _finding(check, where, Verdict.UNKNOWN, "the server does not say how much memory there is")
    if 2 * used <= total:
        return Finding(
            check=check,
            subject=where,
            verdict=Verdict.OK,
            detail=detail,
            not_checked="a memory limit of its container",
        )
    hint = "Take copies when few keys are written, set vm.overcommit_memory=1, or back up from a replica."
    return _finding(check, where, Verdict.UNKNOWN, f"{detail}; a fork may need as much again", hint)


def _finding(check: str, subject: str, verdict: Verdict, detail: str, hint: str | None = None) -> Finding:
    return Finding(check=check, subject=subject, verdict=verdict, detail=detail, hint=hint)
