"""Reading stored bytes slice by slice, and saying when each was read last: the ledger of this machine, kept up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from recoup.assembly.access import Found, Readable
from recoup.assembly.protect.agenda import SLICE, VERIFY
from recoup.assembly.system import System
from recoup.backup.run_records import WHOLE_PLAN, read_task
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, Exit, RecoupError, WrongKeyError
from recoup.kernel.finding import Finding, Verdict, exit_code
from recoup.kernel.limits import LimitReached, Watch
from recoup.repository.catalog import Entry
from recoup.repository.ledger import CoverageLedger, ReadBytes
from recoup.repository.proofs import ProofRecord, Proofs
from recoup.repository.repository import Repository
from recoup.repository.retention import CLOCK_TOLERANCE
from recoup.verification.coverage import (
    Area,
    Oldest,
    Piece,
    Span,
    next_slice,
    oldest,
    overlaid,
    slice_bytes,
    spans_of,
    unread_since,
)
from recoup.verification.grade import Grade
from recoup.verification.slices import read_bytes
from recoup.verification.verify import Verification

_LONG_AGO: Final = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What of the stored bytes was read when. ``late_bytes`` were read longer ago than ``within``, the plan's time."""

    total_bytes: int
    oldest: Oldest | None
    late_bytes: int = 0
    within: timedelta | None = None


@dataclass(slots=True, kw_only=True)
class SliceRead:
    """What reading a slice came to. ``ended_by`` is the limit that ended it before it was through."""

    wanted_bytes: int
    read_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)  #: of what does not match, and of what could not be read
    ended_by: str | None = None

    @property
    def verdict(self) -> Verdict:
        """Ok only when all that was wanted was read and matched."""
        verdicts = {one.verdict for one in self.findings}
        if Verdict.FAILED in verdicts:
            return Verdict.FAILED
        return Verdict.UNKNOWN if verdicts or self.ended_by is not None else Verdict.OK

    @property
    def exit_code(self) -> Exit:
        """How a command that did only this ends."""
        return exit_code(self.verdict)

    @property
    def why(self) -> str:
        """What is wrong, in a few words."""
        said = [f"{one.subject}: {one.detail}" for one in self.findings[:3]]
        return "; ".join([*said, *([] if self.ended_by is None else [self.ended_by])])


def areas_of(repositories: Sequence[Repository], entries: Sequence[Entry]) -> tuple[Area, ...]:
    """The stored bytes of copies, in each of these repositories that holds them, the oldest copies first.

    A copy that says it ended in the future counts as written when its repository was made: otherwise it would not be
    read until then.
    """
    latest = clock.now() + CLOCK_TOLERANCE
    return tuple(
        Area(
            repository=one.identity,
            artefact=entry.id,
            size_bytes=entry.stored_bytes,
            written=next((moment for moment in (entry.ended, one.created) if moment <= latest), _LONG_AGO),
        )
        for entry in reversed(entries)
        for one in repositories
        if one.name in entry.repositories and entry.stored_bytes
    )


def known_spans(state_folder: Path, repositories: Sequence[Repository]) -> dict[tuple[str, str], list[Span]]:
    """What the ledger says, by repository (its identity) and artefact."""
    found: dict[tuple[str, str], list[Span]] = defaultdict(list)
    for repository in repositories:
        for one in CoverageLedger(state_folder).of(repository.identity):
            found[one.repository, one.artefact].append(Span(one.begin, one.end, one.moment))
    return dict(found)


def coverage(opened: Readable, entries: Sequence[Entry]) -> Coverage:
    """How it stands with the copies ``entries``."""
    within = None if opened.system is None else opened.system.plan.verify.every_byte
    return covered(opened.state_folder, opened.repositories, entries, within, clock.now())


def covered(
    state_folder: Path,
    repositories: Sequence[Repository],
    entries: Sequence[Entry],
    within: timedelta | None,
    now: datetime,
) -> Coverage:
    """As ``coverage``: of these repositories, when every byte should be read ``within`` that time."""
    areas, ledger = areas_of(repositories, entries), known_spans(state_folder, repositories)
    return Coverage(
        total_bytes=sum(area.size_bytes for area in areas),
        oldest=oldest(areas, ledger),
        late_bytes=0 if within is None else unread_since(areas, ledger, now - within),
        within=within,
    )


def planned_bytes(system: System, repositories: Sequence[Repository], entries: Sequence[Entry]) -> int:
    """How much the plan wants read today. Only for a plan that says within what time every byte is read."""
    within = system.plan.verify.every_byte
    assert within is not None, "only asked for plans that want it"
    record = read_task(system.state_folder, WHOLE_PLAN, VERIFY + SLICE)
    last = None if record is None else record.last_ok
    total = sum(area.size_bytes for area in areas_of(repositories, entries))
    return slice_bytes(total, within, timedelta(0) if last is None else clock.now() - last)


