"""A store that tries again when that can help: after errors that say so (``may_retry``), a bounded number of times."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TypeVar

from recoup.kernel import clock
from recoup.kernel.errors import MissingObjectError, RecoupError
from recoup.storage.decorator import StoreDecorator
from recoup.storage.object_store import ObjectExistsError, ObjectInfo, ObjectStore, ObjectWriter

_T = TypeVar("_T")


class RetryingStore(StoreDecorator):
    """Repeats what can be repeated whole: put, get, stat, delete, the beginning of a write. Reads and listings go on
    where they stopped, and their attempts are counted anew after each piece that came.

    What was written through a writer is gone from memory, so a failed write or commit is not repeated here: the S3
    store repeats each part itself, and the caller repeats the whole.
    """

    def __init__(
        self,
        inner: ObjectStore,
        *,
        attempts: int = 4,
        first_pause_seconds: float = 0.2,
        longest_pause_seconds: float = 10.0,
        pause: Callable[[float], None] = clock.pause,
        chance: random.Random | None = None,
    ) -> None:
        """Try ``attempts`` times in all. Pauses double from the first to the longest, each between half and whole."""
        super().__init__(inner)
        assert attempts >= 1, "at least one attempt"
        self._attempts = attempts
        self._first = first_pause_seconds
        self._longest = longest_pause_seconds
        self._pause = pause
        self._chance = chance or random.Random()  # noqa: S311 - spreads retries, guards nothing

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> ObjectInfo:
        """See ``ObjectStore.put``. An attempt that won although its answer was lost still counts as won."""
        failed_before = False

        def attempt() -> ObjectInfo:
            nonlocal failed_before
            try:
                return self.inner.put(key, data, if_absent=if_absent)
            except ObjectExistsError:
                if failed_before and self._holds(key, data):
                    return self.inner.stat(key)
                raise
            except RecoupError:
                failed_before = True
                raise

        return self._retry(attempt)

    def writer(self, key: str, *, expected_bytes: int | None = None) -> ObjectWriter:
        """See ``ObjectStore.writer``. Only the beginning is repeated."""
        return self._retry(lambda: self.inner.writer(key, expected_bytes=expected_bytes))

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        """See ``ObjectStore.get``."""
        return self._retry(lambda: self.inner.get(key, limit_bytes=limit_bytes))

    def read(self, key: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See ``ObjectStore.read``. Goes on behind the last piece that came.

        An object that is replaced in that moment would come mixed; artefacts never are, and carry digests.
        """
        return self._read(key, start, length, self.inner.read(key, start, length))

    def _read(self, key: str, start: int, length: int | None, pieces: Iterator[bytes]) -> Iterator[bytes]:
        position, failures = start, 0
        while True:
            try:
                for piece in pieces:
                    failures = 0
                    position += len(piece)
                    yield piece
                return
            except RecoupError as failure:
                failures += 1
                self._wait_or_raise(failure, failures)
            rest = None if length is None else start + length - position
            pieces = self.inner.read(key, position, rest)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """See ``ObjectStore.read_range``."""
        return self._retry(lambda: self.inner.read_range(key, start, length))

    def stat(self, key: str) -> ObjectInfo:
        """See ``ObjectStore.stat``."""
        return self._retry(lambda: self.inner.stat(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See ``ObjectStore.list``. Begins again and passes over what was given already (listings are ordered)."""
        last, failures = "", 0
        while True:
            try:
                for info in self.inner.list(prefix):
                    if info.key > last:
                        last, failures = info.key, 0
                        yield info
                return
            except RecoupError as failure:
                failures += 1
                self._wait_or_raise(failure, failures)

    def delete(self, key: str) -> None:
        """See ``ObjectStore.delete``."""
        self._retry(lambda: self.inner.delete(key))

    def discard_unfinished(self, prefix: str) -> None:
        """See ``ObjectStore.discard_unfinished``."""
        self._retry(lambda: self.inner.discard_unfinished(prefix))

    def _retry(self, attempt: Callable[[], _T]) -> _T:
        failures = 0
        while True:
            try:
                return attempt()
            except RecoupError as failure:
                failures += 1
                self._wait_or_raise(failure, failures)

    def _wait_or_raise(self, failure: RecoupError, failures: int) -> None:
        """Given the latest failure and how many there were in a row, pause, or raise it."""
        if not failure.may_retry:
            raise failure
        if failures >= self._attempts:
            failure.add_note(f"tried {failures} times")
            raise failure
        longest = min(self._longest, self._first * 2 ** (failures - 1))
        self._pause(longest * (0.5 + self._chance.random() / 2))

    def _holds(self, key: str, data: bytes) -> bool:
        try:
            return self.inner.stat(key).size_bytes == len(data) and self.inner.get(key, limit_bytes=len(data)) == data
        except MissingObjectError:
            return False
