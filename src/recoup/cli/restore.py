"""``recoup restore``: bring a copy back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recoup.cli.options import FileOption, FromOption, JsonOption, KeyFileOption, PlanOption, QuietOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.restore_job import Report


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "restore",
        restore,
        examples=(
            "recoup restore latest --service postgres --kind base      # in place, inside the Compose stack",
            "recoup restore latest --service postgres --kind base --destination /srv/restored",
            "recoup restore 20261123-023000-k7f3q2 --into hummii_check  # a dump, beside the database in use",
            "recoup restore postgres-backup-20251130-020000.sql.gz.enc --service postgres --key-file old.key",
        ),
    )


def restore(
    reference: Annotated[str, typer.Argument(metavar="ID|latest|FILE", help="What to restore.")],
    service: Annotated[str | None, typer.Option(help="Of which service, for latest; which server, for a file.")] = None,
    kind: Annotated[str | None, typer.Option(help="Of which kind, for latest: base, dump, rdb, files.")] = None,
    destination: Annotated[
        str | None, typer.Option(metavar="FOLDER|ADDRESS", help="Default: where the service lives.")
    ] = None,
    database: Annotated[str | None, typer.Option(help="Which database of a dump that has several.")] = None,
    into: Annotated[str | None, typer.Option(help="Restore a database under this name.")] = None,
    create_roles: Annotated[bool, typer.Option("--create-roles", help="Create the roles that a dump needs.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what is there (it is kept aside).")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before replacing data of the same origin.")] = False,
    source: FromOption = None,
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
    dry_run: PlanOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Restore a copy: into the stack, into a folder, or into a server.

    Nothing is overwritten: what is replaced is kept aside, and where is said. Data that the copy was not taken of are
    only replaced with --force. When a restore is interrupted, the same command finishes it.
    """
    from pathlib import Path

    from recoup.assembly.access import open_for_reading
    from recoup.assembly.restore import restore as restore_artefact
    from recoup.assembly.restore_job import Job, Wish, names_a_file
    from recoup.cli.output import Output
    from recoup.kernel import clock
    from recoup.repository.copy_reader import ArtefactReader

    output = Output(json=as_json, quiet=quiet)
    wish = Wish(destination=destination, database=database, into=into, create_roles=create_roles)
    consent, started = _consent(force, yes), clock.monotonic()
    if names_a_file(reference):
        if dry_run:
            output.line(
                f"would restore the file {reference} into {destination or service or 'the PostgreSQL of the plan'}"
            )
            output.document("restore-plan", {"file": reference, "into": destination or service})
            return Exit.OK
        from recoup.assembly.restore_file import restore_file

        with output.progress() as listener:
            report = restore_file(Path(reference), file, service, key_file, wish, consent, listener)
        return _finish(output, report, clock.monotonic() - started)
    opened = open_for_reading(file, source, key_file)
    found = opened.find(reference, service=service, kinds=(kind,) if kind else ())
    for name, error in opened.failed.items():
        output.note(f"{name}: not read: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
    if dry_run:
        _show_plan(output, found, wish)
        return Exit.OK
    with output.progress() as listener:
        job = Job(
            opened=opened,
            found=found,
            reader=ArtefactReader(found.manifest, found.holders),
            wish=wish,
            consent=consent,
            say=output.note,
            on_progress=listener,
        )
        report = restore_artefact(job)
    return _finish(output, report, clock.monotonic() - started)


def _finish(output: Any, report: Report, seconds: float) -> Exit:
    from recoup.kernel.finding import exit_code, overall

    _say(output, report, seconds)
    return exit_code(overall(report.findings)) if report.findings else Exit.OK


def _consent(force: bool, yes: bool) -> Any:
    import sys

    from recoup.recovery.in_place import Consent

    def ask(question: str) -> bool:
        return typer.confirm(question, err=True)

    return Consent(force=force, yes=yes, ask=ask if sys.stdin.isatty() else None)


def _say(output: Any, report: Report, seconds: float) -> None:
    from recoup.cli.documents import finding_document
    from recoup.kernel.finding import Verdict
    from recoup.kernel.units import show_duration

    output.line(f"restored {report.what} into {report.where} in {show_duration(seconds)}")
    if report.kept is not None:
        output.line(f"what was replaced is kept: {report.kept}")
    for note in report.notes:
        output.line(note)
    for finding in report.findings:
        output.line(f"{finding.verdict.value:<8}{finding.check}: {finding.subject}: {finding.detail}")
        if finding.not_checked:
            output.line(f"        not checked: {finding.not_checked}")
        if finding.hint and finding.verdict is not Verdict.OK:
            output.line(f"        hint: {finding.hint}")
    output.document(
        "restore",
        {
            "what": report.what,
            "where": report.where,
            "kept": report.kept,
            "seconds": round(seconds, 3),
            "notes": list(report.notes),
            "findings": [finding_document(one) for one in report.findings],
        },
    )


def _show_plan(output: Any, found: Any, wish: Any) -> None:
    manifest = found.manifest
    where = wish.destination or f"where {manifest.service} lives"
    output.line(f"would restore {manifest.service} {manifest.kind} {manifest.id} into {where}")
    output.line(f"from {', then '.join(str(one) for one in found.holders)}")
    output.document("restore-plan", {"id": manifest.id, "into": where, "from": [one.name for one in found.holders]})
