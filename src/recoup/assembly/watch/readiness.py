"""Would a recovery work today? The findings of ``recoup check``, in the order in which a recovery needs things."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime

from recoup.assembly.access import Readable
from recoup.assembly.known_repositories import KnownRepositories
from recoup.assembly.postgres import postgres_place
from recoup.assembly.protect.heartbeats import heartbeat_findings
from recoup.assembly.protect.prepare import wal_findings
from recoup.assembly.redis import RedisPlace, redis_place
from recoup.assembly.stack import open_stack
from recoup.assembly.system import System
from recoup.engines.postgres.incremental import check_incremental
from recoup.engines.postgres.server_check import check_by_sql
from recoup.engines.postgres.server_check import check_server as check_postgres
from recoup.engines.redis.check_server import check_server as check_redis
from recoup.kernel.errors import NoRepositoryError, RecoupError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_duration, show_size
from recoup.objectives.objective import Measured, attainment
from recoup.plan.services import ComposeService, FilesService, PostgresService, RedisService
from recoup.repository.catalog import REPLACED, Catalog, Entry
from recoup.repository.repository import Repository, open_repository
from recoup.storage.object_store import ObjectExistsError, ObjectStore
from recoup.verification.verify import check_chain, check_stored

_PROBE = "probe-"
#: Below this much free space on a local repository's disk nothing sensible can be promised.
_LEAST_FREE_BYTES = 256 << 20


def readiness(system: System, now: datetime) -> Iterator[Finding]:
    """Check the key, each repository, each service, and the newest copy of each. Never raises for what is wrong."""
    yield from _key(system)
    opened: list[Repository] = []
    for name in system.plan.repositories:
        yield from _repository(system, name, opened)
    if system.plan.compose is not None:
        yield _compose(system)
    for name, service in system.plan.services.items():
        if not isinstance(service, ComposeService):
            yield from _service(system, name, now)
    yield from _copies(system, opened, now)


def _failed(check: str, subject: str, failure: RecoupError) -> Finding:
    """A finding for an error: what a recovery needs and cannot have today has failed, whatever the reason."""
    return Finding(check=check, subject=subject, verdict=Verdict.FAILED, detail=failure.message, hint=failure.hint)


def _key(system: System) -> Iterator[Finding]:
    check, subject = "the key is there", "key"
    try:
        key = system.key
    except RecoupError as failure:
        yield _failed(check, subject, failure)
        return
    yield Finding(check=check, subject=subject, verdict=Verdict.OK, detail=f"fingerprint {key.id[:16]}")
    if not key.is_random:
        yield Finding(
            check="the key is strong",
            subject=subject,
            verdict=Verdict.UNKNOWN,
            detail="it is a passphrase, so its strength cannot be told",
            hint="Prefer a random key: recoup key generate.",
        )


def _repository(system: System, name: str, opened: list[Repository]) -> Iterator[Finding]:
    check = "the repository opens with the key"
    try:
        store = system.store(name)
    except NoRepositoryError:
        yield _not_there(system, name, str(system.plan.repositories[name].path or name))
        return
    except RecoupError as failure:
        yield _failed(check, name, failure)
        return
    try:
        repository = open_repository(name, store, system.key)
    except NoRepositoryError:
        yield _not_there(system, name, store.address)
    except RecoupError as failure:
        yield _failed(check, name, failure)
        return
    else:
        opened.append(repository)
        yield Finding(check=check, subject=name, verdict=Verdict.OK, detail=store.address)
    yield _writable(name, store)
    path = system.plan.repositories[name].path
    if path is not None:
        yield _free_space(system, name)


def _not_there(system: System, name: str, where: str) -> Finding:
    if KnownRepositories(system.state_folder).identity_of(name) is not None:
        return Finding(
            check="the repository opens with the key",
            subject=name,
            verdict=Verdict.FAILED,
            detail=f"it was at {where} before and is not there now",
            hint="Is its disk mounted, is its address right? When it is gone for good, begin a new one with "
            f"`recoup backup --new-repository {name}`.",
        )
    return Finding(
        check="the repository opens with the key",
        subject=name,
        verdict=Verdict.FAILED,
        detail=f"there is none yet at {where}",
        hint="The first `recoup backup` makes it.",
    )


def _writable(name: str, place: ObjectStore) -> Finding:
    """Write, read back and delete one small object."""
    check, content = "the repository takes, returns and deletes an object", secrets.token_bytes(64)
    key = f"{_PROBE}{secrets.token_hex(8)}"
    detail, hint = "", None
    try:
        place.put(key, content, if_absent=True)
        if place.get(key, limit_bytes=4096) != content:
            detail, hint = "what was read is not what was written", "Do not trust this place until it was looked at."
        with contextlib.suppress(ObjectExistsError):
            place.put(key, secrets.token_bytes(64), if_absent=True)
            detail = "it replaces an object although it is asked not to (If-None-Match is ignored)"
            hint = "Two machines that write there at once could overwrite each other; use another S3 service."
        place.delete(key)
    except RecoupError as failure:
        return _failed(check, name, failure)
    verdict = Verdict.FAILED if detail else Verdict.OK
    return Finding(check=check, subject=name, verdict=verdict, detail=detail, hint=hint)


def _free_space(system: System, name: str) -> Finding:
    path = system.plan.repositories[name].path
    assert path is not None, "only called for folders"
    free = shutil.disk_usage(system.resolver.path(path)).free
    enough = free >= _LEAST_FREE_BYTES
    return Finding(
        check="the repository's disk has room",
        subject=name,
        verdict=Verdict.OK if enough else Verdict.FAILED,
        detail=f"{show_size(free)} free",
        hint=None if enough else "Make room, or move the repository to a larger disk.",
    )


def _compose(system: System) -> Finding:
    check = "the Compose project can be read, and Docker answers"
    try:
        stack = open_stack(system)
        status = stack.client.status()
    except RecoupError as failure:
        return _failed(check, "compose", failure)
    others = [f"{name}: {text}" for name, text in status.items() if not text.startswith("running")]
    return Finding(
        check=check,
        subject=stack.project.name,
        verdict=Verdict.OK,
        detail="; ".join((f"{len(status) - len(others)} of {len(status)} services run", *others)),
    )


def _service(system: System, name: str, now: datetime) -> Iterator[Finding]:
    service = system.plan.services[name]
    try:
        if isinstance(service, PostgresService):
            place = postgres_place(system, name)
            yield from check_postgres(place.url) if place.url is not None else check_by_sql(place.access)
            if service.incremental is not None:
                yield check_incremental(place.access)
            yield from wal_findings(system, name, service)
            yield _checks(name, service)
        elif isinstance(service, RedisService):
            yield from _redis(redis_place(system, name))
        elif isinstance(service, FilesService):
            yield from _files(system, name, service)
        yield from heartbeat_findings(system, name, now)
    except RecoupError as failure:
        yield _failed("the service can be reached", name, failure)


def _checks(name: str, service: PostgresService) -> Finding:
    """No checks is no fault today, but then nobody will know whether what comes back is what the application needs."""
    none = (
        "whether a restored copy holds what the application needs: the plan has no checks for it, so copies are proven "
        'as far as same, and not works. Write one: checks: [{sql: "SELECT count(*) FROM orders", at_least: 1000}]'
    )
    return Finding(
        check="the plan asks questions of its restored copies",
        subject=name,
        verdict=Verdict.OK,
        detail=str(len(service.checks)),
        not_checked="" if service.checks else none,
    )


def _redis(place: RedisPlace) -> Iterator[Finding]:
    if place.url is not None:
        yield from check_redis(place.url)
        return
    assert place.program is not None, "a place has an address or a program"
    (answer,) = place.program.ask("INFO server")
    if isinstance(answer, RecoupError):
        yield _failed("Redis answers", place.name, answer)
        return
    version = next((line[14:].strip() for line in answer.splitlines() if line.startswith("redis_version:")), "?")
    yield Finding(check="Redis answers", subject=place.name, verdict=Verdict.OK, detail=f"version {version}")


def _files(system: System, name: str, service: FilesService) -> Iterator[Finding]:
    for template in service.paths:
        path = system.resolver.path(template)
        there = path.exists()
        yield Finding(
            check="the path is there",
            subject=f"{name}: {template}",
            verdict=Verdict.OK if there else Verdict.FAILED,
            hint=None if there else "Create it, or correct the paths of this service in the plan.",
        )


def _copies(system: System, opened: list[Repository], now: datetime) -> Iterator[Finding]:
    """The newest copy of each service: is it as young as was promised, and is all of it there?"""
    if not opened:
        return
    readable = Readable(repositories=tuple(opened), failed={}, state_folder=system.state_folder, system=system)
    catalog = readable.catalog()
    for problem in catalog.problems:
        yield Finding(
            check="the manifest is authentic",
            subject=f"{problem.repository}: {problem.id}",
            verdict=Verdict.FAILED,
            detail=problem.what,
            hint="Somebody or something changed the repository. Look at it before the next backup.",
        )
    for name, service in system.plan.services.items():
        if isinstance(service, ComposeService):
            continue
        newest = _newest(catalog, name)
        yield _age(system, name, newest, now)
        if newest is not None:
            yield _whole(readable, newest)


def _newest(catalog: Catalog, service: str) -> Entry | None:
    return next((entry for entry in catalog.entries if entry.service == service and entry.label != REPLACED), None)


def _age(system: System, name: str, newest: Entry | None, now: datetime) -> Finding:
    check = "the newest copy is young enough"
    if newest is None:
        return Finding(
            check=check,
            subject=name,
            verdict=Verdict.FAILED,
            detail="there is no copy yet",
            hint=f"Take one: recoup backup {name}.",
        )
    age = now - newest.begun
    objective = system.plan.objective(name)
    if objective.rpo is None:
        detail = f"{newest.kind} {newest.id} is {show_duration(age)} old"
        gap = "its age: no RPO was promised for it; give it a tier in the plan"
        return Finding(check="there is a copy", subject=name, verdict=Verdict.OK, detail=detail, not_checked=gap)
    verdict = attainment(objective, Measured(lost_data=age)).rpo
    promised = f"the RPO is {show_duration(objective.rpo)}"
    hint = None
    if verdict is not Verdict.OK:
        hint = f"Take one now: recoup backup {name}. Then find out why none was taken."
    detail = f"{newest.kind} {newest.id} is {show_duration(age)} old; {promised}"
    return Finding(check=check, subject=name, verdict=verdict, detail=detail, hint=hint)


def _whole(readable: Readable, newest: Entry) -> Finding:
    check, subject = "the newest copy is stored whole", f"{newest.service} {newest.id}"
    try:
        found = readable.find(newest.id)
    except RecoupError as failure:
        return _failed(check, subject, failure)
    bad = [
        one
        for holder in found.holders
        for one in (*check_stored(found.manifest, holder), *check_chain(found.manifest, holder))
        if one.verdict != Verdict.OK
    ]
    if bad:
        verdict = Verdict.FAILED if any(one.verdict is Verdict.FAILED for one in bad) else Verdict.UNKNOWN
        return Finding(
            check=check, subject=subject, verdict=verdict, detail=f"{bad[0].subject}: {bad[0].detail}", hint=bad[0].hint
        )
    where = ", ".join(one.name for one in found.holders)
    return Finding(
        check=check,
        subject=subject,
        verdict=Verdict.OK,
        detail=f"in {where}",
        not_checked="the bytes themselves: `recoup verify` does",
    )
