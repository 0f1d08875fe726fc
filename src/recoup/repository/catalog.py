"""Which artefacts exist. A cache of manifests in one SQLite file per repository; deleting it costs only time.

The repository is the truth: every refresh lists its manifests and reads the ones that are new or whose version
changed. What cannot be authenticated is remembered as a problem and reported, never skipped.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from recoup.kernel import clock
from recoup.kernel.errors import (
    DamageError,
    MissingObjectError,
    RecoupError,
    UnknownFormatError,
    UsageError,
    WrongKeyError,
)
from recoup.repository import layout
from recoup.repository.cache_file import open_cache
from recoup.repository.repository import Repository

#: The label of copies of what a restore replaced. They are found by their id only: were such a copy ``latest``, the
#: same restore, given again, would bring back what it had just replaced.
REPLACED: Final = "replaced"
#: The kind, and the service, of stack recovery points. ``latest`` means one only where it is asked for by its kind.
STACK: Final = "stack"
#: The kind, and the service, of the images that a stack runs. As little ``latest`` as a stack point.
IMAGES: Final = "images"
_LIST: Final = "`recoup list` shows all of them."
_SCHEMA_VERSION: Final = 3
_SCHEMA: Final = """
create table entry (
  id text primary key, version text not null, service text, engine text, kind text, label text,
  begun text, ended text, stored_bytes integer, plain_bytes integer, depends_on text, facts text,
  problem text, fault text
) strict
"""
_COLUMNS: Final = (
    "id, service, engine, kind, label, begun, ended, stored_bytes, plain_bytes, depends_on, facts, problem, fault"
)
#: Facts above this length (in JSON) are left to the manifest: lists of databases, not positions and versions.
_LONGEST_FACT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One artefact, as a list shows it. ``repositories`` are the names of those that hold its manifest."""

    id: str
    service: str
    engine: str
    kind: str
    label: str | None
    begun_text: str  #: as ``kernel.clock.to_text`` writes it; thousands of these are sorted, a few are looked at
    ended_text: str
    stored_bytes: int
    plain_bytes: int
    repositories: tuple[str, ...]
    depends_on: tuple[str, ...] = ()  #: ids of artefacts without which this one cannot be restored
    facts_text: str = "{}"  #: what ``facts`` reads; thousands of these are listed, a few are looked at

    @property
    def facts(self) -> dict[str, Any]:
        """The engine's short facts: versions, positions, identifiers. Long ones are in the manifest only."""
        facts: dict[str, Any] = json.loads(self.facts_text)
        return facts

    @property
    def begun(self) -> datetime:
        """When the copy was begun, with its zone."""
        return clock.from_text(self.begun_text)

    @property
    def ended(self) -> datetime:
        """When the copy was complete, with its zone."""
        return clock.from_text(self.ended_text)


