"""A system as its plan describes it: the key, the repositories, the state folder of this machine."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from recoup.assembly.known_repositories import KnownRepositories
from recoup.kernel.errors import NoRepositoryError, RecoupError, RefusedError, UsageError, WrongKeyError
from recoup.kernel.secret import Secret
from recoup.plan.load import LoadedPlan, find, load
from recoup.plan.model import Plan, RepositoryPlan
from recoup.plan.resolver import Resolver
from recoup.repository.repository import Repository, open_or_create, open_repository
from recoup.repository.seal import Key
from recoup.storage.address import Address, FolderAddress, S3Options, parse_address
from recoup.storage.address import open_store as address_store
from recoup.storage.object_store import ObjectStore
from recoup.storage.retrying import RetryingStore

#: Set for the daemon's children: the file with the text of the plan that is in force.
PLAN_IN_FORCE: Final = "RECOUP_PLAN_IN_FORCE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The repositories that could be opened, in the plan's order, and why the others could not."""

    repositories: tuple[Repository, ...]
    failed: Mapping[str, RecoupError]


class System:
    """A plan, loaded, with what it refers to. Nothing is resolved or opened before it is needed."""

    def __init__(self, loaded: LoadedPlan) -> None:
        self.loaded = loaded
        self.plan: Plan = loaded.plan
        self.resolver: Resolver = loaded.resolver()
        self._given_key: Secret | None = None
        #: What calls of docker for this system get into their environment: a sandbox's are marked with its id.
        self.docker_environment: dict[str, str] = {}

    @classmethod
    def from_file(cls, file: Path | None) -> System:
        """The system of a plan file; without one, of the plan that ``plan.load.find`` finds. Raise ``PlanError``.

        A child of the daemon takes the text that the daemon has in force: the file may be half edited by now.
        """
        in_force = os.environ.get(PLAN_IN_FORCE)
        return cls(load(find(file), text_file=Path(in_force) if in_force else None))

    @property
    def folder(self) -> Path:
        """The folder of the plan; its relative paths begin there."""
        return self.loaded.folder

    @cached_property
    def key(self) -> Key:
        """The plan's key, or the one given in its place. Raise ``WrongKeyError`` when it is missing or unreadable."""
        return Key.from_text((self._given_key or self.resolver.key(self.plan.key)).reveal())

    def use_key(self, text: Secret) -> None:
        """Use this key instead of the plan's. Call it before anything is opened."""
        self._given_key = text

    @cached_property
    def state_folder(self) -> Path:
        """Where this machine keeps leases, notes and caches of this plan. Nothing that matters is only there."""
        return state_folder(str(self.loaded.file.resolve()), self.plan.system)

    def store(self, name: str, *, create: bool = False) -> ObjectStore:
        """The object store of one repository of the plan. Raise ``StorageError`` or ``UsageError``."""
        return open_store(self.plan.repositories[name], self.resolver, create=create)

    def open(self, *, only: str | None = None, kind: str | None = None, writing: bool = False) -> Opened:
        """Open the plan's repositories, or the one called ``only``, or those that take copies of ``kind``.

        A repository that cannot be opened is reported, not raised; a wrong key is raised at once, because then
        nothing that follows could be right. Raise ``UsageError`` when the plan has no repository called ``only``.
        """
        if only is not None and only not in self.plan.repositories:
            known = ", ".join(self.plan.repositories)
            raise UsageError(f"the plan has no repository {only!r}", hint=f"It has: {known}.")
        opened, failed = [], {}
        for name, described in self.plan.repositories.items():
            if (only is not None and name != only) or (kind is not None and not described.takes(kind)):
                continue
            try:
                opened.append(self._open_to_write(name) if writing else self._open_to_read(name))
            except WrongKeyError:
                raise
            except RecoupError as failure:
                failed[name] = failure
        return Opened(repositories=tuple(opened), failed=failed)

    def _open_to_read(self, name: str) -> Repository:
        return open_repository(name, self.store(name), self.key)

    def _open_to_write(self, name: str) -> Repository:
        """Open a repository, making it at its first use. One that was there before and is gone is not made anew."""
        known = KnownRepositories(self.state_folder)
        if known.identity_of(name) is not None:
            try:
                repository = open_or_create(name, self.store(name), self.key, create=False)
            except NoRepositoryError as gone:
                raise RefusedError(
                    f"the repository {name} was there before and is not there now: {gone.message}",
                    hint="Is its disk mounted, is its address right? When it is gone for good, begin a new one with "
                    f"`recoup backup --new-repository {name}`.",
                ) from gone
        else:
            repository = open_or_create(name, self.store(name, create=True), self.key)
        known.remember(name, repository.identity)
        return repository

    def begin_anew(self, name: str) -> None:
        """Let the next run make the repository ``name`` anew. Raise ``UsageError`` when the plan has none so called."""
        if name not in self.plan.repositories:
            raise UsageError(
                f"the plan has no repository {name!r}", hint=f"It has: {', '.join(self.plan.repositories)}."
            )
        KnownRepositories(self.state_folder).forget(name)

    def open_some(self, *, only: str | None = None, kind: str | None = None) -> Opened:
        """As ``open`` for reading; raise the first failure when not one repository could be opened."""
        opened = self.open(only=only, kind=kind)
        if not opened.repositories:
            raise next(iter(opened.failed.values()))
        return opened


def open_store(described: RepositoryPlan, resolver: Resolver, *, create: bool = False) -> ObjectStore:
    """The object store that a plan's repository describes."""
    if described.path is not None:
        return _opened(FolderAddress(folder=resolver.path(described.path)), S3Options(), create=create)
    assert described.url is not None, "a repository of a plan has a path or a url"
    credentials = described.credentials
    options = S3Options(
        endpoint_url=None if described.endpoint is None else resolver.text(described.endpoint),
        region=described.region,
        access_key=None if credentials is None else resolver.text(credentials.access_key),
        secret_key=None if credentials is None else resolver.resolve(credentials.secret_key),
        storage_class=described.storage_class,
    )
    return _opened(parse_address(resolver.text(described.url)), options, create=create)


def open_address(address: str, key_text: Secret) -> Repository:
    """A repository by its address alone, for a machine that has no plan yet: a folder or ``s3://bucket/folder``.

    The S3 endpoint, region and keys come from the environment as boto3 reads them (``AWS_ENDPOINT_URL``, ...).
    """
    store = _opened(parse_address(address), S3Options(), create=False)
    return open_repository("repository", store, Key.from_text(key_text.reveal()))


def _opened(address: Address, options: S3Options, *, create: bool) -> ObjectStore:
    if isinstance(address, FolderAddress) and not create and not address.folder.is_dir():
        raise NoRepositoryError(
            f"there is no repository at {address}: the folder does not exist",
            hint="The first `recoup backup` creates it. Is the disk it lives on mounted?",
        )
    store = address_store(address, options, create=create)
    # A folder has no passing faults. S3 requests are repeated by the driver already: one more round is enough.
    return store if isinstance(address, FolderAddress) else RetryingStore(store, attempts=2)


def state_folder(identity: str, system: str) -> Path:
    """Where this machine keeps what concerns one system: ``$RECOUP_STATE``, ``/var/lib/recoup``, or the user's own."""
    named = os.environ.get("RECOUP_STATE")
    if named:
        root = Path(named)
    elif os.geteuid() == 0:
        root = Path("/var/lib/recoup")
    else:
        root = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "recoup"
    slug = re.sub(r"[^a-z0-9]+", "-", system.lower()).strip("-")[:40] or "system"
    return root / f"{slug}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
