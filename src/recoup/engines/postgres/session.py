"""One conversation with a PostgreSQL server, in SQL, with every row as text.

Two ways lead to a server, and the rest of the engine does not know which one is used: ``DirectSession`` speaks the
protocol through psycopg 3; ``ProgramSession`` keeps one ``psql`` alive through a ``Runner``, for databases that are not
published to the host (``docker compose exec -T``). Both pin the settings that change how a value is printed, because
fingerprints compare printed values.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from recoup.engines.postgres.connection_errors import describe_address
from recoup.kernel.errors import EngineError
from recoup.kernel.secret import Secret

Row = tuple[str | None, ...]

PINNED_SETTINGS: tuple[tuple[str, str], ...] = (
    ("client_encoding", "UTF8"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "3"),
    ("bytea_output", "hex"),
    ("xmlbinary", "base64"),
    ("lc_monetary", "C"),
    ("search_path", "pg_catalog"),
    ("quote_all_identifiers", "off"),
    ("standard_conforming_strings", "on"),
    # A policy that would hide rows from this role must be an error, never a shorter answer.
    ("row_security", "off"),
    ("client_min_messages", "error"),
    # Production comes first: one process per statement, no compilation, no endless waiting for a lock.
    ("max_parallel_workers_per_gather", "0"),
    ("jit", "off"),
    ("lock_timeout", "60s"),
    # The session that exports a snapshot idles while pg_dump works; a server-wide limit would break the dump.
    ("idle_in_transaction_session_timeout", "0"),
)
"""What both kinds of session set before anything else. ``statement_timeout`` is added by the caller's limit."""


