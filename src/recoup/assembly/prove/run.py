"""A verification from its beginning to its end: what is looked at and in which order, its limits, and its record."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from recoup.assembly.access import Found, Readable
from recoup.assembly.protect.agenda import VERIFY
from recoup.assembly.prove.copies import Chosen, prove_and_note
from recoup.assembly.prove.coverage import Coverage, coverage
from recoup.assembly.prove.live import Allowed, clean, highest_grade, rhythm_of
from recoup.assembly.system import System
from recoup.backup.run_records import WHOLE_PLAN, Outcome, begin_task, end_task
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, Exit, RecoupError
from recoup.kernel.finding import Verdict, exit_code
from recoup.repository.catalog import STACK
from recoup.repository.proofs import Proofs
from recoup.verification.expiry import Held, Rhythm, expires
from recoup.verification.grade import LIVE_GRADES, Grade
from recoup.verification.verify import Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One artefact that was looked at. ``expires`` is when the proof of the grade that it reached is too old."""

    found: Found
    verification: Verification
    expires: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """All of it. ``left_over`` is why sandboxes of dead runs could not be removed."""

    verified: tuple[Verified, ...]
    chosen: Chosen
    left_over: RecoupError | None = None
    coverage: Coverage | None = None  #: of all copies, when not only one was asked about

    @property
    def exit_code(self) -> Exit:
        """How a command that did only this ends."""
        verdicts = {one.verification.verdict for one in self.verified}
        if self.chosen.bad or Verdict.FAILED in verdicts:
            return Exit.BAD
        if self.chosen.unknown or self.left_over is not None or Verdict.UNKNOWN in verdicts or not verdicts:
            return exit_code(Verdict.UNKNOWN)
        return Exit.OK

    @property
    def why(self) -> str:
        """What is wrong, in a few words."""
        said = [*self.chosen.bad, *(f"{name}: {error.message}" for name, error in self.chosen.unknown.items())]
        said += [self.left_over.message] if self.left_over is not None else []
        for one in self.verified:
            manifest = one.found.manifest
            bad = [each for each in one.verification.findings if each.verdict is not Verdict.OK]
            bad.sort(key=lambda each: each.verdict is not Verdict.FAILED)
            said += [f"{manifest.service} {manifest.kind} {manifest.id}: {each.check}: {each.subject}: {each.detail}"
                     for each in bad[:1]]  # fmt: skip
        return "; ".join(said[:3])


def verify_all(
    opened: Readable,
    chosen: Chosen,
    grade: Grade,
    allowed: Allowed,
    on_each: Callable[[Verified], None] = lambda _: None,
    *,
    capped: bool = False,
) -> Outcomes:
    """Prove what was chosen up to ``grade``, each result noted in the state folder as it is there.

    What was proven longest ago comes first, so that a budget that never suffices reaches everything in turn; stack
    points, which rest on the proofs of their members, last. With ``capped``, nothing is asked for more than copies of
    its kind can be proven to.
    """
    left_over = None
    if grade in LIVE_GRADES:
        try:
            clean(opened.state_folder)
        except EngineError as failure:
            left_over = failure
    rhythm = Rhythm(grades={}) if opened.system is None else rhythm_of(opened.system.plan.verify)
    verified = []
    for found in in_order(opened, chosen.found, grade):
        highest = highest_grade(found.manifest.kind)
        asked = min(grade, highest, key=lambda one: one.rank) if capped else grade
        verification = prove_and_note(opened, found, asked, allowed)
        proof = Held(grade=verification.reached, since=clock.now())
        one = Verified(found=found, verification=verification, expires=expires(proof, rhythm))
        verified.append(one)
        on_each(one)
    covered = coverage(opened, opened.catalog().entries) if len(verified) > 1 else None
    return Outcomes(verified=tuple(verified), chosen=chosen, left_over=left_over, coverage=covered)


def readable(system: System) -> Readable:
    """The plan's repositories, opened for reading. Raise the first failure when not one could be opened."""
    opened = system.open_some()
    return Readable(
        repositories=opened.repositories, failed=opened.failed, state_folder=system.state_folder, system=system
    )


def in_order(opened: Readable, found: Sequence[Found], grade: Grade) -> list[Found]:
    """What was proven to ``grade`` longest ago first, by service and kind; stack points last."""
    if len(found) < 2:
        return list(found)
    known = [Proofs(opened.state_folder).of(one.identity) for one in opened.repositories]
    kinds = {entry.id: (entry.service, entry.kind) for entry in opened.catalog().entries}
    newest: dict[tuple[str, str], datetime] = {}
    for proofs in known:
        for artefact, grades in proofs.items():
            record, group = grades.get(grade.value), kinds.get(artefact)
            if record is not None and group is not None and record.held is not None:
                newest[group] = max(record.held, newest.get(group, record.held))

    def need(one: Found) -> tuple[bool, float]:
        last = newest.get((one.manifest.service, one.manifest.kind))
        return (one.manifest.kind == STACK, 0.0 if last is None else last.timestamp())

    return sorted(found, key=need)


def recorded(system: System, rhythm: str, act: Callable[[], tuple[Exit, str]]) -> Exit:
    """Do a verification of the plan's rhythm with a record of it, which says when the next one is due.

    ``act`` returns the exit code and what was wrong.
    """
    return recorded_as(system, VERIFY + rhythm, act)


def recorded_as(system: System, kind: str, act: Callable[[], tuple[Exit, str]]) -> Exit:
    """Do a task of the whole plan with a record of it under ``kind``; ``act`` as for ``recorded``."""
    folder = system.state_folder
    begun = begin_task(folder, WHOLE_PLAN, kind, pid=os.getpid(), now=clock.now())
    outcome: Outcome = "interrupted"
    code, error = Exit.INTERRUPTED, "it was interrupted"
    try:
        code, error = act()
        outcome = "ok" if code is Exit.OK else "unknown" if code is Exit.UNKNOWN else "failed"
    except RecoupError as failure:
        outcome, code, error = "failed", failure.exit_code, failure.message
        raise
    finally:
        end_task(folder, begun, outcome, now=clock.now(), exit_code=int(code), error=error or None)
    return code
