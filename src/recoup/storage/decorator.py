"""A store around another store that only passes on. Decorators override what they change."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from recoup.storage.object_store import ObjectInfo, ObjectStore, ObjectWriter


class StoreDecorator:
    """Passes every call on to ``inner``."""

    def __init__(self, inner: ObjectStore) -> None:
        """``inner`` is the store that does the work."""
        self.inner = inner

    @property
    def address(self) -> str:
        """The inner store's address."""
        return self.inner.address

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """See ``ObjectStore.put``."""
        return self.inner.put(key, data, if_absent=if_absent)

    def writer(self, key: str, *, expected_bytes: int | None = None) -> ObjectWriter:
        """See ``ObjectStore.writer``."""
        return self.inner.writer(key, expected_bytes=expected_bytes)

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        """See ``ObjectStore.get``."""
        return self.inner.get(key, limit_bytes=limit_bytes)

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``."""
        return self.inner.read(key, start, length)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See ``ObjectStore.read_range``."""
        return self.inner.read_range(key, start, length)

    def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.stat``."""
        return self.inner.stat(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``."""
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        self.inner.delete(key)

    def discard_unfinished(self, prefix: str) -> None:
        """See ``ObjectStore.discard_unfinished``."""
        self.inner.discard_unfinished(prefix)


class WriterDecorator:
    """Passes every call on to ``inner``."""

    def __init__(self, inner: ObjectWriter) -> None:
        """``inner`` is the writer that does the work."""
        self.inner = inner

    def write(self, data: bytes | memoryview) -> None:
        """See ``ObjectWriter.write``."""
        self.inner.write(data)

    def commit(self) -> ObjectInfo:
        """See ``ObjectWriter.commit``."""
        return self.inner.commit()

    def abort(self) -> None:
        """See ``ObjectWriter.abort``."""
        self.inner.abort()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.inner.__exit__(kind, error, trace)