#: ``damage``: not what was written. ``format``: of a newer Recoup. ``key``: sealed with another key.
Fault = Literal["damage", "format", "key"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A manifest that is there and cannot be believed."""

    id: str
    repository: str
    what: str
    fault: Fault

    def error(self) -> RecoupError:
        """As the error of a command that needs this manifest."""
        match self.fault:
            case "format":
                hint = "Use the Recoup that wrote it, or a newer one; `restore.sh` in the repository needs none."
                return UnknownFormatError(f"{self.repository}: {self.what}", hint=hint)
            case "key":
                return WrongKeyError(f"{self.repository}: {self.what}", hint="Give its key with --key-file FILE.")
        return DamageError(
            f"the manifest of {self.id} in {self.repository} is damaged: {self.what}",
            hint="Read it from another repository, or take another copy: `recoup list` shows them.",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """All artefacts of the repositories that answered, newest first; what is wrong; and who did not answer."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()
    silent: tuple[tuple[str, RecoupError], ...] = ()

    def find(self, reference: str, *, service: str | None = None, kinds: Sequence[str] = ()) -> Entry:
        """The entry meant by ``latest``, an id, or an unambiguous part of one. Raise ``UsageError`` otherwise."""
        wanted = [
            entry
            for entry in self.entries
            if (service is None or entry.service == service) and (not kinds or entry.kind in kinds)
        ]
        of = f" of service {service!r}" if service else ""
        points = STACK in (service, *kinds)  # they have names of their own
        beside = {STACK, IMAGES} - {service, *kinds}
        if reference == "latest":
            wanted = [one for one in wanted if one.label != REPLACED and one.kind not in beside]
            if not wanted:
                raise UsageError(
                    f"there is no artefact{of} in any repository that answered", hint=self._silence() or _LIST
                )
            services = {entry.service for entry in wanted}
            if service is None and len(services) > 1:
                raise UsageError(
                    f"'latest' of which service? There are {', '.join(sorted(services))}",
                    hint="Add --service NAME.",
                )
            return wanted[0]
        matches = [
            one for one in wanted if one.id == reference or (points and one.kind == STACK and one.label == reference)
        ]
        matches = matches or [e for e in wanted if e.id.startswith(reference) or e.id.endswith(reference)]
        if not matches:
            wrong = next((one for one in self.problems if one.id == reference), None)
            if wrong is not None:
                raise wrong.error()
            raise UsageError(f"no artefact{of} is called {reference!r}", hint=self._silence() or _LIST)
        if len(matches) > 1:
            raise UsageError(
                f"{reference!r} is ambiguous: {', '.join(entry.id for entry in matches[:5])}",
                hint="Write more of the id.",
            )
        return matches[0]

    def _silence(self) -> str | None:
        if not self.silent:
            return None
        return "These repositories did not answer: " + "; ".join(f"{name}: {why}" for name, why in self.silent) + "."


def read_catalog(repositories: Sequence[Repository], state_folder: Path) -> Catalog:
    """Refresh the cache of each repository from its manifests and merge them."""
    merged: dict[str, Entry] = {}
    problems: list[Problem] = []
    silent: list[tuple[str, RecoupError]] = []
    for repository in repositories:
        try:
            entries, wrong = _refresh(repository, state_folder)
        except RecoupError as failure:
            silent.append((repository.name, failure))
            continue
        problems += wrong
        for entry in entries:
            known = merged.get(entry.id)
            merged[entry.id] = (
                entry if known is None else replace(known, repositories=known.repositories + entry.repositories)
            )
    newest_first = sorted(merged.values(), key=lambda entry: (entry.begun_text, entry.id), reverse=True)
    return Catalog(entries=tuple(newest_first), problems=tuple(problems), silent=tuple(silent))


def _refresh(repository: Repository, state_folder: Path) -> tuple[list[Entry], list[Problem]]:
    there = {}
    for info in repository.store.list(layout.MANIFESTS):
        identifier = layout.artefact_id_of(info.key)
        if identifier is not None:
            there[identifier] = info.version
    path = state_folder / f"catalog-{repository.identity}-{repository.key.id[:16]}.sqlite"
    with contextlib.suppress(sqlite3.DatabaseError, OSError):
        return _refresh_cache(repository, there, path)
    # The cache is damaged, or cannot be written. It holds nothing of its own: make it anew, in memory if need be.
    with contextlib.suppress(sqlite3.DatabaseError, OSError):
        path.unlink(missing_ok=True)
        return _refresh_cache(repository, there, path)
    return _refresh_cache(repository, there, None)


def _refresh_cache(
    repository: Repository, there: Mapping[str, str], path: Path | None
) -> tuple[list[Entry], list[Problem]]:
    with contextlib.closing(_open_database(path)) as database:
        # What was damaged is read again: it may have been the way there, or it was replaced.
        known = dict(database.execute("select id, iif(fault = 'damage', '', version) from entry").fetchall())
        gone = [(identifier,) for identifier in known if identifier not in there]
        database.executemany("delete from entry where id = ?", gone)
        for identifier, version in there.items():
            if known.get(identifier) != version:
                row = _row(repository, identifier, version)
                if row is not None:
                    database.execute("insert or replace into entry values (?,?,?,?,?,?,?,?,?,?,?,?,?,?)", row)
        database.commit()
        return _entries(database, repository.name)


def _row(repository: Repository, identifier: str, version: str) -> tuple[object, ...] | None:
    try:
        manifest = repository.manifest(identifier)
    except MissingObjectError:
        return None  # pruned between the listing and the reading
    except (DamageError, WrongKeyError, UnknownFormatError) as wrong:
        return (identifier, version, *([None] * 10), wrong.message, _fault_of(wrong))
    return (
        manifest.id,
        version,
        manifest.service,
        manifest.engine,
        manifest.kind,
        manifest.label,
        clock.to_text(manifest.begun),
        clock.to_text(manifest.ended),
        manifest.stored_bytes,
        manifest.plain_bytes,
        " ".join(manifest.depends_on),
        _short_facts(manifest.facts),
        None,
        None,
    )


def _short_facts(facts: Mapping[str, Any]) -> str:
    short = {name: value for name, value in facts.items() if isinstance(value, str | int | float | bool)}
    return json.dumps({name: value for name, value in short.items() if len(str(value)) <= _LONGEST_FACT})


def _fault_of(wrong: RecoupError) -> Fault:
    return (
        "format" if isinstance(wrong, UnknownFormatError) else "key" if isinstance(wrong, WrongKeyError) else "damage"
    )


def _entries(database: sqlite3.Connection, name: str) -> tuple[list[Entry], list[Problem]]:
    entries, problems = [], []
    for row in database.execute(f"select {_COLUMNS} from entry"):  # noqa: S608 - a constant
        identifier, service, engine, kind, label, begun, ended, stored, plain, depends_on, facts, problem, fault = row
        if problem is not None:
            problems.append(Problem(id=identifier, repository=name, what=problem, fault=fault))
            continue
        entries.append(
            Entry(
                id=identifier,
                service=service,
                engine=engine,
                kind=kind,
                label=label,
                begun_text=begun,
                ended_text=ended,
                stored_bytes=stored,
                plain_bytes=plain,
                repositories=(name,),
                depends_on=tuple(depends_on.split()),
                facts_text=facts,
            )
        )
    return entries, problems


def _open_database(path: Path | None) -> sqlite3.Connection:
    return open_cache(path, version=_SCHEMA_VERSION, tables=("entry",), schema=(_SCHEMA,))
