"""A replication connection to PostgreSQL 14 to 18, spoken through psycopg 3's low-level ``pgconn``.

psycopg has no replication API, and libpq's blocking calls hold the interpreter lock, so everything here asks libpq
asynchronously, waits in ``poll`` with a limit, and reads what arrived. Protocol: PostgreSQL documentation, "Streaming
Replication Protocol".
"""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

import psycopg
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus

from recoup.engines.postgres.connection_errors import (
    ReplicationNotAllowedError,
    UnreachableError,
    clean,
    describe_address,
    parse_connection,
    translate_connect,
)
from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import EngineError
from recoup.kernel.secret import Secret

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

# A machine that vanished is noticed after at most idle + count * interval = 60 s, whoever is waiting.
_KEEPALIVE = {
    "keepalives": "1",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
_CONNECT_SECONDS = "10"
#: How long a server may say nothing in the middle of an answer before it counts as hung.
IDLE_SECONDS = 300.0
_SLICE_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemIdentity:
    """The answer to IDENTIFY_SYSTEM. ``system_identifier`` is decimal text, as PostgreSQL shows it."""

    system_identifier: str
    timeline: int
    position: Lsn


class Wire:
    """One replication connection. It does one thing at a time. Use ``connect`` and a ``with`` block."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]], keywords: dict[str, str]) -> None:
        self._connection = connection
        self._keywords = keywords
        self._poll = select.poll()
        self._poll.register(connection.pgconn.socket, select.POLLIN)
        self.pgconn: PGconn = connection.pgconn
        self.pgconn.nonblocking = 0
        self.notices: list[str] = []
        self._silent_seconds = 0.0
        connection.add_notice_handler(self._notice)

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized == "WARNING" and len(self.notices) < 50:
            self.notices.append(clean(diagnostic.message_primary or "", self._keywords))

    @property
    def address(self) -> str:
        """Where this connection goes, without the password."""
        return describe_address(self._keywords)

    @property
    def major(self) -> int:
        """The server's major version: 14 to 18."""
        return self.pgconn.server_version // 10_000

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, and with it whatever the server was doing for it."""
        with contextlib.suppress(psycopg.Error):
            self._connection.close()

    # -- commands ------------------------------------------------------------------------------------------------

    def send(self, command: str) -> None:
        """Begin a command. Read its answer with ``result``."""
        self._silent_seconds = 0.0
        try:
            self.pgconn.send_query(command.encode())
        except psycopg.Error as failure:
            raise self.lost(failure) from failure

    def result(self, *expected: ExecStatus, idle_seconds: float = IDLE_SECONDS) -> PGresult | None:
        """The next result of the command; None at its end.

        Raise ``EngineError`` for an ERROR of the server, for a result that is not ``expected`` (a missing one
        counts), for a lost connection, and when nothing came for ``idle_seconds``.
        """
        try:
            while self.pgconn.is_busy():
                self.wait(idle_seconds)
            result = self.pgconn.get_result()
        except psycopg.Error as failure:
            raise self.lost(failure) from failure
        if result is None:
            if expected:
                raise EngineError(f"{self.address} ended a replication command before its last answer")
            return None
        if result.status == ExecStatus.FATAL_ERROR:
            raise self._server_error(result)
        if expected and result.status not in expected:
            raise EngineError(
                f"{self.address} gave an unexpected answer ({ExecStatus(result.status).name}) to a replication command"
            )
        return result

    def wait(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """Wait for bytes of the server and take them in; may return without any, so the caller asks again.

        Raise ``UnreachableError`` when nothing came for ``idle_seconds``.
        """
        # Under TLS, bytes may wait decrypted inside the library where poll cannot see them. So libpq is asked to take
        # in what there is even when poll saw nothing, a few times each second.
        slice_seconds = min(_SLICE_SECONDS, idle_seconds)
        try:
            ready = self._poll.poll(slice_seconds * 1000)
            self.pgconn.consume_input()
        except psycopg.Error as failure:
            raise self.lost(failure) from failure
        self._silent_seconds = 0.0 if ready else self._silent_seconds + slice_seconds
        if self._silent_seconds >= idle_seconds:
            raise UnreachableError(
                f"PostgreSQL at {self.address} has said nothing for {idle_seconds:g} s",
                hint="Look whether the server is stopped, overloaded or unreachable, then try again.",
            )

    def rows(self, command: str, *, idle_seconds: float = IDLE_SECONDS) -> list[tuple[str | None, ...]]:
        """Run a simple command to its end and return the rows of its first answer, as text."""
        self.send(command)
        try:
            result = self.result(ExecStatus.TUPLES_OK, idle_seconds=idle_seconds)
        except (ServerError, ReplicationNotAllowedError):
            # Only the command failed. Its end must be read before the next one can begin.
            while self.result(idle_seconds=idle_seconds) is not None:
                pass
            raise
        assert result is not None
        while self.result(idle_seconds=idle_seconds) is not None:
            pass
        return rows_of(result)

    def identify(self) -> SystemIdentity:
        """Who is at the other end: IDENTIFY_SYSTEM."""
        system, timeline, position = self.rows("IDENTIFY_SYSTEM")[0][:3]
        assert system is not None
        assert timeline is not None
        assert position is not None
        return SystemIdentity(system_identifier=system, timeline=int(timeline), position=Lsn.parse(position))

    def show(self, setting: str) -> str:
        """The value of a setting, as SHOW prints it (sizes carry units)."""
        assert setting.replace("_", "").replace(".", "").isalnum(), setting
        return self.rows(f"SHOW {setting}")[0][0] or ""

    # -- errors --------------------------------------------------------------------------------------------------

    def lost(self, failure: psycopg.Error) -> EngineError:
        """The error for a connection that broke."""
        said = clean(str(failure), self._keywords)
        return UnreachableError(
            f"lost the connection to PostgreSQL at {self.address}: {said}",
            hint="Look into the server's log for why it ended the connection, then try again.",
        )

    def _server_error(self, result: PGresult) -> EngineError:
        def field(which: DiagnosticField) -> str:
            value = result.error_field(which)
            return clean(value.decode(errors="replace"), self._keywords) if value else ""

        state = field(DiagnosticField.SQLSTATE)
        said = field(DiagnosticField.MESSAGE_PRIMARY) or clean(
            result.error_message.decode(errors="replace"), self._keywords
        )
        detail = field(DiagnosticField.MESSAGE_DETAIL)
        text = f"PostgreSQL at {self.address}: {said}" + (f" ({detail})" if detail else "")
        if state in {"57P01", "57P02", "57P03"} or self.pgconn.status == ConnStatus.BAD:
            return UnreachableError(text, hint="The server stopped or the connection broke; try again when it is back.")
        if state == "42501":
            return ReplicationNotAllowedError(
                text, hint='Give the role the right: ALTER ROLE "…" REPLICATION, as a superuser.'
            )
        hint = field(DiagnosticField.MESSAGE_HINT)
        return ServerError(text, hint=f"{hint}." if hint else None, sqlstate=state)


class ServerError(EngineError):
    """The server answered a command with an ERROR. ``sqlstate`` is its five-character code."""

    def __init__(self, message: str, *, hint: str | None = None, sqlstate: str = "") -> None:
        super().__init__(message, hint=hint)
        self.sqlstate = sqlstate


def rows_of(result: PGresult) -> list[tuple[str | None, ...]]:
    """The rows of a result as text; NULL as None."""
    return [
        tuple(
            None if (value := result.get_value(row, column)) is None else value.decode()
            for column in range(result.nfields)
        )
        for row in range(result.ntuples)
    ]


def connect(url: Secret, *, application_name: str = "recoup", options: str = "") -> Wire:
    """Open a replication connection to the server at ``url``.

    A physical replication connection is tried first; it needs a ``replication`` line in ``pg_hba.conf``. Where there
    is none, a replication connection to the URL's database is tried: for ``pg_hba.conf`` that is an ordinary
    connection to that database (the keyword ``all`` matches it, src/backend/libpq/hba.c), and the server accepts the
    same commands on it. It keeps that one database from being dropped while it is open. ``options`` are command-line
    options for the server's process, added to the URL's own.

    Raise ``UsageError`` for an address that cannot be understood, ``UnreachableError``, ``ReplicationNotAllowedError``
    and ``EngineError`` with a hint each.
    """
    keywords = parse_connection(url)
    keywords.pop("replication", None)
    if options:
        keywords["options"] = f"{keywords.get('options', '')} {options}".strip()
    try:
        return _open(keywords, "yes", application_name)
    except ReplicationNotAllowedError as refused:
        if "pg_hba.conf" not in refused.message:
            raise
        with contextlib.suppress(EngineError):
            return _open(keywords, "database", application_name)
        raise


def _open(keywords: dict[str, str], replication: str, application_name: str) -> Wire:
    settings = {"connect_timeout": _CONNECT_SECONDS, **_KEEPALIVE, "application_name": application_name, **keywords}
    try:
        connection = psycopg.connect(
            **settings,  # type: ignore[arg-type]
            replication=replication,
            autocommit=True,
            cursor_factory=psycopg.ClientCursor,
        )
    except psycopg.Error as failure:
        raise translate_connect(failure, keywords) from None
    try:
        wire = Wire(connection, keywords)
        check_major(wire.major, wire.address)
    except BaseException:
        connection.close()
        raise
    return wire


def check_major(major: int, where: str) -> None:
    """Raise ``EngineError`` unless the server's major version is one Recoup knows."""
    if not 14 <= major <= 18:
        raise EngineError(
            f"PostgreSQL {major} at {where} is not supported", hint="Recoup works with PostgreSQL 14 to 18."
        )


def drain_copy(wire: Wire, on_message: Callable[[memoryview], bool], *, idle_seconds: float = IDLE_SECONDS) -> bool:
    """Hand each CopyData message to ``on_message`` until it returns True (then True) or the copy ends (then False).

    A message is a view that is valid during the call only. All that has arrived is handed over before waiting again:
    at 32 KiB a message, a wait for each would cost more than the copy itself.
    """
    get = wire.pgconn.get_copy_data
    try:
        while True:
            size, data = get(1)
            if size > 0:
                if on_message(data):
                    return True
            elif size == -1:
                return False
            else:
                wire.wait(idle_seconds)
    except psycopg.Error as failure:
        raise wire.lost(failure) from failure
