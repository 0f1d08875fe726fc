"""``recoup check``: would a recovery work today?"""

from __future__ import annotations

from typing import Annotated

import typer

from recoup.cli.options import FileOption, JsonOption, QuietOption, add_command
from recoup.kernel.errors import Exit, UsageError


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "check",
        check,
        examples=(
            "recoup check",
            "recoup check --json",
            "recoup check --prepare        # what a server needs for its WAL to be streamed",
            "recoup check --undo --yes     # take that back",
        ),
    )


def check(
    file: FileOption = None,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Print what the servers need for WAL streaming; do it once confirmed.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take back what --prepare did, and the slot.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --prepare or --undo: do not ask.")] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Say whether a recovery would work today: plan, key, repositories, services, newest copies.

    Each finding that is not ok has a hint. Nothing is changed, but for one small object that each repository is asked
    to take, return and delete. Exit code 3 when something is bad, 4 when something could not be found out.

    With --prepare or --undo, nothing of that is checked: every change to a server is printed exactly, and made once
    confirmed. What needs a human hand or a restart is only printed; then the exit code is 4.
    """
    from recoup.assembly.system import System
    from recoup.assembly.watch.readiness import readiness
    from recoup.cli.documents import finding_document
    from recoup.cli.output import Output
    from recoup.cli.prepare import prepare as make_ready
    from recoup.kernel import clock
    from recoup.kernel.finding import Verdict, exit_code, overall

    output = Output(json=as_json, quiet=quiet)
    if prepare and undo:
        raise UsageError("--prepare and --undo exclude each other")
    if prepare or undo:
        return make_ready(file, output, undo=undo, yes=yes)
    system = System.from_file(file)
    findings = []
    output.line(f"ok       the plan is valid: {system.loaded.file}")
    for finding in readiness(system, clock.now()):
        findings.append(finding)
        detail = f": {finding.detail}" if finding.detail else ""
        output.line(f"{finding.verdict.value:<8} {finding.subject}: {finding.check}{detail}")
        if finding.hint and finding.verdict is not Verdict.OK:
            output.line(f"         hint: {finding.hint}")
        if finding.not_checked:
            output.line(f"         not checked: {finding.not_checked}")
    verdict = overall(findings)
    bad = sum(one.verdict is Verdict.FAILED for one in findings)
    unknown = sum(one.verdict is Verdict.UNKNOWN for one in findings)
    summary = {
        Verdict.OK: "a recovery would work today, as far as can be told without rehearsing it",
        Verdict.FAILED: f"a recovery would NOT work today: {bad} bad, {unknown} unknown",
        Verdict.UNKNOWN: f"it is not known whether a recovery would work today: {unknown} unknown",
    }[verdict]
    output.line(summary)
    output.document(
        "check",
        {
            "file": str(system.loaded.file),
            "verdict": verdict.value,
            "findings": [finding_document(one) for one in findings],
        },
    )
    return exit_code(verdict)
