"""What was proven of which artefact, in which repository: a small cache of this machine, in the state folder.

Pruning asks it whether the newest copy is good, status how fresh the proofs are. Losing it costs one verification more;
nothing that matters is here.
"""

from __future__ import annotations

import contextlib
import functools
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from recoup.kernel import clock
from recoup.repository.cache_file import open_cache, write_cache
from recoup.repository.retention import CLOCK_TOLERANCE

_VERSION: Final = 2
_SCHEMA: Final = """
create table proof (
  repository text not null, artefact text not null, grade text not null, verdict text not null, moment text not null,
  held text, primary key (repository, artefact, grade)
) strict, without rowid
"""
#: What could not be checked takes nothing from what was proven before; what failed does.
_NOTE: Final = """
insert into proof values (?1, ?2, ?3, ?4, ?5, iif(?4 = 'ok', ?5, null))
on conflict do update set verdict = ?4, moment = ?5,
  held = case ?4 when 'ok' then ?5 when 'failed' then null else held end
"""
#: A slice by slice reading says that the bytes are still those that were proven; it makes no proof where there is none.
_RENEW: Final = """
update proof set held = ?3, moment = max(moment, ?3)
where repository = ?1 and artefact = ?2 and grade in ('stored', 'intact') and verdict = 'ok' and held < ?3
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRecord:
    """How the last check of one grade of an artefact in one repository ended.

    ``repository`` is its identity, ``grade`` the grade's name, ``verdict`` is ``ok``, ``failed`` or ``unknown``.
    ``held`` is when it was ok last, and None when it failed since or never was; ``Proofs.note`` works it out.
    """

    repository: str
    artefact: str
    grade: str
    verdict: str
    moment: datetime
    held: datetime | None = None


class Proofs:
    """The records. A file that is damaged or cannot be written is as good as none."""

    def __init__(self, state_folder: Path) -> None:
        self._path = state_folder / "proofs.sqlite"

    def note(self, records: Iterable[ProofRecord]) -> None:
        """Remember how checks ended. What is not known now does not undo what was known of the same grade."""
        rows = [(one.repository, one.artefact, one.grade, one.verdict, clock.to_text(one.moment)) for one in records]
        write_cache(self._path, self._open, lambda database: database.executemany(_NOTE, rows))

    def renew(self, repository: str, artefact: str, moment: datetime) -> None:
        """Every stored byte of an artefact was read and matched since ``moment``: *intact* holds as of then, if it did.

        Does nothing where it was not proven before, or was proven later.
        """
        with contextlib.suppress(sqlite3.DatabaseError, OSError), contextlib.closing(self._open()) as database:
            database.execute(_RENEW, (repository, artefact, clock.to_text(moment)))
            database.commit()

    def of(self, repository: str, *, only: Sequence[str] | None = None) -> dict[str, Mapping[str, ProofRecord]]:
        """What is known of the artefacts of a repository (its identity), or of ``only`` some: by id and grade.

        A proof that was noted while the clock was ahead would hold until its day comes: it is taken for none.
        """
        found: dict[str, dict[str, ProofRecord]] = {}
        now = clock.now()
        instant = functools.cache(clock.from_text)  # the grades of one copy were mostly looked at in one go
        if not self._path.exists():
            return {}
        try:
            with contextlib.closing(self._open()) as database:
                question = "select artefact, grade, verdict, moment, held from proof where repository = ?"
                if only is not None:
                    question += " and artefact in (select value from json_each(?))"
                wanted = [] if only is None else [json.dumps(list(only))]
                rows = database.execute(question, (repository, *wanted)).fetchall()
            for artefact, grade, verdict, moment, noted in rows:
                held = None if noted is None else instant(noted)
                ahead = held is not None and held > now + CLOCK_TOLERANCE
                found.setdefault(artefact, {})[grade] = ProofRecord(
                    repository=repository,
                    artefact=artefact,
                    grade=grade,
                    verdict="unknown" if ahead and verdict == "ok" else verdict,
                    moment=min(instant(moment), now),
                    held=None if ahead else held,
                )
        except (sqlite3.DatabaseError, OSError, ValueError):
            return {}
        return dict(found)

    def forget(self, repository: str, artefact: str) -> None:
        """The artefact is gone from the repository."""
        with contextlib.suppress(sqlite3.DatabaseError, OSError), contextlib.closing(self._open()) as database:
            database.execute("delete from proof where repository = ? and artefact = ?", (repository, artefact))
            database.commit()

    def _open(self) -> sqlite3.Connection:
        return open_cache(self._path, version=_VERSION, tables=("proof",), schema=(_SCHEMA,))
