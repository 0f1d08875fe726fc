"""Real parts the tests need: PostgreSQL, Redis, S3 servers, programs, root. What is missing is never passed over.

A test whose real part is missing is *not run*: it is skipped with the reason and what to install. Under
``RECOUP_REQUIRE=all`` (continuous integration) it fails instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from recoup.kernel.errors import RecoupError

_T = TypeVar("_T")

# What to install for a program, where the package has another name.
_PACKAGES = {
    "docker": "docker.io",
    "dockerd": "docker.io",
    "ip": "iproute2",
    "redis-server": "redis-server",
    "redis-cli": "redis-tools",
    "pgbackrest": "pgbackrest",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "age": "age",
    "pdftoppm": "poppler-utils",
    "pdftotext": "poppler-utils",
}


def not_run(reason: str, install: str | None = None) -> NoReturn:
    """Skip the calling test, or fail it under ``RECOUP_REQUIRE=all``, with the reason and what to install."""
    said = reason + (f"; install it with: {install}" if install else "")
    if os.environ.get("RECOUP_REQUIRE") == "all":
        pytest.fail(f"{said} (RECOUP_REQUIRE=all)", pytrace=False)
    pytest.skip(said)


def require(part: str) -> Path:
    """Given the name of a program, return its path, or do not run the calling test."""
    path = shutil.which(part)
    if path is None:
        not_run(f"{part} is not installed", f"apt-get install {_PACKAGES.get(part, part)}")
    return Path(path)


def require_found(find: Callable[[], _T]) -> _T:
    """Return what ``find`` finds; when it raises a ``RecoupError``, do not run the calling test and say why."""
    try:
        return find()
    except RecoupError as missing:
        not_run(" ".join(text for text in (f"{missing};", missing.hint) if text))


def require_root(why: str) -> None:
    """Do not run the calling test unless the tests run as root."""
    if os.geteuid() != 0:
        not_run(f"needs root: {why}", "run the tests as root")
