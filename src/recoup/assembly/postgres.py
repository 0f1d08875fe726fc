"""PostgreSQL services of a plan: how each is reached, and the ways to copy it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from recoup.assembly.stack import Stack, open_stack
from recoup.assembly.system import System
from recoup.engines.engine import CopyFacts, ProgressListener, Sink
from recoup.engines.postgres.access import DirectAccess, ProgramAccess, ServerAccess, open_maintenance
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_by_program import take_base_backup_by_program
from recoup.engines.postgres.base_fingerprint import take_with_fingerprint
from recoup.engines.postgres.dump import DumpFormat, DumpRequest, default_stream_name, take_dump
from recoup.engines.postgres.earlier import Earlier
from recoup.engines.postgres.heartbeat import beat
from recoup.kernel.errors import EngineError
from recoup.kernel.secret import Secret
from recoup.plan.services import PostgresService


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPlace:
    """One PostgreSQL of the plan. ``url`` is None when it is only reached inside its container."""

    name: str
    service: PostgresService
    access: ServerAccess
    url: Secret | None
    stack: Stack | None
    databases: tuple[str, ...]


def postgres_place(system: System, name: str) -> PostgresPlace:
    """How the service ``name`` is reached. Raise ``UsageError`` or ``EngineError`` when the plan does not tell."""
    service = system.plan.services[name]
    assert isinstance(service, PostgresService)
    databases = tuple(system.resolver.text(one) for one in service.databases)
    if service.url is not None:
        url = system.resolver.resolve(service.url)
        return PostgresPlace(
            name=name, service=service, access=DirectAccess(url), url=url, stack=None, databases=databases
        )
    assert service.compose is not None, "the plan was checked: url or compose"
    stack = open_stack(system)
    inside = stack.project.service(service.compose)
    given = {key: value.reveal() for key, value in inside.environment.items()}
    user = system.resolver.text(service.user) if service.user else given.get("POSTGRES_USER", "postgres")
    database = system.resolver.text(service.database) if service.database else given.get("POSTGRES_DB", user)
    password = system.resolver.resolve(service.password) if service.password else None
    access = ProgramAccess(stack.client.runner(service.compose), user=user, database=database, password=password)
    return PostgresPlace(name=name, service=service, access=access, url=None, stack=stack, databases=databases)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSource:
    """Takes base backups, whole or incremental ones. Implements ``backup.take.Source``."""

    place: PostgresPlace
    system_identifier: str | None  #: of the cluster that earlier backups were taken of
    on_stopped: Callable[[datetime], None] | None = None  #: called when the state is fixed that it recovers to
    builds_on: Callable[[], Earlier] | None = None  #: for an incremental one: finds the backup that it builds on
    engine: str = "postgres"
    kind: str = "base"

    @property
    def service(self) -> str:
        """See ``Source``."""
        return self.place.name

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:
        """See ``Source``. The fingerprint is taken right after the copy, unless the plan says not to."""
        place = self.place

        def take() -> CopyFacts:
            label = f"recoup {begun_stamp}"
            since = None if self.builds_on is None else self.builds_on()
            if place.url is not None:
                return take_base_backup(
                    place.url,
                    sink,
                    label=label,
                    expected_system_identifier=self.system_identifier,
                    on_progress=on_progress,
                    since=since,
                    on_stopped=self.on_stopped,
                )
            assert isinstance(place.access, ProgramAccess)
            return take_base_backup_by_program(
                place.access,
                sink,
                label=label,
                expected_system_identifier=self.system_identifier,
                on_progress=on_progress,
                since=since,
                on_stopped=self.on_stopped,
            )

        if place.service.heartbeat:
            # A server that cannot take the row now can be copied all the same; the drill says what it has.
            with contextlib.suppress(EngineError), open_maintenance(place.access) as session:
                beat(session, row=True)
        if not place.service.fingerprint:
            return take()
        return take_with_fingerprint(place.access, place.databases, take)


@dataclass(frozen=True, slots=True, kw_only=True)
class DumpSource:
    """Takes dumps with the server's own ``pg_dump``. Implements ``backup.take.Source``."""

    place: PostgresPlace
    format: DumpFormat
    label: str | None
    engine: str = "postgres"
    kind: str = "dump"

    @property
    def service(self) -> str:
        """See ``Source``."""
        return self.place.name

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:
        """See ``Source``. Streams are called ``SERVICE-backup[-LABEL][-DATABASE]-STAMP.sql`` (or ``.dump``)."""
        alone = len(self.place.databases) == 1

        def stream_name(database: str, form: DumpFormat) -> str:
            default = default_stream_name(database, form)
            stem, _, suffix = default.rpartition(".")
            parts = [f"{self.place.name}-backup", self.label, None if alone else stem, begun_stamp]
            return "-".join(part for part in parts if part) + f".{suffix}"

        request = DumpRequest(
            databases=self.place.databases, format=self.format, with_fingerprint=self.place.service.fingerprint
        )
        return take_dump(self.place.access, sink, request, stream_name=stream_name, progress=on_progress)
