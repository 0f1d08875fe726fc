"""Removes copies from one repository. The manifest goes first: from then on the copy does not exist, and what follows
only gives room back. A run that dies in between leaves objects without a manifest; its note, or their age, lets the
next run remove them. Nothing is removed whose key ``layout`` does not spell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol, TypeVar

from recoup.kernel.errors import MissingObjectError, StorageError
from recoup.repository import layout
from recoup.repository.repository import Repository
from recoup.repository.unfinished import UnfinishedCopies

#: Objects without a manifest that are younger than this may be a backup in progress, on whatever machine.
ORPHAN_AGE: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the objects of one artefact are, whether or not there is a manifest."""

    service: str
    kind: str
    id: str

    @property
    def folder(self) -> str:
        """The prefix of its objects."""
        return layout.artefact_folder(self.service, self.kind, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """Objects that no manifest knows: what a run left that died. ``ripe``: old enough to be nobody's work."""

    place: Place
    stored_bytes: int
    ripe: bool


def locked_until(repository: Repository, place: Place, now: datetime) -> datetime | None:
    """Until when the store itself keeps an artefact, or a part of it; None when it does not, or does not say."""
    latest: datetime | None = None
    for key in [layout.manifest_key(place.id), *_objects(repository, place)]:
        try:
            until = repository.store.stat(key).locked_until
        except MissingObjectError:
            continue
        if until is not None and until > now and (latest is None or until > latest):
            latest = until
    return latest


def remove_copy(repository: Repository, place: Place, unfinished: UnfinishedCopies) -> None:
    """Remove an artefact: note it, then its manifest, then its objects, then see that they are gone.

    Repeated, it goes on where it stopped. Call it while holding the service's lease. Raise ``StorageError`` when
    something is still there, ``RecoupError`` when it cannot be noted.
    """
    with unfinished.under_way(place.id, place.service, place.kind, repository.identity):
        repository.store.delete(layout.manifest_key(place.id))
        for key in list(_objects(repository, place)):
            repository.store.delete(key)
        left = next(iter(_objects(repository, place)), None)
        if left is not None or _exists(repository, layout.manifest_key(place.id)):
            raise StorageError(
                f"{repository} says that {place.id} was removed, and still lists {left or 'its manifest'}",
                hint="Look at the rights and the versioning of the place; `recoup prune` tries again.",
            )


def find_orphans(repository: Repository, now: datetime) -> list[Orphan]:
    """Objects of artefacts whose manifest is not there, by artefact. Raise ``StorageError``.

    The age is that of the newest object by the store's clock, and that of the id; both must be old. A store that does
    not say when it wrote an object is judged by the id.
    """
    found: dict[Place, list[int]] = {}
    young: set[Place] = set()
    for info in repository.store.list(layout.ARTEFACTS):
        parts = layout.place_of_object(info.key)
        if parts is None:
            continue
        place = Place(service=parts[0], kind=parts[1], id=parts[2])
        found.setdefault(place, []).append(info.size_bytes)
        if info.modified is not None and info.modified > now - ORPHAN_AGE:
            young.add(place)
    # Listed after the objects: a copy that was finished meanwhile has its manifest by now.
    known = {layout.artefact_id_of(info.key) for info in repository.store.list(layout.MANIFESTS)}
    limit = (now - ORPHAN_AGE).strftime("%Y%m%d-%H%M%S")
    return [
        Orphan(place=place, stored_bytes=sum(sizes), ripe=place not in young and place.id[:15] < limit)
        for place, sizes in found.items()
        if place.id not in known
    ]


def remove_orphan(repository: Repository, orphan: Orphan) -> bool:
    """Remove what a dead run left; whether it was removed. What has a manifest after all stays."""
    if not orphan.ripe or _exists(repository, layout.manifest_key(orphan.place.id)):
        return False
    repository.store.discard_unfinished(orphan.place.folder)
    for key in list(_objects(repository, orphan.place)):
        repository.store.delete(key)
    return True


def _objects(repository: Repository, place: Place) -> Iterable[str]:
    for info in repository.store.list(place.folder):
        if layout.place_of_object(info.key) == (place.service, place.kind, place.id):
            yield info.key


def _exists(repository: Repository, key: str) -> bool:
    try:
        repository.store.stat(key)
    except MissingObjectError:
        return False
    return True


class LogObject(Protocol):
    """An object of a log: of WAL, or of a command stream."""

    @property
    def key(self) -> str:
        """Its object key."""
        ...

    @property
    def stored_bytes(self) -> int:
        """What it takes."""
        ...


_Entry = TypeVar("_Entry", bound=LogObject)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """How far the oldest side of a log went. ``expired`` counts objects, also in a dry run; ``removed`` what is gone.

    ``locked_until`` is set when the store keeps the next one, ``error`` when removing it failed.
    """

    expired: int
    expired_bytes: int
    removed: int
    locked_until: datetime | None = None
    error: StorageError | None = None


def cut_log(
    repository: Repository, going: Sequence[_Entry], delete: Callable[[_Entry], None], *, now: datetime, dry_run: bool
) -> Cut:
    """Remove objects of a log, the oldest first.

    At the first one that the store locks or that fails, all younger ones stay too, so that no hole is cut.
    """
    expired = 0
    until, error = None, None
    for entry in going:
        try:
            until = repository.store.stat(entry.key).locked_until
            if until is not None and until > now:
                break
            until = None
            if not dry_run:
                delete(entry)
            expired += 1
        except StorageError as failure:
            error = failure
            break
    return Cut(
        expired=expired,
        expired_bytes=sum(entry.stored_bytes for entry in going[:expired]),
        removed=0 if dry_run else expired,
        locked_until=until,
        error=error,
    )
