"""A ``Session`` through one ``psql`` kept alive, for a server that only its own container can reach.

Framing: PostgreSQL text never holds a zero byte, so ``psql --record-separator-zero`` ends each row without doubt. The
separator between fields and the sign for NULL are random texts of this session. After each statement ``\\echo`` prints
a random mark with psql's own variables ``ERROR``, ``SQLSTATE`` and ``LAST_ERROR_MESSAGE`` (psql 11 and newer), so an
error is known by its code and not by reading prose.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select

from recoup.engines.postgres.session import Row, SnapshotSession, error_of
from recoup.kernel.clock import monotonic
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Child, Command, open_child

_READ_BYTES = 1 << 16
_CONNECT_SECONDS = 60.0
_MARGIN_SECONDS = 60.0  #: how much longer than the server's own limit an answer may take


class ProgramSession(SnapshotSession):
    """A session through a running ``psql``. ``command`` starts psql without arguments for output or input."""

    def __init__(self, command: Command, *, place: str, statement_timeout_seconds: float = 6 * 3600) -> None:
        """Start psql and wait for its first answer. Raise ``EngineError`` when it cannot connect."""
        self.place = place
        self._field, self._null, self._mark = (secrets.token_hex(16) for _ in range(3))
        self._limit = _CONNECT_SECONDS
        self._rest = b""
        self._resources = contextlib.ExitStack()
        output = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--no-password", "--record-separator-zero"]
        argv = [*command.argv, *output, f"--field-separator={self._field}", f"--pset=null={self._null}"]
        self._child: Child = self._resources.enter_context(
            open_child(
                Command(argv=argv, environment=command.environment, folder=command.folder, user=command.user),
                stdin=True,
            )
        )
        try:
            self.pin_settings(statement_timeout_seconds)
        except BaseException:
            self.close()
            raise
        self._limit = statement_timeout_seconds + _MARGIN_SECONDS

    def query(self, sql: str) -> list[Row]:
        """See ``Session``."""
        return [self._row(record) for record in self._ask(sql).split(b"\0")[:-1]]

    def execute(self, sql: str) -> None:
        """See ``Session``."""
        self._ask(sql)

    def cancel(self) -> None:
        """See ``Session``. Ends psql: an interrupt does not reach through every runner."""
        self._child.end()

    def close(self) -> None:
        """See ``Session``."""
        self._resources.close()

    def _row(self, record: bytes) -> Row:
        null = self._null.encode()
        return tuple(
            None if value == null else value.decode("utf-8", "surrogateescape")
            for value in record.split(self._field.encode())
        )

    def _ask(self, sql: str) -> bytes:
        """Send one statement; return the bytes that came before the mark. Raise for whatever the mark says."""
        question = f"{sql}\n;\n\\echo {self._mark} :ERROR :SQLSTATE :LAST_ERROR_MESSAGE {self._mark}\n"
        try:
            self._child.stdin.write(question.encode("utf-8", "surrogateescape"))
            self._child.stdin.flush()
        except OSError:
            raise self._ended() from None
        rows, state = self._until_mark()
        failed, sqlstate, message = [*state.decode("utf-8", "replace").split(" ", 2), "", ""][:3]
        if failed != "false":
            raise error_of(message or "the statement failed", sqlstate or "XX000", self.place)
        return rows

    def _until_mark(self) -> tuple[bytes, bytes]:
        begin, end = f"{self._mark} ".encode(), f" {self._mark}\n".encode()
        received = bytearray(self._rest)
        deadline = monotonic() + self._limit
        while (stop := received.find(end, max(0, len(received) - _READ_BYTES - len(end)))) < 0:
            left = deadline - monotonic()
            if left <= 0 or not select.select([self._child.stdout], [], [], left)[0]:
                self.close()
                raise EngineError(f"{self.place} did not answer within {self._limit:g} s")
            piece = os.read(self._child.stdout.fileno(), _READ_BYTES)
            if not piece:
                raise self._ended()
            received += piece
        start = received.rfind(begin, 0, stop)
        self._rest = bytes(received[stop + len(end) :])
        return bytes(received[:start]), bytes(received[start + len(begin) : stop])

    def _ended(self) -> EngineError:
        said = " ".join(self._child.wait(10).stderr.split())
        self.close()
        return error_of(said or "psql ended and said nothing", None, self.place)
