"""Opening repositories to read from: by a plan, or by an address and a key on a machine that has no plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.assembly.system import System, open_address, state_folder
from recoup.kernel.errors import DamageError, MissingObjectError, RecoupError, StorageError, UsageError
from recoup.kernel.secret import Secret
from recoup.plan.resolver import read_key_file as plan_key_file
from recoup.repository.catalog import Catalog, read_catalog
from recoup.repository.manifest import Manifest
from recoup.repository.repository import Repository


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An artefact: its manifest, and the repositories that hold it, the preferred one first."""

    manifest: Manifest
    holders: tuple[Repository, ...]
    passed_over: tuple[str, ...] = ()  #: what is wrong with its manifest in other repositories


@dataclass(frozen=True, slots=True, kw_only=True)
class Readable:
    """Repositories opened for reading. ``system`` is None on a machine without the plan."""

    repositories: tuple[Repository, ...]
    failed: Mapping[str, RecoupError]
    state_folder: Path
    system: System | None

    def catalog(self) -> Catalog:
        """What the repositories that answered hold."""
        return read_catalog(self.repositories, self.state_folder)

    def find(
        self,
        reference: str,
        *,
        service: str | None = None,
        kinds: Sequence[str] = (),
        catalog: Catalog | None = None,
    ) -> Found:
        """The artefact meant by ``latest``, an id or part of one, read from the first repository that has it right.

        ``catalog`` is one that was read just now. Raise ``UsageError`` when there is none, ``DamageError`` when its
        manifest is damaged everywhere.
        """
        catalog = catalog or self.catalog()
        entry = catalog.find(reference, service=service, kinds=kinds)
        holders = tuple(one for one in self.repositories if one.name in entry.repositories)
        errors: list[RecoupError] = []
        for holder in holders:
            try:
                manifest = holder.manifest(entry.id)
            except (DamageError, MissingObjectError, StorageError) as failure:
                errors.append(failure)
                continue
            wrong = (one.error().message for one in catalog.problems if one.id == entry.id)
            return Found(
                manifest=manifest,
                holders=(holder, *(one for one in holders if one is not holder)),
                passed_over=(*wrong, *(failure.message for failure in errors)),
            )
        raise errors[0]


def open_for_reading(
    file: Path | None, source: str | None, key_file: Path | None, *, without: bool = False
) -> Readable:
    """Open what the options name: the plan's repositories, one of them (``source`` is its name), or an address.

    ``without``: the plan counts also when not one of them can be opened; ``failed`` says why. Raise ``UsageError`` for
    an address without a key, the repositories' errors when not one could be opened.
    """
    if source is not None and (source.startswith(("s3://", ".")) or "/" in source):
        key = _key_from(key_file, file)
        repository = open_address(source, key)
        state = state_folder(repository.identity, "repository")
        return Readable(repositories=(repository,), failed={}, state_folder=state, system=None)
    system = System.from_file(file)
    if key_file is not None:
        system.use_key(read_key_file(key_file))
    opened = system.open(only=source) if without else system.open_some(only=source)
    return Readable(
        repositories=opened.repositories, failed=opened.failed, state_folder=system.state_folder, system=system
    )


def _key_from(key_file: Path | None, plan_file: Path | None) -> Secret:
    if key_file is not None:
        return read_key_file(key_file)
    try:
        system = System.from_file(plan_file)
    except RecoupError as missing:
        raise UsageError(
            "a repository's address needs its key as well", hint="Add --key-file FILE (and keep the key off the line)."
        ) from missing
    return system.key.text


def read_key_file(path: Path) -> Secret:
    """The key in a file: its first line. Raise ``WrongKeyError`` when it cannot be read or holds none."""
    return plan_key_file(path, "Give the file whose first line is the key: --key-file FILE.")
