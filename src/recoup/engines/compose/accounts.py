"""The accounts a stack's databases are given in its Compose file, so that a plan need not repeat them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.engines.compose.docker import ANSWER_SECONDS, call
from recoup.engines.compose.project import ComposeService
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, Runner
from recoup.kernel.secret import Secret

_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)[^}]*\}?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whom to be in a PostgreSQL server. ``password`` is None where none is set."""

    user: str
    database: str
    password: Secret | None


def postgres_account(service: ComposeService, inside: Runner | None = None) -> Account:
    """The account that the image makes on its first start (it may have been changed since).

    A password file (``POSTGRES_PASSWORD_FILE``) is read on the host where the Compose file says which one it is, else
    by ``inside``, a runner into the container. Raise ``EngineError`` when neither can.
    """
    user = setting(service, "POSTGRES_USER", "POSTGRESQL_USERNAME") or "postgres"
    return Account(
        user=user,
        database=setting(service, "POSTGRES_DB", "POSTGRESQL_DATABASE") or user,
        password=postgres_password(service, inside),
    )


def postgres_password(service: ComposeService, inside: Runner | None = None) -> Secret | None:
    """The password alone; see ``postgres_account``."""
    return _password(service, inside, "POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD")


def redis_password(service: ComposeService, inside: Runner | None = None) -> Secret | None:
    """The password a Redis asks for, by its command, else by its environment; None where it asks for none.

    A password file is read as ``postgres_account`` does. Raise ``EngineError`` when it cannot be read.
    """
    given = option(redis_words(service), "--requirepass")
    if given is None:
        return _password(service, inside, "REDIS_PASSWORD", "VALKEY_PASSWORD")
    variable = _VARIABLE.fullmatch(given)
    if variable is not None and variable[1] in service.environment:  # for a shell inside the container to fill in
        return service.environment[variable[1]]
    return Secret(given) if given else None


def setting(service: ComposeService, *names: str) -> str | None:
    """The first of these variables that is set and not empty. Not for secrets."""
    for name in names:
        if name in service.environment and service.environment[name].reveal():
            return service.environment[name].reveal()
    return None


def redis_words(service: ComposeService) -> list[str]:
    """The words a Redis is started with; a script after ``sh -c`` is taken apart, and images' own variables count."""
    flags = setting(service, "REDIS_ARGS", "REDIS_EXTRA_FLAGS", "VALKEY_EXTRA_FLAGS") or ""
    return [*_all_words(service), *split(flags)]


def split(text: str) -> list[str]:
    """The words of a shell text, as well as it can be told."""
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()


def option(words: Sequence[str], name: str) -> str | None:
    """The value of ``--name value`` or ``--name=value``."""
    for index, word in enumerate(words):
        if word == name and index + 1 < len(words):
            return words[index + 1]
        if word.startswith(name + "="):
            return word.partition("=")[2]
    return None


def _all_words(service: ComposeService) -> Iterator[str]:
    before = ""
    for word in (*(service.entrypoint or ()), *(service.command or ())):
        # -c and its like (-ec, -euc) make the next word a script
        yield from split(word) if re.fullmatch(r"-[a-z]*c", before) else [word]
        before = word


def _password(service: ComposeService, inside: Runner | None, *names: str) -> Secret | None:
    for name in names:
        file = setting(service, f"{name}_FILE")
        if file is not None:
            return _read(service, file, inside)
        if setting(service, name) is not None:
            return service.environment[name]
    return None


def _read(service: ComposeService, file: str, inside: Runner | None) -> Secret:
    place = service.secret_files.get(file)
    if place is not None:
        try:
            return Secret(Path(place).read_text().rstrip("\n"))
        except (OSError, UnicodeDecodeError) as failure:
            if inside is None:
                raise EngineError(f"cannot read the password of {service.name} in {place}: {failure}") from failure
    hint = "Name the password in the plan: {file: …} or {command: …}."
    if inside is None:
        raise EngineError(f"the password of {service.name} is in {file}, which only its container has", hint=hint)
    # What a failed call says is not repeated: it could be a part of the file.
    asked = inside.wrap(Command(argv=("cat", file), timeout_seconds=ANSWER_SECONDS))
    found = call(asked, doing=f"read the password of {service.name}", expect=None)
    try:
        text = found.stdout.decode().rstrip("\n")
    except UnicodeDecodeError:
        text = ""
    if found.exit_status != 0 or not text:
        raise EngineError(f"cannot read the password of {service.name} in {file} inside its container", hint=hint)
    return Secret(text)