def read_slice(
    state_folder: Path, repositories: Sequence[Repository], entries: Sequence[Entry], size_bytes: int, watch: Watch
) -> SliceRead:
    """Read up to ``size_bytes``: what was not read for the longest time. What matched is noted as it goes.

    What is found damaged is noted as a failed proof. A repository that stops answering is left alone for this time,
    and others are read in its place. Raise ``WrongKeyError``.
    """
    areas = areas_of(repositories, entries)
    total = sum(area.size_bytes for area in areas)
    reading = _Reading(
        state_folder=state_folder,
        repositories={one.identity: one for one in repositories},
        ledger=known_spans(state_folder, repositories),
        watch=watch,
        result=SliceRead(wanted_bytes=min(size_bytes, total)),
    )
    result = reading.result
    while result.ended_by is None and result.read_bytes < result.wanted_bytes:
        answering = [area for area in areas if area.repository not in reading.silent]
        before = len(reading.silent)
        for piece in next_slice(answering, reading.ledger, result.wanted_bytes - result.read_bytes):
            if piece.area.repository not in reading.silent and result.ended_by is None:
                reading.read(piece)
        if len(reading.silent) == before:
            break  # it is through, or what is left is damaged; otherwise once more, without who is silent
    return result


@dataclass(slots=True, kw_only=True)
class _Reading:
    state_folder: Path
    repositories: Mapping[str, Repository]
    ledger: dict[tuple[str, str], list[Span]]
    watch: Watch
    result: SliceRead
    silent: set[str] = field(default_factory=set)

    def read(self, piece: Piece) -> None:
        area, repository = piece.area, self.repositories[piece.area.repository]
        place = (area.repository, area.artefact)
        spans, bad = spans_of(area, self.ledger.get(place, ())), False
        self.result.ended_by = self.watch.reached()
        if self.result.ended_by is not None:
            return
        try:
            with self.watch.interrupting():
                for read in read_bytes(repository, repository.manifest(area.artefact), piece.begin, piece.end):
                    if read.finding.verdict is Verdict.OK:
                        spans = overlaid(spans, Span(read.begin, read.end, clock.now()))
                        self.result.read_bytes += read.end - read.begin
                        continue
                    self.result.findings.append(read.finding)
                    bad = bad or read.finding.verdict is Verdict.FAILED
                    if read.finding.verdict is Verdict.UNKNOWN:
                        self.silent.add(repository.identity)
                        break
        except LimitReached as limit:
            self.result.ended_by = limit.reason
        except WrongKeyError:
            raise
        except RecoupError as failure:  # the manifest
            self.silent.add(repository.identity)
            self.result.findings.append(
                Finding(
                    check="the stored bytes that were looked at match",
                    subject=f"{repository.name}:{area.artefact}",
                    verdict=Verdict.FAILED if isinstance(failure, DamageError) else Verdict.UNKNOWN,
                    detail=failure.message,
                    hint=failure.hint,
                )
            )
        self.ledger[place] = spans
        note_spans(self.state_folder, area, spans, bad=bad)


def note_spans(state_folder: Path, area: Area, spans: Sequence[Span], *, bad: bool = False) -> None:
    """Keep what was read of an artefact. Bytes that still match renew its proof as of the oldest of them.

    ``bad`` says that some do not.
    """
    CoverageLedger(state_folder).replace(
        area.repository,
        area.artefact,
        (
            ReadBytes(
                repository=area.repository, artefact=area.artefact, begin=one.begin, end=one.end, moment=one.moment
            )
            for one in spans
        ),
    )
    proofs = Proofs(state_folder)
    if bad:
        failed = ProofRecord(
            repository=area.repository, artefact=area.artefact, grade=Grade.INTACT, verdict=Verdict.FAILED,
            moment=clock.now(),
        )  # fmt: skip
        proofs.note([failed])
    elif spans:
        proofs.renew(area.repository, area.artefact, min(one.moment for one in spans))


def note_read(state_folder: Path, found: Found, verification: Verification) -> None:
    """Whoever was found intact was read whole: keep that too."""
    intact = next((one for one in verification.rungs if one.grade is Grade.INTACT), None)
    if intact is None or not found.manifest.stored_bytes:
        return
    moment = clock.now()
    for holder in found.holders:
        own = [one for one in intact.findings if one.subject.startswith(f"{holder.name}:")]
        if own and all(one.verdict is Verdict.OK for one in own):
            whole = ReadBytes(
                repository=holder.identity, artefact=found.manifest.id, begin=0, end=found.manifest.stored_bytes,
                moment=moment,
            )  # fmt: skip
            CoverageLedger(state_folder).replace(holder.identity, found.manifest.id, [whole])
