"""Bringing a copy back: into a folder, into a server, or in place inside the stack."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recoup.assembly.access import Found, Readable
from recoup.assembly.homes import PostgresHome
from recoup.assembly.postgres import postgres_place
from recoup.assembly.redis import (
    Forgetful,
    RdbSource,
    RedisHome,
    RedisPlace,
    compare_with_copy,
    layout_of,
    redis_place,
)
from recoup.assembly.restore_runs import RestoreRuns
from recoup.assembly.surroundings import Surroundings
from recoup.assembly.system import System
from recoup.backup.take import take_copy
from recoup.engines.engine import Progress, ProgressListener
from recoup.engines.files.restore import restore_files
from recoup.engines.postgres.access import DirectAccess, ServerAccess
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.engines.postgres.replace_database import Replacement
from recoup.engines.postgres.restore_database import DumpRestore, restore_dump
from recoup.engines.redis.restore_folder import restore_rdb_to_folder
from recoup.engines.redis.restore_server import restore_rdb_to_server
from recoup.kernel.errors import EngineError, RefusedError, UsageError
from recoup.kernel.files import sync_folder, temporary_beside
from recoup.kernel.finding import Finding
from recoup.kernel.secret import Secret
from recoup.plan.services import PostgresService, RedisService
from recoup.recovery.in_place import Consent, restore_in_place
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.copy_writer import Packing
from recoup.repository.lease import hold_lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user asked for. ``destination`` is a folder or a server's address; None is where the service lives."""

    destination: str | None = None
    database: str | None = None  #: which database of a dump; None when it has one only
    into: str | None = None  #: under which name a database is restored
    create_roles: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was restored where, what is kept of the old, and what was checked."""

    what: str
    where: str
    kept: str | None
    notes: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def restore(
    opened: Readable,
    found: Found,
    wish: Wish,
    consent: Consent,
    *,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> Report:
    """Restore an artefact from the repositories that hold it. Raise ``UsageError`` for a wish that makes no sense."""
    manifest = found.manifest
    reader = ArtefactReader(manifest, found.holders)
    with hold_lease(opened.state_folder, manifest.service, f"restore of {manifest.service} ({manifest.id})"):
        if wish.destination is not None and not _is_address(wish.destination):
            return _into_folder(reader, Path(wish.destination).expanduser(), consent, on_progress)
        system = opened.system
        if manifest.kind == "dump":
            access = _server(system, manifest.service, wish)
            return _into_database(opened, reader, access, wish, consent, on_progress)
        if manifest.kind == "rdb" and wish.destination is not None:
            there = RedisService(engine="redis")
            url = Secret(wish.destination)
            elsewhere = RedisPlace(name=manifest.service, service=there, url=url, program=None, stack=None)
            return _rdb_into_server(opened, found, reader, elsewhere, consent, on_progress)
        if wish.destination is not None:
            raise UsageError(
                f"a {manifest.kind} copy cannot go to {_without_secrets(wish.destination)}",
                hint="Give a folder as --destination, or none to restore it where the service lives.",
            )
        if system is None:
            raise UsageError("without a plan there is no place to restore to", hint="Add --destination FOLDER.")
        if manifest.kind == "base":
            return _base_in_place(system, reader, consent, say, on_progress)
        if manifest.kind == "rdb":
            return _rdb_in_place(opened, system, found, reader, consent, say, on_progress)
        raise UsageError(
            f"a {manifest.kind} copy is restored into a folder", hint="Add --destination FOLDER (an empty one)."
        )


def _into_folder(reader: ArtefactReader, folder: Path, consent: Consent, on_progress: ProgressListener) -> Report:
    manifest = reader.manifest
    what = f"{manifest.service} {manifest.kind} {manifest.id}"
    if manifest.kind == "base":
        placed = restore_base_to_folder(reader, folder, on_progress=on_progress)
        notes = ["the folder is ready: give it to the user that runs PostgreSQL (chown -R), then start it"]
        if placed.tablespaces:
            spaces = ", ".join(f"{oid} in {path}" for oid, path in placed.tablespaces.items())
            notes.append(f"tablespaces: {spaces}")
        return Report(what=what, where=str(folder), kept=None, notes=tuple(notes))
    if manifest.kind == "rdb":
        layout = layout_of(manifest.facts)
        done = restore_rdb_to_folder(reader, folder, layout, force=consent.force)
        way = "append-only log" if layout.appendonly else "snapshot"
        notes = [f"start Redis {layout.server_version} (or newer) on the folder: it finds the data as its {way}"]
        kept = None if done.replaced is None else str(done.replaced)
        return Report(what=what, where=str(folder), kept=kept, notes=tuple(notes))
    if manifest.kind == "files":
        files = restore_files(reader, folder, force=consent.force, on_progress=on_progress)
        notes = [f"{files.placed} placed, {files.same} were there already", *files.notes]
        kept = None if files.aside is None else f"{files.aside} ({len(files.replaced)} files)"
        return Report(what=what, where=str(folder), kept=kept, notes=tuple(notes))
    names = write_streams(reader, folder, on_progress)
    notes = [f"{', '.join(names)} as pg_dump wrote them; RESTORE.md says how to load them by hand"]
    return Report(what=what, where=str(folder), kept=None, notes=tuple(notes))


def write_streams(reader: ArtefactReader, folder: Path, on_progress: ProgressListener) -> list[str]:
    """Write the plain streams of a copy into an empty folder, each whole or not at all; their names.

    Raise ``RefusedError`` when the folder holds anything, ``EngineError`` when it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise RefusedError(f"{folder} is not empty", hint="Give an empty folder, or one that does not exist.")
        for info in reader.streams():
            done = 0
            with temporary_beside(folder / info.name) as temporary:
                with temporary.open("wb") as handle:
                    for piece in reader.read(info.name):
                        handle.write(piece)
                        done += len(piece)
                        on_progress(Progress(what=info.name, done_bytes=done, total_bytes=info.plain_bytes))
                    handle.flush()
                    os.fsync(handle.fileno())
                temporary.replace(folder / info.name)
        sync_folder(folder)
    except OSError as failure:
        raise EngineError(
            f"cannot write into {folder}: {failure.strerror or failure}", hint="Check its rights and the free space."
        ) from failure
    return [info.name for info in reader.streams()]


