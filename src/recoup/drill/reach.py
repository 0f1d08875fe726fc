"""How a flow reaches the stack that was brought back, and what it gets: the one thing a sandbox has to provide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

#: The most of an answer that is looked at.
LIMIT_BYTES: Final = 4 << 20
#: The most rows of a query that are looked at.
LIMIT_ROWS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The answer to a request. ``headers`` in their order, with the names as sent; a redirect is an answer."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    whole: bool = True  #: false when the body was cut at the limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The answer to a query, as text; None is NULL."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a command ended. ``output`` is its stdout."""

    exit_status: int
    output: bytes = b""
    whole: bool = True  #: false when the output was cut at the limit


class Reach(Protocol):
    """The way into a sandbox.

    Each method raises ``UncheckedError`` when it could not be tried at all (the address is not of the sandbox, a
    program is missing; with ``may_retry`` when that may change while the stack starts), and ``EngineError`` when what
    was asked refused, failed or did not answer in time. No message holds a secret. Answers are bounded by
    ``LIMIT_BYTES`` and ``LIMIT_ROWS``, time by ``timeout_seconds``, whatever the other side does.
    """

    def http(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes | None, timeout_seconds: float
    ) -> Response:
        """Send one request. Redirects are not followed; nothing outside of the sandbox is ever asked."""
        ...

    def sql(self, service: str | None, database: str | None, query: str, *, timeout_seconds: float) -> Rows:
        """Ask one query of a PostgreSQL service; None is the only one there is, and its own database."""
        ...

    def command(self, service: str, argv: Sequence[str], *, timeout_seconds: float) -> Ended:
        """Run a program where ``service`` runs, without a shell."""
        ...
