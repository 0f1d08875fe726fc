"""Bringing a stack point back: its members found in the repositories, and where each of them goes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from recoup.assembly.access import Found, Readable
from recoup.assembly.restore.job import Job, Report, Wish
from recoup.assembly.restore.runs import StackRun
from recoup.assembly.restore.stack_moment import TimedMember, choose_members, in_volume
from recoup.assembly.restore.stack_moment import into_folder as moment_into_folder
from recoup.assembly.restore.surroundings import Surroundings
from recoup.assembly.stack import open_stack
from recoup.assembly.system import System
from recoup.engines.engine import ProgressListener
from recoup.engines.files.restore import differences, restore_files
from recoup.engines.files.walk import OUTSIDE
from recoup.kernel.errors import RecoupError, UsageError
from recoup.kernel.files import expanded
from recoup.plan.services import FilesService, PostgresService, RedisService
from recoup.recovery.in_place import Consent
from recoup.recovery.stack_in_place import (
    Member,
    OpenMember,
    Put,
    StackRestored,
    Step,
    VolumeMember,
    restore_stack,
    steps,
)
from recoup.repository.catalog import STACK
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.lease import hold_lease
from recoup.repository.stack_points import StackPoint, read_point


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundStack:
    """Where a stack goes back to, and by what. ``without`` are members that stay as they are.

    ``name`` is for people and files: the point's, or the instant. ``members`` are copies, or databases through their
    logs, in the order of recovery.
    """

    key: str
    name: str
    point: StackPoint | None
    members: tuple[Found | TimedMember, ...]
    without: tuple[str, ...]

    @property
    def services(self) -> tuple[str, ...]:
        """The services that go back."""
        return tuple(_service_of(one) for one in self.members)


def _service_of(member: Found | TimedMember) -> str:
    return member.manifest.service if isinstance(member, Found) else member.service


@dataclass(frozen=True, slots=True, kw_only=True)
class StackJob:
    """One restore of a stack. ``destination`` is a folder, in which each service gets one; None is where they live."""

    opened: Readable
    found: FoundStack
    destination: str | None
    consent: Consent
    command: str
    say: Callable[[str], None]
    on_progress: ProgressListener

    def job(self, found: Found, destination: Path | None = None) -> Job:
        """The restore of one member."""
        return Job(
            opened=self.opened,
            found=found,
            reader=ArtefactReader(found.manifest, found.holders),
            wish=Wish(destination=None if destination is None else str(destination)),
            consent=self.consent,
            say=self.say,
            on_progress=self.on_progress,
        )


def find_stack(opened: Readable, reference: str, without: Sequence[str] = ()) -> FoundStack:
    """The point meant by ``latest``, a name or an id, and its members.

    Raise ``UsageError`` when there is none, or ``without`` names what is no member; the member's error when its copy is
    in no repository that answered.
    """
    catalog = opened.catalog()
    point = read_point(opened.find(reference, kinds=(STACK,), catalog=catalog).manifest)
    known = [one.service for one in point.members]
    for name in without:
        if name not in known:
            raise UsageError(
                f"the stack point {point.name} has no member {name!r}", hint=f"It has: {', '.join(known)}."
            )
    if not set(known) - set(without):
        raise UsageError("nothing is left to restore", hint="Leave one --without out.")
    members = []
    for member in point.members:
        if member.service in without:
            continue
        try:
            members.append(opened.find(member.artefact, catalog=catalog))
        except RecoupError as failure:
            failure.hint = failure.hint or "Another stack point may be whole: recoup list stack."
            raise
    return FoundStack(key=point.id, name=point.name, point=point, members=tuple(members), without=tuple(without))


def find_instant(opened: Readable, instant: datetime | None, without: Sequence[str] = ()) -> FoundStack:
    """The whole stack at an instant, or (None) as far as there is anything of each service.

    Raise ``RefusedError`` when one of its services cannot be brought there.
    """
    stamp = "latest" if instant is None else f"{instant.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"
    members = choose_members(opened, instant, without)
    return FoundStack(key=stamp, name=stamp, point=None, members=members, without=tuple(without))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a restore of a stack will do, in this order. Nothing was changed yet."""

    members: tuple[Member, ...]
    applications: tuple[str, ...]
    around: Surroundings | None
    run: StackRun

    def steps(self) -> tuple[Step, ...]:
        """The steps. ``--plan`` shows them, and the run carries them out."""
        return steps(self.members, self.applications, self.run.replaced)


