"""A store that cannot be changed, for whoever only verifies or restores."""

from __future__ import annotations

from typing import NoReturn

from recoup.kernel.errors import RefusedError
from recoup.storage.decorator import StoreDecorator
from recoup.storage.object_store import check_key


class ReadOnlyStore(StoreDecorator):
    """Passes reading on. Every attempt to change something raises ``RefusedError``, before the inner store hears."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> NoReturn:  # noqa: ARG002 - the interface's
        """Refuse."""
        raise self._refusal(f"write {self.inner.address}/{check_key(key)}")

    def writer(self, key: str, *, expected_bytes: int | None = None) -> NoReturn:  # noqa: ARG002 - the interface's
        """Refuse."""
        raise self._refusal(f"write {self.inner.address}/{check_key(key)}")

    def delete(self, key: str) -> NoReturn:
        """Refuse."""
        raise self._refusal(f"delete {self.inner.address}/{check_key(key)}")

    def discard_unfinished(self, prefix: str) -> NoReturn:
        """Refuse."""
        raise self._refusal(f"remove unfinished writes below {self.inner.address}/{prefix}")

    def _refusal(self, what: str) -> RefusedError:
        return RefusedError(
            f"will not {what}: it is opened for reading only",
            hint="Nothing was changed. Run the command that is meant to change this repository.",
        )
