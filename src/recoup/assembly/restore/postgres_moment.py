"""Bringing a PostgreSQL service back to an instant: a base backup before it, then the WAL behind that, replayed to it.

``choose_postgres`` decides and refuses; nothing is touched before it has returned. ``restore_postgres`` carries it out,
into a folder with this machine's PostgreSQL, or in the volume of the Compose service with its own image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

from recoup.assembly.access import Readable
from recoup.assembly.postgres import PostgresPlace, postgres_place
from recoup.assembly.protect.incremental import KINDS, chain_of
from recoup.assembly.protect.wal_facts import ClusterFacts, read_clusters
from recoup.assembly.restore.find_restore_point import find_restore_point
from recoup.assembly.restore.job import Report, Wish
from recoup.assembly.restore.recovered_home import PostgresRecovery, RecoveredHome, RecoveredWith
from recoup.assembly.restore.surroundings import Surroundings
from recoup.engines.engine import CopyReader, Progress, ProgressListener
from recoup.engines.postgres.combine import find_combiner
from recoup.engines.postgres.control import CONTROL_FILE, Control, parse_control
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recover_folder import Recovery, TargetTooEarlyError, recover_to_folder
from recoup.engines.postgres.recovery_choice import Choice, WalFile, choose, wal_files
from recoup.engines.postgres.recovery_script import Reached
from recoup.engines.postgres.recovery_target import AtName, Target
from recoup.engines.postgres.recovery_verdict import describe, judge
from recoup.engines.postgres.stream_names import BASE_ARCHIVE
from recoup.engines.postgres.wal_windows import Base, show_time
from recoup.kernel.errors import DamageError, EngineError, RefusedError, UsageError
from recoup.kernel.files import expanded
from recoup.plan.services import PostgresService
from recoup.recovery.in_place import MOMENT, Consent, restore_in_place
from recoup.repository.catalog import Catalog
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.lease import hold_lease


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresMoment:
    """How an instant will be reached: for ``--plan``, before anything is done."""

    cluster: ClusterFacts
    choice: Choice
    timeline: int | None  #: that the user named

    @property
    def service(self) -> str:
        """The service that is brought back."""
        return self.cluster.service

    @property
    def placement_id(self) -> str:
        """What an interrupted placement is recognised by: the same target of the same cluster, from whatever base."""
        said = f"{self.cluster.system_identifier} {self.choice.target} {self.choice.history}"
        return f"{MOMENT}{hashlib.sha256(said.encode()).hexdigest()[:10]}"

    def files(self, base: Base) -> tuple[WalFile, ...]:
        """The WAL that the server may ask for when it starts from ``base``."""
        return wal_files(self.choice, base, self.cluster.inventory)

    def recovery(self, base: Base, roles: Sequence[str]) -> Recovery:
        """How it is recovered from ``base``; ``roles`` are tried to ask the server."""
        choice, cluster = self.choice, self.cluster
        return Recovery(
            base_id=base.id,
            begin=base.begin,
            target=choice.target,
            timeline=choice.history.timeline,
            end_suffices=choice.end_suffices,
            wal=self.files(base),
            fetch=cluster.fetch,
            segment_bytes=cluster.segment_bytes,
            roles=roles,
            begun=lambda: _control(cluster, base).written + timedelta(seconds=1),  # it is rounded down
        )

    def __str__(self) -> str:
        base = self.choice.bases[0]
        count = sum(file.segment is not None for file in self.files(base))
        return (
            f"the base backup {base.id} of {show_time(base.time)}, then {_segments(count)} of WAL on timeline "
            f"{self.choice.history.timeline}, to {self.choice.target}"
        )


def _segments(count: int) -> str:
    return "one segment" if count == 1 else f"up to {count} segments"


def choose_postgres(
    opened: Readable, service: str, target: Target, *, timeline: int | None = None, base: str | None = None
) -> PostgresMoment:
    """Choose for ``target``; ``timeline`` and ``base`` (an id) when the user named them.

    Raise ``RefusedError`` with the reachable windows when the target cannot be reached, ``UsageError`` when there is no
    base backup of the service.
    """
    catalog = opened.catalog()
    clusters = recoverable_clusters(opened, service, catalog)
    cluster = clusters[0]  # that of the newest base backup; another one is reached by naming a base backup of it
    bases: Sequence[Base] = cluster.bases
    if base is not None:
        identifier = catalog.find(base, service=service, kinds=KINDS).id
        cluster = next(one for one in clusters if identifier in one.found)
        bases = [one for one in cluster.bases if one.id == identifier]
    found: Lsn | None = None
    if isinstance(target, AtName):
        window, point = find_restore_point(cluster, bases, target.name, timeline)
        found, timeline = point.lsn, window.timeline
    choice = choose(
        target,
        cluster.inventory,
        bases,
        timeline=timeline,
        found=found,
        next_xid=lambda one: _control(cluster, one).next_xid,
        server_time=lambda one: _control(cluster, one).written,
    )
    return PostgresMoment(cluster=cluster, choice=choice, timeline=timeline)


def recoverable_clusters(opened: Readable, service: str, catalog: Catalog) -> list[ClusterFacts]:
    """Those of which there are base backups, the newest backup's first. Raise ``UsageError`` when there is none."""
    clusters = [one for one in read_clusters(opened, service, catalog) if one.bases]
    if not clusters:
        raise UsageError(
            f"there is no base backup of {service!r} in any repository that answered",
            hint="`recoup list` shows what there is; WAL alone cannot be restored.",
        )
    return clusters


