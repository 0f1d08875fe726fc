"""Take a dump of databases with the server's own pg_dump, and their fingerprints in the very same snapshot.

Order, per database: a session exports its snapshot; pg_dump starts in it and locks every table; when its first bytes
arrive, the session computes the fingerprint while the dump streams. So dump and fingerprint see the same rows, and
nobody can drop a table between them. Sequences stand outside snapshots: they are read before and after.

Each database is consistent in itself; several databases are dumped one after the other, each at its own instant.
"""

from __future__ import annotations

import enum
import os
import select
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from recoup.engines.engine import CopyFacts, Progress, ProgressListener, Sink, StreamSink
from recoup.engines.postgres.access import ServerAccess, open_maintenance, server_version
from recoup.engines.postgres.archive import MAGIC
from recoup.engines.postgres.database import describe_database, list_databases, referenced_roles
from recoup.engines.postgres.fingerprint import fingerprint_database, read_sequences, with_later_sequences
from recoup.engines.postgres.session import Session, SqlError
from recoup.kernel import clock
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Child, Command, Completed, open_child, run

GLOBALS_STREAM = "globals.sql"
PLAIN_HEAD = b"--\n-- PostgreSQL database dump\n--\n"
PLAIN_TRAILER = b"-- PostgreSQL database dump complete\n"
_TRAILER_WINDOW = 400  # newer pg_dump writes an \unrestrict line after the trailer
_READ_BYTES = 1 << 20
_SILENCE_SECONDS = 2 * 3600.0  # a lock is given up after minutes; only a dead connection is silent for longer
_LOCK_WAIT_MILLISECONDS = 300_000


class DumpFormat(enum.StrEnum):
    """How pg_dump writes."""

    CUSTOM = "custom"  #: pg_restore reads it; uncompressed, because the repository compresses
    PLAIN = "plain"  #: SQL text; psql reads it


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpRequest:
    """What to dump. ``databases`` empty means every database that accepts connections and is no template."""

    databases: tuple[str, ...] = ()
    format: DumpFormat = DumpFormat.CUSTOM
    with_globals: bool = True
    with_fingerprint: bool = True


def default_stream_name(database: str, form: DumpFormat) -> str:
    """``shop.dump`` or ``shop.sql``; a name that is no safe part of an object key is written in hexadecimal."""
    safe = database.isascii() and all(letter.isalnum() or letter in "_-" for letter in database)
    stem = database if safe and database else "x" + database.encode().hex()
    return f"{stem}.{'dump' if form is DumpFormat.CUSTOM else 'sql'}"


def take_dump(
    access: ServerAccess,
    sink: Sink,
    request: DumpRequest,
    *,
    stream_name: Callable[[str, DumpFormat], str] = default_stream_name,
    progress: ProgressListener | None = None,
) -> CopyFacts:
    """Dump into ``sink``, one stream per database and ``globals.sql`` (roles, tablespaces).

    Raise ``EngineError`` when a database is missing (listing those that are there), a right is missing, a table's
    lock cannot be had within five minutes, or the server goes away; then nothing of the copy counts.
    """
    with open_maintenance(access) as session:
        databases = _chosen(request.databases, list_databases(session))
        version = server_version(session)
        described = {name: describe_database(session, name) for name in databases}
        facts: dict[str, Any] = {
            "format": request.format.value,
            "server_version": session.query("SELECT current_setting('server_version')")[0][0],
            "server_major": version // 10000,
            "system_identifier": _system_identifier(session),
            "programs_version": ".".join(map(str, access.programs().version)),
        }
    left_out: list[tuple[str, str]] = []
    if request.with_globals:
        globals_facts, left = _dump_globals(access, sink)
        facts["globals"] = globals_facts
        left_out += left
    fingerprints: dict[str, Any] = {}
    facts["databases"] = {}
    for name in databases:
        stream = stream_name(name, request.format)
        dumped, fingerprint = _dump_database(access, sink, name, stream, request, progress)
        facts["databases"][name] = {"stream": stream, **described[name], **dumped}
        if fingerprint is not None:
            fingerprints[name] = fingerprint
            left_out += _left_out(name, fingerprint)
    return CopyFacts(
        facts=facts,
        fingerprint={"databases": fingerprints} if request.with_fingerprint else None,
        left_out=tuple(left_out),
    )


def _chosen(wanted: Sequence[str], existing: Mapping[str, bool]) -> list[str]:
    usable = [name for name, connectable in existing.items() if connectable]
    missing = [name for name in wanted if name not in usable]
    if missing:
        closed = [name for name in missing if name in existing]
        raise EngineError(
            f"no such database: {', '.join(missing)}"
            if not closed
            else f"the database {closed[0]} accepts no connections",
            hint=f"The server has: {', '.join(usable)}.",
        )
    return list(dict.fromkeys(wanted)) if wanted else usable


def _system_identifier(session: Session) -> str | None:
    try:
        return session.query("SELECT system_identifier FROM pg_control_system()")[0][0]
    except SqlError:  # a managed service may withhold it; a dump does not need it
        return None


