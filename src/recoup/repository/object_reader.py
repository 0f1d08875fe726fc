"""Reading an object back: whole, in ranges, in order or as fast as it comes; and checking it without the key.

The order is fixed: fetch → compare the digest → decrypt → decompress → compare the length → hand out. Adjacent frames
are fetched together and decrypted in one go, since any block of CBC can be decrypted with the block before it.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Final

from recoup.engines.engine import Member
from recoup.kernel.errors import DamageError, MissingObjectError, StorageError, TransientStorageError
from recoup.repository.frames import is_packed, unpack
from recoup.repository.index import Frame, Index
from recoup.repository.seal import BLOCK, HEADER_BYTES, MAGIC, Key, decrypt_into, wrong_key
from recoup.storage.object_store import ObjectStore

_RUN_CIPHER_BYTES: Final = 4 << 20  # one request: few enough for S3, small enough to hold several
_RUN_PLAIN_BYTES: Final = 8 << 20
_WORKERS_LIMIT: Final = 8
_AHEAD_BYTES: Final = 16 << 20
_PADDING: Final = bytes([BLOCK]) * BLOCK


@dataclass(frozen=True, slots=True)
class _Run:
    """Adjacent frames that are fetched and decrypted together."""

    frames: Sequence[Frame]

    @property
    def start(self) -> int:
        return self.frames[0].cipher_start

    @property
    def length(self) -> int:
        last = self.frames[-1]
        return BLOCK + last.cipher_start + last.cipher_bytes - self.start


def runs(frames: Iterable[Frame]) -> Iterator[_Run]:
    """Given adjacent frames in order, group them into requests."""
    group: list[Frame] = []
    cipher = plain = 0
    for frame in frames:
        full = cipher + frame.cipher_bytes > _RUN_CIPHER_BYTES or plain + frame.plain_bytes > _RUN_PLAIN_BYTES
        if group and full:
            yield _Run(group)
            group, cipher, plain = [], 0, 0
        group.append(frame)
        cipher += frame.cipher_bytes
        plain += frame.plain_bytes
    if group:
        yield _Run(group)


class ObjectReader:
    """Reads one object by its index. Every byte it yields was authenticated first. Several threads may share one.

    All reading raises ``DamageError`` naming the object, the frame and its bytes; ``WrongKeyError`` when authentic
    bytes do not decrypt to frames; ``StorageError`` when the store fails.
    """

    def __init__(self, store: ObjectStore, object_key: str, *, key: Key, index: Index, workers: int = 0) -> None:
        """``workers`` threads fetch and decompress at once; 0 means as many as there are processors."""
        self._store, self._object_key, self._key, self._index = store, object_key, key, index
        self._workers = _how_many(workers)
        self._derived: tuple[bytes, bytes] | None = None
        self._buffers: deque[bytearray] = deque()  # for decrypted runs; each has one user at a time

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
            return self._whole(self._index.rows()) if total == 0 else iter(())
        frames = self._index.rows(self._index.frame_at(start), self._index.frame_at(stop - 1) + 1)
        return self._read(frames, start, stop)

    def ranges(self, workers: int = 0) -> Iterator[tuple[int, bytes]]:
        """Every frame as (plain offset, plain bytes), in any order: the fastest way to have all of it.

        Memory is bounded; ending the iteration early stops the threads.
        """
        return self._unordered(_how_many(workers) if workers else self._workers)

    def _whole(self, frames: Iterable[Frame]) -> Iterator[bytes]:
        for _ in self._ordered(frames):
            pass
        yield from ()

    def _read(self, frames: Iterable[Frame], start: int, stop: int) -> Iterator[bytes]:
        for offset, plain in self._ordered(frames):
            if start <= offset and offset + len(plain) <= stop:
                yield plain
            else:
                yield plain[max(0, start - offset) : stop - offset]

    def _ordered(self, frames: Iterable[Frame]) -> Iterator[tuple[int, bytes]]:
        work = runs(frames)
        first, second = next(work), next(work, None)
        if second is None:  # a short read: not worth a thread
            yield from self._open(first)
            return
        pool = ThreadPoolExecutor(self._workers, "recoup-read")
        try:
            ahead: deque[Future[list[tuple[int, bytes]]]] = deque()
            for run in (first, second):
                ahead.append(pool.submit(self._open_all, run))
            while ahead:
                while len(ahead) <= self._workers and (following := next(work, None)) is not None:
                    ahead.append(pool.submit(self._open_all, following))
                yield from ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _unordered(self, workers: int) -> Iterator[tuple[int, bytes]]:
        work = runs(self._index.rows())
        lock = threading.Lock()
        stopped = threading.Event()
        room = max(2 * workers, _AHEAD_BYTES // max(self._index.frame_bytes, 1))
        results: Queue[tuple[int, bytes] | None] = Queue(room)

        def following() -> _Run | None:
            with lock:
                return None if stopped.is_set() else next(work, None)

        def task() -> None:
            try:
                while (run := following()) is not None:
                    for piece in self._open(run):
                        if stopped.is_set():
                            return
                        results.put(piece)
            except BaseException:
                stopped.set()
                raise
            finally:
                results.put(None)

        pool = ThreadPoolExecutor(workers, "recoup-read")
        tasks = [pool.submit(task) for _ in range(workers)]
        running = workers
        try:
            while running:
                piece = results.get()
                if piece is None:
                    running -= 1
                else:
                    yield piece
            for done in tasks:
                done.result()
        finally:
            stopped.set()
            while running:  # whoever waits for room must get it, or would wait for ever
                try:
                    running -= results.get(timeout=60) is None
                except Empty:
                    continue
            pool.shutdown(wait=True)

    def _open_all(self, run: _Run) -> list[tuple[int, bytes]]:
        return list(self._open(run))

    def _open(self, run: _Run) -> Iterator[tuple[int, bytes]]:
        """Fetch, check, decrypt and decompress a run. Nothing is decrypted before all its digests matched."""
        span = fetch(self._store, self._object_key, run.start, run.length, self._index, run.frames[0])
        view = memoryview(span)
        for frame in run.frames:
            check(self._object_key, frame, view[frame.cipher_start - run.start :], self._index)
        buffer = self._take_buffer(len(span))
        try:
            self._decrypt(run, view, buffer)
            yield from self._unpack(run, memoryview(buffer))
        finally:
            self._buffers.append(buffer)

    def _unpack(self, run: _Run, plain: memoryview) -> Iterator[tuple[int, bytes]]:
        at = 0
        for frame in run.frames:
            packed = plain[at : at + frame.cipher_bytes]
            at += frame.cipher_bytes
            what = f"{self._object_key}: {_place(frame)}"
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

    def _decrypt(self, run: _Run, span: memoryview, plain: bytearray) -> None:
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


def scrub(store: ObjectStore, object_key: str, index: Index, *, workers: int = 0) -> int:
    """Check every byte of an object against its index, without the key; return how many there are.

    Raise ``DamageError`` naming the first damaged frame, or ``StorageError`` when it could not be read.
    """
    _check_size(store, object_key, index)
    pool = ThreadPoolExecutor(_how_many(workers), "recoup-scrub")

    def check_run(run: _Run) -> None:
        view = memoryview(fetch(store, object_key, run.start, run.length, index, run.frames[0]))
        for frame in run.frames:
            check(object_key, frame, view[frame.cipher_start - run.start :], index)

    ahead: deque[Future[None]] = deque()
    try:
        for run in runs(index.rows()):
            ahead.append(pool.submit(check_run, run))
            if len(ahead) > 2 * _how_many(workers):
                ahead.popleft().result()
        while ahead:
            ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return index.object_bytes


def fetch(store: ObjectStore, object_key: str, start: int, length: int, index: Index, first: Frame) -> bytes:
    """Read ``length`` bytes of an object for the frames from ``first`` on.

    Raise ``DamageError`` when the object is missing or too short, ``StorageError`` when that could not be found out.
    """
    try:
        span = store.read_range(object_key, start, length)
    except MissingObjectError as missing:
        raise DamageError(f"{object_key} is missing ({_place(first)} was wanted)") from missing
    except TransientStorageError:
        raise
    except StorageError as failure:
        # Too short, or unreadable? Only the first is damage.
        _check_size(store, object_key, index)
        raise failure from None
    if len(span) != length:
        _check_size(store, object_key, index)
        raise StorageError(f"{store.address} gave {len(span)} bytes of {object_key} instead of {length}")
    return span


def check(object_key: str, frame: Frame, data: memoryview, index: Index) -> None:
    """Given bytes that begin with a frame's IV block, raise ``DamageError`` unless its digest matches."""
    if hashlib.sha256(data[: BLOCK + frame.cipher_bytes]).digest() != frame.digest:
        raise DamageError(
            f"{object_key}: {_place(frame)} of {index.frames} frames was changed: its digest does not match"
        )
    if frame.cipher_start == 0 and data[:HEADER_BYTES] != MAGIC + index.salt:
        raise DamageError(f"{object_key}: its first bytes are not those that the index expects")


def _check_size(store: ObjectStore, object_key: str, index: Index) -> None:
    try:
        size = store.stat(object_key).size_bytes
    except MissingObjectError as missing:
        raise DamageError(f"{object_key} is missing") from missing
    if size == index.object_bytes:
        return
    if size > index.object_bytes:
        raise DamageError(f"{object_key} was changed: it has {size} bytes instead of {index.object_bytes}")
    where = next(frame for frame in index.rows() if HEADER_BYTES + frame.cipher_start + frame.cipher_bytes > size)
    raise DamageError(
        f"{object_key} is truncated: it has {size} bytes instead of {index.object_bytes}, "
        f"so {_place(where)} is the first that is not whole"
    )


def _place(frame: Frame) -> str:
    start = frame.cipher_start + HEADER_BYTES
    return f"frame {frame.number} (bytes {start} to {start + frame.cipher_bytes - 1})"


def _how_many(workers: int) -> int:
    return min(workers or os.cpu_count() or 1, _WORKERS_LIMIT)
