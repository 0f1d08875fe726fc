"""Asking a restored server whether its data are sound, within a limited time, and reading what a refusal means.

What a statement is refused with says which of three it was: the data are bad, something is missing here that the check
needs, or there was no time. Only the first is *failed*. Codes: PostgreSQL documentation, appendix A.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from recoup.engines.postgres.session import Row, Session, SqlError
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Verdict
from recoup.kernel.process import Command


class CheckedServer(Protocol):
    """What the checks need of a restored server; ``SandboxServer`` is one."""

    @property
    def major(self) -> int:
        """Its major version."""
        ...

    @property
    def folder(self) -> Path:
        """Its data folder, on this machine."""
        ...

    @property
    def programs(self) -> Path:
        """The folder of its programs."""
        ...

    def session(self, database: str = "postgres") -> Session:
        """A session as superuser."""
        ...

    def databases(self) -> list[str]:
        """The databases that allow connections."""
        ...

    def command(self, argv: Sequence[str], *, timeout_seconds: float | None = None) -> Command:
        """How to run one of its programs beside it."""
        ...

    def stop(self) -> None:
        """Shut it down in order."""
        ...

    def start(self, seconds: float) -> None:
        """Start it again, and wait until it answers."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A question was not answered. ``verdict`` is what that says about the data: failed or unknown."""

    verdict: Verdict
    detail: str
    hint: str | None = None
    out_of_time: bool = False


OUT_OF_TIME: Final = Refusal(verdict=Verdict.UNKNOWN, detail="the time allowed for it ran out", out_of_time=True)

_LIBRARY = re.compile(
    r'could not (?:access|load library|load) (?:file )?"(?P<file>[^"]+)"'
    r'|could not find function "[^"]+" in file "(?P<other>[^"]+)"'
    r'|incompatible library "(?P<third>[^"]+)"'
)
#: This machine lacks the rules by which text was ordered (src/backend/utils/adt/pg_locale*.c).
_RULES: Final = re.compile(
    r"collation .* has no actual version|could not create locale|could not open collator|could not load locale|"
    r"database locale is incompatible|is not supported in this build|collation provider|locale .* is not available"
)
_PLACE: Final = re.compile(r" \((SQLSTATE \w{5}), .*\)$", re.DOTALL)  # as session.error_of writes it
#: SQLSTATE classes and codes that say something of this place or this moment, and nothing of the data: insufficient
#: resources, intervention, lock not available, transaction ended, no right, not supported, too deep, device error.
_CIRCUMSTANCES: Final = ("25", "53", "57", "55P03", "40", "42501", "0A", "54", "58030")
_SETTINGS: Final = {
    "lc_messages": "'C'",
    "constraint_exclusion": "off",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "'read committed'",
    "work_mem": "'64MB'",
}
_AS_EVER: Final = {"search_path": "pg_catalog"}  #: what sessions have that is no default
#: What a damaged index would answer is not asked.
WITHOUT_INDEXES: Final = {
    "enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off",
}  # fmt: skip
_RECONNECT_SECONDS: Final = 60.0
_LEAST_MILLISECONDS: Final = 5000


def judge(sqlstate: str, message: str, *, opinion: bool = False) -> Refusal:
    """Given what the server refused a statement with, return what that says about the data.

    With ``opinion``, the statement ran somebody's own code (the expression of a constraint): an error of its own says
    that it could not be evaluated, and not that the data are bad.
    """
    if sqlstate == "57014":
        return OUT_OF_TIME
    message = _PLACE.sub(r" (\1)", message)
    if missing := _LIBRARY.search(message):
        library = missing["file"] or missing["other"] or missing["third"]
        return Refusal(
            verdict=Verdict.UNKNOWN,
            detail=f"the library {library} is not usable here: {message}",
            hint=f"Install the extension that brings {library} where the sandbox runs, or use the service's own image.",
        )
    if _RULES.search(message):
        return Refusal(
            verdict=Verdict.UNKNOWN,
            detail=f"text cannot be ordered here as it was there: {message}",
            hint="Install the locale where the sandbox runs, or use the service's own image.",
        )
    damage = sqlstate.startswith("XX") or sqlstate == "58P01"
    circumstance = sqlstate.startswith(_CIRCUMSTANCES)
    if damage or not (circumstance or opinion):
        return Refusal(verdict=Verdict.FAILED, detail=message, hint=DAMAGED_HINT)
    return Refusal(verdict=Verdict.UNKNOWN, detail=message)


DAMAGED_HINT: Final = (
    "Compare with an older copy: `recoup verify` on it says whether it has the same damage. If production has it too, "
    "restore the object from the newest copy that is sound."
)


class Budget:
    """How much time is left for all checks together."""

    def __init__(self, allowed_seconds: float) -> None:
        self._end = clock.monotonic() + allowed_seconds

    def left(self) -> float:
        """Seconds; never negative."""
        return max(0.0, self._end - clock.monotonic())


