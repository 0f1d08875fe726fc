"""Which stored bytes of which artefact were read and matched, and when: a cache of this machine, in the state folder.

Losing it costs reading them again; nothing that matters is here.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from recoup.kernel import clock
from recoup.repository.cache_file import open_cache, write_cache
from recoup.repository.retention import CLOCK_TOLERANCE

_VERSION: Final = 1
_SCHEMA: Final = """
create table span (
  repository text not null, artefact text not null, first integer not null, beyond integer not null,
  moment text not null, primary key (repository, artefact, first, beyond)
) strict, without rowid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBytes:
    """The bytes ``begin`` up to but without ``end`` of an artefact in a repository (its identity) were read then."""

    repository: str
    artefact: str
    begin: int
    end: int
    moment: datetime


class CoverageLedger:
    """The notes. A file that is damaged or cannot be written is as good as none."""

    def __init__(self, state_folder: Path) -> None:
        self._path = state_folder / "coverage.sqlite"

    def of(self, repository: str) -> list[ReadBytes]:
        """Everything that is noted of a repository, in any order; it may overlap.

        What was noted while the clock was ahead is left out: it would not be read again until its day comes.
        """
        if not self._path.exists():
            return []
        try:
            with contextlib.closing(self._open()) as database:
                question = "select artefact, first, beyond, moment from span where repository = ?"
                latest = clock.now() + CLOCK_TOLERANCE
                notes = [
                    ReadBytes(
                        repository=repository, artefact=name, begin=begin, end=end, moment=clock.from_text(moment)
                    )
                    for name, begin, end, moment in database.execute(question, (repository,))
                ]
                return [one for one in notes if one.moment <= latest]
        except (sqlite3.DatabaseError, OSError, ValueError):
            return []

    def replace(self, repository: str, artefact: str, spans: Iterable[ReadBytes]) -> None:
        """From now on, these are the notes of an artefact."""
        rows = [(repository, artefact, one.begin, one.end, clock.to_text(one.moment)) for one in spans]

        def write(database: sqlite3.Connection) -> None:
            database.execute("delete from span where repository = ? and artefact = ?", (repository, artefact))
            database.executemany("insert or replace into span values (?,?,?,?,?)", rows)

        write_cache(self._path, self._open, write)

    def _open(self) -> sqlite3.Connection:
        return open_cache(self._path, version=_VERSION, tables=("span",), schema=(_SCHEMA,))
