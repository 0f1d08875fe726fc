"""A store that counts what is asked of it: operations by name, and the bytes that went each way."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from recoup.storage.decorator import StoreDecorator, WriterDecorator
from recoup.storage.object_store import ObjectInfo, ObjectStore, ObjectWriter


class CountingStore(StoreDecorator):
    """``operations`` counts calls by name, ``bytes_written`` and ``bytes_read`` count what succeeded."""

    def __init__(self, inner: ObjectStore) -> None:
        """Begin at zero."""
        super().__init__(inner)
        self.operations: Counter[str] = Counter()
        self.bytes_written = 0
        self.bytes_read = 0
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """See ``ObjectStore.put``."""
        self.count("put")
        info = self.inner.put(key, data, if_absent=if_absent)
        self.count(written=len(data))
        return info

    def writer(self, key: str, *, expected_bytes: int | None = None) -> ObjectWriter:
        """See ``ObjectStore.writer``."""
        self.count("writer")
        return _CountingWriter(self, self.inner.writer(key, expected_bytes=expected_bytes))

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        """See ``ObjectStore.get``."""
        self.count("get")
        data = self.inner.get(key, limit_bytes=limit_bytes)
        self.count(read=len(data))
        return data

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        self.count("read")
        return self._counted(self.inner.read(key, start, length))

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.count(read=len(piece))
            yield piece

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See ``ObjectStore.read_range``."""
        self.count("read_range")
        data = self.inner.read_range(key, start, length)
        self.count(read=len(data))
        return data

    def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.stat``."""
        self.count("stat")
        return self.inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        self.count("list")
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        self.count("delete")
        self.inner.delete(key)

    def discard_unfinished(self, prefix: str) -> None:
        """See ``ObjectStore.discard_unfinished``."""
        self.count("discard_unfinished")
        self.inner.discard_unfinished(prefix)

    def count(self, operation: str | None = None, *, written: int = 0, read: int = 0) -> None:
        """Add to the counts. Safe from several threads."""
        with self._lock:
            if operation is not None:
                self.operations[operation] += 1
            self.bytes_written += written
            self.bytes_read += read


class _CountingWriter(WriterDecorator):
    def __init__(self, store: CountingStore, inner: ObjectWriter) -> None:
        super().__init__(inner)
        self._store = store

    def write(self, data: bytes | memoryview) -> None:
        self.inner.write(data)
        self._store.count("write", written=len(data))

    def commit(self) -> ObjectInfo:
        self._store.count("commit")
        return self.inner.commit()

    def abort(self) -> None:
        self._store.count("abort")
        self.inner.abort()
