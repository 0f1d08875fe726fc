"""Taking copies of a plan's services: which, by what source, into which repositories, and proven how."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from recoup.assembly.access import Found, Readable
from recoup.assembly.postgres import BaseSource, DumpSource, postgres_place
from recoup.assembly.protect.files import files_source
from recoup.assembly.protect.incremental import BuildsOn
from recoup.assembly.protect.kinds import KINDS
from recoup.assembly.prove.copies import prove_and_note
from recoup.assembly.prove.live import allow, clean
from recoup.assembly.redis import RdbSource, redis_place
from recoup.assembly.system import Opened, System
from recoup.backup.take import Source, Taken, take_copy
from recoup.engines.engine import ProgressListener
from recoup.engines.postgres.dump import DumpFormat
from recoup.kernel.errors import Exit, RecoupError, UsageError
from recoup.kernel.finding import exit_code
from recoup.plan.services import FilesService, PostgresService, RedisService
from recoup.repository.catalog import read_catalog
from recoup.repository.copy_writer import Packing
from recoup.verification.grade import LIVE_GRADES, Grade
from recoup.verification.verify import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One copy to take."""

    service: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a user may set for one run. None means what the plan says."""

    label: str | None = None
    dump_format: Literal["custom", "plain"] | None = None
    compression: Literal["zstd", "gzip"] | None = None
    other_cluster: bool = False  #: copy a cluster that is not the one earlier copies were taken of
    wrap: Callable[[Source], Source] = lambda source: source  #: how the source is looked at while it is copied


@dataclass(frozen=True, slots=True, kw_only=True)
class Protected:
    """How one task ended. ``error`` is set when there is no copy at all, ``not_kept`` when the images that are kept
    beside a copy of files could not be.
    """

    task: Task
    taken: Taken | None
    verification: Verification | None
    unopened: dict[str, RecoupError]
    error: RecoupError | None
    not_kept: RecoupError | None = None

    @property
    def exit_code(self) -> Exit:
        """What a command that took only this copy ends with."""
        if self.error is not None:
            return self.error.exit_code
        assert self.taken is not None, "a task has a copy or an error"
        if self.taken.outcome.failed or self.unopened or self.not_kept is not None:
            return Exit.FAILED
        return Exit.OK if self.verification is None else exit_code(self.verification.verdict)


def choose_tasks(system: System, services: Sequence[str], kind: str | None) -> list[Task]:
    """Which copies a run takes. Without services: all that hold data. Without a kind: those the plan schedules, or
    else the first that the engine has. Raise ``UsageError`` for what the plan does not have.
    """
    plan = system.plan
    for name in services:
        if name not in plan.services:
            known = ", ".join(n for n, one in plan.services.items() if KINDS[type(one)])
            raise UsageError(f"the plan has no service {name!r}", hint=f"It protects: {known}.")
        if not KINDS[type(plan.services[name])]:
            raise UsageError(f"{name} holds no data, so there is nothing to copy", hint="Leave it out.")
    tasks = []
    for name in services or plan.services:
        service = plan.services[name]
        possible = KINDS[type(service)]
        if kind is not None:
            wanted = [one for one in possible if one == kind]
            if not wanted and services:
                raise UsageError(f"{name} has no copies of kind {kind!r}", hint=f"It has: {', '.join(possible)}.")
        else:
            wanted = [one for one in possible if one in service.schedules()] or list(possible[:1])
            if "base" in wanted:  # right after it, nothing has changed yet
                wanted = [one for one in wanted if one != "incremental"]
        tasks += [Task(service=name, kind=one) for one in wanted]
    if not tasks:
        raise UsageError(f"no service of the plan has copies of kind {kind!r}")
    return tasks


def protect(system: System, task: Task, options: Options, on_progress: ProgressListener) -> Protected:
    """Take one copy and prove it as the plan says. A failure is returned, not raised, except for a wrong key."""
    opened = system.open(kind=task.kind, writing=True)
    failed = dict(opened.failed)
    if not opened.repositories:
        error = next(iter(failed.values()), None) or UsageError(
            f"no repository of the plan takes copies of kind {task.kind!r}", hint="Add it to a repository's copy list."
        )
        return Protected(task=task, taken=None, verification=None, unopened=failed, error=error)
    try:
        source = options.wrap(source_for(system, task, options, opened))
        taken = take_copy(
            source,
            opened.repositories,
            system=system.plan.system,
            label=options.label,
            packing=packing_for(system, task, options),
            state_folder=system.state_folder,
            on_progress=on_progress,
        )
    except RecoupError as failure:
        return Protected(task=task, taken=None, verification=None, unopened=failed, error=failure)
    verification = _proven(system, opened, taken)
    not_kept = _keep_images(system, on_progress) if task.kind == "files" else None
    return Protected(task=task, taken=taken, verification=verification, unopened=failed, error=None, not_kept=not_kept)


def _keep_images(system: System, on_progress: ProgressListener) -> RecoupError | None:
    """Keep what the stack runs, when the plan says so; why that could not be done."""
    compose = system.plan.compose
    if compose is None or not compose.keep_images:
        return None
    from recoup.assembly.protect.kept_images import keep_images

    try:
        keep_images(system, on_progress)
    except RecoupError as failure:
        return failure
    return None


def _proven(system: System, opened: Opened, taken: Taken) -> Verification | None:
    """A new copy is proven as ``verify.after_backup`` says; that it is stored was shown when it was read back."""
    asked, verify = Grade(system.plan.verify.after_backup), system.plan.verify
    if asked is Grade.STORED:
        return None
    manifest = taken.outcome.manifest
    holders = tuple(one for one in opened.repositories if one.name in taken.outcome.stored_in)
    readable = Readable(
        repositories=opened.repositories, failed=opened.failed, state_folder=system.state_folder, system=system
    )
    if asked in LIVE_GRADES:
        clean(system.state_folder)
    allowed = allow(verify.budget)
    return prove_and_note(readable, Found(manifest=manifest, holders=holders), asked, allowed)


def packing_for(system: System, task: Task, options: Options) -> Packing:
    """How the streams of a copy are compressed: dumps as the plan or the user says, everything else zstd."""
    service = system.plan.services[task.service]
    compression: Literal["zstd", "gzip"] = "zstd"
    if task.kind == "dump" and isinstance(service, PostgresService):
        compression = service.dump_compression
    compression = options.compression or compression
    return Packing(compression=compression, level=6 if compression == "gzip" else 3)


def source_for(system: System, task: Task, options: Options, opened: Opened) -> Source:
    """The source of a copy. Raise ``UsageError`` or ``EngineError`` when the service cannot be reached that way."""
    service = system.plan.services[task.service]
    if isinstance(service, PostgresService):
        place = postgres_place(system, task.service)
        if task.kind == "dump":
            form = DumpFormat(options.dump_format or service.dump_format)
            return DumpSource(place=place, format=form, label=options.label)
        known = None if options.other_cluster else known_cluster(system, task.service, opened)
        if task.kind == "incremental":
            return BaseSource(
                place=place,
                system_identifier=known,
                kind=task.kind,
                builds_on=BuildsOn(
                    service=task.service, repositories=opened.repositories, state_folder=system.state_folder
                ),
            )
        return BaseSource(place=place, system_identifier=known)
    if isinstance(service, RedisService):
        return RdbSource(place=redis_place(system, task.service))
    assert isinstance(service, FilesService), "tasks are only made for services that hold data"
    return files_source(system, task.service)


def known_cluster(system: System, service: str, opened: Opened) -> str | None:
    """The system identifier of the cluster that the newest base backup of ``service`` was taken of, if there is one."""
    catalog = read_catalog(opened.repositories, system.state_folder)
    for entry in catalog.entries:
        if entry.service == service and entry.kind == "base":
            for holder in opened.repositories:
                # A manifest that cannot be read today must not stop the protection: an older one tells as much.
                with contextlib.suppress(RecoupError, KeyError):
                    if holder.name in entry.repositories:
                        return str(holder.manifest(entry.id).facts["system_identifier"])
    return None
