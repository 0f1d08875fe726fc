"""The key on disk: writing a new one, reading the plan's, and what is weak about it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from recoup.kernel.errors import RecoupError, RefusedError
from recoup.kernel.secret import Secret
from recoup.plan import load
from recoup.plan.model import Key as KeySource
from recoup.plan.resolver import Resolver
from recoup.repository.seal import Key


def write_new_key(path: Path) -> Key:
    """Write a new random key to ``path`` with mode 0600, durably. Raise ``RefusedError`` when anything is there."""
    key = Key.generate()
    write_key(path, key)
    return key


def write_key(path: Path, key: Key) -> None:
    """Write ``key`` as ``write_new_key`` does."""
    write_secret(
        path,
        key.text,
        what="the key file",
        there="Keep it: it may open backups. Name another file for a new key.",
    )


def write_secret(path: Path, text: Secret, *, what: str, there: str) -> None:
    """Write ``text`` and a line end to a new file, readable by its owner only, durably.

    ``there`` is the hint of the ``RefusedError`` when anything is there: nothing is ever overwritten.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise RefusedError(f"{path} exists already", hint=there) from None
    except OSError as failure:
        raise RecoupError(f"cannot write {what} {path}: {failure.strerror}") from failure
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(text.reveal().encode() + b"\n")
            opened.flush()
            os.fsync(opened.fileno())
    except OSError as failure:
        path.unlink(missing_ok=True)
        raise RecoupError(f"cannot write {what} {path}: {failure.strerror}") from failure


def read_key(plan_file: Path | None, key_file: Path | None) -> tuple[Key, str]:
    """The key and, for people, where it came from. Raise ``WrongKeyError`` or ``PlanError``."""
    if key_file is not None:
        resolver = Resolver(folder=Path.cwd())
        return Key.from_text(resolver.key(_from_file(key_file)).reveal()), f"the file {key_file}"
    loaded = load.load(load.find(plan_file))
    source = loaded.plan.key
    return Key.from_text(loaded.resolver().key(source).reveal()), describe(source)


def describe(source: KeySource) -> str:
    """Where a plan's key is, in words."""
    if source.env is not None:
        return f"the variable {source.env}"
    if source.file is not None:
        return f"the file {source.file}"
    if source.credential is not None:
        return f"the credential {source.credential}"
    return "a command"


def weaknesses(key: Key, plan_file: Path | None, key_file: Path | None) -> list[str]:
    """What is not well about a key that was read: a passphrase, a file that others can read."""
    found = []
    if not key.is_random:
        found.append("a passphrase can be guessed; `recoup key generate` makes a key that cannot")
    path = key_file
    if path is None:
        loaded = load.load(load.find(plan_file))
        source = loaded.plan.key
        path = None if source.file is None else loaded.resolver().path(source.file)
    if path is not None and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        found.append(f"{path} can be read by others than its owner; run: chmod 600 {path}")
    return found


def _from_file(path: Path) -> KeySource:
    return KeySource.model_validate({"file": str(path).replace("$", "$$")})
