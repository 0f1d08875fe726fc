"""Which repositories this machine has written to before: so that an unmounted disk is not taken for a fresh start."""

from __future__ import annotations

import json
from pathlib import Path

from recoup.kernel import files
from recoup.repository.lease import cannot_note


class KnownRepositories:
    """The identity of each repository by its name in the plan, in one small file of the state folder."""

    def __init__(self, state_folder: Path) -> None:
        self._path = state_folder / "repositories.json"

    def identity_of(self, name: str) -> str | None:
        """The identity last seen under ``name``; None when it was never written to from here."""
        found = self._read().get(name)
        return found if isinstance(found, str) else None

    def remember(self, name: str, identity: str) -> None:
        """It was opened for writing. Raise ``RecoupError`` when that cannot be noted down."""
        known = self._read()
        if known.get(name) != identity:
            self._write({**known, name: identity})

    def forget(self, name: str) -> None:
        """It is gone for good: the next run may begin a new one."""
        self._write({other: identity for other, identity in self._read().items() if other != name})

    def _read(self) -> dict[str, object]:
        try:
            said = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}  # a first run, or a damaged note: then nothing is known, and nothing is refused
        return said if isinstance(said, dict) else {}

    def _write(self, known: dict[str, object]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_atomically(self._path, json.dumps(known).encode())
        except OSError as failure:
            raise cannot_note(self._path, failure) from failure
