"""Bringing a copy to life in a sandbox, by its kind: the only place that joins the ladder of grades to the engines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.protect.incremental import chain_of
from recoup.kernel import clock
from recoup.kernel.errors import UncheckedError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.limits import Watch, disk_of, use_processors
from recoup.kernel.units import show_duration, show_size
from recoup.plan.proving import Budget, Verify
from recoup.repository.catalog import STACK
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.proofs import Proofs
from recoup.verification.expiry import Held, Rhythm, expires, held
from recoup.verification.grade import Grade
from recoup.verification.live import LiveCopy, OpenLive
from recoup.verification.room import Room, lack_of_room, least_kept_free, restored_bytes

#: Kinds that can be proven in a sandbox. All others end at *intact*.
LIVE_KINDS: Final = frozenset({"base", "incremental", "dump", "rdb", "files"})
SANDBOXES: Final = "sandboxes"


def highest_grade(kind: str) -> Grade:
    """How far copies of ``kind`` can be proven at all."""
    return Grade.WORKS if kind in LIVE_KINDS else Grade.INTACT


def sandboxes(state_folder: Path) -> Path:
    """Where sandboxes are made."""
    return state_folder / SANDBOXES


def clean(state_folder: Path) -> tuple[str, ...]:
    """Remove the sandboxes that dead runs left behind, and only those; their ids. ``EngineError`` when one stays."""
    from recoup.engines.sandbox import clean_leftovers

    return clean_leftovers(sandboxes(state_folder))


def rhythm_of(verify: Verify) -> Rhythm:
    """How often a plan wants which grade."""
    return Rhythm(grades={name: Grade(grade) for name, grade in verify.rhythm().items()}, grace=verify.grace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What a verification may take. ``disk_bytes`` None: all but what is kept free for others."""

    watch: Watch = field(default_factory=Watch)
    disk_bytes: int | None = None


def allow(budget: Budget) -> Allowed:
    """Begin a verification that may take what ``budget`` says: its time runs from now on."""
    if budget.processors is not None:
        use_processors(budget.processors)
    deadline = None if budget.time is None else clock.monotonic() + budget.time.total_seconds()
    over = "" if budget.time is None else f"the time that was allowed, {show_duration(budget.time)}, is over"
    return Allowed(watch=Watch(deadline=deadline, time_over=over), disk_bytes=budget.disk)


def open_live(opened: Readable, found: Found, allowed: Allowed) -> OpenLive:
    """How the copy ``found`` is restored into a sandbox, for ``verification.live.climb``.

    Opening it raises ``UncheckedError`` when there is not enough room, or this version cannot bring the kind to life.
    """
    if found.manifest.kind == STACK:
        return lambda: contextlib.nullcontext(_Members(opened, found))
    return lambda: _opened(opened, found, allowed)


@contextlib.contextmanager
def _opened(opened: Readable, found: Found, allowed: Allowed) -> Iterator[LiveCopy]:
    """A copy in a sandbox. Its engine is loaded only here: what ends at *intact* does not wait for it."""
    from recoup.engines.sandbox import open_sandbox

    manifest, root = found.manifest, sandboxes(opened.state_folder)
    chain = chain_of(opened, found)
    with open_sandbox(root, f"verifying {manifest.service} {manifest.kind} {manifest.id}") as sandbox:

        def require_room(kind: str, parts: Sequence[ArtefactReader]) -> None:
            refuse_without_room(sandbox.folder, kind, parts, allowed.disk_bytes)

        require_room(manifest.kind, chain)
        allowed.watch.also(lambda: _filling_up(sandbox.folder))
        match manifest.kind:
            case "base" | "incremental" | "dump":
                from recoup.assembly.prove.live_postgres import postgres_live

                live: AbstractContextManager[LiveCopy] = postgres_live(
                    opened, found, chain, sandbox, sandboxes=root, require_room=require_room,
                    left_seconds=lambda: allowed.watch.left_seconds,
                )  # fmt: skip
            case "rdb":
                from recoup.assembly.prove.live_redis import redis_live

                live = redis_live(opened, found, chain[-1], sandbox)
            case "files":
                from recoup.assembly.prove.live_files import files_live

                live = files_live(opened, found, chain[-1], sandbox)
            case kind:
                raise UncheckedError(f"this version cannot bring copies of the kind {kind} to life")
        with live as copy:
            yield _WithHistory(opened, found, copy)