def prepare(job: StackJob, scope: contextlib.ExitStack) -> Prepared:
    """Where each member goes, and what has to stand still meanwhile. ``scope`` keeps what is built on the way.

    Raise ``UsageError`` for a member that has no place, before anything was touched.
    """
    system = job.opened.system
    run = StackRun(job.opened.state_folder, job.found.key, job.destination or "where the services live")
    if job.destination is not None:
        folder = Path.cwd() / expanded(job.destination)
        members = [place_in_folder(job, one, folder / _service_of(one)) for one in job.found.members]
        return Prepared(members=tuple(members), applications=(), around=None, run=run)
    if system is None:
        raise UsageError("without a plan there is no place to restore to", hint="Add --destination FOLDER.")
    placed = [
        place_copy(job, system, one, run)
        if isinstance(one, Found)
        else in_volume(one, job.opened, system, job.say, job.on_progress, scope)
        for one in job.found.members
    ]
    volumes = [one.compose for one in placed if isinstance(one, VolumeMember)]
    if not volumes:
        return Prepared(members=tuple(placed), applications=(), around=None, run=run)
    around = Surroundings(plan=system.plan, stack=open_stack(system))
    if run.resumed and around.running() & set(run.stopped):
        job.say("applications run since the interrupted restore, so it is begun anew")
        run.forget()
    needing = {name for one in volumes for name in around.dependents(one)} | set(run.stopped)
    applications = around.in_order(needing - set(volumes))
    return Prepared(members=tuple(placed), applications=applications, around=around, run=run)


def restore_point(job: StackJob) -> StackRestored:
    """Bring the stack back. Raise ``BusyError`` while a service of it is copied or restored, else as the steps do."""
    state, purpose = job.opened.state_folder, f"restore of the stack to {job.found.name}"
    with contextlib.ExitStack() as scope:
        scope.enter_context(hold_lease(state, STACK, purpose))
        for one in job.found.members:
            if isinstance(one, Found) or job.destination is None:  # a recovery into a folder takes its own
                scope.enter_context(hold_lease(state, _service_of(one), purpose))
        prepared = prepare(job, scope)
        return restore_stack(
            prepared.members,
            prepared.applications,
            prepared.around or _NoStack(),
            note=prepared.run,
            command=job.command,
            consent=job.consent,
            say=job.say,
            on_progress=job.on_progress,
        )


class _NoStack:
    """There are no services around to stop or start. Implements ``recovery.in_place.Stack``."""

    def dependents(self, service: str) -> Sequence[str]:  # noqa: ARG002
        """See ``Stack``."""
        return ()

    def stop(self, services: Sequence[str]) -> None:
        """See ``Stack``."""

    def start(self, services: Sequence[str]) -> None:
        """See ``Stack``."""


def _what(found: Found) -> str:
    return f"{found.manifest.kind} {found.manifest.id}"


def _put(report: Report) -> Put:
    return Put(kept=report.kept, notes=report.notes, findings=report.findings)


def place_in_folder(job: StackJob, member: Found | TimedMember, folder: Path) -> OpenMember:
    """Where a member goes that is brought back into a folder of its own."""
    from recoup.assembly.restore.folder import into_folder

    if isinstance(member, TimedMember):
        return moment_into_folder(member, folder, job.consent, job.say, job.on_progress)

    def put() -> Put:
        # Others must be able to go through it: each service's own folder is closed to all but its user.
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        return _put(into_folder(job.job(member, folder), folder))

    # What is in the folder already, the engines refuse.
    return OpenMember(
        service=_service_of(member), what=_what(member), where=str(folder), replaces=lambda: None, put=put
    )


def place_copy(job: StackJob, system: System, found: Found, run: StackRun) -> Member:
    """Where a copy goes: to where its service lives. Raise ``UsageError`` for one that has no place there."""
    name = found.manifest.service
    match system.plan.services.get(name):
        case PostgresService():
            return _postgres(job, system, found)
        case RedisService():
            return _redis(job, system, found, run)
        case FilesService():
            return _files(job, system, found, run)
    raise UsageError(
        f"the plan has no service {name!r} that could take its {found.manifest.kind} back",
        hint=f"Add --destination FOLDER, or leave it as it is with --without {name}.",
    )