def _base_in_place(
    system: System,
    reader: ArtefactReader,
    consent: Consent,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> Report:
    manifest = reader.manifest
    service = system.plan.services.get(manifest.service)
    if not isinstance(service, PostgresService):
        raise UsageError(
            f"the plan has no PostgreSQL service {manifest.service!r}", hint="Add --destination FOLDER (an empty one)."
        )
    place = postgres_place(system, manifest.service)
    if place.stack is None or service.compose is None:
        raise UsageError(
            f"{manifest.service} is reached by its address, so Recoup does not know where its data folder is",
            hint="Stop the server, and restore into an empty folder with --destination FOLDER.",
        )
    done = restore_in_place(
        service.compose,
        PostgresHome(place=place, stack=place.stack, compose_service=service.compose),
        Surroundings(plan=system.plan, stack=place.stack),
        reader,
        artefact_id=manifest.id,
        identity=str(manifest.facts["system_identifier"]),
        consent=consent,
        say=say,
        on_progress=on_progress,
    )
    return Report(
        what=f"{manifest.service} {manifest.kind} {manifest.id}",
        where=done.place,
        kept=done.kept,
        findings=done.findings,
        notes=(f"running again: {', '.join(done.restarted)}",),
    )


def _rdb_in_place(
    opened: Readable,
    system: System,
    found: Found,
    reader: ArtefactReader,
    consent: Consent,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> Report:
    manifest = reader.manifest
    service = system.plan.services.get(manifest.service)
    if not isinstance(service, RedisService):
        raise UsageError(f"the plan has no Redis service {manifest.service!r}", hint="Add --destination FOLDER.")
    place = redis_place(system, manifest.service)
    if place.url is not None:
        return _rdb_into_server(opened, found, reader, place, consent, on_progress)
    assert place.stack is not None, "a place without an address is in the stack"
    assert service.compose is not None, "a place without an address is in the stack"
    home = RedisHome(place=place, stack=place.stack, compose_service=service.compose, facts=manifest.facts)
    done = restore_in_place(
        service.compose,
        home,
        Surroundings(plan=system.plan, stack=place.stack),
        reader,
        artefact_id=manifest.id,
        identity=None if manifest.facts.get("place") is None else str(manifest.facts["place"]),
        consent=consent,
        say=say,
        on_progress=on_progress,
    )
    return Report(
        what=f"{manifest.service} {manifest.kind} {manifest.id}",
        where=done.place,
        kept=done.kept,
        findings=done.findings,
        notes=(f"running again: {', '.join(done.restarted)}",),
    )


def _rdb_into_server(
    opened: Readable,
    found: Found,
    reader: ArtefactReader,
    place: RedisPlace,
    consent: Consent,
    on_progress: ProgressListener,
) -> Report:
    """Load an RDB into a running Redis. What it replaces becomes an artefact first, labelled ``replaced``."""
    manifest, url = reader.manifest, place.url
    assert url is not None, "only a Redis with an address can be loaded from here"
    kept = None
    try:
        restore_rdb_to_server(reader, url, on_progress=on_progress)
    except RefusedError:
        if not consent.force:
            raise
        taken = take_copy(
            RdbSource(place=place),
            found.holders[:1],
            system=manifest.system,
            label="replaced",
            packing=Packing(),
            state_folder=opened.state_folder / "replaced",
            on_progress=on_progress,
        )
        kept = f"artefact {taken.outcome.manifest.id} (label replaced)"
        restore_rdb_to_server(reader, url, force=True, safety=Forgetful(), on_progress=on_progress)
    return Report(
        what=f"{manifest.service} rdb {manifest.id}",
        where=_without_secrets(url.reveal()),
        kept=kept,
        findings=tuple(compare_with_copy(place, manifest.fingerprint)),
        notes=(),
    )


def _server(system: System | None, service: str, wish: Wish) -> ServerAccess:
    if wish.destination is not None:
        return DirectAccess(Secret(wish.destination))
    if system is None or not isinstance(system.plan.services.get(service), PostgresService):
        raise UsageError(
            f"there is no server to restore {service} to",
            hint="Add --destination postgresql://user@host:5432/postgres (the password in PGPASSWORD).",
        )
    return postgres_place(system, service).access


def _into_database(
    opened: Readable,
    reader: ArtefactReader,
    access: ServerAccess,
    wish: Wish,
    consent: Consent,
    on_progress: ProgressListener,
) -> Report:
    manifest = reader.manifest
    databases = list(manifest.facts["databases"])
    source = wish.database or (databases[0] if len(databases) == 1 else None)
    if source is None:
        raise UsageError(f"the dump holds {', '.join(databases)}", hint="Say which: --database NAME.")
    target = wish.into or source
    runs = RestoreRuns(opened.state_folder)
    run_id = runs.begin(manifest.id, f"{access.place}/{target}")
    request = DumpRestore(
        source=source,
        replacement=Replacement(database=target, run_id=run_id, force=consent.force),
        create_roles=wish.create_roles,
    )
    done = restore_dump(access, reader, request, progress=on_progress)
    runs.end(manifest.id, f"{access.place}/{target}")
    return Report(
        what=f"{manifest.service} dump {manifest.id} (database {source})",
        where=f"database {done.database} on {access.place}",
        kept=None if done.kept is None else f"database {done.kept}",
        findings=done.findings,
        notes=done.notes,
    )


def _is_address(destination: str) -> bool:
    return destination.startswith(("postgresql://", "postgres://", "redis://", "rediss://", "unix://"))


def _without_secrets(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
