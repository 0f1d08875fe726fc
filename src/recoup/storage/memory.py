"""Objects in memory, for tests and for rehearsing what a repository would hold. Gone with the process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from recoup.kernel.errors import MissingObjectError, StorageError
from recoup.kernel.units import show_size
from recoup.storage.object_store import ObjectExistsError, ObjectInfo, check_key
from recoup.storage.ranges import check_range, end_of_range

_PIECE_BYTES = 1 << 20


class MemoryStore:
    """A store that keeps every object as ``bytes``. It has all the obligations of the others."""

    def __init__(self, address: str = "memory:") -> None:
        """Begin empty. ``address`` is what error messages call it."""
        self._address = address
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """The name given at the beginning."""
        return self._address

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """Write a whole object; see ``ObjectStore.put``."""
        check_key(key)
        with self._lock:
            if if_absent and key in self._objects:
                raise ObjectExistsError(f"{self._name(key)} exists already")
            self._objects[key] = (bytes(data), str(next(self._versions)))
        return self.stat(key)

    def writer(self, key: str, *, expected_bytes: int | None = None) -> MemoryWriter:  # noqa: ARG002 - not needed here
        """Begin an object of any size; see ``ObjectStore.writer``."""
        return MemoryWriter(self, check_key(key))

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        """Read a whole small object; see ``ObjectStore.get``."""
        data = self._find(key)[0]
        if len(data) > limit_bytes:
            raise StorageError(
                f"{self._name(key)} has {show_size(len(data))}, more than the {show_size(limit_bytes)} allowed here"
            )
        return data

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield a range in pieces; see ``ObjectStore.read``."""
        check_key(key)
        check_range(start, length)
        return self._read(key, start, length)

    def _read(self, key: str, start: int, length: int | None) -> Iterator[bytes]:
        data = self._find(key)[0]
        end = end_of_range(self._name(key), len(data), start, length)
        for position in range(start, end, _PIECE_BYTES):
            yield data[position : min(position + _PIECE_BYTES, end)]

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``; see ``ObjectStore.read_range``."""
        return b"".join(self.read(key, start, length))

    def stat(self, key: str) -> ObjectInfo:
        """Describe an object; see ``ObjectStore.stat``."""
        data, version = self._find(key)
        return ObjectInfo(key=key, size_bytes=len(data), version=version)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below ``prefix``, ordered by key; see ``ObjectStore.list``."""
        with self._lock:
            found = sorted((key, *value) for key, value in self._objects.items() if key.startswith(prefix))
        for key, data, version in found:
            yield ObjectInfo(key=key, size_bytes=len(data), version=version)

    def delete(self, key: str) -> None:
        """Remove an object; see ``ObjectStore.delete``."""
        check_key(key)
        with self._lock:
            self._objects.pop(key, None)

    def discard_unfinished(self, prefix: str) -> None:
        """Nothing to do: an unfinished object is nowhere but in its writer."""

    def _find(self, key: str) -> tuple[bytes, str]:
        check_key(key)
        with self._lock:
            found = self._objects.get(key)
        if found is None:
            raise MissingObjectError(f"there is no object {self._name(key)}")
        return found

    def _name(self, key: str) -> str:
        return f"{self._address}/{key}"


class MemoryWriter:
    """An object on its way into a ``MemoryStore``."""

    def __init__(self, store: MemoryStore, key: str) -> None:
        self._store = store
        self._key = key
        self._data: bytearray | None = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Append; see ``ObjectWriter.write``."""
        self._open_data().extend(data)

    def commit(self) -> ObjectInfo:
        """Make the object visible; see ``ObjectWriter.commit``."""
        data, self._data = bytes(self._open_data()), None
        return self._store.put(self._key, data)

    def abort(self) -> None:
        """Forget what was written; see ``ObjectWriter.abort``."""
        self._data = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _open_data(self) -> bytearray:
        if self._data is None:
            raise StorageError(f"the writing of {self._key} to {self._store.address} has already ended")
        return self._data
