"""A repository: an object store that carries Recoup's marker, and the key that opens it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from recoup.kernel import clock, ids
from recoup.kernel.errors import (
    DamageError,
    MissingObjectError,
    NoRepositoryError,
    RefusedError,
    UnknownFormatError,
)
from recoup.repository import layout, stock_tools
from recoup.repository.manifest import LIMIT_BYTES, Manifest, parse
from recoup.repository.seal import Key, authenticate, open_authenticated
from recoup.storage.object_store import ObjectExistsError, ObjectStore

FORMAT: Final = 1
_PURPOSE: Final = "repository"


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """An opened repository. ``name`` is what the plan calls it; ``identity`` is its own, fixed at its creation."""

    name: str
    identity: str
    created: datetime
    store: ObjectStore
    key: Key

    def __str__(self) -> str:
        return f"{self.name} ({self.store.address})"

    def manifest(self, artefact_id: str) -> Manifest:
        """Read and authenticate one manifest. Raise ``MissingObjectError``, or as ``manifest.parse`` does."""
        data = self.store.get(layout.manifest_key(artefact_id), limit_bytes=LIMIT_BYTES)
        return parse(data, self.key, artefact_id)


def open_repository(name: str, store: ObjectStore, key: Key) -> Repository:
    """Open what is there.

    Raise ``NoRepositoryError`` when nothing is, ``WrongKeyError`` when it was made with another key,
    ``UnknownFormatError`` when a newer Recoup made it, ``StorageError`` when it could not be found out.
    """
    try:
        data = store.get(layout.MARKER, limit_bytes=1 << 20)
    except MissingObjectError as missing:
        raise NoRepositoryError(
            f"there is no Recoup repository at {store.address}",
            hint="The first `recoup backup` creates it. To recover, check the address for a spelling mistake.",
        ) from missing
    body = open_authenticated(key, _PURPOSE, layout.MARKER, data)
    try:
        document = json.loads(body)
        version = document["recoup_repository"]
        if version == FORMAT:
            created = clock.from_text(document["created"])
            return Repository(name=name, identity=str(document["id"]), created=created, store=store, key=key)
    except (ValueError, KeyError, TypeError, RecursionError) as wrong:
        raise DamageError(f"{layout.MARKER} at {store.address} is authentic but is not what Recoup writes") from wrong
    raise UnknownFormatError(
        f"the repository at {store.address} has format {version!r}; this Recoup knows format {FORMAT}",
        hint="Use the Recoup that wrote it, or a newer one; `restore.sh` in the repository needs none.",
    )


def create_repository(name: str, store: ObjectStore, key: Key) -> Repository:
    """Make a repository in an empty place. Raise ``RefusedError`` when something that is not Recoup's is there."""
    foreign = next((info.key for info in store.list() if not _is_stock_tool(store, key, info.key)), None)
    if foreign is not None:
        raise RefusedError(
            f"{store.address} is not empty and is not a Recoup repository (it holds {foreign!r})",
            hint="Give the repository a folder or a bucket prefix of its own.",
        )
    moment = clock.now()
    identity = ids.new_id(moment)
    body = {"created": clock.to_text(moment), "id": identity, "key": key.id, "recoup_repository": FORMAT}
    write_stock_tools(store, key)
    data = authenticate(key, _PURPOSE, layout.MARKER, json.dumps(body, indent=1, sort_keys=True).encode() + b"\n")
    try:
        store.put(layout.MARKER, data, if_absent=True)
    except ObjectExistsError:
        # Another run created it in the same second. Theirs is as good, if it opens with our key.
        return open_repository(name, store, key)
    return Repository(name=name, identity=identity, created=moment, store=store, key=key)


def _is_stock_tool(store: ObjectStore, key: Key, name: str) -> bool:
    """Whether an object is one of those that come before the marker: somebody makes this repository, or was killed."""
    text = stock_tools.files(key).get(name)
    try:
        return text is not None and store.get(name, limit_bytes=1 << 20) == text
    except MissingObjectError:
        return True  # it is being written anew


def open_or_create(name: str, store: ObjectStore, key: Key, *, create: bool = True) -> Repository:
    """Open a repository for writing, making it when the place is empty and ``create``; refresh its stock tools."""
    try:
        repository = open_repository(name, store, key)
    except NoRepositoryError:
        if not create:
            raise
        return create_repository(name, store, key)
    write_stock_tools(store, key)
    return repository


def write_stock_tools(store: ObjectStore, key: Key) -> None:
    """Put ``RESTORE.md`` and ``restore.sh`` there, unless they already say the same."""
    for name, text in stock_tools.files(key).items():
        try:
            if store.get(name, limit_bytes=1 << 20) == text:
                continue
        except MissingObjectError:
            pass
        store.put(name, text)
