"""Holds: small authenticated objects in a repository that say what may not expire, and why.

They lie where the copies lie, so that whoever prunes, from whatever machine, meets them. One that cannot be believed
holds everything.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from recoup.kernel import clock
from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, RefusedError, UnknownFormatError
from recoup.repository import layout
from recoup.repository.repository import Repository
from recoup.repository.retention import Hold
from recoup.repository.seal import authenticate, open_authenticated
from recoup.storage.object_store import ObjectExistsError

VERSION: Final = 1
_PURPOSE: Final = "hold"
_LIMIT_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRecord:
    """A hold as it is stored. ``artefact`` is the copy it was asked for, when it was; ``begins`` is what counts."""

    name: str
    begins: datetime | None
    reason: str
    created: datetime
    artefact: str | None = None

    def hold(self) -> Hold:
        """What retention makes of it."""
        return Hold(name=self.name, begins=self.begins, reason=self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holds:
    """The holds of a repository. ``problems`` are those that are there and cannot be believed: (name, what)."""

    records: tuple[HoldRecord, ...]
    problems: tuple[tuple[str, str], ...]


def read_holds(repository: Repository) -> Holds:
    """Every hold there is, by name. Raise ``StorageError`` when that cannot be found out."""
    records, problems = [], []
    for info in repository.store.list(layout.HOLDS):
        name = layout.hold_name_of(info.key)
        if name is None:
            continue
        try:
            records.append(_parse(repository, name, repository.store.get(info.key, limit_bytes=_LIMIT_BYTES)))
        except MissingObjectError:
            continue  # released between the listing and the reading
        except RecoupError as wrong:
            if wrong.may_retry:
                raise
            problems.append((name, wrong.message))
    return Holds(records=tuple(records), problems=tuple(problems))


def place_hold(repository: Repository, record: HoldRecord) -> None:
    """Store a hold. The same again is fine.

    Raise ``RefusedError`` when another one has its name, ``StorageError``, ``ValueError`` for an impossible name.
    """
    key = layout.hold_key(record.name)
    data = authenticate(repository.key, _PURPOSE, key, _body(record))
    with contextlib.suppress(ObjectExistsError):  # compared below: it may be ours, whose answer was lost
        repository.store.put(key, data, if_absent=True)
    held = _parse(repository, record.name, repository.store.get(key, limit_bytes=_LIMIT_BYTES))
    if (held.begins, held.reason, held.artefact) != (record.begins, record.reason, record.artefact):
        raise RefusedError(
            f"{repository} has another hold {record.name!r}: {held.reason}",
            hint=f"Choose another name, or release it first: `recoup hold --release {record.name}`.",
        )


def release_hold(repository: Repository, name: str) -> bool:
    """Remove a hold, also one that cannot be believed; whether it was there. Raise ``StorageError``."""
    key = layout.hold_key(name)
    try:
        repository.store.stat(key)
    except MissingObjectError:
        return False
    repository.store.delete(key)
    return True


def _body(record: HoldRecord) -> bytes:
    body = {
        "recoup_hold": VERSION,
        "name": record.name,
        "from": None if record.begins is None else clock.to_text(record.begins),
        "artefact": record.artefact,
        "reason": record.reason,
        "created": clock.to_text(record.created),
    }
    return json.dumps(body, indent=1, sort_keys=True, ensure_ascii=True).encode() + b"\n"


def _parse(repository: Repository, name: str, data: bytes) -> HoldRecord:
    key = layout.hold_key(name)
    text = open_authenticated(repository.key, _PURPOSE, key, data)
    try:
        body: dict[str, Any] = json.loads(text)
        if body["recoup_hold"] != VERSION:
            raise UnknownFormatError(
                f"{key} has version {body['recoup_hold']!r}; this Recoup knows version {VERSION}",
                hint="Use the Recoup that wrote it, or a newer one.",
            )
        return HoldRecord(
            name=name,
            begins=None if body["from"] is None else clock.from_text(body["from"]),
            artefact=None if body["artefact"] is None else str(body["artefact"]),
            reason=str(body["reason"]),
            created=clock.from_text(body["created"]),
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise DamageError(f"{key} is authentic but is not what Recoup writes: {wrong!r}") from wrong
