"""``recoup restore``: bring a copy back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recoup.cli.moment import AskedMoment, Before, Timeline, ToLsn, ToName, ToTime, ToXid, restore_to_moment
from recoup.cli.options import FileOption, FromOption, JsonOption, KeyFileOption, PlanOption, QuietOption, add_command
from recoup.kernel.errors import Exit, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from recoup.assembly.access import Found, Readable
    from recoup.assembly.restore.job import Report, Wish
    from recoup.kernel.finding import Finding


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "restore",
        restore,
        examples=(
            "recoup restore latest --service postgres --kind base      # in place, inside the Compose stack",
            "recoup restore latest --service postgres --kind base --destination /srv/restored",
            "recoup restore --to-time '2026-11-23 14:05:00' --service postgres    # to any instant that the WAL covers",
            "recoup restore --stack before-2.4    # all services to one label, applications stopped and started once",
            "recoup restore --stack latest --to-time '2026-11-23 14:05:00'    # all services to one instant",
            "recoup restore 20261123-023000-k7f3q2 --into hummii_check  # a dump, beside the database in use",
            "recoup restore postgres-backup-20251130-020000.sql.gz.enc --service postgres --key-file old.key",
        ),
    )


def restore(
    reference: Annotated[
        str | None, typer.Argument(metavar="ID|latest|FILE", help="What to restore.", show_default=False)
    ] = None,
    stack: Annotated[
        str | None, typer.Option("--stack", metavar="NAME|latest", help="All services, to a stack point.")
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option("--without", metavar="SERVICE", help="Of a stack point: leave this as it is.")
    ] = None,
    service: Annotated[str | None, typer.Option(help="Of which service, for latest; which server, for a file.")] = None,
    kind: Annotated[
        str | None, typer.Option(help="Of which kind, for latest: base, incremental, dump, rdb, files.")
    ] = None,
    destination: Annotated[
        str | None, typer.Option(metavar="FOLDER|ADDRESS", help="Default: where the service lives.")
    ] = None,
    database: Annotated[str | None, typer.Option(help="Which database of a dump that has several.")] = None,
    into: Annotated[str | None, typer.Option(help="Restore a database under this name.")] = None,
    create_roles: Annotated[bool, typer.Option("--create-roles", help="Create the roles that a dump needs.")] = False,
    to_time: ToTime = None,
    to_lsn: ToLsn = None,
    to_xid: ToXid = None,
    to_name: ToName = None,
    before: Before = False,
    timeline: Timeline = None,
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
    from recoup.assembly.restore.job import Wish, names_a_file
    from recoup.cli.output import Output

    output = Output(json=as_json, quiet=quiet)
    wish = Wish(destination=destination, database=database, into=into, create_roles=create_roles)
    consent = _consent(force, yes)
    moment = AskedMoment(time=to_time, lsn=to_lsn, xid=to_xid, name=to_name, before=before, timeline=timeline)
    whole = stack == "latest" and moment == AskedMoment(time=to_time)
    if moment.any and not whole and (stack is not None or without):
        raise UsageError("a stack point is a moment of its own: leave out --to-… and --timeline, or --stack")
    if moment.any and not whole:
        places = (file, source, key_file)
        return restore_to_moment(output, moment, reference, service, kind, places, wish, consent, dry_run=dry_run)
    if reference is None or stack is not None or without:
        from recoup.cli.stack import Asked, restore_to_point

        left = tuple(without or ())
        asked = Asked(file=file, source=source, key_file=key_file, destination=destination, without=left, time=to_time)
        one = {"an artefact": reference, "--service": service, "--kind": kind, "--database": database, "--into": into}
        return restore_to_point(output, stack, asked, one, consent, dry_run=dry_run)
    if names_a_file(reference):
        if dry_run:
            return _show_file_plan(output, reference, destination or service)
        return _restore_file(output, reference, file, service, key_file, wish, consent)
    opened = open_readable(output, file, source, key_file)
    found = _find(opened, reference, service, kind)
    if dry_run:
        _show_plan(output, found, wish)
        return Exit.OK
    return _restore_artefact(output, opened, found, wish, consent)


def _find(opened: Readable, reference: str, service: str | None, kind: str | None) -> Found:
    from recoup.assembly.prove.history import require_not_emptied

    found = opened.find(reference, service=service, kinds=(kind,) if kind else ())
    if reference == "latest":
        require_not_emptied(opened, found)
    return found


def open_readable(output: Any, file: Path | None, source: str | None, key_file: Path | None) -> Readable:
    """Open the repositories to read from, and say which did not answer."""
    from recoup.assembly.access import open_for_reading

    opened = open_for_reading(file, source, key_file)
    for name, error in opened.failed.items():
        output.note(f"{name}: not read: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))
    return opened


def _show_file_plan(output: Any, reference: str, into: str | None) -> Exit:
    output.line(f"would restore the file {reference} into {into or 'the PostgreSQL of the plan'}")
    output.document("restore-plan", {"file": reference, "into": into})
    return Exit.OK


def _restore_file(
    output: Any, reference: str, file: Path | None, service: str | None, key_file: Path | None, wish: Wish, consent: Any
) -> Exit:
    from pathlib import Path

    from recoup.assembly.restore.foreign_file import restore_file
    from recoup.kernel import clock

    started = clock.monotonic()
    with output.progress() as listener:
        report = restore_file(Path(reference), file, service, key_file, wish, consent, listener)
    return finish_restore(output, report, clock.monotonic() - started)


def _restore_artefact(output: Any, opened: Readable, found: Found, wish: Wish, consent: Any) -> Exit:
    from recoup.assembly.restore.copy import restore as restore_artefact
    from recoup.assembly.restore.job import Job
    from recoup.kernel import clock
    from recoup.repository.copy_reader import ArtefactReader

    started = clock.monotonic()
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
    return finish_restore(output, report, clock.monotonic() - started)


def finish_restore(output: Any, report: Report, seconds: float) -> Exit:
    """Say what was restored; the exit code that its checks ask for."""
    from recoup.kernel.finding import exit_code, overall

    _say(output, report, seconds)
    return exit_code(overall(report.findings)) if report.findings else Exit.OK


def _consent(force: bool, yes: bool) -> Any:
    import sys

    from recoup.cli.asking import yes_or_no
    from recoup.recovery.in_place import Consent

    return Consent(force=force, yes=yes, ask=yes_or_no if sys.stdin.isatty() else None)


def _say(output: Any, report: Report, seconds: float) -> None:
    from recoup.cli.documents import finding_document
    from recoup.kernel.units import show_duration

    output.line(f"restored {report.what} into {report.where} in {show_duration(seconds)}")
    if report.kept is not None:
        output.line(f"what was replaced is kept: {report.kept}")
    for note in report.notes:
        output.line(note)
    say_findings(output, report.findings)
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


def say_findings(output: Any, findings: Sequence[Finding]) -> None:
    """Print what checks of restored data found."""
    from recoup.kernel.finding import Verdict

    for finding in findings:
        output.line(f"{finding.verdict.value:<8}{finding.check}: {finding.subject}: {finding.detail}")
        if finding.not_checked:
            output.line(f"        not checked: {finding.not_checked}")
        if finding.hint and finding.verdict is not Verdict.OK:
            output.line(f"        hint: {finding.hint}")


def _show_plan(output: Any, found: Any, wish: Any) -> None:
    manifest = found.manifest
    where = wish.destination or f"where {manifest.service} lives"
    output.line(f"would restore {manifest.service} {manifest.kind} {manifest.id} into {where}")
    output.line(f"from {', then '.join(str(one) for one in found.holders)}")
    output.document("restore-plan", {"id": manifest.id, "into": where, "from": [one.name for one in found.holders]})
