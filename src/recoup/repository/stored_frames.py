"""Stored frames: fetching them and comparing their digests. There is no key in this file, and none is needed.

An object may be kept in several stores, byte for byte the same. What one of them has lost or damaged comes from the
next: whole runs of frames where possible, single frames where every store has damage of its own.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, StorageError, TransientStorageError
from recoup.repository.index import Frame, Index
from recoup.repository.seal import BLOCK, HEADER_BYTES, MAGIC
from recoup.storage.object_store import ObjectStore

_RUN_CIPHER_BYTES: Final = 4 << 20  # one request: few enough for S3, small enough to hold several
_RUN_PLAIN_BYTES: Final = 8 << 20
_WORKERS_LIMIT: Final = 8


@dataclass(frozen=True, slots=True)
class Run:
    """Adjacent frames that are fetched and decrypted together."""

    frames: Sequence[Frame]

    @property
    def start(self) -> int:
        """Where it begins in the object, in bytes: with the block before its first frame."""
        return self.frames[0].cipher_start

    @property
    def length(self) -> int:
        """Its bytes, the block before its first frame included."""
        last = self.frames[-1]
        return BLOCK + last.cipher_start + last.cipher_bytes - self.start


def runs(frames: Iterable[Frame]) -> Iterator[Run]:
    """Given adjacent frames in order, group them into requests of about 4 MiB."""
    group: list[Frame] = []
    cipher = plain = 0
    for frame in frames:
        cipher += frame.cipher_bytes
        plain += frame.plain_bytes
        if group and (cipher > _RUN_CIPHER_BYTES or plain > _RUN_PLAIN_BYTES):
            yield Run(group)
            group, cipher, plain = [], frame.cipher_bytes, frame.plain_bytes
        group.append(frame)
    if group:
        yield Run(group)


def fetch_from_any(
    stores: Sequence[ObjectStore], object_key: str, run: Run, index: Index, passed_over: Callable[[RecoupError], None]
) -> Iterator[tuple[Run, bytes]]:
    """Fetch a run from the first store that has it right, in one piece or, where all have damage, frame by frame.

    What was wrong in a store, when another one made up for it, goes to ``passed_over``. Raise ``DamageError`` or
    ``StorageError`` naming every store when none has a frame right.
    """
    failures: list[tuple[ObjectStore, RecoupError]] = []
    for store in stores:
        try:
            span = fetch(store, object_key, run, index)
        except (DamageError, StorageError) as failure:
            failures.append((store, failure))
            continue
        for _, overcome in failures:
            passed_over(overcome)
        yield run, span
        return
    if len(stores) > 1 and len(run.frames) > 1:
        for frame in run.frames:
            yield from fetch_from_any(stores, object_key, Run((frame,)), index, passed_over)
        return
    raise _nowhere(failures)


def fetch(store: ObjectStore, object_key: str, run: Run, index: Index) -> bytes:
    """Fetch a run and compare every digest of it; return its bytes, still encrypted.

    Raise ``DamageError`` saying whether the object is missing, truncated or changed, where, and ``StorageError`` when
    it could not be read.
    """
    try:
        span = store.read_range(object_key, run.start, run.length)
    except MissingObjectError as missing:
        raise DamageError(f"{object_key} is missing ({place(run.frames[0])} was wanted)") from missing
    except TransientStorageError:
        raise
    except StorageError:
        check_size(store, object_key, index)  # too short is damage; unreadable is not known to be
        raise
    if len(span) != run.length:
        check_size(store, object_key, index)
        raise StorageError(f"{store.address} gave {len(span)} bytes of {object_key} instead of {run.length}")
    view = memoryview(span)
    for frame in run.frames:
        start = frame.cipher_start - run.start
        if hashlib.sha256(view[start : start + BLOCK + frame.cipher_bytes]).digest() != frame.digest:
            raise DamageError(f"{object_key} was changed: {place(frame)} of {index.frames} does not match its digest")
    if run.start == 0 and view[:HEADER_BYTES] != MAGIC + index.salt:
        raise DamageError(f"{object_key} has another salt than its index says")
    return span


def check_size(store: ObjectStore, object_key: str, index: Index) -> None:
    """Raise ``DamageError`` when the object is missing or has another length than its index says."""
    try:
        size = store.stat(object_key).size_bytes
    except MissingObjectError as missing:
        raise DamageError(f"{object_key} is missing") from missing
    if size > index.object_bytes:
        raise DamageError(f"{object_key} was changed: it has {size} bytes instead of {index.object_bytes}")
    if size < index.object_bytes:
        cut = next(frame for frame in index.rows() if HEADER_BYTES + frame.cipher_start + frame.cipher_bytes > size)
        raise DamageError(
            f"{object_key} is truncated: it has {size} bytes instead of {index.object_bytes}, "
            f"and {place(cut)} is the first that is not whole"
        )


def scrub(store: ObjectStore, object_key: str, index: Index, *, workers: int = 0) -> int:
    """Check every byte of an object in one store against its index, without the key; return how many there are.

    Raise ``DamageError`` naming the first damaged frame, or ``StorageError`` when it could not be read.
    """
    check_size(store, object_key, index)
    workers = how_many(workers)
    ahead: deque[Future[bytes]] = deque()
    pool = ThreadPoolExecutor(workers, "recoup-scrub")
    try:
        for run in runs(index.rows()):
            ahead.append(pool.submit(fetch, store, object_key, run, index))
            if len(ahead) > workers:
                ahead.popleft().result()
        while ahead:
            ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return index.object_bytes


def place(frame: Frame) -> str:
    """How messages name a frame: its number and its bytes in the object."""
    start = frame.cipher_start + HEADER_BYTES
    return f"frame {frame.number} (bytes {start} to {start + frame.cipher_bytes - 1})"


def how_many(workers: int) -> int:
    """Given the wanted number of threads, 0 for one a processor, return how many to start."""
    return min(workers or os.cpu_count() or 1, _WORKERS_LIMIT)


def _nowhere(failures: Sequence[tuple[ObjectStore, RecoupError]]) -> RecoupError:
    first = failures[0][1]
    if len(failures) == 1:
        return first
    reasons = "; ".join(f"{store.address}: {failure.message}" for store, failure in failures)
    # A store that could not be reached may still have it right: only when all answered is it damage for certain.
    kind = next((type(failure) for _, failure in failures if isinstance(failure, StorageError)), type(first))
    return kind(f"no repository has it right ({reasons})", hint=first.hint)
