"""What went wrong between Recoup and a PostgreSQL server, in words, with the remedy.

libpq gives no SQLSTATE for a refused connection, so these are recognised by the server's text (English; a server that
speaks another language gets the general hint). Nothing returned here ever holds the connection's password.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import psycopg
from psycopg.conninfo import conninfo_to_dict

from recoup.kernel.errors import EngineError, UsageError
from recoup.kernel.secret import Secret


class UnreachableError(EngineError):
    """The server did not answer, or is not ready yet. Trying again may help."""

    may_retry = True


class ReplicationNotAllowedError(EngineError):
    """The server answers, and does not allow this role or this host to replicate."""


def parse_connection(url: Secret) -> dict[str, str]:
    """Split a connection URL or string into libpq's keywords. Raise ``UsageError`` without repeating any of it."""
    try:
        return {key: str(value) for key, value in conninfo_to_dict(url.reveal()).items() if value is not None}
    except psycopg.Error:
        # libpq's own message repeats parts of the text, and the password may be among them.
        raise UsageError(
            "the PostgreSQL address cannot be understood",
            hint="Write it as postgresql://role:password@host:port/database; "
            "characters such as @ : / in the password must be percent-encoded.",
        ) from None


def describe_address(keywords: dict[str, str]) -> str:
    """Where a connection goes, for people: ``recoup@db.example:5432/shop``. Never the password."""
    host = keywords.get("hostaddr") or keywords.get("host") or "local socket"
    database = f"/{keywords['dbname']}" if keywords.get("dbname") else ""
    role = f"{keywords['user']}@" if keywords.get("user") else ""
    return f"{role}{host}:{keywords.get('port', '5432')}{database}"


def hba_line(host: str | None, role: str) -> str:
    """The exact ``pg_hba.conf`` line that lets ``role`` replicate from ``host`` (None: the local socket)."""
    if host is None or host == "[local]":
        return f"local  replication  {role}  scram-sha-256"
    return f"host  replication  {role}  {host}/{128 if ':' in host else 32}  scram-sha-256"


_Hint = Callable[[re.Match[str]], str]
_HBA = re.compile(
    r"(?:no pg_hba\.conf entry for|pg_hba\.conf rejects) replication connection "
    r'(?:from|for) host "([^"]+)", user "([^"]+)"'
)


def _hba_hint(match: re.Match[str]) -> str:
    line = hba_line(match[1], match[2])
    return f'Add the line "{line}" to the server\'s pg_hba.conf, then run "SELECT pg_reload_conf()".'


_REPLICATION: tuple[tuple[re.Pattern[str], _Hint], ...] = (
    (_HBA, _hba_hint),
    (
        re.compile(r"must be superuser or replication role to start walsender|permission denied to start WAL sender"),
        lambda _: 'Give the role the right: ALTER ROLE "…" REPLICATION, as a superuser.',
    ),
    (
        re.compile(r"requested standby connections exceeds \"?max_wal_senders\"?.*?(\d+)"),
        lambda match: (
            f"All {match[1]} WAL senders are taken: raise max_wal_senders (needs a restart of the server), "
            "or end a replication connection that nobody needs (see pg_stat_replication)."
        ),
    ),
)
_UNREACHABLE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"the database system is (?:starting up|shutting down|in recovery mode|not yet accepting)"),
     "The server is starting or stopping; try again in a moment."),
    (re.compile(r"Connection refused|No such file or directory"),
     "Start the server, or correct the host, port or socket folder."),
    (re.compile(r"timeout expired|timed out|No route to host|Network is unreachable|server closed the connection|"
                r"could not receive data|Connection reset"),
     "Check the network and the firewall between this machine and the server, and the server's log."),
    (re.compile(r"could not translate host name|Name or service not known|Temporary failure in name resolution"),
     "Correct the host name. The name of a Compose service is only known inside that Compose network."),
    (re.compile(r"too many clients already|remaining connection slots are reserved"),
     "All connections of the server are taken: wait, or raise max_connections (needs a restart of the server)."),
)  # fmt: skip
_REFUSED: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"password authentication failed|no password supplied|authentication failed"),
     "Correct the role or the password in the address."),
    (re.compile(r'role "[^"]*" does not exist'), "Correct the role in the address, or create it on the server."),
    (re.compile(r'database "[^"]*" does not exist'), "Correct the database in the address."),
    (re.compile(r"no pg_hba\.conf entry|pg_hba\.conf rejects"),
     "Add a line to the server's pg_hba.conf that allows this role, host and database, then reload it."),
    (re.compile(r"SSL"), "Correct sslmode and the certificates in the address, or the server's ssl settings."),
)  # fmt: skip


def translate_connect(error: psycopg.Error, keywords: dict[str, str]) -> EngineError:
    """The error to raise for a connection that could not be made."""
    # Patterns see the text as it came: a password that is a common word would hide what they look for.
    raw, said = _one_line(str(error)), clean(str(error), keywords)
    where = describe_address(keywords)
    for pattern, hint_of in _REPLICATION:
        if match := pattern.search(raw):
            return ReplicationNotAllowedError(f"{where} refused a replication connection: {said}", hint=hint_of(match))
    # A refusal is more telling than an unreachable second address of the same host name, so it is looked for first.
    for pattern, hint in _REFUSED:
        if pattern.search(raw):
            return EngineError(f"cannot connect to PostgreSQL at {where}: {said}", hint=hint)
    for pattern, hint in _UNREACHABLE:
        if pattern.search(raw):
            return UnreachableError(f"cannot connect to PostgreSQL at {where}: {said}", hint=hint)
    return EngineError(
        f"cannot connect to PostgreSQL at {where}: {said}",
        hint="Check host, port, role, password and database in the address, and the server's log.",
    )


def clean(text: str, keywords: dict[str, str]) -> str:
    """A driver's or server's message on one line, without the password should it ever be in there."""
    line = _one_line(text)
    for name in ("password", "sslpassword"):
        if secret := keywords.get(name):
            line = line.replace(secret, "***")
    return line.rstrip(".")


def _one_line(text: str) -> str:
    return "; ".join(part.strip() for part in text.splitlines() if part.strip())
