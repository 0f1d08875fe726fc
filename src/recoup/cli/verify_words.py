"""What ``recoup verify`` says: grade by grade what was proven, how long it took, what was not checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from recoup.cli.documents import finding_document, manifest_summary
from recoup.kernel import clock
from recoup.kernel.finding import Verdict
from recoup.kernel.units import show_duration, show_size

if TYPE_CHECKING:
    from recoup.assembly.access import Readable
    from recoup.assembly.prove.coverage import Coverage
    from recoup.assembly.prove.run import Outcomes, Verified
    from recoup.cli.output import Output
    from recoup.verification.grade import Rung


def say_each(output: Output, one: Verified) -> None:
    """How one artefact stands."""
    verification, manifest = one.verification, one.found.manifest
    until = "" if one.expires is None else f"; this proof holds until {clock.to_text(one.expires)[:16]}Z"
    output.line(
        f"{verification.verdict.value:<8}{manifest.service} {manifest.kind} {verification.artefact_id}: "
        f"proven {verification.reached or 'nothing'}{until}"
    )
    for rung in verification.rungs:
        checks = "1 check" if len(rung.findings) == 1 else f"{len(rung.findings)} checks"
        output.line(f"  {rung.grade:<8}{rung.verdict:<9}{checks} in {show_duration(rung.seconds)}")
        for finding in rung.findings:
            if finding.verdict is not Verdict.OK:
                output.line(f"    {finding.verdict}: {finding.check}: {finding.subject}: {finding.detail}")
                if finding.hint:
                    output.line(f"      hint: {finding.hint}")
    for gap in gaps(verification.rungs):
        output.line(f"  not checked: {gap}")
    left = [grade for grade in verification.asked.up_to() if grade not in {rung.grade for rung in verification.rungs}]
    if left:
        output.line(f"  not reached: {', '.join(left)}")


def gaps(rungs: tuple[Rung, ...]) -> list[str]:
    """What the findings do not cover, each once, in the order of the grades; without what a later grade looked at."""
    looked = {rung.grade for rung in rungs}
    findings = (finding for rung in rungs for finding in rung.findings if finding.left_to not in looked)
    return list(dict.fromkeys(finding.not_checked for finding in findings if finding.not_checked))


def say_rest(output: Output, opened: Readable, outcomes: Outcomes) -> None:
    """What could not be looked at."""
    chosen = outcomes.chosen
    for problem in chosen.bad:
        output.line(f"failed  {problem}")
    for name, error in chosen.unknown.items():
        output.note(f"{name}: not verified: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
    if outcomes.left_over is not None:
        error = outcomes.left_over
        hint = f"\nhint: {error.hint}" if error.hint else ""
        output.note(f"a sandbox of an earlier run is still there: {error}{hint}")
    if outcomes.coverage is not None:
        say_coverage(output, opened, outcomes.coverage)


def say_coverage(output: Output, opened: Readable, covered: Coverage) -> None:
    """When the stored bytes of the copies were read last."""
    if covered.oldest is None:
        return
    first, now = covered.oldest, clock.now()
    places = {one.identity: one.name for one in opened.repositories}
    where = f"{places[first.area.repository]}:{first.area.artefact}, byte {first.offset}"
    output.line(
        f"every byte of {show_size(covered.total_bytes)} was proven within {show_duration(now - first.moment)}; "
        f"oldest unproven byte: {where}, last read {clock.to_text(first.moment)[:16]}Z"
    )
    if covered.late_bytes and covered.within is not None:
        output.line(
            f"  {show_size(covered.late_bytes)} of it were not read for {show_duration(covered.within)}, within which "
            "the plan wants every byte read (verify.every_byte)"
        )


def coverage_document(opened: Readable, covered: Coverage) -> dict[str, Any]:
    """The same as JSON."""
    places = {one.identity: one.name for one in opened.repositories}
    first = covered.oldest
    return {
        "total_bytes": covered.total_bytes,
        "every_byte_within_seconds": None if covered.within is None else covered.within.total_seconds(),
        "late_bytes": covered.late_bytes,
        "oldest": None
        if first is None
        else {
            "repository": places[first.area.repository],
            "id": first.area.artefact,
            "offset": first.offset,
            "read": clock.to_text(first.moment),
        },
    }


def document(opened: Readable, outcomes: Outcomes) -> dict[str, Any]:
    """All of it as JSON."""
    return {
        "artefacts": [_artefact(one) for one in outcomes.verified],
        "problems": list(outcomes.chosen.bad),
        "unreachable": {
            name: {"message": error.message, "hint": error.hint} for name, error in outcomes.chosen.unknown.items()
        },
        "coverage": None if outcomes.coverage is None else coverage_document(opened, outcomes.coverage),
    }


def _artefact(one: Verified) -> dict[str, Any]:
    verification = one.verification
    return {
        **manifest_summary(one.found.manifest),
        "verdict": verification.verdict.value,
        "asked": verification.asked,
        "reached": verification.reached,
        "expires": clock.optional_text(one.expires),
        "rungs": [rung_document(rung) for rung in verification.rungs],
        "not_checked": gaps(verification.rungs),
        "findings": [finding_document(finding) for finding in verification.findings],
    }


def rung_document(rung: Rung) -> dict[str, Any]:
    """One grade as JSON."""
    return {
        "grade": rung.grade.value,
        "verdict": rung.verdict.value,
        "seconds": round(rung.seconds, 3),
        "findings": [finding_document(finding) for finding in rung.findings],
    }
