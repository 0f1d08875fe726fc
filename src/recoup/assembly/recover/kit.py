"""The recovery kit: what somebody needs who has nothing left but a blank machine. Kept away from production.

One page for people, one file for Recoup, the same in both. The file is a tar with ``kit.json``, the page, Recoup itself
as a wheel, and ``restore.sh`` for the day on which Recoup cannot be installed either.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

from recoup import __version__
from recoup.assembly.recover.own_wheel import Wheel
from recoup.assembly.system import System
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, UnknownFormatError, UsageError, WrongKeyError
from recoup.kernel.secret import Secret
from recoup.plan.model import RepositoryPlan
from recoup.plan.services import FilesService
from recoup.repository.shared_key import SharedKey

SCHEMA: Final = "recoup.kit/1"
_DOCUMENT: Final = "kit.json"
_LARGEST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class KitRepository:
    """A repository, as a machine without the plan reaches it. ``access_key`` None: no credentials are in the kit.

    ``remote``: it is not on the machine of production.
    """

    name: str
    address: str
    remote: bool
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: Secret | None = field(default=None, repr=False)

    def environment(self) -> dict[str, str | Secret]:
        """What boto3 reads of it: https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html."""
        given: dict[str, str | Secret | None] = {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """The kit. ``key`` is the fingerprint; ``key_text`` the key, when asked for; ``shares`` says who has its shares."""

    system: str
    made: datetime
    version: str
    repositories: tuple[KitRepository, ...]
    key: str
    key_text: Secret | None = field(default=None, repr=False)
    folder: str  #: where the plan, and the stack, was
    compose: bool
    holds_plan: bool  #: whether a copy of files holds the plan, without which nothing can be recovered by one command
    shares: SharedKey | None = None

    @property
    def best(self) -> KitRepository:
        """The repository that a new machine asks: one that does not go with production, when there is one."""
        return next((one for one in self.repositories if one.remote), self.repositories[0])

    def at(self, address: str | None) -> KitRepository:
        """The repository at an address; the best one, when there is no address or the kit does not know it."""
        wanted = (address or self.best.address).rstrip("/")
        return next((one for one in self.repositories if one.address.rstrip("/") == wanted), self.best)

    def document(self) -> dict[str, Any]:
        """As data, with whatever secrets the kit was made with."""
        return {
            "schema": SCHEMA,
            "system": self.system,
            "made": clock.to_text(self.made),
            "recoup": self.version,
            "repositories": [
                {
                    "name": one.name,
                    "address": one.address,
                    "remote": one.remote,
                    "endpoint": one.endpoint,
                    "region": one.region,
                    "access_key": one.access_key,
                    "secret_key": None if one.secret_key is None else one.secret_key.reveal(),
                }
                for one in self.repositories
            ],
            "key": {"id": self.key, "text": None if self.key_text is None else self.key_text.reveal()},
            "shares": None if self.shares is None else asdict(self.shares),
            "folder": self.folder,
            "compose": self.compose,
            "holds_plan": self.holds_plan,
        }


def make_kit(system: System, *, with_key: bool, shares: SharedKey | None = None) -> Kit:
    """The kit of a plan. ``with_key`` puts the key and the credentials of the repositories in; ``shares`` only these.

    Raise ``WrongKeyError`` when the key cannot be read or ``shares`` are of another one, ``UsageError`` for a reference
    without a value.
    """
    plan, key = system.plan, system.key
    if shares is not None and shares.key != key.id[:16]:
        raise WrongKeyError(
            f"these are the shares of key {shares.key}, and the plan's is {key.id[:16]}",
            hint="Split the key that is in use: recoup key split",
        )
    with_credentials = with_key or shares is not None
    return Kit(
        system=plan.system,
        made=clock.now(),
        version=__version__,
        repositories=tuple(
            _repository(system, name, one, with_credentials=with_credentials) for name, one in plan.repositories.items()
        ),
        key=key.id[:16],
        key_text=key.text if with_key else None,
        folder=str(system.folder),
        compose=plan.compose is not None,
        holds_plan=any(_may_hold(system, one) for one in plan.services.values() if isinstance(one, FilesService)),
        shares=shares,
    )


def _repository(system: System, name: str, one: RepositoryPlan, *, with_credentials: bool) -> KitRepository:
    if one.path is not None:
        address = str(one.path) if one.path.variables else str(system.resolver.path(one.path))
        return KitRepository(name=name, address=address, remote=False)
    assert one.url is not None, "a repository of a plan has a path or a url"
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if os.environ.get("AWS_SESSION_TOKEN"):
        access = secret = None  # these end within hours, and the kit lies for years
    hidden = None if secret is None else Secret(secret)
    if one.credentials is not None and with_credentials:
        access = system.resolver.text(one.credentials.access_key)
        hidden = system.resolver.resolve(one.credentials.secret_key)
    endpoint = os.environ.get("AWS_ENDPOINT_URL") if one.endpoint is None else system.resolver.text(one.endpoint)
    return KitRepository(
        name=name,
        address=system.resolver.text(one.url),
        remote=True,
        endpoint=endpoint,
        region=one.region or os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION"),
        access_key=access if with_credentials else None,
        secret_key=hidden if with_credentials else None,
    )


def _may_hold(system: System, service: FilesService) -> bool:
    """Whether a file set has the plan in it: by its path, or because Git keeps the folder."""
    if service.git is not None:
        return True
    file = system.loaded.file
    return any(file.is_relative_to(system.resolver.path(one)) for one in service.paths)


def kit_file(kit: Kit, page: str, wheel: Wheel | None) -> bytes:
    """The file of a kit: a tar, with Recoup's wheel when one can be made. It holds secrets when the kit does."""
    stock = resources.files("recoup.repository") / "stock"
    parts = {
        _DOCUMENT: json.dumps(kit.document(), indent=1).encode(),
        "KIT.md": page.encode(),
        **({} if wheel is None else {wheel.name: wheel.data}),
        **{name: (stock / name).read_bytes() for name in ("RESTORE.md", "restore.sh")},
    }
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(data), 0o600, int(kit.made.timestamp())
            tar.addfile(entry, io.BytesIO(data))
    return made.getvalue()


