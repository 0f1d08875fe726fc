"""Which restores into servers this machine has begun, so that the same command resumes one that was killed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from recoup.kernel import clock, files, ids
from recoup.repository.lease import cannot_note


class RestoreRuns:
    """A note for each restore into a server: the run's id, by artefact and target. Gone when the restore is done."""

    def __init__(self, state_folder: Path) -> None:
        self._folder = state_folder / "restores"

    def begin(self, artefact_id: str, target: str) -> str:
        """The id of the run: that of an unfinished one with the same artefact and target, or a fresh one, noted.

        Raise ``RecoupError`` when it cannot be noted: a run that nobody could resume is not begun.
        """
        path = self._path(artefact_id, target)
        try:
            known = str(json.loads(path.read_bytes())["run"])
            if ids.is_id(known):
                return known
        except (OSError, ValueError, KeyError, TypeError):
            pass  # there is none, or it is unreadable: then nothing can be resumed and a fresh run is right
        run = ids.new_id(clock.now())
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_atomically(path, json.dumps({"run": run, "artefact": artefact_id, "target": target}).encode())
        except OSError as failure:
            raise cannot_note(path, failure) from failure
        return run

    def end(self, artefact_id: str, target: str) -> None:
        """The restore is done."""
        self._path(artefact_id, target).unlink(missing_ok=True)

    def _path(self, artefact_id: str, target: str) -> Path:
        return self._folder / f"{artefact_id}-{hashlib.sha256(target.encode()).hexdigest()[:12]}.json"
