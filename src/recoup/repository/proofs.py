"""What was proven of which artefact, in which repository: a small cache of this machine, in the state folder.

Pruning asks it whether the newest copy is good. Losing it costs one verification more; nothing that matters is here.
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

_SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
create table proof (
  repository text not null, artefact text not null, grade text, verdict text not null, moment text not null,
  primary key (repository, artefact)
) strict, without rowid
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofRecord:
    """How the last verification of an artefact in one repository ended.

    ``repository`` is its identity. ``grade`` is what was reached (``stored``, ``intact``), None when not even the
    lowest was; ``verdict`` is ``ok``, ``failed`` or ``unknown``.
    """

    repository: str
    artefact: str
    grade: str | None
    verdict: str
    moment: datetime


class Proofs:
    """The records. A file that is damaged or cannot be written is as good as none."""

    def __init__(self, state_folder: Path) -> None:
        self._path = state_folder / "proofs.sqlite"

    def note(self, records: Iterable[ProofRecord]) -> None:
        """Remember how verifications ended; what was known of the same artefacts there is replaced."""
        rows = [(one.repository, one.artefact, one.grade, one.verdict, clock.to_text(one.moment)) for one in records]
        for _ in range(2):
            try:
                with contextlib.closing(self._open()) as database:
                    database.executemany("insert or replace into proof values (?,?,?,?,?)", rows)
                    database.commit()
                return
            except OSError:
                return
            except sqlite3.DatabaseError:
                with contextlib.suppress(OSError):
                    self._path.unlink(missing_ok=True)

    def of(self, repository: str) -> dict[str, ProofRecord]:
        """What is known of the artefacts of a repository (its identity), by artefact id."""
        if not self._path.exists():
            return {}
        try:
            with contextlib.closing(self._open()) as database:
                question = "select artefact, grade, verdict, moment from proof where repository = ?"
                rows = database.execute(question, (repository,)).fetchall()
            return {
                artefact: ProofRecord(
                    repository=repository,
                    artefact=artefact,
                    grade=grade,
                    verdict=verdict,
                    moment=clock.from_text(moment),
                )
                for artefact, grade, verdict, moment in rows
            }
        except (sqlite3.DatabaseError, OSError, ValueError):
            return {}

    def forget(self, repository: str, artefact: str) -> None:
        """The artefact is gone from the repository."""
        with contextlib.suppress(sqlite3.DatabaseError, OSError), contextlib.closing(self._open()) as database:
            database.execute("delete from proof where repository = ? and artefact = ?", (repository, artefact))
            database.commit()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        database = sqlite3.connect(self._path, timeout=30)
        try:
            (version,) = database.execute("pragma user_version").fetchone()
            if version != _SCHEMA_VERSION:
                database.execute("drop table if exists proof")
                database.execute(_SCHEMA)
                database.execute(f"pragma user_version = {_SCHEMA_VERSION}")
                database.commit()
        except sqlite3.DatabaseError:
            database.close()
            raise
        return database