def read_kit(path: Path) -> Kit:
    """The kit in a file: the tar, or the ``kit.json`` that was taken out of it.

    Raise ``UsageError`` when it cannot be read, ``DamageError`` when it is no kit, ``UnknownFormatError`` when it is
    one of a newer Recoup.
    """
    try:
        with path.open("rb") as handle:
            data = handle.read(_LARGEST_BYTES + 1)
    except OSError as failure:
        raise UsageError(f"cannot read the kit {path}: {failure.strerror}", hint="Name its file: --kit FILE.") from None
    try:
        document = json.loads(data if data.lstrip()[:1] == b"{" else _from_tar(data))
        if not isinstance(document, dict) or not str(document.get("schema", "")).startswith("recoup.kit/"):
            raise ValueError("it has another form")  # noqa: TRY301 - one place says that it is no kit
        if document["schema"] != SCHEMA:
            raise UnknownFormatError(
                f"{path} is of the form {document['schema']}, and this Recoup knows {SCHEMA}",
                hint="Use the Recoup that is in the kit, or a newer one.",
            )
        return _kit(document)
    except (ValueError, KeyError, TypeError, AttributeError, tarfile.TarError, EOFError) as wrong:
        raise DamageError(
            f"{path} is no recovery kit: {wrong}", hint="It is the tar that `recoup kit` wrote; the page has the same."
        ) from wrong


def _from_tar(data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        member = tar.extractfile(_DOCUMENT)
        if member is None:
            raise ValueError(f"there is no {_DOCUMENT} in it")
        return member.read()


def _kit(document: Mapping[str, Any]) -> Kit:
    text, shares = document["key"].get("text"), document.get("shares")
    if not document["repositories"]:
        raise ValueError("it names no repository")
    return Kit(
        system=str(document["system"]),
        made=clock.from_text(document["made"]),
        version=str(document["recoup"]),
        repositories=tuple(_kit_repository(one) for one in document["repositories"]),
        key=str(document["key"]["id"]),
        key_text=None if text is None else Secret(str(text)),
        folder=str(document["folder"]),
        compose=bool(document["compose"]),
        holds_plan=bool(document["holds_plan"]),
        shares=None if shares is None else _shares(shares),
    )


def _shares(one: Mapping[str, Any]) -> SharedKey:
    return SharedKey(
        key=str(one["key"]),
        set=str(one["set"]),
        needed=int(one["needed"]),
        count=int(one["count"]),
        holders=tuple(str(name) for name in one["holders"]),
    )


def _kit_repository(one: Mapping[str, Any]) -> KitRepository:
    secret = one.get("secret_key")
    return KitRepository(
        name=str(one["name"]),
        address=str(one["address"]),
        remote=bool(one["remote"]),
        endpoint=one.get("endpoint"),
        region=one.get("region"),
        access_key=one.get("access_key"),
        secret_key=None if secret is None else Secret(str(secret)),
    )
