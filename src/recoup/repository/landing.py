"""How stored bytes come into a repository from another one, and how it is proven that they arrived.

Objects are copied as they are stored, never sealed anew, so that the manifest, its digests and every index stay true.
A manifest is written when all its objects matched where they landed, and not before.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence

from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, StorageError
from recoup.repository import layout
from recoup.repository.manifest import LIMIT_BYTES, Manifest, parse
from recoup.repository.repository import Repository
from recoup.storage.object_store import ObjectExistsError


class SourceError(DamageError):
    """What another repository should hold cannot be copied from there: missing, damaged, or it does not answer."""


class GoneError(SourceError):
    """Every repository that held it has removed it meanwhile: it expired, or something newer stands for it."""


def read_back(repository: Repository, key: str, stored_bytes: int, sha256: str) -> None:
    """Read a stored object whole and compare. Raise ``DamageError`` when it is not what was written."""
    digest, size = hashlib.sha256(), 0
    for piece in repository.store.read(key):
        digest.update(piece)
        size += len(piece)
    if size != stored_bytes or digest.hexdigest() != sha256:
        raise DamageError(
            f"{key} in {repository} does not read back as it was written ({size} of {stored_bytes} bytes)",
            hint="The place that keeps it changes or loses bytes; check its disk or its provider before trusting it.",
        )


def copy_object(source: Repository, target: Repository, key: str, stored_bytes: int, sha256: str) -> None:
    """Copy a stored object. What does not match its digest is given up before it can be seen in ``target``.

    Raise ``SourceError`` when ``source`` has not got it right, ``StorageError`` when ``target`` does not take it. What
    landed is proven by ``read_back``, not by this.
    """
    digest, size = hashlib.sha256(), 0
    with target.store.writer(key, expected_bytes=stored_bytes) as writer:
        for piece in _pieces(source, key):
            digest.update(piece)
            size += len(piece)
            writer.write(piece)
        if size != stored_bytes or digest.hexdigest() != sha256:
            raise SourceError(
                f"{key} in {source} is not what was written there",
                hint="`recoup verify` says what is damaged; another repository may have it whole.",
            )
        writer.commit()


def write_manifest(repository: Repository, artefact_id: str, data: bytes) -> RecoupError | None:
    """Write a manifest and read it back; the error when that fails."""
    key = layout.manifest_key(artefact_id)
    try:
        with contextlib.suppress(ObjectExistsError):  # a repeated request whose first answer was lost; compared below
            repository.store.put(key, data, if_absent=True)
        if repository.store.get(key) != data:
            return DamageError(f"{key} in {repository} does not read back as it was written")
    except StorageError as failure:
        return failure
    return None


def copy_artefact(artefact_id: str, sources: Sequence[Repository], target: Repository) -> Manifest:
    """Copy a whole artefact: its objects from any source that has them right, each read back, then its manifest.

    All repositories have the same key. Raise ``SourceError`` when no source has all of it, ``StorageError`` and
    ``DamageError`` when ``target`` does not take or keep it; what landed by then is the caller's to remove.
    """
    manifest, data = _manifest(artefact_id, sources)
    for stored in manifest.objects:
        _copy(sources, target, stored.key, stored.stored_bytes, stored.sha256)
        _copy(sources, target, stored.index.key, stored.index.stored_bytes, stored.index.sha256)
    failure = write_manifest(target, artefact_id, data)
    if failure is not None:
        raise failure
    return manifest


def heal_artefact(artefact_id: str, sources: Sequence[Repository], target: Repository) -> None:
    """Replace the manifest of an artefact that ``target`` holds with a damaged one; and objects that do not match it.

    Nothing is removed, and nothing that is right is written again. Raise as ``copy_artefact`` does.
    """
    manifest, data = _manifest(artefact_id, sources)
    for stored in manifest.objects:
        index = stored.index
        for key, size, sha256 in (
            (stored.key, stored.stored_bytes, stored.sha256),
            (index.key, index.stored_bytes, index.sha256),
        ):
            try:
                read_back(target, key, size, sha256)
            except (DamageError, MissingObjectError):
                _copy(sources, target, key, size, sha256)
    target.store.put(layout.manifest_key(artefact_id), data)
    failure = write_manifest(target, artefact_id, data)
    if failure is not None:
        raise failure


def _manifest(artefact_id: str, sources: Sequence[Repository]) -> tuple[Manifest, bytes]:
    wrong: list[RecoupError] = []
    for source in sources:
        try:
            data = source.store.get(layout.manifest_key(artefact_id), limit_bytes=LIMIT_BYTES)
            return parse(data, source.key, artefact_id), data
        except RecoupError as failure:
            wrong.append(failure)
    raise _nowhere(f"the manifest of {artefact_id}", wrong)


def _copy(sources: Sequence[Repository], target: Repository, key: str, stored_bytes: int, sha256: str) -> None:
    wrong: list[RecoupError] = []
    for source in sources:
        try:
            copy_object(source, target, key, stored_bytes, sha256)
        except SourceError as failure:
            wrong.append(failure)
        else:
            read_back(target, key, stored_bytes, sha256)
            return
    raise _nowhere(key, wrong)


def _pieces(source: Repository, key: str) -> Iterator[bytes]:
    try:
        yield from source.store.read(key)
    except MissingObjectError as missing:
        raise GoneError(f"{key} is missing in {source}") from missing
    except StorageError as failure:
        raise SourceError(f"{key} cannot be read from {source}: {failure}", hint=failure.hint) from failure


def _nowhere(what: str, wrong: Sequence[RecoupError]) -> RecoupError:
    gone = all(isinstance(one, MissingObjectError | GoneError) for one in wrong)
    return (GoneError if gone else SourceError)(
        f"no repository has {what} whole: {'; '.join(dict.fromkeys(one.message for one in wrong))}",
        hint="`recoup verify` says what is damaged; take a new backup.",
    )
