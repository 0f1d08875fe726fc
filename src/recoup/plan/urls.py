"""Addresses of database servers: their shape, and taking the password out of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from recoup.kernel.errors import UsageError
from recoup.plan.guess import GuessedService, Inventory
from recoup.plan.template import is_only_references, take_password

SCHEMES = {"postgres": ("postgresql://", "postgres://"), "redis": ("redis://", "rediss://", "unix://")}

_REFERENCE = r"\$\{[^}]*\}"
# What is between // and the path: user and password, then hosts with ports (libpq takes several, with commas).
# A password with a bare / ? or # ends up in the port or the path, and must not pass for a part of the address.
_HOST = rf"(\[[0-9A-Fa-f:.%]+\]|({_REFERENCE}|[^\s/?#@:,\[\]$])*)(:([0-9]{{1,5}}|{_REFERENCE}))?"
_SHAPE = re.compile(rf"[a-z]+://(({_REFERENCE}|[^\s/?#])*@)?{_HOST}(,{_HOST})*(/[^\s?#@]*)?(\?[^\s#@]*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class VariableToSet:
    """A variable that a new plan refers to, and that the user must give its value."""

    name: str
    meaning: str


def has_address_shape(url: str) -> bool:
    """Whether a URL, which may hold references, has the shape of a server's address."""
    return _SHAPE.fullmatch(url) is not None


def inventory_of_urls(
    system: str, postgres: tuple[str, ...], redis: tuple[str, ...]
) -> tuple[Inventory, tuple[VariableToSet, ...]]:
    """Given addresses, return what a plan without Compose is written from, and the variables that it needs.

    A password in an address becomes a reference; its value is not kept. Raise ``UsageError`` for what is no address;
    the message does not repeat it, because it may hold a password.
    """
    services: list[GuessedService] = []
    variables: list[VariableToSet] = []
    given: tuple[tuple[Literal["postgres", "redis"], tuple[str, ...]], ...] = (("postgres", postgres), ("redis", redis))
    for engine, urls in given:
        for number, url in enumerate(urls, 1):
            name = engine if number == 1 else f"{engine}-{number}"
            service, variable = _service(engine, name, url)
            services.append(service)
            if variable is not None:
                variables.append(variable)
    return Inventory(system=system, services=tuple(services)), tuple(variables)


def _service(engine: Literal["postgres", "redis"], name: str, url: str) -> tuple[GuessedService, VariableToSet | None]:
    variable = f"{name.upper().replace('-', '_')}_PASSWORD"
    text, password = take_password(url, f"${{{variable}}}")
    if not url.startswith(SCHEMES[engine]) or not has_address_shape(text):
        example = "postgresql://user@host:5432/database" if engine == "postgres" else "redis://:password@host:6379/0"
        raise UsageError(
            f"what --{engine} was given is not an address of this engine",
            hint=f"Write {example}; in a password, / ? # and @ are written %2F %3F %23 and %40.",
        )
    taken = password is not None
    service = GuessedService(
        name=name,
        engine=engine,
        reasons=("given on the command line", *((f"its password is read from {variable}",) if taken else ())),
        url_template=text,
        databases=_databases(text) if engine == "postgres" else (),
    )
    return service, VariableToSet(name=variable, meaning=f"the password of {name}") if taken else None


def _databases(url: str) -> tuple[str, ...]:
    """The database in the path of a PostgreSQL address, when it is written out."""
    path = re.sub(r"^[a-z]+://[^/?]*/?", "", re.sub(_REFERENCE, "", url)).split("?", 1)[0]
    return (unquote(path),) if path and not is_only_references(path) and "${" not in url.split("/")[-1] else ()
