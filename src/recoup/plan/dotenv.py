"""Env files as Docker Compose reads them (https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/).

``NAME=value``, ``export NAME=value``, ``#`` comments; single quotes are literal; double quotes know ``\\n``, ``\\t``,
``\\"`` and ``\\\\`` and, as unquoted values do, ``${OTHER}``. Quoted values may span lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from recoup.plan.template import Template

_BEGIN = re.compile(
    r"[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_.-]*)[ \t]*(?:[=:]|(?=[ \t]*(?:#|$)))[ \t]*", re.MULTILINE
)
_SINGLE = re.compile(r"'([^']*)'")
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_BARE_VARIABLE = re.compile(r"(?<!\$)\$([A-Za-z_][A-Za-z0-9_]*)")


def parse_env(text: str, outside: Mapping[str, str]) -> dict[str, str]:
    """Given an env file's text and the variables known before it, return its variables.

    A name without ``=`` takes its value from ``outside`` when it is there. Raise ``ValueError`` that names the line;
    the message never holds a value.
    """
    found: dict[str, str] = {}
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        line = text[at:end].strip()
        if not line or line.startswith("#"):
            at = end + 1
            continue
        number = text.count("\n", 0, at) + 1
        begin = _BEGIN.match(text, at)
        if begin is None:
            raise ValueError(f"line {number}: not of the form NAME=value")
        name = begin[1]
        if begin[0].rstrip()[-1:] not in ("=", ":"):
            if name in outside:
                found[name] = outside[name]
            at = end + 1
            continue
        found[name], at = _value(text, begin.end(), end, {**outside, **found}, number)
    return found


def _value(text: str, at: int, end: int, known: Mapping[str, str], number: int) -> tuple[str, int]:
    """The value that begins at ``at`` and where the next line begins."""
    quote = text[at : at + 1]
    if at < end and quote in ("'", '"'):
        match = (_SINGLE if quote == "'" else _DOUBLE).match(text, at)
        if match is None:
            raise ValueError(f"line {number}: a quote is not closed")
        after = text.find("\n", match.end())
        after = len(text) if after < 0 else after
        rest = text[match.end() : after].strip()
        if rest and not rest.startswith("#"):
            raise ValueError(f"line {number}: text after the closing quote")
        if quote == "'":
            return match[1], after + 1
        # an escaped dollar must survive the expansion, so it becomes $$ first
        inner = _ESCAPE.sub(lambda m: "$$" if m[1] == "$" else _ESCAPES.get(m[1], m[1]), match[1])
        return _expand(inner, known, number), after + 1
    plain = re.split(r"(?:^|\s)#", text[at:end], maxsplit=1)[0].strip() if at < end else ""
    return _expand(plain, known, number), end + 1


def _expand(value: str, known: Mapping[str, str], number: int) -> str:
    braced = _BARE_VARIABLE.sub(r"${\1}", value)
    try:
        return Template.parse(braced).expand(lambda name: known.get(name, ""))
    except ValueError as wrong:
        raise ValueError(f"line {number}: {wrong}") from None
