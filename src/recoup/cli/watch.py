"""``recoup watch``: notice silence from another machine."""

from __future__ import annotations

from typing import Annotated

import typer

from recoup.cli.options import FileOption, JsonOption, KeyFileOption, QuietOption, add_command
from recoup.kernel.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "watch",
        watch,
        examples=(
            "recoup watch s3://bucket/production --key-file recoup.key",
            "recoup watch /mnt/backups --key-file recoup.key --max-age 30m -q",
        ),
    )


def watch(
    repository: Annotated[str, typer.Argument(help="A folder or s3://bucket/folder, or its name in the plan.")],
    max_age: Annotated[
        str, typer.Option("--max-age", metavar="DURATION", help="How old the heartbeat may be.")
    ] = "15m",
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Look, from any machine that has the key, whether a system is still protected.

    Its daemon leaves a heartbeat in the repository, with what was promised. Exit code 3 when it is silent, when a
    service has no recovery point as young as was promised, or when it has an alarm itself; 4 when that cannot be found
    out. With --quiet, only what is not ok is printed. Nothing is changed.
    """
    from recoup.assembly.access import open_for_reading
    from recoup.assembly.watch.outside import watch as look
    from recoup.cli.documents import finding_document
    from recoup.cli.output import Output
    from recoup.kernel import clock
    from recoup.kernel.errors import UncheckedError, UsageError
    from recoup.kernel.finding import Verdict, exit_code, overall
    from recoup.kernel.units import parse_duration

    try:
        longest = parse_duration(max_age)
    except ValueError as wrong:
        raise UsageError(str(wrong), hint="Write --max-age 15m.") from None
    output = Output(json=as_json, quiet=quiet)
    opened = open_for_reading(file, repository, key_file)
    if not opened.repositories:
        raise UncheckedError(f"{repository} could not be opened", hint="Give its address, and its key with --key-file.")
    seen = look(opened.repositories[0], opened.catalog(), clock.now(), longest)
    for finding in seen.findings:
        if quiet and finding.verdict is Verdict.OK:
            continue
        output.line(f"{finding.verdict.value:<8} {finding.subject}: {finding.check}: {finding.detail}")
        if finding.hint and finding.verdict is not Verdict.OK:
            output.line(f"         hint: {finding.hint}")
    verdict = overall(seen.findings)
    output.document(
        "watch",
        {
            "repository": opened.repositories[0].store.address,
            "verdict": verdict.value,
            "heartbeats": [
                {"system": one.system, "written": clock.to_text(one.written), "verdict": one.verdict}
                for one in seen.heartbeats
            ],
            "findings": [finding_document(one) for one in seen.findings],
        },
    )
    return exit_code(verdict)
