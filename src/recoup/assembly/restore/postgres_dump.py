"""Restoring PostgreSQL: a base backup in place inside the stack, a dump into a server."""

from __future__ import annotations

from recoup.assembly.postgres import postgres_place
from recoup.assembly.protect.incremental import chain_of
from recoup.assembly.restore.homes import PostgresHome
from recoup.assembly.restore.job import Job, Report, without_secrets
from recoup.assembly.restore.runs import RestoreRuns
from recoup.assembly.restore.surroundings import Surroundings
from recoup.assembly.system import System
from recoup.engines.postgres.access import DirectAccess, ServerAccess
from recoup.engines.postgres.replace_database import Replacement
from recoup.engines.postgres.restore_database import DumpRestore, restore_dump
from recoup.kernel.errors import UsageError
from recoup.kernel.secret import Secret
from recoup.plan.services import PostgresService
from recoup.recovery.in_place import restore_in_place


def base_in_place(job: Job, system: System) -> Report:
    """Put a base backup, whole or incremental, back into the volume of its Compose service."""
    manifest = job.manifest
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
        PostgresHome(
            place=place,
            stack=place.stack,
            compose_service=service.compose,
            parents=chain_of(job.opened, job.found)[:-1],
        ),
        Surroundings(plan=system.plan, stack=place.stack),
        job.reader,
        artefact_id=manifest.id,
        identity=str(manifest.facts["system_identifier"]),
        consent=job.consent,
        say=job.say,
        on_progress=job.on_progress,
    )
    return Report(
        what=job.subject,
        where=done.place,
        kept=done.kept,
        findings=done.findings,
        notes=(f"running again: {', '.join(done.restarted)}",),
    )


def dump_into_database(job: Job) -> Report:
    """Restore one database of a dump: fresh, verified, then swapped in by rename."""
    manifest, wish, access = job.manifest, job.wish, _server(job)
    databases = list(manifest.facts["databases"])
    source = wish.database or (databases[0] if len(databases) == 1 else None)
    if source is None:
        raise UsageError(f"the dump holds {', '.join(databases)}", hint="Say which: --database NAME.")
    target = wish.into or source
    runs = RestoreRuns(job.opened.state_folder)
    run_id = runs.begin(manifest.id, f"{access.place}/{target}")
    request = DumpRestore(
        source=source,
        replacement=Replacement(database=target, run_id=run_id, force=job.consent.force),
        create_roles=wish.create_roles,
    )
    done = restore_dump(access, job.reader, request, progress=job.on_progress)
    runs.end(manifest.id, f"{access.place}/{target}")
    return Report(
        what=f"{manifest.service} dump {manifest.id} (database {source})",
        where=f"database {done.database} on {access.place}",
        kept=None if done.kept is None else f"database {done.kept}",
        findings=done.findings,
        notes=done.notes,
    )


def _server(job: Job) -> ServerAccess:
    wish, system, service = job.wish, job.opened.system, job.manifest.service
    if wish.destination is not None:
        if not wish.destination.startswith(("postgresql://", "postgres://")):
            raise UsageError(
                f"a dump cannot go to {without_secrets(wish.destination)}",
                hint="Give --destination postgresql://user@host:5432/postgres, or a folder.",
            )
        return DirectAccess(Secret(wish.destination))
    if system is None or not isinstance(system.plan.services.get(service), PostgresService):
        raise UsageError(
            f"there is no server to restore {service} to",
            hint="Add --destination postgresql://user@host:5432/postgres (the password in PGPASSWORD).",
        )
    return postgres_place(system, service).access
