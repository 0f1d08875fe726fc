"""Restoring Redis: in place inside the stack, or into a running server."""

from __future__ import annotations

from recoup.assembly.redis import Forgetful, RdbSource, RedisHome, RedisPlace, compare_with_copy, redis_place
from recoup.assembly.restore.job import Job, Report, without_secrets
from recoup.assembly.restore.surroundings import Surroundings
from recoup.assembly.system import System
from recoup.backup.take import take_copy
from recoup.engines.redis.connection import connect, read_info, read_keyspace
from recoup.engines.redis.restore_server import restore_rdb_to_server
from recoup.kernel.errors import RefusedError, UsageError
from recoup.kernel.secret import Secret
from recoup.plan.services import RedisService
from recoup.recovery.in_place import restore_in_place
from recoup.repository.catalog import REPLACED
from recoup.repository.copy_writer import Packing


def place_at(service: str, url: Secret) -> RedisPlace:
    """A Redis that is not the plan's, by its address."""
    return RedisPlace(name=service, service=RedisService(engine="redis"), url=url, program=None, stack=None)


def rdb_in_place(job: Job, system: System) -> Report:
    """Put an RDB back where its service lives: into the volume of its container, or into the running server."""
    manifest = job.manifest
    service = system.plan.services.get(manifest.service)
    if not isinstance(service, RedisService):
        raise UsageError(f"the plan has no Redis service {manifest.service!r}", hint="Add --destination FOLDER.")
    place = redis_place(system, manifest.service)
    if place.url is not None:
        return rdb_into_server(job, place)
    assert place.stack is not None, "a place without an address is in the stack"
    assert service.compose is not None, "a place without an address is in the stack"
    home = RedisHome(place=place, stack=place.stack, compose_service=service.compose, facts=manifest.facts)
    done = restore_in_place(
        service.compose,
        home,
        Surroundings(plan=system.plan, stack=place.stack),
        job.reader,
        artefact_id=manifest.id,
        identity=None if manifest.facts.get("place") is None else str(manifest.facts["place"]),
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


def require_empty(place: RedisPlace, *, force: bool) -> None:
    """Raise ``RefusedError`` when a Redis that is reached by its address has keys, unless ``force``."""
    assert place.url is not None, "only a Redis with an address can be loaded from here"
    with connect(place.url) as connection:
        keys = sum(read_keyspace(read_info(connection, "keyspace")).values())
    if keys and not force:
        raise RefusedError(
            f"{place.name} holds {keys} keys, and whose they are cannot be told of a server with an address",
            hint="If they may be replaced (they become a copy first), say --force.",
        )


def rdb_into_server(job: Job, place: RedisPlace) -> Report:
    """Load an RDB into a running Redis. What it replaces becomes an artefact first, labelled ``replaced``."""
    manifest, url, reader, on_progress = job.manifest, place.url, job.reader, job.on_progress
    assert url is not None, "only a Redis with an address can be loaded from here"
    kept = None
    try:
        restore_rdb_to_server(reader, url, on_progress=on_progress)
    except RefusedError:
        if not job.consent.force:
            raise
        taken = take_copy(
            RdbSource(place=place),
            job.found.holders[:1],
            system=manifest.system,
            label=REPLACED,
            packing=Packing(),
            state_folder=job.opened.state_folder / "replaced",
            on_progress=on_progress,
        )
        kept = f"artefact {taken.outcome.manifest.id} (label {REPLACED})"
        restore_rdb_to_server(reader, url, force=True, safety=Forgetful(), on_progress=on_progress)
    return Report(
        what=job.subject,
        where=without_secrets(url.reveal()),
        kept=kept,
        findings=tuple(compare_with_copy(place, manifest.fingerprint)),
        notes=(),
    )
