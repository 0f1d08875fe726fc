"""Reading an object back: whole, in ranges, in order or as fast as it comes.

The order is fixed: fetch → compare the digest → decrypt → decompress → compare the length → hand out. Adjacent frames
are fetched together and decrypted in one go, since any block of CBC can be decrypted with the block before it.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Final, Protocol

from recoup.engines.engine import Member
from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, StorageError, UnknownFormatError
from recoup.repository.frames import is_packed, unpack
from recoup.repository.index import Index
from recoup.repository.seal import BLOCK, Key, decrypt_into, unseal, wrong_key
from recoup.repository.stored_frames import Run, fetch_from_any, how_many, place, runs, scrub
from recoup.storage.object_store import ObjectStore

__all__ = ["IndexReference", "ObjectReader", "StoredReference", "load_index", "scrub"]

_SHARE_BYTES: Final = 8 << 20
_PADDING: Final = bytes([BLOCK]) * BLOCK


class IndexReference(Protocol):
    """What an authenticated manifest says of an index: its object key, length and lowercase hexadecimal sha256."""

    @property
    def key(self) -> str: ...

    @property
    def stored_bytes(self) -> int: ...

    @property
    def sha256(self) -> str: ...


class StoredReference(Protocol):
    """What an authenticated manifest says of an object."""

    @property
    def key(self) -> str: ...

    @property
    def stored_bytes(self) -> int: ...

    @property
    def plain_bytes(self) -> int: ...

    @property
    def index(self) -> IndexReference: ...


def load_index(
    stores: ObjectStore | Sequence[ObjectStore],
    stored: StoredReference,
    key: Key,
    *,
    passed_over: list[RecoupError] | None = None,
) -> Index:
    """Read, check, decrypt and parse the index of an object, given what the authenticated manifest says of both.

    It comes from the first of ``stores`` that has it right; what was wrong in others is added to ``passed_over``.
    Raise ``DamageError`` when none has (nothing was decrypted then), ``StorageError``, ``WrongKeyError`` or
    ``UnknownFormatError``.
    """
    reference = stored.index
    sealed: bytes | None = None
    failures: list[RecoupError] = []
    for store in _several(stores):
        try:
            sealed = _fetch_index(store, reference)
            break
        except (DamageError, StorageError) as failure:
            failures.append(failure)
    if sealed is None:
        raise failures[0]
    if passed_over is not None:
        passed_over += failures
    packed = unseal(key, sealed, what=reference.key)
    if not is_packed("zstd", packed):
        raise wrong_key(reference.key, key)
    try:
        index = Index.parse(packed)
    except (DamageError, UnknownFormatError) as bad:
        raise type(bad)(f"{reference.key}: {bad.message}", hint=bad.hint) from bad
    if (index.object_bytes, index.plain_bytes) != (stored.stored_bytes, stored.plain_bytes):
        raise DamageError(f"{reference.key} does not belong to {stored.key}: their lengths differ")
    return index


def _fetch_index(store: ObjectStore, reference: IndexReference) -> bytes:
    try:
        size = store.stat(reference.key).size_bytes
        if size != reference.stored_bytes:
            how = "is truncated" if size < reference.stored_bytes else "was changed"
            raise DamageError(f"{reference.key} {how}: it has {size} bytes instead of {reference.stored_bytes}")
        sealed = store.get(reference.key, limit_bytes=reference.stored_bytes)
    except MissingObjectError as missing:
        raise DamageError(f"{reference.key} is missing") from missing
    if not hmac.compare_digest(hashlib.sha256(sealed).hexdigest(), reference.sha256):
        raise DamageError(f"{reference.key} was changed: it does not match its digest in the manifest")
    return sealed


class ObjectReader:
    """Reads one object by its index. Every byte it yields was authenticated first. Several threads may share one.

    With several stores, what the first has lost or damaged comes from the next; ``passed_over`` then says what was
    wrong (at most a hundred entries). All reading raises ``DamageError`` naming the object, the frame and its bytes,
    ``WrongKeyError`` when authentic bytes do not decrypt to frames, and ``StorageError`` when a store fails.
    """

    def __init__(
        self,
        stores: ObjectStore | Sequence[ObjectStore],
        object_key: str,
        *,
        key: Key,
        index: Index,
        workers: int = 0,
    ) -> None:
        """``workers`` threads fetch and decompress at once; 0 means as many as there are processors."""
        self._stores = _several(stores)
        self._object_key, self._key, self._index = object_key, key, index
        self._workers = how_many(workers)
        self._derived: tuple[bytes, bytes] | None = None
        self._buffers: deque[bytearray] = deque()  # for decrypted runs; each has one user at a time
        self.passed_over: deque[RecoupError] = deque(maxlen=100)

    def members(self) -> Iterator[Member]:
        """The members of a tar stream; none for other content."""
        return self._index.members()

    def read(self, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Plain bytes ``[start, start + length)`` in order, in pieces of a frame at most, read ahead in parallel.

        ``length`` None means up to the end. Raise ``ValueError`` for a range outside the stream.
        """
        total = self._index.plain_bytes
        stop = total if length is None else start + length
        if not 0 <= start <= stop <= total:
            raise ValueError(f"bytes {start} to {stop} of a stream of {total}")
        if start == stop:
            # An empty stream still has a frame, and reading it proves the object.
            return self._slices(0, self._index.frames, 0, 0) if total == 0 else iter(())
        return self._slices(self._index.frame_at(start), self._index.frame_at(stop - 1) + 1, start, stop)

    def each_frame(self, act: Callable[[int, bytes], None], workers: int = 0) -> None:
        """Call ``act(plain offset, plain bytes)`` for every frame, in any order, from several threads at once.

        The fastest way to have all of it: what ``act`` does is done by the thread that decompressed the frame. The
        threads begin far from each other, so that they seldom write to the same file, which only one can do at a time.
        Memory is bounded: each thread holds one run of frames. The first error, of the reading or of ``act``, is
        raised when all threads have ended.
        """
        workers = how_many(workers) if workers else self._workers
        shares = _Shares(self._index, workers)
        stopped = threading.Event()

        def task(number: int) -> None:
            try:
                while not stopped.is_set() and (share := shares.following(number)) is not None:
                    for run in runs(self._index.rows(*share)):
                        for start, plain in self._open(run):
                            if stopped.is_set():
                                return
                            act(start, plain)
            except BaseException:
                stopped.set()
                raise

        with ThreadPoolExecutor(workers, "recoup-read") as pool:
            try:
                for done in as_completed([pool.submit(task, number) for number in range(workers)]):
                    done.result()
            finally:
                stopped.set()  # an interruption of the waiting: nobody begins another frame

    def _slices(self, first: int, end: int, start: int, stop: int) -> Iterator[bytes]:
        for offset, plain in self._ordered(runs(self._index.rows(first, end))):
            if start <= offset and offset + len(plain) <= stop:
                if plain:
                    yield plain
            else:
                yield plain[max(0, start - offset) : stop - offset]

    def _ordered(self, work: Iterator[Run]) -> Iterator[tuple[int, bytes]]:
        first, second = next(work), next(work, None)
        if second is None:  # a short read: not worth a thread
            yield from self._open(first)
            return
        pool = ThreadPoolExecutor(self._workers, "recoup-read")
        try:
            ahead = deque([pool.submit(self._open_all, first), pool.submit(self._open_all, second)])
            while ahead:
                while len(ahead) <= self._workers and (following := next(work, None)) is not None:
                    ahead.append(pool.submit(self._open_all, following))
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _open_all(self, run: Run) -> list[tuple[int, bytes]]:
        return list(self._open(run))

    def _open(self, run: Run) -> Iterator[tuple[int, bytes]]:
        """Fetch, check, decrypt and decompress a run. Nothing is decrypted before all its digests matched."""
        for part, span in fetch_from_any(self._stores, self._object_key, run, self._index, self.passed_over.append):
            buffer = self._take_buffer(len(span))
            try:
                self._decrypt(part, memoryview(span), buffer)
                yield from self._unpack(part, memoryview(buffer))
            finally:
                self._buffers.append(buffer)

    def _unpack(self, run: Run, plain: memoryview) -> Iterator[tuple[int, bytes]]:
        at = 0
        for frame in run.frames:
            packed = plain[at : at + frame.cipher_bytes]
            at += frame.cipher_bytes
            what = f"{self._object_key}: {place(frame)}"
            if not is_packed(self._index.compression, packed):
                raise wrong_key(what, self._key)
            if frame.number == self._index.frames - 1:
                if packed[-BLOCK:] != _PADDING:
                    raise wrong_key(what, self._key)
                packed = packed[:-BLOCK]
            try:
                yield frame.plain_start, unpack(self._index.compression, packed, frame.plain_bytes)
            except DamageError as damage:
                raise DamageError(f"{what} {damage.message}") from damage

    def _decrypt(self, run: Run, span: memoryview, plain: bytearray) -> None:
        if self._derived is None:  # two threads may both derive it: the same value
            self._derived = self._key.derive(self._index.salt)
        cipher_key, first_iv = self._derived
        iv = first_iv if run.start == 0 else bytes(span[:BLOCK])
        decrypt_into(cipher_key, iv, span[BLOCK:], plain)

    def _take_buffer(self, length: int) -> bytearray:
        try:
            buffer = self._buffers.pop()
        except IndexError:
            return bytearray(length)
        return buffer if len(buffer) >= length else bytearray(length)


class _Shares:
    """Frames shared out among threads: adjacent ones to each, and what is left over to whoever has time."""

    def __init__(self, index: Index, workers: int) -> None:
        self._lock = threading.Lock()
        size = max(1, _SHARE_BYTES // max(index.frame_bytes, 1))
        shares = [(at, min(at + size, index.frames)) for at in range(0, index.frames, size)]
        cuts = [len(shares) * number // workers for number in range(workers + 1)]
        self._left = [deque(shares[first:end]) for first, end in itertools.pairwise(cuts)]

    def following(self, number: int) -> tuple[int, int] | None:
        """Frames ``[first, end)`` for thread ``number``: the next of its own, else the last of who has most left."""
        with self._lock:
            if self._left[number]:
                return self._left[number].popleft()
            most = max(self._left, key=len)
            return most.pop() if most else None


def _several(stores: ObjectStore | Sequence[ObjectStore]) -> Sequence[ObjectStore]:
    several = stores if isinstance(stores, Sequence) else (stores,)
    if not several:
        raise ValueError("an object is read from at least one store")
    return several
