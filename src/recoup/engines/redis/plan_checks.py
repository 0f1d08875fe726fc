"""The plan's own checks of a Redis: one read-only command each, and what its answer must be.

A command is run only when the server itself says that it only reads. An answer that an empty Redis gives as well
proves nothing, so each check that holds is asked of an empty one too.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from recoup.engines.redis.connection import Connection, RefusedByServerError, Reply
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Finding, Verdict, subject_of

CHECK = "the plan's check holds"

_ANSWER_SECONDS = 120.0
_WHOLE = re.compile(r"-?[0-9]{1,400}")
_NEVER = frozenset(("write", "admin", "blocking", "pubsub"))
_READ_ONLY_HINT = (
    "Use a command that only reads (GET, EXISTS, DBSIZE, LLEN, HGET …); a function by FCALL_RO, a script by EVAL_RO."
)
_NO_CHECKS_HINT = (
    "Add what must always hold to the service in the plan, for example checks: [{redis: DBSIZE, at_least: 1}]."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisCheck:
    """One command, its database, and what is expected of its answer. At least one expectation is given."""

    command: str
    name: str | None = None
    database: int = 0
    at_least: float | None = None
    at_most: float | None = None
    equals: bool | float | str | None = None

    @property
    def subject(self) -> str:
        """What reports call it."""
        return subject_of(self.name, self.command)


class AskedRedis(Protocol):
    """A Redis that can be asked."""

    def connect(self, database: int = 0) -> Connection:
        """Connect to one of its databases. Raise ``EngineError``."""
        ...


def check_plan(
    server: AskedRedis,
    checks: Sequence[RedisCheck],
    empty: Callable[[], AbstractContextManager[AskedRedis]] | None,
) -> list[Finding]:
    """Make every check. ``empty`` starts a Redis of the same kind that holds nothing; without it nothing else is asked.

    No checks, a command that is no reading, and a check that holds in an empty Redis too are *unknown*.
    """
    if not checks:
        nothing = "the plan has no checks for this service"
        return [Finding(check=CHECK, subject="redis", verdict=Verdict.UNKNOWN, detail=nothing, hint=_NO_CHECKS_HINT)]
    found = [_ask(server, check) for check in checks]
    holding = [number for number, one in enumerate(found) if one.verdict is Verdict.OK]
    if empty is None or not holding:
        return found
    try:
        with empty() as blank:
            for number in holding:
                found[number] = _that_proves(blank, checks[number], found[number])
    except EngineError as failure:
        why = f"whether it would hold in an empty Redis too could not be tried: {failure.message}"
        for number in holding:
            found[number] = _finding(checks[number], Verdict.UNKNOWN, f"{found[number].detail}; {why}", failure.hint)
    return found


def _that_proves(blank: AskedRedis, check: RedisCheck, holds: Finding) -> Finding:
    if _ask(blank, check).verdict is not Verdict.OK:
        return holds
    return _finding(
        check,
        Verdict.UNKNOWN,
        f"{holds.detail}; it holds in an empty Redis as well, and so proves nothing",
        "Ask for what only the data can answer: a key that is always there, a number above zero.",
    )


def _ask(server: AskedRedis, check: RedisCheck) -> Finding:
    try:
        words = shlex.split(check.command)
    except ValueError as wrong:
        return _finding(check, Verdict.UNKNOWN, f"the command cannot be split: {wrong}".lower())
    if not words:
        return _finding(check, Verdict.UNKNOWN, "the check names no command")
    try:
        with server.connect(check.database) as connection:
            connection.limit_silence(_ANSWER_SECONDS)
            refusal = _why_not(connection, words)
            if refusal is not None:
                return _finding(check, Verdict.UNKNOWN, refusal, _READ_ONLY_HINT)
            verdict, detail = judge(connection.command(*words), check)
    except RefusedByServerError as refused:
        # A key of another type is another value than was promised; all else is a check that could not be made.
        verdict = Verdict.FAILED if refused.code == "WRONGTYPE" else Verdict.UNKNOWN
        said = refused.message.partition(" refused: ")[2] or refused.message
        return _finding(check, verdict, said)
    except EngineError as failure:
        return _finding(check, Verdict.UNKNOWN, failure.message, failure.hint)
    return _finding(check, verdict, detail)


def _why_not(connection: Connection, words: Sequence[str]) -> str | None:
    """Why the command may not be run, or None: the server's own table of commands decides (COMMAND INFO)."""
    flags = _flags(connection, words[0].lower())
    if flags is not None and "readonly" not in flags and len(words) > 1:
        # From Redis 7 on, commands such as OBJECT have an entry for each of their subcommands.
        flags = _flags(connection, f"{words[0]}|{words[1]}".lower()) or flags
    if flags is None:
        return f"{words[0].upper()} is no command of this Redis"
    waits = words[0].upper() == "XREAD" and "BLOCK" in (word.upper() for word in words)  # Redis 6 has no flag for it
    if "readonly" in flags and not flags & _NEVER and not waits:
        return None
    return f"{words[0].upper()} does more than read, so it was not run"


def _flags(connection: Connection, name: str) -> set[str] | None:
    answer = connection.command("COMMAND", "INFO", name)
    entry = answer[0] if isinstance(answer, list) and answer else None
    if not isinstance(entry, list) or len(entry) < 3 or not isinstance(entry[2], list):
        return None
    return {one.decode() if isinstance(one, bytes) else str(one) for one in entry[2]}


def judge(reply: Reply, check: RedisCheck) -> tuple[Verdict, str]:
    """Given an answer, return whether it is what the check expects, and what it was. Pure.

    Numbers compare as numbers, also when they come as text; of a list, its length. Of a text that is no number only
    the length is told: it may be anybody's.
    """
    if reply is None:
        return Verdict.FAILED, "there is no such key or field"
    number = _as_number(reply)
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply if isinstance(reply, str) else None
    what = f"a list of {len(reply)}" if isinstance(reply, list) else _shown(number, text)
    faults = []
    if check.at_least is not None and (number is None or number < check.at_least):
        faults.append(f"at least {_written(check.at_least)} was expected")
    if check.at_most is not None and (number is None or number > check.at_most):
        faults.append(f"at most {_written(check.at_most)} was expected")
    if check.equals is not None and not _equal(number, text, check.equals):
        faults.append(f"{check.equals!r} was expected" if not isinstance(check.equals, str) else "another was expected")
    if faults:
        return Verdict.FAILED, f"{what}; {' and '.join(faults)}"
    return Verdict.OK, what


def _as_number(reply: Reply) -> float | None:
    if isinstance(reply, list):
        return len(reply)
    if isinstance(reply, int):
        return reply
    if not isinstance(reply, bytes | str):
        return None
    text = reply.decode(errors="replace") if isinstance(reply, bytes) else reply
    try:
        if _WHOLE.fullmatch(text):
            return int(text)  # as a float it would be rounded beyond 2^53
        number = float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number  # "nan" is neither less nor more than anything


def _equal(number: float | None, text: str | None, expected: bool | float | str) -> bool:
    if isinstance(expected, str):
        return text == expected or (text is None and number is not None and _written(number) == expected)
    return number is not None and number == expected


def _written(number: float) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"


def _shown(number: float | None, text: str | None) -> str:
    if number is not None:
        return _written(number) if text is None else text[:40]
    return f"a text of {len(text or '')} characters"


def _finding(check: RedisCheck, verdict: Verdict, detail: str, hint: str | None = None) -> Finding:
    return Finding(check=CHECK, subject=check.subject, verdict=verdict, detail=detail, hint=hint)
