"""Which restores into servers this machine has begun, so that the same command resumes one that was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from recoup.kernel import clock, files, ids
from recoup.repository.lease import cannot_note

#: A restore that was interrupted is resumed for a day. Later the same command means a new restore: the database may
#: have been replaced and used in the meantime, and "finished already" would leave it as it is.
_RESUMABLE: Final = timedelta(days=1)


def begun_at(run: str) -> datetime:
    """When a run was begun: its id begins with the instant (``kernel.ids``)."""
    return datetime.strptime(run[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)


class RestoreRuns:
    """A note for each restore into a server: the run's id, by artefact and target. Gone when the restore is done."""

    def __init__(self, state_folder: Path) -> None:
        self._folder = state_folder / "restores"

    def begin(self, artefact_id: str, target: str) -> str:
        """The id of the run: that of an unfinished one with the same artefact and target, or a fresh one, noted.

        Raise ``RecoupError`` when it cannot be noted: a run that nobody could resume is not begun.
        """
        path, now = self._path(artefact_id, target), clock.now()
        known = self._known(path)
        if known is not None and now - begun_at(known) < _RESUMABLE:
            return known
        run = ids.new_id(now)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_atomically(path, json.dumps({"run": run, "artefact": artefact_id, "target": target}).encode())
        except OSError as failure:
            raise cannot_note(path, failure) from failure
        return run

    def _known(self, path: Path) -> str | None:
        """The run that was noted; None when there is none, or it is unreadable: then there is nothing to resume."""
        try:
            run = str(json.loads(path.read_bytes())["run"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return run if ids.is_id(run) else None

    def end(self, artefact_id: str, target: str) -> None:
        """The restore is done."""
        self._path(artefact_id, target).unlink(missing_ok=True)

    def _path(self, artefact_id: str, target: str) -> Path:
        return self._folder / f"{artefact_id}-{hashlib.sha256(target.encode()).hexdigest()[:12]}.json"


class StackRun:
    """What is remembered of the restore of a stack point to one place. Implements ``recovery.stack_in_place.Note``.

    It is resumed for a day, as restores into servers are, and gone when it is over.
    """

    def __init__(self, state_folder: Path, point_id: str, target: str) -> None:
        digest = hashlib.sha256(target.encode()).hexdigest()[:12]
        self._path = state_folder / "restores" / f"stack-{point_id}-{digest}.json"
        self._point, self._target = point_id, target
        self.replaced: list[str] = []
        self.stopped: list[str] = []
        self.id = ids.new_id(clock.now())
        self.resumed = self._resume()

    def forget(self) -> None:
        """Nothing of the earlier run counts any more: its data have been used since."""
        self.replaced, self.stopped, self.resumed = [], [], False
        self.id = ids.new_id(clock.now())

    def begin(self, stopped: Sequence[str]) -> None:
        """See ``Note``. Raise ``RecoupError`` when it cannot be noted: a run that nobody could resume is not begun."""
        self.stopped = list(stopped)
        self._write()

    def done(self, service: str) -> None:
        """See ``Note``."""
        self.replaced.append(service)
        self._write()

    def end(self) -> None:
        """See ``Note``."""
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        said = {
            "run": self.id,
            "point": self._point,
            "target": self._target,
            "replaced": self.replaced,
            "stopped": self.stopped,
        }
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_atomically(self._path, json.dumps(said).encode())
        except OSError as failure:
            raise cannot_note(self._path, failure) from failure

    def _resume(self) -> bool:
        """Whether an unfinished run was found; one that cannot be read is none."""
        try:
            said = json.loads(self._path.read_bytes())
            run, replaced = str(said["run"]), [str(one) for one in said["replaced"]]
            stopped = [str(one) for one in said["stopped"]]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if not ids.is_id(run) or clock.now() - begun_at(run) >= _RESUMABLE:
            return False
        self.id, self.replaced, self.stopped = run, replaced, stopped
        return True
