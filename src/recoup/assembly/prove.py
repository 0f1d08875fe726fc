"""Which artefacts a verification looks at, and verifying one with its engine's check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recoup.assembly.access import Found, Readable
from recoup.assembly.checks import check_content
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError, UsageError, WrongKeyError
from recoup.kernel.finding import Verdict, overall
from recoup.repository.catalog import STACK
from recoup.repository.proofs import ProofRecord, Proofs
from recoup.repository.repository import Repository
from recoup.verification.grade import Grade
from recoup.verification.stack_members import check_members
from recoup.verification.verify import Verification, verify_artefact


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What a verification looks at, and what it cannot look at.

    ``bad`` says what is wrong with manifests that cannot be believed; ``unknown`` who did not answer, or speaks in a
    format that this version does not know.
    """

    found: tuple[Found, ...]
    bad: tuple[str, ...]
    unknown: Mapping[str, RecoupError]


def choose(opened: Readable, reference: str | None, *, service: str | None, everything: bool) -> Chosen:
    """The artefacts to verify: the one meant by ``reference``, or the newest of each service and kind, or all.

    Raise ``UsageError`` when there is nothing to verify.
    """
    catalog = opened.catalog()
    found: list[Found] = []
    bad: list[str] = []
    unknown: dict[str, RecoupError] = {**opened.failed, **dict(catalog.silent)}
    if reference is not None:
        found.append(opened.find(reference, service=service, catalog=catalog))
    concerned = [one for one in catalog.problems if reference is None or one.id == found[0].manifest.id]
    for problem in concerned:
        if problem.fault == "format":
            unknown[f"{problem.repository}: {problem.id}"] = problem.error()
        else:
            bad.append(f"{problem.repository}: {problem.id}: {problem.what}")
    seen: set[tuple[str, str]] = set()
    for entry in catalog.entries if reference is None else ():
        newest = (entry.service, entry.kind) not in seen
        seen.add((entry.service, entry.kind))
        if (service is None or entry.service == service) and (everything or newest):
            try:
                found.append(opened.find(entry.id, catalog=catalog))
            except WrongKeyError:
                raise
            except RecoupError as failure:
                bad.append(f"{entry.id}: {failure.message}")
    if not found and not bad and not unknown:
        raise UsageError("there is nothing to verify yet", hint="Take a first copy with `recoup backup`.")
    return Chosen(found=tuple(found), bad=tuple(bad), unknown=unknown)


def prove(found: Found, grade: str) -> Verification:
    """Verify one artefact in every repository that holds it, up to ``grade``."""
    verification = verify_artefact(found.manifest, found.holders, Grade(grade), check_content(found.manifest.kind))
    if found.manifest.kind != STACK:
        return verification
    # Nothing of the point is stored when a copy that it names is not.
    stored, *others = verification.rungs
    stored = replace(stored, findings=(*stored.findings, *check_members(found.manifest, found.holders)))
    return replace(verification, rungs=(stored, *others))


def note_verification(state_folder: Path, holders: Sequence[Repository], verification: Verification) -> None:
    """Remember for each repository how far an artefact was proven there: pruning asks whether the newest is good.

    A finding names the repository it was made in; what it says of the content counts for all of them.
    """
    records, moment = [], clock.now()
    for holder in holders:
        others = tuple(f"{one.name}:" for one in holders if one is not holder)
        verdict = overall(one for one in verification.findings if not one.subject.startswith(others))
        known = Proofs(state_folder).of(holder.identity).get(verification.artefact_id)
        lesser = verification.asked is Grade.STORED and known is not None and known.grade == Grade.INTACT.value
        if lesser and verdict is Verdict.OK:
            continue  # a lesser proof takes nothing from a greater one
        grade = verification.asked.value if verdict is Verdict.OK else None
        records.append(
            ProofRecord(
                repository=holder.identity,
                artefact=verification.artefact_id,
                grade=grade,
                verdict=verdict.value,
                moment=moment,
            )
        )
    Proofs(state_folder).note(records)
