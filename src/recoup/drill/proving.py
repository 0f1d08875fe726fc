"""What in a drill proves that the data came back: what could not pass on an empty database. Pure.

A stack that answers *ok* from an empty database is the classic false proof. So a health check counts for nothing here,
a query counts only when it reads a table and an answer of zero or nothing is refused, and a fingerprint only when it
is of rows. A flow step whose author knows better says so in the plan (``reads_data``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from recoup.drill.expect import Scalar
from recoup.drill.flows import FlowSpec
from recoup.drill.model import FlowResult
from recoup.kernel.errors import RefusedError
from recoup.kernel.finding import Verdict

_NO_CODE: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", re.DOTALL)
_READ: Final = re.compile(r"\b(?:from|join)\s+(?:only\s+)?((?:\"[^\"]+\"|[\w.$])+)\s*(\(?)", re.IGNORECASE)
#: ``from`` of these is followed by no table: ``extract(year from placed)``, ``is distinct from``.
_NO_TABLE: Final = re.compile(
    r"\b(?:extract|substring|trim|overlay|position)\s*\([^()]*|\bis\s+(?:not\s+)?distinct\s+from\b", re.IGNORECASE
)
_WITH: Final = re.compile(
    r"(?:\bwith\s+(?:recursive\s+)?|,\s*)(\"[^\"]+\"|\w+)\s*(?:\([^()]*\)\s*)?as\s+(?:(?:not\s+)?materialized\s*)?\(",
    re.IGNORECASE,
)
_NO_NAMES: Final = frozenset({"lateral", "current_date", "current_time", "current_timestamp", "localtime"})
_EMPTY_TEXTS: Final = frozenset({"", "f", "false", "[]", "{}", "null"})
_OF_THE_SERVER: Final = re.compile(r"\"?(?:pg_|information_schema\b)", re.IGNORECASE)
_EXAMPLE: Final = """\
Write one into the plan: under a PostgreSQL service
  checks: [{name: orders of this year, sql: "select count(*) from orders", at_least: 1}]
or as a step of a flow under drill.flows
  - {get: "http://api:3000/api/orders", expect: {value: orders, at_least: 1}}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One thing that proves data. ``name`` is the flow's or the check's, or the service's for its fingerprint."""

    kind: Literal["flow", "check", "fingerprint"]
    name: str
    service: str = ""

    def __str__(self) -> str:
        of = f" of {self.service}" if self.service and self.service != self.name else ""
        return f"{self.kind}{of}: {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A check of the plan: a query, and what its first value must be; or a command to Redis, which has no ``sql``.

    What a command reads cannot be told from its words. That it would not pass without the data is tried in the drill.
    """

    service: str
    name: str
    sql: str | None
    at_least: int | float | None = None
    at_most: int | float | None = None
    equals: Scalar | None = None


def reads_a_table(sql: str) -> bool:
    """Whether a query reads a table of the user's: ``select 1`` and the server's own catalogues are no data.

    Judged by its words. What it makes itself (``with x as``) is looked into, and is no table.
    """
    code = _NO_TABLE.sub(" ", _NO_CODE.sub(" ", sql))
    made = {match[1].lower() for match in _WITH.finditer(code)} | _NO_NAMES
    names = [match[1] for match in _READ.finditer(code) if match[2] != "("]
    return any(not _OF_THE_SERVER.match(name) and name.lower() not in made for name in names)


def refuses_nothing(*, at_least: int | float | None = None, equals: Scalar | None = None) -> bool:
    """Whether an expectation refuses what an empty table answers: zero, false, an empty text, no row."""
    if at_least is not None and at_least > 0:
        return True
    return equals is not None and not _is_nothing(equals)


def _is_nothing(value: Scalar) -> bool:
    """Whether an empty table may answer this; also as the text that a server prints: ``0.00``, ``f``, ``[]``."""
    if not isinstance(value, str):
        return not value
    text = value.strip().lower()
    try:
        return text in _EMPTY_TEXTS or Decimal(text) == 0
    except InvalidOperation:
        return False


def query_proves(sql: str, *, at_least: int | float | None = None, equals: Scalar | None = None) -> bool:
    """Whether a query with this expectation could not pass on an empty database."""
    return reads_a_table(sql) and refuses_nothing(at_least=at_least, equals=equals)


def _command_proves(one: Question) -> bool:
    """A text may be a value: ``GET flag`` is *false* where there are data, and nothing where there are none."""
    if isinstance(one.equals, str) and one.equals:
        return True
    return refuses_nothing(at_least=one.at_least, equals=one.equals)


def planned_proofs(
    questions: Sequence[Question], flows: Sequence[FlowSpec], fingerprints: Mapping[str, int]
) -> tuple[Proof, ...]:
    """Everything of a drill that would prove data. ``fingerprints``: the rows or keys that each one covers."""
    found = [
        Proof(kind="check", name=one.name, service=one.service)
        for one in questions
        if (
            _command_proves(one) if one.sql is None else query_proves(one.sql, at_least=one.at_least, equals=one.equals)
        )
    ]
    found += [Proof(kind="flow", name=one.name) for one in flows if any(step.reads_data for step in one.steps)]
    found += [Proof(kind="fingerprint", name=name, service=name) for name, rows in fingerprints.items() if rows > 0]
    return tuple(found)


def require_proof(planned: Sequence[Proof]) -> None:
    """Raise ``RefusedError`` when nothing would prove data: that is no drill."""
    if not planned:
        raise RefusedError(
            "nothing in this drill would prove that the data came back: every check could pass on an empty database",
            hint=_EXAMPLE,
        )


def shown_proofs(planned: Sequence[Proof], flows: Sequence[FlowResult], passed: Collection[Proof]) -> tuple[str, ...]:
    """Which of the planned proofs held, for the record. Flows speak for themselves; ``passed`` are the others."""
    good = {flow.name for flow in flows if flow.verdict is Verdict.OK}
    return tuple(str(one) for one in planned if (one.name in good if one.kind == "flow" else one in passed))