def _filling_up(place: Path) -> str | None:
    """Why work in a sandbox must end: what is kept free for others is being used."""
    disk = disk_of(place)
    if disk.free >= least_kept_free(disk.total) // 2:
        return None
    return f"the disk of {place} is filling up: {show_size(disk.free)} are left of {show_size(disk.total)}"


class _WithHistory:
    """A copy in a sandbox, which for the grade *same* is also held against the copies before it."""

    def __init__(self, opened: Readable, found: Found, copy: LiveCopy) -> None:
        self._opened, self._found, self._copy = opened, found, copy
        self.boots, self.sound, self.works = copy.boots, copy.sound, copy.works

    def same(self) -> Sequence[Finding]:
        """See ``LiveCopy``."""
        from recoup.assembly.prove.history import history_of

        return [*self._copy.same(), *history_of(self._opened, self._found)]


def refuse_without_room(place: Path, kind: str, chain: Sequence[ArtefactReader], disk_bytes: int | None) -> None:
    """Raise ``UncheckedError`` with the numbers when the copy would not fit."""
    needed = restored_bytes(kind, (sizes for part in chain for sizes in part.frame_sizes()))
    disk = disk_of(place)
    room = Room(
        place=str(place),
        free_bytes=disk.free,
        kept_free_bytes=least_kept_free(disk.total),
        allowed_bytes=disk_bytes,
    )
    why = lack_of_room(needed, room)
    if why is not None:
        raise UncheckedError(
            f"there is not enough room to restore it: {why}",
            hint="Make room, put the state folder on a larger disk ($RECOUP_STATE), or allow more with --disk or "
            "verify.budget.disk.",
        )


class _Members:
    """A stack point is proven as far as each copy that it names is; what the copies do together, a drill shows."""

    def __init__(self, opened: Readable, found: Found) -> None:
        self._opened, self._found = opened, found

    def boots(self) -> Sequence[Finding]:
        return self._members(Grade.BOOTS)

    def sound(self) -> Sequence[Finding]:
        return self._members(Grade.SOUND)

    def same(self) -> Sequence[Finding]:
        return self._members(Grade.SAME)

    def works(self) -> Sequence[Finding]:
        return self._members(Grade.WORKS)

    def _members(self, grade: Grade) -> list[Finding]:
        system = self._opened.system
        rhythm = Rhythm(grades={}) if system is None else rhythm_of(system.plan.verify)
        known = [Proofs(self._opened.state_folder).of(one.identity) for one in self._found.holders]
        findings = []
        for identifier in self._found.manifest.depends_on:
            proof = held(record for one in known for record in one.get(identifier, {}).values())
            findings.append(_member(identifier, grade, proof, expires(proof, rhythm)))
        return findings


def _member(identifier: str, grade: Grade, proof: Held, until: datetime | None) -> Finding:
    check, hint = "the copies that it names are proven", f"Prove it: `recoup verify {identifier} --grade {grade}`."
    together = "whether the services work together: a drill shows that"
    if proof.failed is not None:
        detail, verdict = f"it failed the grade {proof.failed}", Verdict.FAILED
    elif not proof.holds(grade) or until is None:
        detail, verdict = f"it is proven {proof.grade or 'to no grade'}", Verdict.UNKNOWN
    elif until < clock.now():
        detail, verdict = "its proof is too old", Verdict.UNKNOWN
    else:
        detail, verdict = f"proven {proof.grade}", Verdict.OK
    return Finding(
        check=check,
        subject=identifier,
        verdict=verdict,
        detail=detail,
        hint=None if verdict is Verdict.OK else hint,
        not_checked=together,
    )
