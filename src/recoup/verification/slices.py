"""Reading a part of an artefact's stored bytes and comparing them with their digests. Needs the key for the index."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, WrongKeyError
from recoup.kernel.finding import Finding, Verdict
from recoup.repository.index import Frame, Index
from recoup.repository.landing import read_back
from recoup.repository.manifest import Manifest, StoredObject
from recoup.repository.object_reader import load_index
from recoup.repository.repository import Repository
from recoup.repository.seal import HEADER_BYTES
from recoup.repository.stored_frames import check_size, fetch, runs

_REPAIR = "Restore from another repository; then take a new backup."


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What became of reading the bytes ``begin`` up to but without ``end``. Whole frames are read: it may be more."""

    begin: int
    end: int
    finding: Finding


def read_bytes(repository: Repository, manifest: Manifest, begin: int, end: int) -> Iterator[Read]:
    """Read the bytes of an artefact from ``begin`` to ``end``, object by object, each run of frames for itself.

    What is damaged or cannot be read is in a finding, and the rest is read all the same. Raise ``WrongKeyError``.
    """
    base = 0
    for stored in manifest.objects:
        data, beyond = base + stored.stored_bytes, base + stored.stored_bytes + stored.index.stored_bytes
        if begin < beyond and end > data:
            yield _index(repository, stored, data, beyond)
        if begin < data and end > base:
            yield from _frames(repository, stored, base, begin - base, end - base)
        base = beyond


def _index(repository: Repository, stored: StoredObject, begin: int, end: int) -> Read:
    key = stored.index.key
    act = partial(read_back, repository, key, stored.index.stored_bytes, stored.index.sha256)
    return Read(begin=begin, end=end, finding=_checked(repository, key, 0, stored.index.stored_bytes, act))


def _frames(repository: Repository, stored: StoredObject, base: int, begin: int, end: int) -> Iterator[Read]:
    store = repository.store
    try:
        index = load_index(store, stored, repository.key)
        check_size(store, stored.key, index)
    except WrongKeyError:
        raise
    except RecoupError as failure:
        finding = _finding(repository, stored.key, max(0, begin), min(end, stored.stored_bytes), failure)
        yield Read(begin=base + max(0, begin), end=base + min(end, stored.stored_bytes), finding=finding)
        return
    if index.frames == 0:
        whole = partial(read_back, repository, stored.key, stored.stored_bytes, stored.sha256)
        finding = _checked(repository, stored.key, 0, stored.stored_bytes, whole)
        yield Read(begin=base, end=base + stored.stored_bytes, finding=finding)
    for run in runs(_wanted(index, begin, end)):
        first = 0 if run.frames[0].number == 0 else run.start + HEADER_BYTES
        beyond = run.start + run.length
        finding = _checked(repository, stored.key, first, beyond, partial(fetch, store, stored.key, run, index))
        yield Read(begin=base + first, end=base + beyond, finding=finding)


def _wanted(index: Index, begin: int, end: int) -> Iterator[Frame]:
    """The frames that hold any of the bytes ``begin`` to ``end`` of the object. The first one holds its header too."""
    for frame in index.rows():
        first = HEADER_BYTES + frame.cipher_start if frame.number else 0
        if first >= end:
            return
        if HEADER_BYTES + frame.cipher_start + frame.cipher_bytes > begin:
            yield frame


def _checked(repository: Repository, key: str, begin: int, end: int, act: Callable[[], object]) -> Finding:
    try:
        act()
    except WrongKeyError:
        raise
    except RecoupError as failure:
        return _finding(repository, key, begin, end, failure)
    return _finding(repository, key, begin, end, None)


def _finding(repository: Repository, key: str, begin: int, end: int, failure: RecoupError | None) -> Finding:
    check, subject = "the stored bytes that were looked at match", f"{repository.name}:{key}"
    if failure is None:
        detail = f"bytes {begin} to {end - 1}"
        return Finding(check=check, subject=subject, verdict=Verdict.OK, detail=detail, not_checked="all other bytes")
    bad = isinstance(failure, DamageError | MissingObjectError)
    return Finding(
        check=check,
        subject=subject,
        verdict=Verdict.FAILED if bad else Verdict.UNKNOWN,
        detail=failure.message,
        hint=_REPAIR if bad else failure.hint,
    )
