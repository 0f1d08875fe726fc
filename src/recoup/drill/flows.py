"""Runs the plan's flows against a stack that was brought back: what *recovered* means to a user.

A step that was tried and came out wrong is *failed*, also when the answer did not come in time: a user would wait in
vain. A step that could not be tried is *unknown*, with the reason. After a step that is not ok, the ones behind it are
unknown: they build on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final
from urllib.parse import quote, urlsplit

from recoup.drill.expect import MISSING, Expect, Unmet, check_ended, check_response, check_rows, find
from recoup.drill.model import ActKind, FlowResult, FlowStepResult
from recoup.drill.reach import Reach, Response, Rows
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.finding import Verdict

#: Given a text of the plan and a way to look names up, the text with its references filled in. Raises ``KeyError``
#: with the name of a variable that has no value, ``ValueError`` for a text that is not well formed.
Expand = Callable[[str, Callable[[str], str | None]], str]
Lookup = Callable[[str], str | None]

_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 3.0
_LONGEST_VALUE: Final = 16 << 10
_MOST_COOKIES: Final = 50
_SHORTEST_SECRET: Final = 4
_SHOWN: Final = 200
_NOT_REACHED: Final = "not tried, because a step before it did not pass"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """One act of a flow. ``target`` is an address or a query; ``shown`` is how results name it, without secrets."""

    act: ActKind
    target: str
    shown: str
    argv: tuple[str, ...] = ()
    service: str | None = None
    database: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    expect: Expect = field(default_factory=Expect)
    save: Mapping[str, str] = field(default_factory=dict)
    timeout: timedelta = timedelta(seconds=10)
    reads_data: bool = False  #: it cannot pass on an empty database; see ``proving``


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSpec:
    """A flow. It is tried again until it passed ``passes`` times in a row, or ``within`` is over.

    ``production`` says whether it is done in production too; None: only when it reads, see ``in_production``.
    """

    name: str
    steps: tuple[StepSpec, ...]
    within: timedelta = timedelta(0)
    passes: int = 1
    production: bool | None = None


def run_flow(
    flow: FlowSpec, reach: Reach, expand: Expand, lookup: Lookup, *, stopping: Callable[[], bool] = lambda: False
) -> FlowResult:
    """Run one flow; never raises for what goes wrong in it.

    ``lookup`` gives the values of references that no step saved (drill secrets, the environment). The result tells of
    the last attempt. ``stopping`` is asked before each new attempt.
    """
    deadline = clock.monotonic() + flow.within.total_seconds()
    attempts = passes = 0
    pause = _FIRST_PAUSE_SECONDS
    while True:
        attempts += 1
        steps, again = _attempt(flow, reach, expand, lookup)
        result = FlowResult(name=flow.name, steps=steps, attempts=attempts)
        passes = passes + 1 if result.verdict is Verdict.OK else 0
        if passes >= flow.passes:
            return replace(result, passes=passes)
        if not again or stopping() or clock.monotonic() + pause > deadline:
            return replace(result, steps=_too_few(flow, result, passes), passes=passes)
        clock.pause(pause)
        pause = _FIRST_PAUSE_SECONDS if passes else min(pause * 2, _LONGEST_PAUSE_SECONDS)


def _too_few(flow: FlowSpec, result: FlowResult, passes: int) -> tuple[FlowStepResult, ...]:
    """The steps of a flow that passed, and not as often as it must: its last step says so and is not ok."""
    if result.verdict is not Verdict.OK:
        return result.steps
    detail = f"times that it passed in a row: {passes}; asked for: {flow.passes}; its time is over"
    return (*result.steps[:-1], replace(result.steps[-1], verdict=Verdict.FAILED, detail=detail))


def _attempt(flow: FlowSpec, reach: Reach, expand: Expand, lookup: Lookup) -> tuple[tuple[FlowStepResult, ...], bool]:
    """Each step once, and whether trying again may help."""
    variables = _Variables(expand, lookup)
    cookies: dict[str, dict[str, str]] = {}
    results: list[FlowStepResult] = []
    again = True
    for spec in flow.steps:
        if results and results[-1].verdict is not Verdict.OK:
            results.append(_result(spec, Verdict.UNKNOWN, _NOT_REACHED))
            continue
        begun = clock.monotonic()
        result, again = _step(spec, reach, variables, cookies)
        results.append(replace(result, took=timedelta(seconds=clock.monotonic() - begun)))
    # an unknown that comes after the step that decided keeps that step's word
    return tuple(results), again


def _step(
    spec: StepSpec, reach: Reach, variables: _Variables, cookies: dict[str, dict[str, str]]
) -> tuple[FlowStepResult, bool]:
    try:
        return _result(spec, Verdict.OK, _act(spec, reach, variables, cookies)), True
    except Unmet as unmet:
        hint = "Redirects are not followed: expect it, and write where it leads as the next step."
        redirected = str(unmet).startswith("status 3")
        return _result(spec, Verdict.FAILED, variables.scrub(str(unmet)), hint if redirected else None), True
    except EngineError as failure:
        return _result(spec, Verdict.FAILED, variables.scrub(failure.message), failure.hint), True
    except UncheckedError as why:
        return _result(spec, Verdict.UNKNOWN, variables.scrub(why.message), why.hint), why.may_retry


def _result(spec: StepSpec, verdict: Verdict, detail: str, hint: str | None = None) -> FlowStepResult:
    return FlowStepResult(
        what=spec.shown[:_SHOWN], act=spec.act, verdict=verdict, detail=detail[:_SHOWN * 2], hint=hint,
        reads_data=spec.reads_data,
    )  # fmt: skip


def _act(spec: StepSpec, reach: Reach, variables: _Variables, cookies: dict[str, dict[str, str]]) -> str:
    """Do it and compare; what to say of it. Raise ``Unmet``, ``EngineError`` or ``UncheckedError``."""
    seconds = spec.timeout.total_seconds()
    if spec.act == "sql":
        rows = reach.sql(spec.service, spec.database, spec.target, timeout_seconds=seconds)
        check_rows(rows, spec.expect, variables.fill)
        _save_columns(spec, rows, variables)
        return "1 row" if len(rows.rows) == 1 else f"{len(rows.rows)} rows"
    if spec.act == "command":
        assert spec.service is not None, "the plan says where a command runs"
        ended = reach.command(spec.service, spec.argv, timeout_seconds=seconds)
        _save_paths(spec, check_ended(ended, spec.expect, variables.fill), variables)
        return f"exit {ended.exit_status}"
    url = variables.fill(spec.target, in_url=True)
    headers = {name: variables.fill(text) for name, text in spec.headers.items()}
    jar = cookies.setdefault(urlsplit(url).netloc, {})
    if jar and not any(name.lower() == "cookie" for name in headers):
        headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in jar.items())
    body = None
    if spec.json is not None:
        body = json.dumps(variables.fill_all(spec.json)).encode()
        headers.setdefault("Content-Type", "application/json")
    answer = reach.http(spec.act.upper(), url, headers=headers, body=body, timeout_seconds=seconds)
    _keep_cookies(answer, jar, variables)
    _save_paths(spec, check_response(answer, spec.expect, variables.fill), variables)
    return f"status {answer.status}"


def _save_columns(spec: StepSpec, rows: Rows, variables: _Variables) -> None:
    for name, column in spec.save.items():
        cell = rows.rows[0][rows.columns.index(column)] if rows.rows and column in rows.columns else None
        if cell is None:
            raise Unmet(f"there is no {column} to save as {name}")
        variables.save(name, cell)


def _save_paths(spec: StepSpec, parsed: Any, variables: _Variables) -> None:
    for name, path in spec.save.items():
        value = MISSING if parsed is MISSING else find(parsed, path)
        if value is MISSING or value is None or isinstance(value, dict | list):
            raise Unmet(f"there is no {path} to save as {name}")
        variables.save(name, json.dumps(value) if isinstance(value, bool) else str(value))


def _keep_cookies(answer: Response, jar: dict[str, str], variables: _Variables) -> None:
    """Names and values only: a flow is short, and it is one user with one site."""
    for name, value in answer.headers:
        if name.lower() != "set-cookie":
            continue
        cookie, _, content = value.split(";", 1)[0].partition("=")
        if cookie.strip() and (cookie.strip() in jar or len(jar) < _MOST_COOKIES) and len(content) <= _LONGEST_VALUE:
            jar[cookie.strip()] = content.strip()
            variables.hide(content.strip())


class _Variables:
    """The values of one attempt: what steps saved, before what is looked up. Remembers them, to keep them out of
    results."""

    def __init__(self, expand: Expand, lookup: Lookup) -> None:
        self._expand, self._lookup = expand, lookup
        self._saved: dict[str, str] = {}
        self._hidden: set[str] = set()

    def save(self, name: str, value: str) -> None:
        if len(value) > _LONGEST_VALUE:
            raise Unmet(f"what should be saved as {name} is longer than {_LONGEST_VALUE} characters")
        self._saved[name] = value
        self.hide(value)

    def hide(self, value: str) -> None:
        if len(value) >= _SHORTEST_SECRET:
            self._hidden.add(value)

    def _find(self, name: str, *, in_url: bool) -> str | None:
        value = self._saved.get(name)
        if value is None:
            value = self._lookup(name)
            if value is not None:
                self.hide(value)
        elif in_url:
            value = quote(value, safe="")
            self.hide(value)
        return value

    def fill(self, text: str, *, in_url: bool = False) -> str:
        """The text with its references filled in; what a step saved is percent-encoded in an address."""
        try:
            return self._expand(text, lambda name: self._find(name, in_url=in_url))
        except KeyError as missing:
            raise UncheckedError(
                f"the variable {missing.args[0]} has no value",
                hint="Set it in the environment or an env file, or save it in a step before this one.",
            ) from None
        except ValueError as wrong:
            raise UncheckedError(f"not well formed: {wrong}", hint="Correct the flow in the plan.") from None

    def fill_all(self, value: Any) -> Any:
        """A JSON value with every text in it filled in."""
        if isinstance(value, str):
            return self.fill(value)
        if isinstance(value, Mapping):
            return {name: self.fill_all(one) for name, one in value.items()}
        return [self.fill_all(one) for one in value] if isinstance(value, list | tuple) else value

    def scrub(self, text: str) -> str:
        """``text`` without any value of a variable."""
        for value in sorted(self._hidden, key=len, reverse=True):
            text = text.replace(value, "***")
        return text
