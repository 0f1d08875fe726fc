"""What is proven of the copies in the repositories, by the notes of this machine: for lists, status and metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from recoup.assembly.access import Readable
from recoup.assembly.prove.coverage import covered
from recoup.assembly.prove.live import highest_grade, rhythm_of
from recoup.assembly.system import System
from recoup.kernel import clock
from recoup.objectives.freshness import CoverageFacts, Latest
from recoup.objectives.freshness import Renewal as RenewalFacts
from recoup.objectives.standing import Point, Proof
from recoup.repository.catalog import Entry
from recoup.repository.proofs import ProofRecord, Proofs
from recoup.repository.repository import Repository
from recoup.verification.expiry import NOTHING, Held, KnownCopy, Rhythm, expires, held, renewals
from recoup.verification.grade import Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """What is proven of one copy. ``moments``: when each grade was ok last; ``looked``: when any was looked at last."""

    held: Held
    moments: Mapping[Grade, datetime]
    looked: datetime

    @property
    def proof(self) -> Proof:
        """In the words of the objectives."""
        grade = None if self.held.failed is not None or self.held.grade is None else self.held.grade.value
        return Proof(grade=grade, verdict=self.held.verdict, when=self.held.since or self.looked)


def proven_copies(
    state_folder: Path, repositories: Sequence[Repository], *, only: Sequence[str] | None = None
) -> dict[str, Proven]:
    """What is known, by artefact: the best of what its repositories showed, for one of them is enough to go back."""
    records: dict[str, list[ProofRecord]] = defaultdict(list)
    for repository in repositories:
        for artefact, grades in Proofs(state_folder).of(repository.identity, only=only).items():
            records[artefact] += grades.values()
    return {artefact: _proven(known) for artefact, known in records.items()}


def _proven(known: Sequence[ProofRecord]) -> Proven:
    moments: dict[Grade, datetime] = {}
    for one in known:
        if one.held is not None and one.grade in set(Grade):
            grade = Grade(one.grade)
            moments[grade] = max(one.held, moments.get(grade, one.held))
    return Proven(held=held(known), moments=moments, looked=max(one.moment for one in known))


def renewals_of(system: System, points: Sequence[Point], proven: Mapping[str, Proven]) -> tuple[RenewalFacts, ...]:
    """The proofs that the plan wants renewed for the copies of a service, by kind and grade."""
    rhythm = rhythm_of(system.plan.verify)
    found = []
    for kind in dict.fromkeys(point.kind for point in points):
        copies = [_known(point, proven.get(point.id)) for point in points if point.kind == kind]
        found += [
            RenewalFacts(kind=one.kind, grade=one.grade.value, last=one.last, due=one.due)
            for one in renewals(kind, copies, rhythm, highest_grade(kind))
        ]
    return tuple(found)


def _known(point: Point, proven: Proven | None) -> KnownCopy:
    if proven is None:
        return KnownCopy(ended=point.usable, proof=NOTHING, proven={})
    return KnownCopy(ended=point.usable, proof=proven.held, proven=proven.moments)


def latest_of(system: System, points: Sequence[Point], proven: Mapping[str, Proven]) -> tuple[Latest, ...]:
    """For each kind and grade, which copy reached it last."""
    rhythm = rhythm_of(system.plan.verify)
    found: dict[tuple[str, Grade], Latest] = {}
    for point in points:
        known = proven.get(point.id)
        for grade, when in known.moments.items() if known is not None and known.held.failed is None else ():
            before = found.get((point.kind, grade))
            if before is None or when > before.when:
                found[point.kind, grade] = Latest(
                    kind=point.kind, grade=grade.value, rank=grade.rank, id=point.id, when=when,
                    expires=when + rhythm.life(grade),
                )  # fmt: skip
    return tuple(found.values())


def proof_document(proven: Proven | None, rhythm: Rhythm, now: datetime) -> dict[str, Any] | None:
    """What is proven of one copy, as JSON. None: nobody has looked at it on this machine."""
    if proven is None:
        return None
    until = expires(proven.held, rhythm)
    return {
        "grade": proven.held.grade,
        "verdict": proven.held.verdict.value,
        "failed": proven.held.failed,
        "proven_at": clock.optional_text(proven.held.since),
        "expires": clock.optional_text(until),
        "expired": until is not None and until < now,
        "grades": {grade.value: clock.to_text(when) for grade, when in sorted(proven.moments.items(), key=_rank)},
    }


def proofs_of(opened: Readable, artefacts: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """``proof_document`` of each of these artefacts."""
    rhythm = Rhythm(grades={}) if opened.system is None else rhythm_of(opened.system.plan.verify)
    known, now = proven_copies(opened.state_folder, opened.repositories, only=artefacts), clock.now()
    return {artefact: proof_document(known.get(artefact), rhythm, now) for artefact in artefacts}


def _rank(one: tuple[Grade, datetime]) -> int:
    return one[0].rank


def coverage_facts(
    system: System, repositories: Sequence[Repository], entries: Sequence[Entry], now: datetime
) -> CoverageFacts:
    """When the stored bytes of the copies were read last."""
    found = covered(system.state_folder, repositories, entries, system.plan.verify.every_byte, now)
    first, names = found.oldest, {one.identity: one.name for one in repositories}
    return CoverageFacts(
        total_bytes=found.total_bytes,
        oldest=None if first is None else first.moment,
        where="" if first is None else f"{names[first.area.repository]}:{first.area.artefact}, byte {first.offset}",
        late_bytes=found.late_bytes,
        within=found.within,
    )