def _dump_database(
    access: ServerAccess,
    sink: Sink,
    database: str,
    stream: str,
    request: DumpRequest,
    progress: ProgressListener | None,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    began = clock.now()
    with access.session(database) as session, ThreadPoolExecutor(1, "fingerprint") as executor:
        snapshot = session.export_snapshot()
        command = access.command(
            "pg_dump",
            f"--format={request.format.value}",
            *(["--compress=0"] if request.format is DumpFormat.CUSTOM else []),
            f"--snapshot={snapshot}",
            "--no-password",
            f"--lock-wait-timeout={_LOCK_WAIT_MILLISECONDS}",
            "--encoding=UTF8",
            database=database,
        )
        work: list[Future[dict[str, Any]]] = []

        def begun() -> None:
            if request.with_fingerprint:
                work.append(executor.submit(fingerprint_database, session))

        try:
            with sink.stream(stream) as target:
                size, ended = _copy(command, target, database, request.format, begun, progress)
                fingerprint = work[0].result() if work else None
        except BaseException:
            session.cancel()
            raise
        if fingerprint is not None:
            fingerprint = with_later_sequences(fingerprint, read_sequences(session))
        roles = referenced_roles(session)
        session.end_snapshot()
    warnings = [line for line in ended.stderr.splitlines() if line.strip()]
    return (
        {
            "begun": clock.to_text(began),
            "ended": clock.to_text(clock.now()),
            "snapshot": snapshot,
            "roles": roles,
            "plain_bytes": size,
            "warnings": warnings[-50:],
        },
        fingerprint,
    )


def _copy(
    command: Command,
    target: StreamSink,
    database: str,
    form: DumpFormat,
    begun: Callable[[], None],
    progress: ProgressListener | None,
) -> tuple[int, Completed]:
    """Stream pg_dump's output into ``target``, and check its ends and its exit status."""
    size, head, tail = 0, b"", b""
    with open_child(command) as child:
        while piece := _read(child, database):
            if size == 0:
                begun()
            head = head if len(head) >= len(PLAIN_HEAD) else (head + piece)[: len(PLAIN_HEAD)]
            tail = piece[-_TRAILER_WINDOW:] if len(piece) >= _TRAILER_WINDOW else (tail + piece)[-_TRAILER_WINDOW:]
            target.write(piece)
            size += len(piece)
            if progress is not None:
                progress(Progress(what=f"dump of {database}", done_bytes=size))
        ended = child.wait(60)
    if ended.exit_status != 0:
        raise _dump_failed(f"pg_dump of database {database!r}", ended)
    whole = head.startswith(MAGIC) if form is DumpFormat.CUSTOM else head == PLAIN_HEAD and PLAIN_TRAILER in tail
    if not whole:
        raise EngineError(
            f"pg_dump of database {database!r} ended with status 0, but what it wrote is not a whole dump "
            f"({size} bytes, beginning {head[:16]!r})",
            hint="Is the program on the path really pg_dump? Wrappers that print text of their own break its output.",
        )
    return size, ended


def _read(child: Child, database: str) -> bytes:
    if not select.select([child.stdout], [], [], _SILENCE_SECONDS)[0]:
        raise EngineError(f"pg_dump of database {database!r} wrote nothing for {_SILENCE_SECONDS:g} s and was stopped")
    return os.read(child.stdout.fileno(), _READ_BYTES)


def _dump_failed(what: str, ended: Completed) -> EngineError:
    said = ended.stderr.strip() or "it said nothing"
    how = f"killed by signal {-ended.exit_status}" if ended.exit_status < 0 else f"status {ended.exit_status}"
    hint = None
    if "permission denied" in said or "row-level security" in said:
        hint = "Dump as a superuser, or as a role with pg_read_all_data and BYPASSRLS."
    elif ("lock" in said and "timeout" in said) or "canceling statement due to lock timeout" in said:
        hint = "Another session holds a lock on a table; see pg_locks, and try again when it has ended."
    elif "server version mismatch" in said:
        hint = "pg_dump must be of the server's major version or newer."
    elif "closed the connection" in said or "terminating connection" in said:
        hint = "The server went away in the middle; nothing was kept. Try again when it is back."
    return EngineError(f"{what} failed ({how}): {said}", hint=hint)


def _dump_globals(access: ServerAccess, sink: Sink) -> tuple[dict[str, Any] | None, list[tuple[str, str]]]:
    """``pg_dumpall --globals-only``; without passwords, or not at all, when the rights do not reach."""
    left_out: list[tuple[str, str]] = []
    for extra in ((), ("--no-role-passwords",)):
        command = access.command("pg_dumpall", "--globals-only", "--no-password", *extra)
        ended = run(command, expect=None)
        if ended.exit_status == 0 and b"PostgreSQL database cluster dump complete" in ended.stdout[-_TRAILER_WINDOW:]:
            with sink.stream(GLOBALS_STREAM, expected_bytes=len(ended.stdout)) as target:
                target.write(ended.stdout)
            return {"stream": GLOBALS_STREAM, "with_passwords": not extra}, left_out
        said = " ".join(ended.stderr.split()) or f"status {ended.exit_status}"
        if "permission denied" not in said:
            raise _dump_failed("pg_dumpall of roles and tablespaces", ended)
        left_out = [("passwords of the roles" if not extra else "roles and tablespaces", said)]
    return None, left_out


def _left_out(database: str, fingerprint: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (f"rows of {name} in {database}", str(entry["not_compared"]))
        for name, entry in fingerprint["tables"].items()
        if entry["kind"] == "foreign table"
    ]
