"""``${VAR}`` and ``${VAR:-default}`` in a plan, kept as written. ``$$`` is a dollar sign.

What they stand for is looked up only where the value is used: see ``recoup.plan.resolver``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_TOKEN = re.compile(rf"\$\$|\$\{{({_NAME})(?:(:?-)([^}}]*))?\}}|\$\{{")
_URL_PASSWORD = re.compile(
    r"(?P<before>[A-Za-z][A-Za-z0-9+.-]*://[^/?#\s@:]*:|[?&](?:ssl)?password=)"
    r"(?P<password>(?<=:)[^/?#\s]+(?=@)|(?<==)[^&#\s]+)"
)
_URL_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)((?:\$\{[^}]*\}|[^/?#@\s$]|\$(?!\{))*)(?=@)")


@dataclass(frozen=True, slots=True)
class Template:
    """A text of the plan that may hold references. ``str`` and ``repr`` hide a password written in a URL."""

    text: str

    @classmethod
    def parse(cls, text: str) -> Template:
        """Given a text, return it as a template. Raise ``ValueError`` for a reference that is not well formed."""
        if any(match[0] == "${" for match in _TOKEN.finditer(text)):
            raise ValueError("not a reference: write ${NAME} or ${NAME:-default} ($$ is a dollar sign)")
        return cls(text)

    @property
    def variables(self) -> tuple[str, ...]:
        """The names it refers to, in order, each once."""
        return tuple(dict.fromkeys(match[1] for match in _TOKEN.finditer(self.text) if match[1]))

    @property
    def is_reference(self) -> bool:
        """Whether it is one reference and nothing else."""
        match = _TOKEN.fullmatch(self.text)
        return match is not None and match[1] is not None

    def expand(self, lookup: Callable[[str], str | None]) -> str:
        """The text with every reference replaced. Raise ``KeyError`` with the name of a variable without value."""

        def value(match: re.Match[str]) -> str:
            name, operator, default = match[1], match[2], match[3]
            if name is None:
                return "$"
            found = lookup(name)
            if operator is not None and (found is None or (operator == ":-" and not found)):
                return default or ""
            if found is None:
                raise KeyError(name)
            return found

        return _TOKEN.sub(value, self.text)

    def expand_url(self, lookup: Callable[[str], str | None]) -> str:
        """As ``expand``; in the user and password of a URL, values are percent-encoded (RFC 3986, 3.2.1).

        So a variable holds the plain password, whatever characters it is made of.
        """
        match = _URL_USER.match(self.text)
        if match is None:
            return self.expand(lookup)

        def encoded(name: str) -> str | None:
            found = lookup(name)
            return None if found is None else quote(found, safe="")

        return match[1] + Template(match[2]).expand(encoded) + Template(self.text[match.end() :]).expand(lookup)

    def __str__(self) -> str:
        return redact(self.text)

    def __repr__(self) -> str:
        return f"Template({redact(self.text)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(
            as_written,
            core_schema.no_info_after_validator_function(cls.parse, core_schema.str_schema(strict=True, min_length=1)),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value.text),
        )


def as_written(value: Any) -> Any:
    """A number where a text is wanted is the text that was written: ``phone: 0301234``, ``version: 1.10``."""
    return getattr(value, "written", value)


def redact(text: str) -> str:
    """``text`` with every password that stands in a URL replaced by stars; a reference is no secret and stays."""

    def stars(match: re.Match[str]) -> str:
        return match[0] if is_only_references(match["password"]) else f"{match['before']}***"

    return _URL_PASSWORD.sub(stars, text)


def url_password(text: str) -> str | None:
    """The password part of the first URL in ``text``, as written, or None."""
    match = _URL_PASSWORD.search(text)
    return None if match is None else match["password"]


def take_password(text: str, reference: str) -> tuple[str, str | None]:
    """``text`` with the passwords of its URLs replaced by ``reference``, and the first of them; None for no change.

    Passwords that are references already stay.
    """
    taken: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        if is_only_references(match["password"]):
            return match[0]
        taken.append(match["password"])
        return f"{match['before']}{reference}"

    result = _URL_PASSWORD.sub(replaced, text)
    return result, taken[0] if taken else None


def is_only_references(text: str) -> bool:
    """Whether ``text`` is made of references alone, at least one, none with a default."""
    rest = _TOKEN.sub(lambda match: "" if match[1] and not match[3] else "x", text)
    return rest == "" and text != ""
