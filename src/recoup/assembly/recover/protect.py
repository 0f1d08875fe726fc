"""Protection taken up again after a recovery: a new copy of what came back, by the code that takes every copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from recoup.assembly.access import Readable
from recoup.assembly.prove.copies import prove_and_note
from recoup.assembly.prove.live import allow
from recoup.assembly.prove.proven import proven_copies
from recoup.assembly.recover.context import Recovery
from recoup.assembly.system import System
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, EngineError, RecoupError
from recoup.kernel.finding import Finding, Verdict
from recoup.plan.services import PostgresService
from recoup.recovery.checklist import NewCopy, is_proven
from recoup.recovery.step import Done, Step
from recoup.repository.catalog import REPLACED, Catalog, Entry
from recoup.repository.lease import hold_lease
from recoup.repository.repository import Repository
from recoup.verification.grade import Grade

#: Another run that copies the service (the daemon sees by itself that its data are new) is waited for this long.
BUSY_SECONDS: Final = 3600.0
_AGAIN_SECONDS: Final = 1.0
#: So many of the newest copies are asked about; one that was taken here was checked at once.
_MOST: Final = 10
_CHECK: Final = "it can be gone back to from now on"
_TIMELINE: Final = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """What is known of the copies: the catalog, and the repositories that it was read from."""

    catalog: Catalog
    opened: Sequence[Repository]


def copy_kind(system: System, service: str) -> str:
    """The kind of copies that a database is brought back from."""
    return "base" if isinstance(system.plan.services[service], PostgresService) else "rdb"


def came_back(recovery: Recovery, service: str) -> datetime | None:
    """When the data of a database came back in this run; None when they did not, or not yet.

    One that was only started has the data that it had.
    """
    known = recovery.progress.steps
    if not any(f"{act}-{service}" in known for act in ("swap", "place")):
        return None
    for name in (f"start-{service}", f"place-{service}", f"swap-{service}"):
        if name in known and known[name].standing == "done":
            return known[name].ended
    return None


def timeline_of(system: System, service: str) -> int | None:
    """The timeline that a PostgreSQL writes now; None for what has none. Raise ``EngineError`` when it is not there."""
    if not isinstance(system.plan.services[service], PostgresService):
        return None
    from recoup.assembly.postgres import postgres_place
    from recoup.engines.postgres.access import open_maintenance

    with open_maintenance(postgres_place(system, service).access) as session:
        return int(str(session.query(_TIMELINE)[0][0]))


def copy_since(
    system: System, known: Sources, service: str, since: datetime | None, timeline: int | None
) -> Entry | None:
    """The copy that shows that a service is backed up since its data came back, on the timeline that it is on now.

    That is the newest that is proven, or the newest: the daemon may just be checking one more. One that was begun in
    the future is one of before, by another clock than this one.
    """
    now, kind = clock.now(), copy_kind(system, service)
    fresh = [
        entry
        for entry in known.catalog.entries
        if (entry.service, entry.kind) == (service, kind)
        and entry.label != REPLACED
        and (since is None or since <= entry.begun <= now)
        and (timeline is None or entry.facts.get("timeline") == timeline)
    ]
    proven = (one for one in fresh[:_MOST] if is_proven(grade_of(system, one, known.opened)))
    return next(proven, fresh[0] if fresh else None)


def grade_of(system: System, entry: Entry, repositories: Sequence[Repository]) -> str | None:
    """What is proven of a copy, by the notes of this machine."""
    holders = [one for one in repositories if one.name in entry.repositories]
    known = proven_copies(system.state_folder, holders, only=(entry.id,)).get(entry.id)
    return None if known is None else known.proof.grade


def described(system: System, entry: Entry, repositories: Sequence[Repository]) -> NewCopy:
    """A copy as the checklist sees it."""
    wanted = [name for name, one in system.plan.repositories.items() if one.takes(entry.kind) and one.required]
    return NewCopy(
        id=entry.id,
        kind=entry.kind,
        grade=grade_of(system, entry, repositories),
        missing_in=tuple(name for name in wanted if name not in entry.repositories),
    )


def protect(recovery: Recovery, step: Step, *, busy_seconds: float = BUSY_SECONDS) -> Done:
    """Take a new copy of a database and prove it, at least as *intact*; one that was taken since does as well.

    Raise ``BusyError`` when another run copies it all along, the engine's or the storage's error when there is none.
    """
    system, service = recovery.system, step.subject
    attempt = _Attempt(
        system=system,
        service=service,
        kind=copy_kind(system, service),
        since=came_back(recovery, service),
        timeline=timeline_of(system, service),
        recovery=recovery,
    )
    entry = attempt.there() or attempt.take(busy_seconds)
    return attempt.proven(entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    system: System
    service: str
    kind: str
    since: datetime | None
    timeline: int | None
    recovery: Recovery

    def there(self) -> Entry | None:
        """A copy that counts already: of this step before it was killed, or of the daemon."""
        readable = self.readable()
        known = Sources(catalog=readable.catalog(), opened=readable.repositories)
        return copy_since(self.system, known, self.service, self.since, self.timeline)

    def take(self, busy_seconds: float) -> Entry:
        """Take one, once nobody else does."""
        from recoup.assembly.protect.copies import Options, Task
        from recoup.assembly.protect.recorded import protect_recorded

        deadline, told = clock.monotonic() + busy_seconds, False
        while True:
            task = Task(service=self.service, kind=self.kind)
            error: RecoupError | None = self._busy()
            if error is None:
                # The other run may have taken the very copy that is needed.
                if told and (entry := self.there()) is not None:
                    return entry
                result = protect_recorded(self.system, task, Options(), self.recovery.voice.on_progress)
                if result.taken is not None:
                    return self._entry(result.taken.outcome.manifest.id)
                error = result.error
            assert error is not None, "a task has a copy or an error"
            if not isinstance(error, BusyError):
                raise error
            if clock.monotonic() >= deadline:
                if told and (entry := self.there()) is not None:  # one after the other, without a gap that was seen
                    return entry
                raise error
            if not told:
                self.recovery.voice.say(f"waiting for another run to end: {error.message}")
            told = True
            clock.pause(_AGAIN_SECONDS)

    def _busy(self) -> BusyError | None:
        """Who copies the service now. Asked first: a run that cannot begin would be told as one that failed."""
        try:
            with hold_lease(self.system.state_folder, self.service, f"look before a copy of {self.service}"):
                return None
        except BusyError as busy:
            return busy

    def _entry(self, artefact: str) -> Entry:
        found = next((one for one in self.readable().catalog().entries if one.id == artefact), None)
        if found is None:
            raise EngineError(f"the new copy {artefact} of {self.service} is in no repository that answers")
        return found

    def readable(self) -> Readable:
        """The repositories that take such copies. Raise the first failure when none can be opened."""
        opened = self.system.open_some(kind=self.kind)
        return Readable(
            repositories=opened.repositories, failed=opened.failed, state_folder=self.system.state_folder,
            system=self.system,
        )  # fmt: skip

    def proven(self, entry: Entry) -> Done:
        """Prove the copy unless it is proven, and say what came of it."""
        readable = self.readable()
        grade, verdict, wrong = grade_of(self.system, entry, readable.repositories), Verdict.OK, ""
        if not is_proven(grade):
            found = readable.find(entry.id)
            verification = prove_and_note(readable, found, Grade.INTACT, allow(self.system.plan.verify.budget))
            grade, verdict = verification.reached, verification.verdict
            bad = next((one for one in verification.findings if one.verdict is not Verdict.OK), None)
            wrong = "" if bad is None else f"; {bad.check}: {bad.subject}: {bad.detail}"
        copy = described(self.system, entry, readable.repositories)
        if copy.missing_in and verdict is Verdict.OK:
            verdict = Verdict.UNKNOWN
        what = f"{entry.kind} {entry.id}" + ("" if self.timeline is None else f" on timeline {self.timeline}")
        what += f", {grade or 'not intact'}, in {', '.join(entry.repositories)}{wrong}"
        if copy.missing_in:
            what += f"; not in {', '.join(copy.missing_in)}"
        hint = "Once it answers: recoup sync" if copy.missing_in else f"recoup backup {self.service} --kind {self.kind}"
        finding = Finding(
            check=_CHECK, subject=self.service, verdict=verdict, detail=what,
            hint=None if verdict is Verdict.OK else hint,
        )  # fmt: skip
        data: dict[str, Any] = {"copy": entry.id, "kind": entry.kind, "grade": grade, "timeline": self.timeline}
        return Done(findings=(finding,), detail=what, data=data)
