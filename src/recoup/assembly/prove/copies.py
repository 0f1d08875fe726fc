"""Which artefacts a verification looks at, and verifying one with its engine's check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from recoup.assembly.access import Found, Readable
from recoup.assembly.prove.checks import check_content
from recoup.assembly.prove.coverage import note_read
from recoup.assembly.prove.live import Allowed, open_live
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError, UsageError, WrongKeyError
from recoup.kernel.finding import overall
from recoup.repository.catalog import IMAGES, STACK
from recoup.repository.proofs import ProofRecord, Proofs
from recoup.verification.expiry import Held, held
from recoup.verification.grade import LIVE_GRADES, Grade
from recoup.verification.live import climb
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


def prove(opened: Readable, found: Found, grade: str, allowed: Allowed | None = None) -> Verification:
    """Verify one artefact in every repository that holds it, up to ``grade``, within what is ``allowed``.

    Grades above *intact* restore it into a sandbox on this machine, and remove that again.
    """
    asked, manifest, allowed = Grade(grade), found.manifest, allowed or Allowed()
    verification = verify_artefact(manifest, found.holders, asked, check_content(manifest.kind), allowed.watch)
    if manifest.kind == STACK:
        # Nothing of the point is stored when a copy that it names is not.
        stored, *others = verification.rungs
        stored = replace(stored, findings=(*stored.findings, *check_members(manifest, found.holders)))
        verification = replace(verification, rungs=(stored, *others))
    # An image is no data that could come to life by itself: what runs from it is shown by its service.
    if asked not in LIVE_GRADES or manifest.kind == IMAGES:
        return verification
    return climb(verification, asked, open_live(opened, found, allowed), allowed.watch)


def prove_and_note(opened: Readable, found: Found, grade: str, allowed: Allowed | None = None) -> Verification:
    """As ``prove``; what was established is remembered in the state folder."""
    verification = prove(opened, found, grade, allowed)
    note(opened.state_folder, found, verification)
    note_read(opened.state_folder, found, verification)
    return verification


def note(state_folder: Path, found: Found, verification: Verification) -> None:
    """Remember for each repository what was established of each grade there: pruning asks whether the newest is good.

    A finding names the repository it was made in; what it says of the content counts for all of them.
    """
    records, moment = [], clock.now()
    for holder in found.holders:
        others = tuple(f"{one.name}:" for one in found.holders if one is not holder)
        for rung in verification.rungs:
            verdict = overall(one for one in rung.findings if not one.subject.startswith(others))
            records.append(
                ProofRecord(
                    repository=holder.identity,
                    artefact=verification.artefact_id,
                    grade=rung.grade.value,
                    verdict=verdict.value,
                    moment=moment,
                )
            )
    Proofs(state_folder).note(records)


def held_by(records: Iterable[Mapping[str, ProofRecord]]) -> Held:
    """What is proven of a copy, given what is known of it in each of the repositories that hold it."""
    return held(record for grades in records for record in grades.values())