def _postgres(job: StackJob, system: System, found: Found) -> VolumeMember:
    from recoup.assembly.postgres import postgres_place
    from recoup.assembly.protect.incremental import chain_of
    from recoup.assembly.restore.homes import PostgresHome

    place = postgres_place(system, found.manifest.service)
    if place.stack is None or place.service.compose is None:
        raise UsageError(
            f"{found.manifest.service} is reached by its address, so Recoup does not know where its data folder is",
            hint="Restore the point into empty folders with --destination FOLDER, or everything but this with "
            f"--without {found.manifest.service}.",
        )
    home = PostgresHome(
        place=place,
        stack=place.stack,
        compose_service=place.service.compose,
        parents=chain_of(job.opened, found)[:-1],
    )
    return VolumeMember(
        service=found.manifest.service,
        compose=place.service.compose,
        what=_what(found),
        home=home,
        discard=home.discard,
        undo=home,
        reader=job.job(found).reader,
        artefact_id=found.manifest.id,
        identity=str(found.manifest.facts["system_identifier"]),
    )


def _redis(job: StackJob, system: System, found: Found, run: StackRun) -> Member:
    from recoup.assembly.redis import RedisHome, redis_place

    place = redis_place(system, found.manifest.service)
    if place.url is not None:
        from recoup.assembly.restore.redis import rdb_into_server, require_empty

        def replaces() -> str | None:
            if not run.resumed:
                require_empty(place, force=job.consent.force)
            return None

        return OpenMember(
            service=found.manifest.service,
            what=_what(found),
            where="the running server",
            replaces=replaces,
            put=lambda: _put(rdb_into_server(job.job(found), place)),
        )
    assert place.stack is not None, "a place without an address is in the stack"
    assert place.service.compose is not None, "a place without an address is in the stack"
    said = found.manifest.facts.get("place")
    home = RedisHome(place=place, stack=place.stack, compose_service=place.service.compose, facts=found.manifest.facts)
    return VolumeMember(
        service=found.manifest.service,
        compose=place.service.compose,
        what=_what(found),
        home=home,
        undo=home,
        reader=job.job(found).reader,
        artefact_id=found.manifest.id,
        identity=None if said is None else str(said),
        at_once=True,
    )


def _files(job: StackJob, system: System, found: Found, run: StackRun) -> OpenMember:
    reader = job.job(found).reader
    tars = [info.name for info in reader.streams() if info.name == "files.tar"]
    outside = any(one.path.split("/", 1)[0] == OUTSIDE for tar in tars for one in reader.members(tar))
    # What lay outside of the plan's folder (logs, certificates) is never put over what the machine uses now.
    folder = (
        system.folder if not outside else system.folder / f"recoup-restored-{job.found.name}" / found.manifest.service
    )

    def replaces() -> str | None:
        if not folder.is_dir():
            return None
        there = [path for path in differences(reader, folder) if (folder / path).exists()]
        if not there:
            return None
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        return f"{folder} holds {', '.join(there[:3])}{more}, which differ from those of {found.manifest.service}"

    def put() -> Put:
        done = restore_files(reader, folder, force=True, run_id=run.id, on_progress=job.on_progress)
        notes = [f"{found.manifest.service}: {done.placed} files placed in {folder}, {done.same} were there already"]
        notes += done.notes
        if outside:
            notes.append(f"{found.manifest.service} lay outside of {system.folder}: move what you need from {folder}")
        elif done.placed:
            notes.append("containers were started as they are; `docker compose up -d` applies changed configuration")
        return Put(kept=None if done.aside is None else str(done.aside), notes=tuple(notes))

    return OpenMember(service=found.manifest.service, what=_what(found), where=str(folder), replaces=replaces, put=put)


def drifted(job: StackJob) -> list[str]:
    """Which services run another image now than when the point was taken, for people."""
    system = job.opened.system
    point = job.found.point
    if system is None or system.plan.compose is None or point is None or not point.images:
        return []
    try:
        now = {one.service: one.image_id for one in open_stack(system).client.images()}
    except RecoupError as failure:
        return [f"whether the images are those of the point is not known: {failure.message}"]
    return [
        f"{one['service']} runs another image than at the point, where it was {one['image']} ({one['image_id'][:19]})"
        for one in point.images
        if one["service"] in now and now[one["service"]] != one["image_id"]
    ]