class Examiner:
    """One database under examination. A lost connection is made again; a statement is tried twice, never more."""

    def __init__(self, server: CheckedServer, database: str, budget: Budget, *, in_use: bool = False) -> None:
        """``in_use``: others work on the server, so that objects go or change while they are examined."""
        self.server = server
        self.database = database
        self.budget = budget
        self.extensions: dict[str, str] = {}  #: library -> the extension that brings it
        self._in_use = in_use
        self._session: Session | None = None
        self._settings: dict[str, str] = {}
        self._gone: str | None = None

    def named(self, thing: object) -> str:
        """An object of this database, for people."""
        return f"{self.database}: {thing}"

    def ask(self, sql: str, *, opinion: bool = False, patience: float = 1.0) -> list[Row] | Refusal:
        """The rows of one query, or why there are none. ``patience`` is the part of the time left it may take."""
        for attempt in (1, 2):
            left = self.budget.left()
            if left <= 0:
                return OUT_OF_TIME
            if self._gone is not None:
                return Refusal(verdict=Verdict.UNKNOWN, detail=self._gone)
            try:
                session = self._connected()
                session.execute(f"SET statement_timeout = {max(1, round(left * patience * 1000))}")
                return session.query(sql)
            except SqlError as refused:
                return self._with_extension(judge(refused.sqlstate, refused.message, opinion=opinion))
            except EngineError as lost:
                self.close()
                if attempt == 2:
                    return Refusal(
                        verdict=Verdict.UNKNOWN if opinion else Verdict.FAILED,
                        detail=f"the server's process ended while it read this, twice: {lost.message}",
                        hint=DAMAGED_HINT,
                    )
        raise AssertionError("unreachable: the second attempt returns")

    def facts(self, sql: str) -> list[Row]:
        """The rows of a query on which a whole check rests. Raise ``CannotAskError`` when there are none to be had."""
        answer = self.ask(sql)
        if isinstance(answer, Refusal):
            raise CannotAskError(answer)
        return answer

    def weighed(self, refusal: Refusal, listing: str, rows: Sequence[Row]) -> Refusal:
        """A refusal about what ``rows`` of ``listing`` named, for what it says now.

        In a server in use something may be gone before its turn comes, or be another: that it cannot be opened then is
        no damage. It is listed once more, the same way, so that a damaged catalogue gives the same rows again.
        """
        if not self._in_use or refusal.verdict is not Verdict.FAILED:
            return refusal
        now = self.ask(listing)
        if isinstance(now, Refusal) or set(rows) <= set(now):
            return refusal
        detail = f"it was dropped or changed while this was looked at: {refusal.detail}"
        return Refusal(verdict=Verdict.UNKNOWN, detail=detail)

    def run(self, sql: str) -> Refusal | None:
        """Run a statement that returns no rows; also when the time is over, as it may tidy up."""
        try:
            session = self._connected()
            session.execute(f"SET statement_timeout = {max(_LEAST_MILLISECONDS, round(self.budget.left() * 1000))}")
            session.execute(sql)
        except SqlError as refused:
            return self._with_extension(judge(refused.sqlstate, refused.message))
        except EngineError as lost:
            self.close()
            return Refusal(verdict=Verdict.UNKNOWN, detail=lost.message)
        return None

    def rollback(self) -> None:
        """End a transaction, whatever state it is in."""
        if self._session is not None:
            try:
                self._session.execute("ROLLBACK")
            except EngineError:
                self.close()

    @contextlib.contextmanager
    def settings(self, values: Mapping[str, str]) -> Iterator[None]:
        """With these settings in every session."""
        self._settings |= values
        for name, value in values.items():
            self.run(f"SET {name} = {value}")
        try:
            yield
        finally:
            for name in values:
                del self._settings[name]
                self.run(f"SET {name} = {_AS_EVER.get(name, 'DEFAULT')}")

    def close(self) -> None:
        """End the connection."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _connected(self) -> Session:
        if self._session is None:
            self._session = self._connect()
        return self._session

    def _connect(self) -> Session:
        """After a crash the server needs a moment to recover; when it does not come back, nothing more is asked."""
        deadline = clock.monotonic() + min(_RECONNECT_SECONDS, self.budget.left())
        while True:
            try:
                session = self.server.session(self.database)
                for name, value in {**_SETTINGS, **self._settings}.items():
                    session.execute(f"SET {name} = {value}")
            except EngineError as failure:
                if clock.monotonic() > deadline or not failure.may_retry:
                    self._gone = f"the server does not answer any more: {failure.message}"
                    raise
                clock.pause(0.1)
            else:
                return session

    def _with_extension(self, refusal: Refusal) -> Refusal:
        for library, extension in self.extensions.items():
            if refusal.verdict is Verdict.UNKNOWN and f'"{library}"' in refusal.detail:
                return Refusal(
                    verdict=refusal.verdict,
                    detail=f"the extension {extension} is missing here: {refusal.detail}",
                    hint=f"Install the extension {extension} where the sandbox runs, or use the service's own image.",
                )
        return refusal

    def __enter__(self) -> Examiner:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class CannotAskError(UncheckedError):
    """A check could not be made at all; ``refusal`` says why and what that means."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail, hint=refusal.hint)
        self.refusal = refusal
