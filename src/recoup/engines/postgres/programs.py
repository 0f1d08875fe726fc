"""Find PostgreSQL's own programs (pg_dump, pg_restore, psql, pg_dumpall) that fit a server.

Rule (pg_dump's manual page, "Notes"): pg_dump refuses a server of a newer major version than its own, and a dump made
by a newer pg_dump may not load into an older server. So: the server's own major version if it is there, else the
lowest newer one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, LocalRunner, Runner, run

_VERSION = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+)|beta|rc|devel)?")
_PLACES = ("/usr/lib/postgresql/{}/bin", "/usr/pgsql-{}/bin", "/usr/local/pgsql-{}/bin", "/opt/postgresql-{}/bin")
_NEWEST_MAJOR = 25  # folders are only looked at, so a generous limit costs nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """One set of programs. ``folder`` None means "by the PATH, there where ``runner`` runs them"."""

    runner: Runner
    folder: Path | None
    version: tuple[int, int]  #: (major, minor)
    local: bool  #: they run on this machine, not inside the server's container

    def path(self, name: str) -> str:
        """What to call to run the program ``name``."""
        return name if self.folder is None else str(self.folder / name)

    @property
    def reads_hostile_text(self) -> bool:
        """Whether this psql's ``\\restrict`` holds against a dump made to attack it.

        CVE-2025-8714 brought ``\\restrict``; CVE-2026-18408 closed the way around it. Fixed in the minors below.
        """
        major, minor = self.version
        return major > 18 or minor >= {14: 24, 15: 19, 16: 15, 17: 11, 18: 6}.get(major, 1 << 30)

    @property
    def reads_hostile_archives(self) -> bool:
        """Whether this pg_restore is safe against a crafted archive (CVE-2026-116314)."""
        major, minor = self.version
        return major > 18 or minor >= {14: 25, 15: 20, 16: 16, 17: 12, 18: 7}.get(major, 1 << 30)


def find_programs(runner: Runner, *, server_major: int, folders: Sequence[Path] = ()) -> Programs:
    """The programs that fit a server of ``server_major``; ``folders`` are looked at first.

    Raise ``EngineError`` naming the package to install when there are none, or only older ones.
    """
    local = isinstance(runner, LocalRunner)
    found: list[Programs] = []
    for folder in _candidates(folders) if local else (*folders, None):
        version = _version_of(runner, "pg_dump" if folder is None else str(folder / "pg_dump"), local=local)
        if version is not None:
            programs = Programs(runner=runner, folder=folder, version=version, local=local)
            if version[0] == server_major:
                return programs
            found.append(programs)
    newer = [programs for programs in found if programs.version[0] > server_major]
    if newer:
        return min(newer, key=lambda programs: programs.version[0])
    package = f"postgresql-client-{server_major}"
    have = ", ".join(sorted({str(programs.version[0]) for programs in found}))
    raise EngineError(
        f"no pg_dump for PostgreSQL {server_major} on {runner}" + (f" (found only: {have})" if have else ""),
        hint=f"Install it with `apt-get install {package}` (or from apt.postgresql.org), or give the folder that "
        "holds it. A pg_dump older than the server cannot read it.",
    )


def find_server(major: int, *, user: tuple[int, int] | None = None, folders: Sequence[Path] = ()) -> Path:
    """The folder of a PostgreSQL *server* of exactly this major version, on this machine, that ``user`` can run.

    Raise ``EngineError`` naming the package to install when there is none.
    """
    found = set()
    for folder in _candidates(folders, "postgres"):
        try:
            said = run(Command(argv=[str(folder / "postgres"), "--version"], timeout_seconds=60, user=user))
        except EngineError:
            continue
        match = _VERSION.search(said.stdout.decode(errors="replace"))
        if match is not None and int(match[1]) == major and os.access(folder / "psql", os.X_OK):
            return folder
        found |= {match[1]} if match is not None else set()
    have = f" (found only: {', '.join(sorted(found))})" if found else ""
    raise EngineError(
        f"there is no PostgreSQL {major} server on this machine{have}; replaying WAL needs one",
        hint=f"Install it with `apt-get install postgresql-{major}`, or put the folder of its programs into the PATH. "
        "Where the service lives in a Compose stack, its own image is used: leave out --destination.",
    )


def find_exactly(
    program: str, major: int, *, why: str, user: tuple[int, int] | None = None, folders: Sequence[Path] = ()
) -> Path:
    """The path of a program of exactly this major version, on this machine, that ``user`` can run.

    Raise ``EngineError`` naming the package to install, and ``why`` it is needed, when there is none.
    """
    found = set()
    for folder in _candidates(folders, program):
        try:
            said = run(Command(argv=[str(folder / program), "--version"], timeout_seconds=60, user=user))
        except EngineError:
            continue
        match = _VERSION.search(said.stdout.decode(errors="replace"))
        if match is not None and int(match[1]) == major:
            return folder / program
        found |= {match[1]} if match is not None else set()
    have = f" (found only: {', '.join(sorted(found))})" if found else ""
    raise EngineError(
        f"there is no {program} of PostgreSQL {major} on this machine{have}; {why}",
        hint=f"Install it with `apt-get install postgresql-{major}` (its service need not run), or put the folder of "
        "PostgreSQL's programs into the PATH.",
    )


def _candidates(folders: Sequence[Path], program: str = "pg_dump") -> list[Path]:
    known = [Path(place.format(major)) for major in range(14, _NEWEST_MAJOR) for place in _PLACES]
    path = [Path(part) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part]
    # Debian's /usr/bin/pg_dump is a wrapper that picks a version by its own rules; known folders come before it.
    unique = dict.fromkeys([*folders, *known, *path])
    return [folder for folder in unique if os.access(folder / program, os.X_OK)]


def _version_of(runner: Runner, program: str, *, local: bool) -> tuple[int, int] | None:
    try:
        said = run(runner.wrap(Command(argv=[program, "--version"], timeout_seconds=60)))
    except EngineError:
        if local:  # one broken installation must not hide the others
            return None
        raise
    match = _VERSION.search(said.stdout.decode(errors="replace"))
    return None if match is None else (int(match[1]), int(match[2] or 0))
