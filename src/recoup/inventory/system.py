"""What a system consists of: its services, what each keeps, and what nobody keeps a copy of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recoup.inventory.order import dependants, start_order, stop_order


@dataclass(frozen=True, slots=True, kw_only=True)
class FromVariable:
    """A password that the Compose file takes from a variable of the environment or of an env file."""

    variable: str

    def __str__(self) -> str:
        return "${" + self.variable + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FromFile:
    """A password in a file (a Compose secret). ``host_path`` is None when only the container has it."""

    container_path: str
    host_path: str | None

    def __str__(self) -> str:
        return self.host_path or self.container_path


@dataclass(frozen=True, slots=True, kw_only=True)
class InTheFile:
    """A password written into the Compose file itself. Its text is not kept here."""

    def __str__(self) -> str:
        return "written in the Compose file"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoPassword:
    """None is asked for."""

    def __str__(self) -> str:
        return "none"


Password = FromVariable | FromFile | InTheFile | NoPassword


@dataclass(frozen=True, slots=True, kw_only=True)
class Postgres:
    """A PostgreSQL server. ``data`` is where its data lie: a volume's name in the engine, or a path of the host."""

    version: str | None  #: as the image's tag says
    user: str
    databases: tuple[str, ...]
    password: Password
    data_folder: str  #: inside the container
    data: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """A Redis or Valkey server. ``append_only`` is None when the command does not say."""

    version: str | None
    password: Password
    append_only: bool | None
    data_folder: str
    data: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """A service that is started and stopped, and keeps nothing that is copied. ``health`` is an address, or None."""

    health: str | None
    has_healthcheck: bool  #: whether the container says itself how it is


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSet:
    """Files on the host, relative to the project's folder where they are in it. ``git`` is a folder, or None."""

    paths: tuple[str, ...]
    git: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service of a system. ``compose`` is its name in the Compose file; ``reasons`` say why it was taken so."""

    name: str
    kind: Postgres | Redis | Application | FileSet
    compose: str | None = None
    after: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unprotected:
    """Something that holds data and of which no copy is made."""

    what: str  #: a volume's name, or a path of the host
    used_by: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """A system as it was found. ``services`` are in the order of recovery; ``passed_over`` are not part of it."""

    system: str
    services: tuple[Service, ...]
    unprotected: tuple[Unprotected, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def after(self) -> Mapping[str, tuple[str, ...]]:
        """Each service with those it comes after."""
        return {service.name: service.after for service in self.services}

    def starting(self) -> tuple[str, ...]:
        """The services in the order they start."""
        return start_order(self.after)

    def stopping(self) -> tuple[str, ...]:
        """The services in the order they stop."""
        return stop_order(self.after)

    def needing(self, *names: str) -> tuple[str, ...]:
        """What must be stopped, in this order, before one of ``names`` is restored."""
        return dependants(names, self.after)
