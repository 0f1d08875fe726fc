"""``recoup verify``: prove copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recoup.cli.options import FileOption, FromOption, JsonOption, KeyFileOption, QuietOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.verification.verify import Verification


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "verify",
        verify,
        examples=(
            "recoup verify                       # the newest copy of every service and kind",
            "recoup verify 20261123-020000-k7f3q2",
            "recoup verify --all --grade stored  # everything is where it should be",
        ),
    )


def verify(
    reference: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="An id, part of one, or latest. Default: the newest of each.")
    ] = None,
    service: Annotated[str | None, typer.Option(help="Only of this service.")] = None,
    grade: Annotated[Literal["stored", "intact"], typer.Option(help="How far to go.")] = "intact",
    everything: Annotated[bool, typer.Option("--all", help="Every artefact there is.")] = False,
    source: FromOption = None,
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Verify artefacts in every repository that holds them.

    stored: all objects are there, with the right sizes. intact: every byte was read, matched, decrypted and
    decompressed, and the content is what it says. Exit code 3 when something is bad, 4 when something could not be
    checked. What was not checked is said.
    """
    from recoup.assembly.access import open_for_reading
    from recoup.assembly.prove import choose, note_verification, prove
    from recoup.cli.output import Output
    from recoup.kernel.finding import Verdict, exit_code

    output = Output(json=as_json, quiet=quiet)
    opened = open_for_reading(file, source, key_file)
    chosen = choose(opened, reference, service=service, everything=everything)
    verifications = []
    for found in chosen.found:
        verification = prove(found, grade)
        note_verification(opened.state_folder, found.holders, verification)
        verifications.append((found.manifest, verification))
        _say(output, found.manifest.service, found.manifest.kind, verification)
    for problem in chosen.bad:
        output.line(f"failed  {problem}")
    for name, error in chosen.unknown.items():
        output.note(f"{name}: not verified: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
    output.document("verify", _document(verifications, list(chosen.bad), chosen.unknown))
    verdicts = {verification.verdict for _, verification in verifications}
    if chosen.bad or Verdict.FAILED in verdicts:
        return Exit.BAD
    if chosen.unknown or Verdict.UNKNOWN in verdicts or not verdicts:
        return exit_code(Verdict.UNKNOWN)
    return Exit.OK


def _say(output: Any, service: str, kind: str, verification: Verification) -> None:
    from recoup.kernel.finding import Verdict

    reached = verification.reached or "nothing"
    output.line(f"{verification.verdict.value:<8}{service} {kind} {verification.artefact_id}: proven {reached}")
    for finding in verification.findings:
        if finding.verdict is not Verdict.OK:
            output.line(f"  {finding.verdict}: {finding.check}: {finding.subject}: {finding.detail}")
            if finding.hint:
                output.line(f"    hint: {finding.hint}")
    gaps = {finding.not_checked for finding in verification.findings if finding.not_checked}
    if verification.asked != "stored":
        gaps.discard("the bytes themselves")
    for gap in sorted(gaps):
        output.line(f"  not checked: {gap}")


def _document(verifications: list[Any], problems: list[str], failed: Any) -> dict[str, Any]:
    from recoup.cli.documents import finding_document, manifest_summary

    return {
        "artefacts": [
            {
                **manifest_summary(manifest),
                "verdict": verification.verdict.value,
                "asked": verification.asked,
                "reached": verification.reached,
                "findings": [finding_document(one) for one in verification.findings],
            }
            for manifest, verification in verifications
        ],
        "problems": problems,
        "unreachable": {name: {"message": e.message, "hint": e.hint} for name, e in failed.items()},
    }
