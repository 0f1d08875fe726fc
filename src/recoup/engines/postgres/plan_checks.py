"""The plan's own questions, asked of a PostgreSQL: the grade *works* of a copy, and a look at production.

A question that would have the right answer on an empty database as well (``SELECT count(*) FROM broken_orders`` is 0,
``SELECT 1`` is 1) proves nothing of a copy that may have lost everything. So each one that holds is asked again with
every table emptied, in a transaction that is rolled back: when it holds there too, it is *unknown*. That locks every
table, so it is never done in production (``on_nothing=False``): there, a question is asked and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recoup.engines.postgres.emptied import emptied
from recoup.engines.postgres.plan_answers import Expectation, judge
from recoup.engines.postgres.restored_server import RestoredServer
from recoup.engines.postgres.session import Row, Session, SqlError
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict, subject_of

CHECK: Final = "the plan's check holds"

_ALLOWED_SECONDS: Final = 300.0
_HOW: Final = (
    "Write one under the service in the plan, a question whose answer only the real data give: "
    'checks: [{name: orders are there, sql: "SELECT count(*) FROM orders", at_least: 1000}].'
)
_MAKE_IT_PROVE: Final = (
    "Let it ask for something that only the real data have: SELECT count(*) FROM orders, at_least: 1000. For a rule "
    "that must have no exceptions, let it answer NULL when there is nothing to look at: "
    "SELECT CASE WHEN count(*) > 0 THEN count(*) FILTER (WHERE total < 0) END FROM orders, equals: 0."
)
_ERROR: Final = (
    "Is it right? A query that worked before the loss lacks now what the message names; one that never did has to be "
    "corrected in the plan."
)
_UNKNOWN_NAME: Final = (
    "Write the schema before the name (app.orders): the check is asked as the superuser, with the search_path of the "
    "database and not of a role. When production has no such thing either, correct the check in the plan."
)
_SLOW: Final = "Make the query cheaper (an index, a smaller range); it is asked in every verification."


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCheck(Expectation):
    """One question, and what the first value of its first row must be. ``database`` None: the default one."""

    sql: str
    name: str | None = None
    database: str | None = None

    @property
    def subject(self) -> str:
        """What reports call it."""
        return subject_of(self.name, self.sql)


def check_plan(
    server: RestoredServer,
    checks: Sequence[PlanCheck],
    *,
    default_database: str | None = None,
    allowed_seconds: float = _ALLOWED_SECONDS,
    on_nothing: bool = True,
) -> list[Finding]:
    """Ask every check, read-only, each for ``allowed_seconds`` at most; one finding each, in their order.

    Without ``default_database``, a check that names none is asked in the only database beside ``postgres``. A wrong
    answer, no row and NULL have *failed*; an error, a time-out and a check that proves nothing are *unknown*. No checks
    at all is *unknown*. What is in the databases stays as it is. Only with ``on_nothing`` it is tried whether a check
    proves anything.
    """
    if not checks:
        detail = "the plan has no checks for it, so nothing was asked"
        return [Finding(check=CHECK, subject="checks", verdict=Verdict.UNKNOWN, detail=detail, hint=_HOW)]
    there = server.databases()
    findings: dict[int, Finding] = {}
    by_database: dict[str, dict[int, PlanCheck]] = {}
    for number, check in enumerate(checks):
        database = check.database or default_database or _only(there)
        if database is None:
            said = f"it does not say where to ask, and there are several databases: {', '.join(there)}"
            findings[number] = _finding(check, Verdict.UNKNOWN, said, "Add database: NAME to the check in the plan.")
        elif database not in there:
            said = f"there is no database {database!r}; there is {', '.join(there) or 'none'}"
            hint = "Correct the database of the check in the plan; if the name is right, it did not come back."
            findings[number] = _finding(check, Verdict.FAILED, said, hint)
        else:
            by_database.setdefault(database, {})[number] = check
    for database, asked in by_database.items():
        found = {number: _as_it_is(server, database, check, allowed_seconds) for number, check in asked.items()}
        findings |= _that_prove(server, database, asked, found, allowed_seconds) if on_nothing else found
    return [findings[number] for number in range(len(checks))]


def _only(there: Sequence[str]) -> str | None:
    own = [name for name in there if name not in ("postgres", "template1")]
    if len(own) == 1:
        return own[0]
    return "postgres" if not own and "postgres" in there else None


def _that_prove(
    server: RestoredServer,
    database: str,
    checks: Mapping[int, PlanCheck],
    found: dict[int, Finding],
    allowed_seconds: float,
) -> dict[int, Finding]:
    """The findings, without the word of those checks that hold on an empty database as well."""
    holding = {number: _Holding(checks[number], one) for number, one in found.items() if one.verdict is Verdict.OK}
    if not holding:
        return found
    try:
        with server.session(database) as session:
            return found | _on_nothing(session, holding, allowed_seconds)
    except EngineError as failure:
        return found | {number: one.not_tried(failure.message) for number, one in holding.items()}


def _as_it_is(server: RestoredServer, database: str, check: PlanCheck, allowed_seconds: float) -> Finding:
    try:
        with server.session(database) as session:
            verdict, said = ask_check(session, check, allowed_seconds)
    except EngineError as refused:
        state = refused.sqlstate if isinstance(refused, SqlError) else ""
        slow = state == "57014"
        said = f"no answer within {allowed_seconds:g} s" if slow else f"it could not be asked: {refused.message}"
        unknown_name = state in ("42P01", "42883")  # undefined_table, undefined_function
        hint = _SLOW if slow else _UNKNOWN_NAME if unknown_name else _ERROR
        return _finding(check, Verdict.UNKNOWN, said, hint)
    return _finding(check, verdict, said, None)


def ask_check(session: Session, check: PlanCheck, allowed_seconds: float) -> tuple[Verdict, str]:
    """Ask one check in a session of its own, read-only: whether the answer is the right one, and what it was.

    Raise ``SqlError`` when the server refuses it or it takes longer, ``EngineError`` when the connection is lost.
    """
    session.execute("BEGIN READ ONLY")
    return judge(check, _ask(session, check, allowed_seconds))


def _ask(session: Session, check: PlanCheck, allowed_seconds: float) -> list[Row]:
    """The first row of the query. As a subquery, so that it is one statement, and no more than a row is fetched."""
    session.execute(f"SET LOCAL statement_timeout = {max(1, round(allowed_seconds * 1000))}")
    # Names are found as the application finds them, by the settings of its database, and not by ours.
    session.execute("SET LOCAL search_path TO DEFAULT")
    return session.query(f"SELECT * FROM (\n{check.sql.strip().rstrip(';')}\n) AS recoup_check LIMIT 1")


@dataclass(frozen=True, slots=True)
class _Holding:
    """A check that holds in the copy, and the finding that says so."""

    check: PlanCheck
    finding: Finding

    def not_tried(self, why: str) -> Finding:
        said = f"{self.finding.detail}; whether it would hold on an empty database too could not be tried: {why}"
        return _finding(self.check, Verdict.UNKNOWN, said, None)


def _on_nothing(session: Session, holding: Mapping[int, _Holding], allowed_seconds: float) -> dict[int, Finding]:
    """Ask the checks that hold again, with every table of the database emptied."""
    try:
        with emptied(session):
            return {number: _proving(session, one, allowed_seconds) for number, one in holding.items()}
    except SqlError as refused:
        why = f"the tables could not be emptied: {refused.message}"
        return {number: one.not_tried(why) for number, one in holding.items()}


def _proving(session: Session, holds: _Holding, allowed_seconds: float) -> Finding:
    session.execute("SAVEPOINT recoup_check")
    try:
        verdict, said = judge(holds.check, _ask(session, holds.check, allowed_seconds))
    except EngineError as refused:
        if not isinstance(refused, SqlError) or refused.sqlstate.startswith(_NOT_AN_ANSWER):
            return holds.not_tried(refused.message)
        return holds.finding  # a query that fails without data does not hold without them
    finally:
        session.execute("ROLLBACK TO SAVEPOINT recoup_check")
    if verdict is not Verdict.OK:
        return holds.finding
    detail = f"{holds.finding.detail}; on an empty database it holds too ({said}), so it proves nothing"
    return _finding(holds.check, Verdict.UNKNOWN, detail, _MAKE_IT_PROVE)


#: Time-outs, lack of memory or disk, locks: nothing that the question itself answered.
_NOT_AN_ANSWER: Final = ("57", "53", "55P03", "40", "58", "XX")


def _finding(check: PlanCheck, verdict: Verdict, detail: str, hint: str | None) -> Finding:
    return Finding(check=CHECK, subject=check.subject, verdict=verdict, detail=detail, hint=hint)
