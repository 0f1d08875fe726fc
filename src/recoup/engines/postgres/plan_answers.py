"""Is the answer to a question of the plan the right one? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final

from recoup.engines.postgres.session import Row
from recoup.kernel.finding import Verdict

_LONGEST_ANSWER: Final = 80
_TRUTHS: Final = {"t": True, "true": True, "f": False, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a value must be. What is None does not matter; when all of them are, nothing is expected."""

    at_least: float | None = None
    at_most: float | None = None
    equals: bool | float | str | None = None

    def __str__(self) -> str:
        said = (("at least", self.at_least), ("at most", self.at_most), ("exactly", self.equals))
        return " and ".join(f"{words} {_show(value)}" for words, value in said if value is not None)


def judge(expected: Expectation, rows: Sequence[Row]) -> tuple[Verdict, str]:
    """Compare the first value of the first row, and say it in words. Values are text, as the server prints them."""
    asked = f"{expected} was asked"
    if not str(expected):
        return Verdict.UNKNOWN, "nothing is expected of the answer"
    if not rows:
        return Verdict.FAILED, f"the answer has no row, and {asked}"
    if not rows[0]:
        return Verdict.UNKNOWN, f"the answer has no column, and {asked}"
    value = rows[0][0]
    if value is None:
        return Verdict.FAILED, f"the answer is NULL, and {asked}"
    said = f"the answer is {_shorten(value)}, and {asked}"
    number = _number(value)
    bounded = expected.at_least is not None or expected.at_most is not None
    if bounded and number is None:
        return Verdict.UNKNOWN, f"{said}: it is not a number"
    if number is not None and number.is_nan():
        number = None  # neither more nor less than anything
        if bounded:
            return Verdict.FAILED, said
    return (Verdict.OK if _holds(expected, value, number) else Verdict.FAILED), said


def _holds(expected: Expectation, value: str, number: Decimal | None) -> bool:
    if number is not None:
        if expected.at_least is not None and number < _exactly(expected.at_least):
            return False
        if expected.at_most is not None and number > _exactly(expected.at_most):
            return False
    match expected.equals:
        case None:
            return True
        case bool() as truth:
            return _TRUTHS.get(value) is truth
        case str() as text:
            return value == text
        case wanted:
            return number is not None and number == _exactly(wanted)


def _number(value: str) -> Decimal | None:
    try:
        return Decimal(value)
    except InvalidOperation:
        return None


def _exactly(number: float) -> Decimal:
    return Decimal(str(number))


def _show(value: float | str | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)


def _shorten(value: str) -> str:
    text = " ".join(value.split())
    return (text if len(text) <= _LONGEST_ANSWER else f"{text[: _LONGEST_ANSWER - 1]}…") or "an empty text"
