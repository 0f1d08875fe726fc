"""Whether an answer is what a flow expects. Pure.

No text here repeats what was answered, but for numbers and truth values: answers hold people's data and tokens, and a
report goes to many readers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from recoup.drill.reach import Ended, Response, Rows

Scalar = bool | int | float | str
Fill = Callable[[str], str]

_PART: Final = re.compile(r"\.?([^.\[\]]+)|\[(\d{1,9})\]")
_SHOWN: Final = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """What must come back. None: not asked. ``json`` and ``contains`` may hold references."""

    status: int = 200
    exit_status: int = 0
    json: Any = None
    contains: str | None = None
    value: str | None = None
    at_least: int | float | None = None
    at_most: int | float | None = None
    equals: Scalar | None = None

    @property
    def compares(self) -> bool:
        """Whether a single value is asked about."""
        return any(one is not None for one in (self.at_least, self.at_most, self.equals))


class Unmet(Exception):  # noqa: N818 - no error: an answer
    """The answer is not what was expected. The text says in what, without repeating it."""


class Missing:
    """What a path does not lead to."""


MISSING: Final = Missing()


def check_response(answer: Response, expect: Expect, fill: Fill) -> Any:
    """The parsed JSON of the answer, ``MISSING`` when it is none. Raise ``Unmet``."""
    if answer.status != expect.status:
        raise Unmet(f"status {answer.status}, {expect.status} is expected")
    return _check_body(answer.body, expect, fill, whole=answer.whole)


def check_ended(ended: Ended, expect: Expect, fill: Fill) -> Any:
    """As ``check_response``, for a command."""
    if ended.exit_status != expect.exit_status:
        raise Unmet(f"it ended with status {ended.exit_status}, {expect.exit_status} is expected")
    return _check_body(ended.output.strip(), expect, fill, whole=ended.whole)


def check_rows(answer: Rows, expect: Expect, fill: Fill) -> None:
    """Raise ``Unmet`` when the rows are not what is expected."""
    if expect.contains is not None:
        wanted = fill(expect.contains)
        if not any(cell is not None and wanted in cell for row in answer.rows for cell in row):
            raise Unmet(f"no row holds {shown(expect.contains)}")
    if expect.compares:
        if not answer.rows or not answer.rows[0]:
            raise Unmet("no row came back")
        compare(answer.rows[0][0], expect)


def _check_body(body: bytes, expect: Expect, fill: Fill, *, whole: bool) -> Any:
    cut = "" if whole else ", in the part that was read of a very long answer"
    if expect.contains is not None and fill(expect.contains).encode() not in body:
        raise Unmet(f"it does not contain {shown(expect.contains)}{cut}")
    parsed = parse_json(body) if whole else MISSING
    if expect.json is None and expect.value is None and not expect.compares:
        return parsed
    if parsed is MISSING:
        raise Unmet("it is not JSON" if whole else "it is too long to be read as JSON")
    if expect.json is not None:
        _match(expect.json, parsed, "", fill)
    if expect.value is not None or expect.compares:
        value = parsed if expect.value is None else find(parsed, expect.value)
        if value is MISSING:
            raise Unmet(f"there is no {expect.value}")
        compare(len(value) if isinstance(value, list) else value, expect)
    return parsed


def parse_json(body: bytes) -> Any:
    """The JSON value of ``body``; ``MISSING`` when it is none, or one that nobody means (nested without end)."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return MISSING


def find(value: Any, path: str) -> Any:
    """What ``path`` (``a.b[0].c``, also with ``$.`` before it) leads to; ``MISSING`` when nothing."""
    if isinstance(value, dict) and path in value:
        return value[path]
    rest = path.removeprefix("$")
    at = 0
    while at < len(rest):
        match = _PART.match(rest, at)
        if match is None:
            return MISSING
        at, name = match.end(), match[1] if match[2] is None else match[2]
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdecimal() and len(name) < 10 and int(name) < len(value):
            value = value[int(name)]
        else:
            return MISSING
    return value


def _match(wanted: Any, given: Any, place: str, fill: Fill) -> None:
    """Every key of ``wanted`` is in ``given`` with that value; lists are equal entry by entry."""
    if isinstance(wanted, Mapping):
        for name, one in wanted.items():
            found = find(given, name) if isinstance(given, dict) else MISSING
            where = f"{place}.{name}" if place else str(name)
            if found is MISSING:
                raise Unmet(f"there is no {where}")
            _match(one, found, where, fill)
        return
    where = place or "the answer"
    if isinstance(wanted, list):
        if not isinstance(given, list) or len(given) != len(wanted):
            raise Unmet(f"{where} is {kind_of(given)}, and should be a list of {len(wanted)}")
        for number, (one, found) in enumerate(zip(wanted, given, strict=True)):
            _match(one, found, f"{place}[{number}]", fill)
        return
    meant = fill(wanted) if isinstance(wanted, str) else wanted
    if not _same(meant, given):
        raise Unmet(f"{where} is {kind_of(given)}, and should be {shown(wanted)}")


def _same(wanted: Any, given: Any) -> bool:
    if isinstance(wanted, bool) or isinstance(given, bool):
        return wanted is given
    return bool(wanted == given)


def compare(value: Any, expect: Expect) -> None:
    """Raise ``Unmet`` when the value is not within what is expected. A text is taken as the number it spells."""
    if expect.equals is not None and not _equals(expect.equals, value):
        number = _number(value)
        raise Unmet(
            f"the value is {kind_of(value if number is None else number)}, and should be {shown(expect.equals)}"
        )
    if expect.at_least is None and expect.at_most is None:
        return
    number = _number(value)
    if number is None:
        raise Unmet(f"the value is {kind_of(value)}, and a number is expected")
    if expect.at_least is not None and number < Decimal(str(expect.at_least)):
        raise Unmet(f"the value is {number}, at least {expect.at_least} is expected")
    if expect.at_most is not None and number > Decimal(str(expect.at_most)):
        raise Unmet(f"the value is {number}, at most {expect.at_most} is expected")


def _equals(wanted: Scalar, value: Any) -> bool:
    if isinstance(wanted, bool):
        if isinstance(value, str):
            return value.lower() in (("t", "true") if wanted else ("f", "false"))
        return value is wanted
    if isinstance(wanted, int | float):
        number = _number(value)
        return number is not None and number == Decimal(str(wanted))
    return isinstance(value, str) and value == wanted


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    try:
        number = Decimal(value if isinstance(value, int) else str(value).strip()[:_SHOWN])
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def kind_of(value: Any) -> str:
    """A value in words that give nothing away but numbers and truth values."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float | Decimal):
        return str(value)[:_SHOWN]
    if isinstance(value, str):
        return f"another text, of {len(value)} characters"
    return f"a list of {len(value)}" if isinstance(value, list) else "an object"


def shown(written: Any) -> str:
    """What the plan expects, as it stands there, references unfilled."""
    text = json.dumps(written, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