class SqlError(EngineError):
    """The server refused a statement. ``sqlstate`` is its five-character code."""

    def __init__(self, message: str, *, sqlstate: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate


class Session(Protocol):
    """One connection to one database. Not for use by several threads at once."""

    @property
    def place(self) -> str:
        """What this is connected to, for people. Never holds a secret."""
        ...

    @property
    def in_snapshot(self) -> bool:
        """Whether the transaction of ``begin_snapshot`` is open."""
        ...

    def query(self, sql: str) -> list[Row]:
        """Run one ``SELECT`` or ``VALUES`` and return its rows as text, ``None`` for NULL.

        Raise ``SqlError`` when the server refuses it, ``EngineError`` when the connection is lost.
        """
        ...

    def execute(self, sql: str) -> None:
        """Run one statement and ignore what it returns. Raises as ``query`` does."""
        ...

    def export_snapshot(self) -> str:
        """Begin a read-only, repeatable-read transaction and return the name under which others can join it."""
        ...

    def begin_snapshot(self) -> None:
        """Begin a read-only, repeatable-read transaction unless one is open already."""
        ...

    def end_snapshot(self) -> None:
        """End the transaction of ``begin_snapshot`` or ``export_snapshot``. Harmless without one."""
        ...

    def cancel(self) -> None:
        """From another thread: make the statement that is running fail soon. Harmless when nothing runs."""
        ...

    def close(self) -> None:
        """End the connection. Harmless when repeated."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SnapshotSession:
    """What both kinds of session share: snapshots, settings and the end."""

    _in_snapshot = False

    @property
    def in_snapshot(self) -> bool:
        """See ``Session``."""
        return self._in_snapshot

    def query(self, sql: str) -> list[Row]:
        """See ``Session``."""
        raise NotImplementedError

    def execute(self, sql: str) -> None:
        """See ``Session``."""
        raise NotImplementedError

    def close(self) -> None:
        """See ``Session``."""
        raise NotImplementedError

    def begin_snapshot(self) -> None:
        """See ``Session``."""
        if not self._in_snapshot:
            self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._in_snapshot = True

    def export_snapshot(self) -> str:
        """See ``Session``."""
        self.begin_snapshot()
        return str(self.query("SELECT pg_export_snapshot()")[0][0])

    def end_snapshot(self) -> None:
        """See ``Session``."""
        if self._in_snapshot:
            self._in_snapshot = False
            self.execute("ROLLBACK")

    def pin_settings(self, statement_timeout_seconds: float) -> None:
        """Apply ``PINNED_SETTINGS`` and the limit for one statement."""
        for name, value in PINNED_SETTINGS:
            self.execute(f"SET {name} = {literal(value)}" if name != "DateStyle" else f"SET DateStyle = {value}")
        self.execute(f"SET statement_timeout = {round(statement_timeout_seconds * 1000)}")
        if int(self.query("SELECT current_setting('server_version_num')")[0][0] or 0) >= 170000:
            self.execute("SET transaction_timeout = 0")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class DirectSession(SnapshotSession):
    """A session over the protocol, by psycopg 3."""

    def __init__(
        self,
        url: Secret,
        *,
        database: str | None = None,
        statement_timeout_seconds: float = 6 * 3600,
        connect_timeout_seconds: int = 15,
    ) -> None:
        """Connect; ``database`` replaces the one of ``url``. Raise ``EngineError`` when nobody answers."""
        options: dict[str, str | int | None] = {
            "connect_timeout": connect_timeout_seconds,
            "application_name": "recoup",
            **_KEEPALIVES,
        }
        if database is not None:
            options["dbname"] = database
        with translated("a PostgreSQL server"):
            address = make_conninfo(url.reveal(), **options)
            where = describe_address({key: str(value) for key, value in conninfo_to_dict(address).items()})
        with translated(f"PostgreSQL at {where}"):
            self._connection = psycopg.connect(address, autocommit=True, prepare_threshold=None)
        self._cancelled = False
        info = self._connection.info
        self.place = f"database {info.dbname!r} on {info.host or 'the local socket'}:{info.port}"
        try:
            self.pin_settings(statement_timeout_seconds)
        except BaseException:
            self._connection.close()
            raise

    def query(self, sql: str) -> list[Row]:
        """See ``Session``."""
        self._require_not_cancelled()
        with translated(self.place):
            result = self._connection.execute(sql.encode()).pgresult
        if result is None or result.status != pq.ExecStatus.TUPLES_OK:
            raise EngineError(f"a statement returned no rows where rows were expected, in {self.place}")
        return [
            tuple(_text(result.get_value(row, column)) for column in range(result.nfields))
            for row in range(result.ntuples)
        ]

    def execute(self, sql: str) -> None:
        """See ``Session``."""
        self._require_not_cancelled()
        with translated(self.place):
            self._connection.execute(sql.encode())

    def cancel(self) -> None:
        """See ``Session``."""
        self._cancelled = True
        with contextlib.suppress(psycopg.Error):
            self._connection.cancel()

    def _require_not_cancelled(self) -> None:
        if self._cancelled:
            raise EngineError(f"the work in {self.place} was given up")

    def close(self) -> None:
        """See ``Session``."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()


_KEEPALIVES: dict[str, int] = {
    # A host that lost power must not leave a backup waiting for hours.
    "keepalives": 1,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 6,
}


def _text(value: bytes | None) -> str | None:
    # A database in SQL_ASCII may hold bytes that are not UTF-8; they survive as surrogates.
    return None if value is None else value.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def translated(place: str) -> Iterator[None]:
    """Turn psycopg's exceptions into ours. A connection string never appears in the text."""
    try:
        yield
    except psycopg.ProgrammingError as malformed:
        if malformed.sqlstate is None:
            raise EngineError(
                "the address of the PostgreSQL server cannot be read",
                hint="Write it like postgresql://user@host:5432/database, with special characters percent-encoded.",
            ) from None
        raise _refused(malformed, place) from malformed
    except psycopg.Error as failure:
        raise _refused(failure, place) from failure


def _refused(failure: psycopg.Error, place: str) -> EngineError:
    message = failure.diag.message_primary or " ".join(str(failure).split()).removeprefix("connection failed: ")
    return error_of(message or type(failure).__name__, failure.sqlstate, place)


_LOST = ("57P01", "57P02", "57P03", "57P05")
_LOST_HINT = "Check the host, the port and the network between, and the server's log."
_HINTS: tuple[tuple[str, str, str], ...] = (
    ("28", "authentication failed|no password supplied|pg_hba", "Check the user, the password and pg_hba.conf."),
    ("3D000", 'database ".*" does not exist', "List the databases with `psql -l`, and correct the name in the plan."),
    ("42501", "permission denied", "Give the role the right: pg_read_all_data for reading, or use a superuser."),
    ("53300", "too many clients|remaining connection slots", "Raise max_connections, or close idle connections."),
    ("53100", "No space left on device", "Make room on the server's disk, then try again."),
    ("55P03", "lock timeout", "Another session holds a lock on that table; wait until it ends, then try again."),
    ("57014", "statement timeout|canceling statement", "The statement took longer than its limit, or was cancelled."),
    ("57P03", "starting up|shutting down|recovery mode", "The server is starting or stopping; try again in a moment."),
    (
        "08",
        "Connection refused|could not connect|No route|No such file",
        "Is the server running, and the address right?",
    ),
)


def error_of(message: str, sqlstate: str | None, place: str) -> EngineError:
    """The error for what a server said: ``SqlError`` for a refused statement, else the connection failed."""
    hint = next(
        (
            text
            for prefix, words, text in _HINTS
            if (sqlstate is not None and sqlstate.startswith(prefix)) or re.search(words, message)
        ),
        None,
    )
    if sqlstate is None or sqlstate.startswith("08") or sqlstate in _LOST:
        lost = EngineError(f"connection to {place} failed: {message}", hint=hint or _LOST_HINT)
        lost.may_retry = re.search("does not exist|authentication|password|pg_hba", message) is None
        return lost
    return SqlError(f"{message} (SQLSTATE {sqlstate}, {place})", sqlstate=sqlstate, hint=hint)


def identifier(name: str) -> str:
    """``name`` as a quoted SQL identifier: any name at all is safe."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """``text`` as an SQL string, for a session with ``standard_conforming_strings`` on."""
    return "'" + text.replace("'", "''") + "'"
