"""A store that fails on purpose, so that everything above it can be shown to survive.

Every single operation has a number, from 1: put, get, stat, delete, read_range, the beginning of a writer, each write,
the commit, the beginning of a read and each piece of it, the beginning of a listing and each entry of it. A test runs
with ``fail_call=1``, then 2, 3 … until a run ends without a fault having struck. (The orders in which threads arrive
differ between runs; the numbers still cover every operation of each.)
"""

from __future__ import annotations

import enum
import random
import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from recoup.kernel import clock
from recoup.kernel.errors import StorageError
from recoup.storage.decorator import StoreDecorator, WriterDecorator
from recoup.storage.object_store import ObjectInfo, ObjectStore, ObjectWriter


class Fault(enum.Enum):
    """What goes wrong."""

    ERROR = "error"  #: the operation is not carried out and raises
    LOST_ANSWER = "lost answer"  #: the operation is carried out and raises all the same
    CUT = "cut"  #: a read ends early as if that were the end; on other operations as ``ERROR``
    FLIP = "flip"  #: one bit of the bytes of a read, get, write or put is changed; nothing on other operations
    SLOW = "slow"  #: the operation takes ``delay_seconds`` longer


def _refusal(operation: str) -> Exception:
    return StorageError(f"fault on purpose: {operation}")


class FaultyStore(StoreDecorator):
    """Fails operation number ``fail_call``, and besides each operation with the probability ``share``.

    ``calls`` is how many operations there were, ``struck`` which of them were hit, as ``number operation key``.
    """

    def __init__(
        self,
        inner: ObjectStore,
        *,
        fail_call: int | None = None,
        share: float = 0.0,
        fault: Fault = Fault.ERROR,
        error: Callable[[str], Exception] = _refusal,
        seed: int = 0,
        concerns: Callable[[str, str], bool] = lambda _operation, _key: True,
        delay_seconds: float = 0.05,
        pause: Callable[[float], None] = clock.pause,
    ) -> None:
        """``error`` makes the exception from ``operation key``. Only what ``concerns(operation, key)`` is counted.

        ``seed`` decides what ``share`` hits, which bit flips, and where a read is cut.
        """
        super().__init__(inner)
        self.calls = 0
        self.struck: list[str] = []
        self._fail_call = fail_call
        self._share = share
        self._fault = fault
        self._error = error
        self._chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._concerns = concerns
        self._delay = delay_seconds
        self._pause = pause
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """See ``ObjectStore.put``."""
        hit = self.strike("put", key)
        info = self.inner.put(key, self.bent(data, hit), if_absent=if_absent)
        self.afterwards(hit, "put", key)
        return info

    def writer(self, key: str, *, expected_bytes: int | None = None) -> ObjectWriter:
        """See ``ObjectStore.writer``."""
        hit = self.strike("writer", key)
        writer = _FaultyWriter(self, key, self.inner.writer(key, expected_bytes=expected_bytes))
        if hit is Fault.LOST_ANSWER:
            writer.inner.abort()
        self.afterwards(hit, "writer", key)
        return writer

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        """See ``ObjectStore.get``."""
        hit = self.strike("get", key)
        data = self.bent(self.inner.get(key, limit_bytes=limit_bytes), hit)
        self.afterwards(hit, "get", key)
        return data

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        return self._bent_pieces(key, self.inner.read(key, start, length))

    def _bent_pieces(self, key: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        hit = self.strike("read", key, cut_raises=False)
        if hit is Fault.CUT:
            return
        self.afterwards(hit, "read", key)
        for piece in pieces:
            hit = self.strike("piece", key, cut_raises=False)
            if hit is Fault.CUT:
                yield piece[: self._chance.randrange(len(piece))]
                return
            yield self.bent(piece, hit)
            self.afterwards(hit, "piece", key)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See ``ObjectStore.read_range``."""
        hit = self.strike("read_range", key)
        data = self.bent(self.inner.read_range(key, start, length), hit)
        self.afterwards(hit, "read_range", key)
        return data

    def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.stat``."""
        hit = self.strike("stat", key)
        info = self.inner.stat(key)
        self.afterwards(hit, "stat", key)
        return info

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        self.afterwards(self.strike("list", prefix), "list", prefix)
        for info in self.inner.list(prefix):
            self.afterwards(self.strike("entry", info.key), "entry", info.key)
            yield info

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        hit = self.strike("delete", key)
        self.inner.delete(key)
        self.afterwards(hit, "delete", key)

    def discard_unfinished(self, prefix: str) -> None:
        """See ``ObjectStore.discard_unfinished``."""
        hit = self.strike("discard_unfinished", prefix)
        self.inner.discard_unfinished(prefix)
        self.afterwards(hit, "discard_unfinished", prefix)

    def strike(self, operation: str, key: str, *, cut_raises: bool = True) -> Fault | None:
        """Count an operation that begins; return the fault that hits it, after raising or waiting as it demands."""
        if not self._concerns(operation, key):
            return None
        with self._lock:
            self.calls += 1
            if self.calls != self._fail_call and self._chance.random() >= self._share:
                return None
            self.struck.append(f"{self.calls} {operation} {key}")
        if self._fault is Fault.ERROR or (self._fault is Fault.CUT and cut_raises):
            raise self._error(f"{operation} {key}")
        if self._fault is Fault.SLOW:
            self._pause(self._delay)
        return self._fault

    def afterwards(self, hit: Fault | None, operation: str, key: str) -> None:
        """Lose the answer of an operation that was carried out, if that is the fault."""
        if hit is Fault.LOST_ANSWER:
            raise self._error(f"{operation} {key}")

    def bent(self, data: bytes | memoryview, hit: Fault | None) -> bytes:
        """The same bytes, or with one bit changed if that is the fault."""
        if hit is not Fault.FLIP or not len(data):
            return bytes(data)
        changed = bytearray(data)
        with self._lock:
            changed[self._chance.randrange(len(changed))] ^= 1 << self._chance.randrange(8)
        return bytes(changed)


class _FaultyWriter(WriterDecorator):
    """Once a write or commit failed, nothing can be committed any more, as with a real store."""

    def __init__(self, store: FaultyStore, key: str, inner: ObjectWriter) -> None:
        super().__init__(inner)
        self._store = store
        self._key = key

    def write(self, data: bytes | memoryview) -> None:
        try:
            hit = self._store.strike("write", self._key)
            self.inner.write(self._store.bent(data, hit))
            self._store.afterwards(hit, "write", self._key)
        except BaseException:
            self.inner.abort()
            raise

    def commit(self) -> ObjectInfo:
        try:
            hit = self._store.strike("commit", self._key)
            info = self.inner.commit()
        except BaseException:
            self.inner.abort()
            raise
        self._store.afterwards(hit, "commit", self._key)
        return info

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.inner.__exit__(kind, error, trace)