def _control(cluster: ClusterFacts, base: Base) -> Control:
    """The control file of a base backup."""
    found = cluster.found[base.id]
    reader = ArtefactReader(found.manifest, found.holders)
    for member in reader.members(BASE_ARCHIVE):
        if member.path.removeprefix("./") == CONTROL_FILE:
            data = b"".join(reader.read(BASE_ARCHIVE, member.offset, member.size_bytes))
            return parse_control(data)
    raise DamageError(f"the base backup {base.id} has no {CONTROL_FILE}")


def restore_postgres(
    opened: Readable,
    moment: PostgresMoment,
    wish: Wish,
    consent: Consent,
    say: Callable[[str], None],
    on_progress: ProgressListener,
) -> Report:
    """Recover, and report the target against what was reached.

    Raise ``BusyError`` while the service is copied or restored, otherwise the errors of the engine; the old data are
    then in place, or the hint says how to go on.
    """
    run = _Run(opened=opened, moment=moment, say=say, on_progress=on_progress)
    with hold_lease(opened.state_folder, moment.service, f"restore of {moment.service} to {moment.choice.target}"):
        if wish.destination is not None:
            report = run.into_folder(Path.cwd() / expanded(wish.destination))
        else:
            report = run.in_place(consent)
    return report


def recovery_in_volume(
    opened: Readable, moment: PostgresMoment, say: Callable[[str], None], on_progress: ProgressListener
) -> PostgresRecovery:
    """The recovery to ``moment`` in the volume of its Compose service. Raise ``UsageError`` when there is none."""
    return _Run(opened=opened, moment=moment, say=say, on_progress=on_progress).volume()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    opened: Readable
    moment: PostgresMoment
    say: Callable[[str], None]
    on_progress: ProgressListener

    def into_folder(self, folder: Path) -> Report:
        roles = _roles(None if self.opened.system is None else self._place(required=False))
        for base in self._bases(combining=self._combines()):
            self.say(f"restoring the base backup {base.id}, then replaying WAL to {self.moment.choice.target}")
            try:
                chain = self._chain(base)
                done = recover_to_folder(
                    chain, folder, self.moment.recovery(base, roles),
                    on_progress=self.on_progress, on_replay=self._on_replay,
                )  # fmt: skip
            except TargetTooEarlyError as failure:
                self.say(f"{failure.message}; trying an older one")
                continue
            notes = ["the folder is ready: start it as the user that owns it"]
            notes += [f"tablespace {oid}: {path}" for oid, path in done.tablespaces.items()]
            notes += _passed_over(chain)
            return self._report(str(folder), None, base, done.reached, notes)
        raise self._too_early()

    def volume(self) -> PostgresRecovery:
        """The recovery in the volume of the Compose service, before anything is done."""
        place = self._place(required=True)
        assert place is not None, "raised otherwise"
        if place.stack is None or place.service.compose is None:
            raise UsageError(
                f"{self.moment.service} is reached by its address, so Recoup does not know where its data folder is",
                hint="Recover into an empty folder with --destination FOLDER, and let the server run on that.",
            )
        roles = _roles(place)
        home = RecoveredHome(
            place=place,
            stack=place.stack,
            compose_service=place.service.compose,
            candidates=tuple(
                RecoveredWith(
                    base=base,
                    reader=self._reader(base),
                    recovery=self.moment.recovery(base, roles),
                    facts=self.moment.cluster.found[base.id].manifest.facts,
                )
                for base in self._bases(combining=False)
            ),
            say=self.say,
            on_replay=self._on_replay,
            outcome=[],
        )
        return PostgresRecovery(
            home=home,
            compose=place.service.compose,
            placement_id=self.moment.placement_id,
            identity=self.moment.cluster.system_identifier,
            findings=lambda: [one for done in home.outcome for one in self._report("", None, *done, ()).findings],
        )

    def in_place(self, consent: Consent) -> Report:
        choice, recovery, system = self.moment.choice, self.volume(), self.opened.system
        home = recovery.home
        assert system is not None, "a place is found by a plan"
        done = restore_in_place(
            recovery.compose,
            home,
            Surroundings(plan=system.plan, stack=home.stack),
            home.candidates[0].reader,
            artefact_id=recovery.placement_id,
            identity=recovery.identity,
            consent=consent,
            say=self.say,
            on_progress=self.on_progress,
        )
        notes = [f"running again: {', '.join(done.restarted)}"]
        if not home.outcome:  # an earlier run had recovered; this one has put it in place
            return Report(
                what=f"{self.moment.service} as of {choice.target}", where=done.place, kept=done.kept,
                notes=(*notes, "the recovery itself was finished by the run before this one"), findings=done.findings,
            )  # fmt: skip
        base, reached = home.outcome[-1]
        used = next(one for one in home.candidates if one.base == base)
        notes += _passed_over([used.reader])
        report = self._report(done.place, done.kept, base, reached, notes)
        return Report(
            what=report.what, where=report.where, kept=report.kept, notes=report.notes,
            findings=(*report.findings, *done.findings),
        )  # fmt: skip

    def _place(self, *, required: bool) -> PostgresPlace | None:
        system = self.opened.system
        known = None if system is None else system.plan.services.get(self.moment.service)
        if system is not None and isinstance(known, PostgresService):
            return postgres_place(system, self.moment.service)
        if required:
            raise UsageError(
                f"the plan has no PostgreSQL service {self.moment.service!r}" if system is not None
                else "without a plan there is no place to restore to",
                hint="Add --destination FOLDER (an empty one).",
            )  # fmt: skip
        return None

    def _bases(self, *, combining: bool) -> list[Base]:
        """The base backups to try; incremental ones only where they can be combined with what they build on."""
        found = self.moment.cluster.found
        bases = [one for one in self.moment.choice.bases if combining or not found[one.id].manifest.depends_on]
        if not bases:
            raise RefusedError(
                f"only incremental backups lead to {self.moment.choice.target}, and they cannot be combined here",
                hint="Recover into a folder with --destination FOLDER, where pg_combinebackup of the same version is.",
            )
        return bases

    def _combines(self) -> bool:
        manifest = self.moment.cluster.found[self.moment.choice.bases[0].id].manifest
        if not manifest.depends_on:
            return True
        try:
            find_combiner(int(manifest.facts["major"]))
        except EngineError as failure:
            self.say(f"not starting from an incremental backup: {failure.message}")
            return False
        return True

    def _chain(self, base: Base) -> tuple[ArtefactReader, ...]:
        return chain_of(self.opened, self.moment.cluster.found[base.id])

    def _reader(self, base: Base) -> ArtefactReader:
        found = self.moment.cluster.found[base.id]
        return ArtefactReader(found.manifest, found.holders)

    def _on_replay(self, taken: int, of: int) -> None:
        size = self.moment.cluster.segment_bytes
        self.on_progress(Progress(what="WAL replayed", done_bytes=taken * size, total_bytes=of * size))

    def _report(self, where: str, kept: str | None, base: Base, reached: Reached, notes: Sequence[str]) -> Report:
        choice, cluster = self.moment.choice, self.moment.cluster
        finding = judge(
            choice.target, reached, subject=cluster.service, wal_end=choice.window.end,
            segment_bytes=cluster.segment_bytes,
        )  # fmt: skip
        said = [f"recovered from the base backup {base.id}; reached {describe(reached)}", *notes]
        if reached.timeline is not None:
            said.append(
                f"timeline {reached.timeline} begins here: when this is production now, take a base backup of it soon"
            )
        said += [f"read from another repository, because: {what}" for what in cluster.passed_over]
        return Report(
            what=f"{cluster.service} as of {choice.target}", where=where, kept=kept, notes=tuple(said),
            findings=(finding,),
        )  # fmt: skip

    def _too_early(self) -> RefusedError:
        return RefusedError(
            f"{self.moment.choice.target} comes before the end of the oldest base backup that is there for it",
            hint="The time of a base backup is by this machine's clock; the server's differs. Choose a later instant.",
        )


def _passed_over(chain: Sequence[CopyReader]) -> list[str]:
    """What of the base backup came from another repository than the first, for the report."""
    parts = [one for one in chain if isinstance(one, ArtefactReader)]
    wrong = dict.fromkeys(what for part in parts for what in part.passed_over())
    return [f"read from another repository, because: {what}" for what in wrong]


def _roles(place: PostgresPlace | None) -> list[str]:
    """Whom to ask the recovered server as. None of them may exist there; then its log must do."""
    roles = []
    if place is not None and place.url is not None:
        roles.append(conninfo_to_dict(place.url.reveal()).get("user"))
    if place is not None and place.stack is not None and place.service.compose is not None:
        inside = place.stack.project.service(place.service.compose)
        given = inside.environment.get("POSTGRES_USER")
        roles.append(given.reveal() if given is not None else None)
    return list(dict.fromkeys([str(role) for role in roles if role and "\n" not in str(role)] + ["postgres"]))
