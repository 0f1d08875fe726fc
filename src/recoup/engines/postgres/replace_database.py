"""Put a restored database in the place of another, so that a kill at any instant harms nothing.

The sequence, with what a kill leaves behind and what the same command (the same ``run_id``) does next:

1. look at the target; refuse when it holds data and nobody said ``force``   nothing changed: starts again
2. create ``NAME_recoup_ID`` from template0                                   an unmarked one: dropped, made again
3. fill it, give it rights and settings, verify it                            the same
4. mark it ``verified`` (a setting of the database, ``recoup.restore``)       found marked: goes on with 5
5. close the old database to new connections, end the open ones              old one closed, whole: goes on with 5
6. one transaction: old → ``NAME_replaced_ID`` (open again), fresh → NAME,
   mark it ``done``                                                           before its commit as 5, after it done
7. say what was done                                                          found marked ``done``: says it again

The old database is never written to and never dropped. ``ALTER DATABASE … RENAME`` works inside a transaction, which is
what makes step 6 a single instant.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.database import (
    apply_rights_and_settings,
    create_database,
    database_exists,
    describe_database,
)
from recoup.engines.postgres.session import Session, identifier, literal
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, RecoupError, RefusedError, UsageError
from recoup.kernel.finding import Finding
from recoup.kernel.units import show_size

_NAME_BYTES = 63  # NAMEDATALEN - 1
_MARK = "recoup.restore"
_LEAVE_SECONDS = 30.0  #: how long ended connections may take to be gone


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The database that would be replaced. ``tables`` counts everything with rows outside the system."""

    name: str
    exists: bool
    size_bytes: int = 0
    tables: int | None = 0  #: None: it accepts no connections, so nobody can look
    connections: int = 0

    @property
    def holds_data(self) -> bool:
        """Whether replacing it needs ``force``. A database nobody can look into counts as full."""
        return self.exists and self.tables != 0

    def __str__(self) -> str:
        if not self.exists:
            return f"database {self.name!r} does not exist"
        tables = "an unknown number of" if self.tables is None else str(self.tables)
        return (
            f"database {self.name!r} holds {tables} tables, views and sequences "
            f"({show_size(self.size_bytes)}), with {self.connections} open connections"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """One replacement. ``run_id`` is an identifier of ``kernel.ids``; a resumed run must give the same one."""

    database: str
    run_id: str
    force: bool = False

    @property
    def fresh(self) -> str:
        """The name of the database while it is being restored."""
        return _joined(self.database, f"_recoup_{self._tail}")

    @property
    def kept(self) -> str:
        """The name under which the replaced database is kept."""
        return _joined(self.database, f"_replaced_{self._tail}")

    @property
    def _tail(self) -> str:
        return self.run_id.replace("-", "_")  # so that nobody needs quotes to type the name


@dataclass(frozen=True, slots=True, kw_only=True)
class Replaced:
    """What was done. ``kept`` is the name of the database that was replaced, or None when there was none."""

    database: str
    kept: str | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()  #: what could not be carried over, and other remarks


class Stage(enum.Enum):
    """How far an earlier run with the same identifier came."""

    NOTHING = "nothing"
    UNFINISHED = "unfinished"  #: a fresh database without a mark
    VERIFIED = "verified"
    DONE = "done"


Fill = Callable[[str], Sequence[str]]
"""Given the fresh database's name, fill it; return notes. Raises when the copy does not go in whole."""
Verify = Callable[[Session], Sequence[Finding]]
"""Given a session in the fresh database, return findings. Raises when it must not go into service."""


def look_at(access: ServerAccess, name: str) -> Target:
    """What there is under ``name`` now. Reads only."""
    with open_maintenance(access) as session:
        rows = session.query(
            f"""SELECT datallowconn, pg_database_size(oid),
                       (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.oid AND a.pid <> pg_backend_pid())
                  FROM pg_database d WHERE datname = {literal(name)}"""
        )
    if not rows:
        return Target(name=name, exists=False)
    connectable, size, connections = rows[0]
    tables: int | None = None
    if connectable == "t":
        with access.session(name) as session:
            counted = session.query(
                """SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                            WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND n.nspname <> 'information_schema'
                              AND n.nspname !~ '^pg_'
                              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e'))
                        + (SELECT count(*) FROM pg_largeobject_metadata)"""
            )
            tables = int(counted[0][0] or 0)
    return Target(name=name, exists=True, size_bytes=int(size or 0), tables=tables, connections=int(connections or 0))


def require_replaceable(target: Target, replacement: Replacement) -> None:
    """Raise ``RefusedError`` when ``target`` holds data and ``force`` was not given."""
    if target.holds_data and not replacement.force:
        raise RefusedError(
            f"{target}: it would be replaced",
            hint=f"With --force it is replaced, and kept as {replacement.kept!r}. Or give another name with --into.",
        )


def replace_database(
    access: ServerAccess,
    replacement: Replacement,
    *,
    like: Mapping[str, Any] | None,
    fill: Fill,
    verify: Verify,
) -> Replaced:
    """Carry out the sequence above. ``like`` describes the database at the time of the copy, or None if unknown.

    Raise ``RefusedError`` when the target holds data and ``force`` is not given; whatever ``fill`` and ``verify``
    raise, after dropping the fresh database: the old one is untouched then.
    """
    name = replacement.database
    if len(name.encode()) > _NAME_BYTES or "\0" in name:
        raise UsageError(  # PostgreSQL itself would cut it, and then it is another database's name
            f"{name[:80]!r} cannot be the name of a database", hint=f"Give one of at most {_NAME_BYTES} bytes."
        )
    with open_maintenance(access, avoid=name) as session:
        stage = stage_of(session, replacement)
        if stage is Stage.DONE:
            kept = replacement.kept if database_exists(session, replacement.kept) else None
            return Replaced(database=name, kept=kept, findings=(), notes=("an earlier run had finished already",))
        notes: list[str] = []
        findings: tuple[Finding, ...] = ()
        if stage is not Stage.VERIFIED:
            require_replaceable(look_at(access, name), replacement)
            if like is None:
                like = describe_database(session, name) if database_exists(session, name) else {}
            notes, findings = _prepare(access, session, replacement, like, fill, verify)
        kept = _swap(session, replacement)
    return Replaced(database=name, kept=kept, findings=findings, notes=tuple(notes))


def stage_of(session: Session, replacement: Replacement) -> Stage:
    """How far an earlier run came, from the marks it left in the server."""
    if _mark_of(session, replacement.database) == f"{replacement.run_id} done":
        return Stage.DONE
    if not database_exists(session, replacement.fresh):
        return Stage.NOTHING
    if _mark_of(session, replacement.fresh) == f"{replacement.run_id} verified":
        return Stage.VERIFIED
    return Stage.UNFINISHED


def _prepare(
    access: ServerAccess,
    session: Session,
    replacement: Replacement,
    like: Mapping[str, Any],
    fill: Fill,
    verify: Verify,
) -> tuple[list[str], tuple[Finding, ...]]:
    """Steps 2 to 4. A failure drops the fresh database; a kill leaves it for the next run to drop."""
    fresh = replacement.fresh
    session.execute(f"DROP DATABASE IF EXISTS {identifier(fresh)} WITH (FORCE)")
    create_database(session, fresh, like)
    try:
        notes = list(fill(fresh))
        roles = {str(role) for (role,) in session.query("SELECT rolname FROM pg_roles")}
        notes += apply_rights_and_settings(session, fresh, like, roles)
        with access.session(fresh) as restored:
            # Without statistics the first users would meet plans made for empty tables; pg_dump carries none.
            restored.execute("ANALYZE")
            findings = tuple(verify(restored))
        _mark(session, fresh, f"{replacement.run_id} verified")
    except RecoupError as failure:
        try:
            session.execute(f"DROP DATABASE IF EXISTS {identifier(fresh)} WITH (FORCE)")
        except EngineError as second:
            failure.add_note(f"the unfinished database {fresh!r} could not be dropped: {second}")
        raise
    return notes, findings


def _swap(session: Session, replacement: Replacement) -> str | None:
    """Steps 5 and 6. Return the name of the kept database. On an error the old database is opened again."""
    name, fresh, kept = replacement.database, replacement.fresh, replacement.kept
    exists = database_exists(session, name)
    if exists and database_exists(session, kept):
        raise RefusedError(f"a database named {kept!r} is there already", hint="Rename or drop it, then run again.")
    try:
        if exists:
            _require_no_prepared(session, name)
            session.execute(f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS false")
            _end_connections(session, name)
        _end_connections(session, fresh)
        session.execute("BEGIN")
        if exists:
            session.execute(f"ALTER DATABASE {identifier(name)} RENAME TO {identifier(kept)}")
            session.execute(f"ALTER DATABASE {identifier(kept)} ALLOW_CONNECTIONS true")
        session.execute(f"ALTER DATABASE {identifier(fresh)} RENAME TO {identifier(name)}")
        _mark(session, name, f"{replacement.run_id} done")
        session.execute("COMMIT")
    except RecoupError as failure:
        try:
            session.execute("ROLLBACK")
            if exists and database_exists(session, name):
                session.execute(f"ALTER DATABASE {identifier(name)} ALLOW_CONNECTIONS true")
        except EngineError as second:
            failure.add_note(f"database {name!r} could not be opened again: {second}; run the same command again")
        raise
    return kept if exists else None


def _require_no_prepared(session: Session, name: str) -> None:
    rows = session.query(f"SELECT gid FROM pg_prepared_xacts WHERE database = {literal(name)}")
    if rows:
        raise RefusedError(
            f"database {name!r} has prepared transactions ({', '.join(str(gid) for (gid,) in rows)})",
            hint="COMMIT PREPARED or ROLLBACK PREPARED them: a database with open transactions cannot be renamed.",
        )


def _end_connections(session: Session, name: str) -> None:
    """End every connection to a database, and wait until they are gone. Raise ``EngineError`` when they stay."""
    deadline = clock.monotonic() + _LEAVE_SECONDS
    while True:
        left = session.query(
            f"SELECT pid, usename, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {literal(name)}"
        )
        if not left:
            return
        if clock.monotonic() > deadline:
            who = ", ".join(sorted({str(user) for _, user, _ in left}))
            raise EngineError(f"connections to database {name!r} do not end (of {who})", hint="Stop the applications.")
        clock.pause(0.1)


def _mark(session: Session, database: str, text: str) -> None:
    session.execute(f"ALTER DATABASE {identifier(database)} SET {_MARK} TO {literal(text)}")


def _mark_of(session: Session, database: str) -> str | None:
    rows = session.query(
        f"""SELECT substr(c, {len(_MARK) + 2}) FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase,
                   unnest(s.setconfig) c
             WHERE s.setrole = 0 AND d.datname = {literal(database)} AND c LIKE {literal(_MARK + "=%")}"""
    )
    return rows[0][0] if rows else None


def _joined(name: str, tail: str) -> str:
    """``name`` and ``tail`` within the length PostgreSQL allows; a cut never falls inside a character."""
    return name.encode()[: _NAME_BYTES - len(tail)].decode(errors="ignore") + tail
