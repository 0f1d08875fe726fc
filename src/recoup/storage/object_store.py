"""The interface of every place that keeps objects, with its obligations.

A key is a relative path of ASCII letters, digits and ``._-`` with ``/`` between parts; no part is ``.`` or ``..``.
Implementations are safe to use from several threads at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from recoup.kernel.errors import StorageError

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectInfo:
    """What a store says of one object. ``version`` changes whenever the content may have changed."""

    key: str
    size_bytes: int
    version: str
    #: When it was written, by the store's own clock; None where a store does not say.
    modified: datetime | None = field(default=None, compare=False)
    #: Until when the store keeps it whatever anybody asks (S3 Object Lock; the end of time for a legal hold). Only
    #: ``stat`` says; None where there is no lock, or no right to see it.
    locked_until: datetime | None = field(default=None, compare=False)


class ObjectWriter(Protocol):
    """An object being written. Nothing is visible under its key before ``commit``; ``abort`` leaves nothing behind.

    As a context manager it aborts unless ``commit`` was called.
    """

    def write(self, data: bytes | memoryview) -> None:
        """Append. The caller may reuse the buffer after the call returns. Raise ``StorageError``."""
        ...

    def commit(self) -> ObjectInfo:
        """Make the object visible, whole and durable. Raise ``StorageError``; then nothing is visible."""
        ...

    def abort(self) -> None:
        """Give up and remove what was sent. Harmless after ``commit`` and when repeated."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ObjectStore(Protocol):
    """Objects under keys. Errors are ``StorageError`` and its kinds; a driver's own errors never leave."""

    @property
    def address(self) -> str:
        """Where this is, for people: a folder or ``s3://bucket/prefix``. Never holds a secret."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """Write a small object at once: whole, durable, replacing an older one.

        With ``if_absent``, raise ``ObjectExistsError`` when the key is taken; of several writers exactly one wins.
        """
        ...

    def writer(self, key: str, *, expected_bytes: int | None = None) -> ObjectWriter:
        """Begin an object of any size. ``expected_bytes`` is an estimate that helps to choose part sizes."""
        ...

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        """Read a whole small object. Raise ``MissingObjectError``, or ``StorageError`` when above the limit."""
        ...

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield the bytes ``[start, start + length)`` in pieces of at most about 1 MiB.

        Raise ``MissingObjectError``; raise ``StorageError`` when the object ends before ``length`` bytes came.
        A body cut in the middle is resumed or raised, never passed off as the end.
        """
        ...

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """Exactly ``length`` bytes from ``start``. Raise as ``read`` does."""
        ...

    def stat(self, key: str) -> ObjectInfo:
        """Raise ``MissingObjectError`` when there is none."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key begins with ``prefix``, ordered by key. Unfinished writes do not show."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object. Removing what is not there is fine (a repeated delete must not fail)."""
        ...

    def discard_unfinished(self, prefix: str) -> None:
        """Remove what writes that never ended left under ``prefix`` (multipart uploads, incoming files).

        Call it only for a prefix that no living writer uses. Committed objects are not touched.
        """
        ...


class ObjectExistsError(StorageError):
    """The key is taken, and the caller asked for a fresh one."""


def check_key(key: str) -> str:
    """Return ``key`` when it has the allowed shape; raise ``ValueError`` otherwise. A manifest may be hostile."""
    if len(key) > 900 or not _KEY.fullmatch(key):
        raise ValueError(f"not an object key: {key!r}")
    return key
