"""A plan with repositories full of small copies of any age, for tests of what is kept and what goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from recoup.assembly.system import Opened, System
from recoup.engines.engine import CopyFacts
from recoup.engines.files.copy import take_files
from recoup.kernel import ids
from recoup.repository import layout
from recoup.repository.copy_writer import ArtefactWriter, Header, Packing
from recoup.repository.manifest import Manifest, serialise
from recoup.repository.repository import Repository
from recoup.storage.object_store import ObjectStore

KEY = "00c0ffee" * 8


class OpenSystem(System):
    """A system whose repositories are on the stores that a test gives it."""

    stores: Mapping[str, ObjectStore]

    def open(self, *, only: str | None = None, kind: str | None = None, writing: bool = False) -> Opened:
        """See ``System.open``; what the stores are wrapped in takes effect here."""
        opened = super().open(only=only, kind=kind, writing=writing)
        wrapped = [replace(one, store=self.stores.get(one.name, one.store)) for one in opened.repositories]
        return Opened(repositories=tuple(wrapped), failed=opened.failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """Where a plan and its folder ``backups`` are."""

    folder: Path
    system: OpenSystem

    @property
    def repository(self) -> Repository:
        """The repository ``local``, as it is."""
        return System(self.system.loaded).open_some(only="local").repositories[0]


def planted(folder: Path, *, retention: str, service: str = "notes") -> Planted:
    """Write a plan with the files service ``service`` and the repository ``local``, which is made."""
    folder.mkdir(exist_ok=True)
    (folder / "recoup.key").write_text(KEY + "\n")
    (folder / "notes").mkdir(exist_ok=True)
    (folder / "notes" / "one.txt").write_text("what there is to keep\n")
    text = (
        "recoup: 1\nsystem: Shop\ntimezone: Europe/Berlin\n"
        f"services: {{{service}: {{engine: files, paths: [notes]}}}}\n"
        f"repositories:\n  local: {{path: backups}}\nkey: {{file: recoup.key}}\nretention: {retention}\n"
    )
    (folder / "recoup.yaml").write_text(text)
    system = OpenSystem.from_file(folder / "recoup.yaml")
    assert isinstance(system, OpenSystem)
    system.stores = {}
    system.open(writing=True)
    return Planted(folder=folder, system=system)


def plant(
    repositories: Sequence[Repository],
    begun: datetime,
    source: Path,
    *,
    service: str = "notes",
    kind: str = "files",
    depends_on: tuple[str, ...] = (),
    facts: Mapping[str, object] | None = None,
    label: str | None = None,
) -> str:
    """Write one copy as if it had been taken at ``begun``; its id."""
    header = Header(
        id=ids.new_id(begun), system="Shop", service=service, engine="files", kind=kind, label=label, begun=begun
    )
    with ArtefactWriter(header, repositories, Packing(frame_bytes=64 << 10)) as writer:
        copy: CopyFacts = take_files([source.name], source.parent, writer)
        copy = replace(copy, depends_on=depends_on, facts={**copy.facts, **(facts or {})})
        outcome = writer.finish(copy)
    assert not outcome.failed
    # the manifest says when the copy ended; planted copies ended when they were begun
    for repository in repositories:
        backdate(repository, header.id, lambda manifest: replace(manifest, ended=begun))
    return header.id


def backdate(repository: Repository, artefact_id: str, change: Callable[[Manifest], Manifest]) -> None:
    """Change a manifest and seal it again."""
    changed = change(repository.manifest(artefact_id))
    repository.store.put(layout.manifest_key(artefact_id), serialise(changed, repository.key))
