"""What this machine began to write and did not finish: so that the next run removes exactly that, and nothing else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.kernel import files, ids
from recoup.kernel.errors import MissingObjectError
from recoup.repository import layout
from recoup.repository.copy_writer import remove_unfinished
from recoup.repository.lease import cannot_note
from recoup.repository.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfinished:
    """A copy that was begun. ``repositories`` are the identities of those it was begun in."""

    id: str
    service: str
    kind: str
    repositories: tuple[str, ...]


class UnfinishedCopies:
    """Notes of begun copies, a file each, in the state folder. Call only while holding the service's lease."""

    def __init__(self, state_folder: Path) -> None:
        self._folder = state_folder / "unfinished"

    def note(self, copy: Unfinished) -> None:
        """Remember a copy before its first byte is written. Raise ``RecoupError`` when that cannot be done."""
        text = {"id": copy.id, "service": copy.service, "kind": copy.kind, "repositories": copy.repositories}
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_atomically(self._path(copy.id), json.dumps(text).encode())
        except OSError as failure:
            raise cannot_note(self._path(copy.id), failure) from failure

    def forget(self, artefact_id: str) -> None:
        """The copy is finished, or nothing is left of it."""
        self._path(artefact_id).unlink(missing_ok=True)

    @contextlib.contextmanager
    def under_way(self, artefact_id: str, service: str, kind: str, repository: str) -> Iterator[None]:
        """Note that a finished copy is being removed from ``repository`` (its identity), or copied to it: what is left
        there when the run dies inside is then cleaned up like that of a copy that was begun. What was noted before
        stays noted.
        """
        before = _read(self._path(artefact_id)) if self._path(artefact_id).exists() else None
        others = () if before is None else before.repositories
        repositories = tuple(dict.fromkeys((*others, repository)))
        self.note(Unfinished(id=artefact_id, service=service, kind=kind, repositories=repositories))
        yield
        if before is None:
            self.forget(artefact_id)
        else:
            self.note(before)

    def clean(self, service: str, repositories: Sequence[Repository]) -> list[str]:
        """Remove what dead runs left of ``service`` in the repositories at hand; the ids that were removed.

        A copy whose manifest was written is complete: only its note is removed.
        """
        removed = []
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            copy = _read(path)
            if copy is None:
                path.unlink(missing_ok=True)
                continue
            if copy.service != service:
                continue
            concerned = [one for one in repositories if one.identity in copy.repositories]
            outcomes = [_clean_in(one, copy) for one in concerned]
            if all(outcomes) and len(concerned) == len(copy.repositories):
                path.unlink(missing_ok=True)
                removed.append(copy.id)
        return removed

    def _path(self, artefact_id: str) -> Path:
        return self._folder / f"{artefact_id}.json"


def _clean_in(repository: Repository, copy: Unfinished) -> bool:
    try:
        repository.store.stat(layout.manifest_key(copy.id))
    except MissingObjectError:
        repository.store.discard_unfinished(layout.artefact_folder(copy.service, copy.kind, copy.id))
        return remove_unfinished(repository, layout.artefact_folder(copy.service, copy.kind, copy.id), copy.id)
    return True


def _read(path: Path) -> Unfinished | None:
    try:
        said = json.loads(path.read_bytes())
        copy = Unfinished(
            id=said["id"], service=said["service"], kind=said["kind"], repositories=tuple(said["repositories"])
        )
    except (ValueError, KeyError, TypeError):
        return None
    return copy if ids.is_id(copy.id) else None
