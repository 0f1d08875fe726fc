"""``recoup backup``: take copies now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from recoup.cli.options import FileOption, JsonOption, PlanOption, QuietOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.protect.copies import Options, Protected, Task
    from recoup.assembly.system import System
    from recoup.cli.output import Output
    from recoup.kernel.errors import RecoupError


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "backup",
        backup,
        examples=(
            "recoup backup                         # every service, the kinds the plan schedules",
            "recoup backup --due                   # what the plan's schedules want by now, and nothing else",
            "recoup backup --stack --name before-2.4    # all services under one label, to go back together",
            "recoup backup postgres --kind dump    # a dump of one service",
            "recoup backup postgres --kind incremental    # what changed since its newest base or incremental backup",
            "recoup backup postgres --kind dump --format plain --compression gzip",
        ),
    )


def backup(
    services: Annotated[
        list[str] | None, typer.Argument(metavar="[SERVICE]...", help="Default: all with data.")
    ] = None,
    kind: Annotated[
        Literal["base", "incremental", "dump", "rdb", "files"] | None,
        typer.Option(help="Default: what the plan schedules."),
    ] = None,
    form: Annotated[
        Literal["custom", "plain"] | None, typer.Option("--format", help="Of dumps; default: the plan's.")
    ] = None,
    compression: Annotated[Literal["zstd", "gzip"] | None, typer.Option(help="Default: the plan's.")] = None,
    due: Annotated[
        bool, typer.Option("--due", help="Only what is due by the plan's schedules; with --plan, also what comes next.")
    ] = False,
    stack: Annotated[
        bool, typer.Option("--stack", help="A stack point: copies of all services under one label.")
    ] = False,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The name of a stack point.")] = None,
    label: Annotated[str | None, typer.Option(help="A word for the copies: daily, before-migration.")] = None,
    other_cluster: Annotated[
        bool, typer.Option("--other-cluster", help="The server is a new cluster; copy it all the same.")
    ] = False,
    new_repository: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="This repository is gone for good: begin a new one in its place."),
    ] = None,
    file: FileOption = None,
    as_json: JsonOption = False,
    dry_run: PlanOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Take copies of services, read them back, and report where they are.

    A copy is reported only after every byte was read back from each repository and matched. It is then verified as the
    plan says under verify.after_backup. When one repository fails, the copy in the others stays and the exit code is 1.
    """
    from recoup.assembly.protect.copies import Options, choose_tasks
    from recoup.assembly.system import System
    from recoup.cli.due import outlook
    from recoup.cli.output import Output

    _check_label(label)
    system, output = System.from_file(file), Output(json=as_json, quiet=quiet)
    options = Options(label=label, dump_format=form, compression=compression, other_cluster=other_cluster)
    if stack or name is not None:
        from recoup.cli.stack import take_point

        _check_alone(stack, {"SERVICE": services, "--kind": kind, "--due": due, "--label": label})
        if new_repository is not None and not dry_run:
            system.begin_anew(new_repository)
        return take_point(system, output, name, options, dry_run=dry_run)
    ahead = outlook(system, services or [], kind) if due else None
    tasks = choose_tasks(system, services or [], kind) if ahead is None else ahead.tasks
    if dry_run:
        ahead.show(output, system) if ahead else show_plan(output, [(one.service, one.kind) for one in tasks], system)
        return Exit.OK
    if ahead is not None:
        if not tasks and not ahead.rhythms:
            return ahead.say_nothing_is_due(output)
        ahead.note_silence(output)
    if new_repository is not None:
        system.begin_anew(new_repository)
    return _take(system, output, tasks, options, [] if ahead is None else ahead.rhythms)


def _check_label(label: str | None) -> None:
    from recoup.kernel.errors import UsageError
    from recoup.repository.catalog import REPLACED
    from recoup.repository.layout import SAFE_NAME

    if label is not None and not SAFE_NAME.fullmatch(label):
        raise UsageError(f"{label!r} cannot be a label", hint="Use letters, digits, '.', '_' and '-'.")
    if label == REPLACED:
        raise UsageError(f"the label {label!r} is kept for what restores replace", hint="Choose another word.")


def _check_alone(stack: bool, others: dict[str, object]) -> None:
    from recoup.kernel.errors import UsageError

    if not stack:
        raise UsageError("--name is the name of a stack point", hint="Add --stack, or use --label for copies.")
    for name, value in others.items():
        if value:
            raise UsageError(
                f"a stack point is of all services, so it does not go with {name}", hint="Leave one of them out."
            )


def _take(system: System, output: Output, tasks: list[Task], options: Options, rhythms: list[str]) -> Exit:
    from recoup.assembly.protect.recorded import protect_recorded
    from recoup.assembly.watch.pings import not_taken
    from recoup.kernel.process import give_way

    give_way()  # production comes first
    results = []
    for task in tasks:
        with output.progress() as listener:
            result = protect_recorded(system, task, options, listener)
        results.append(result)
        say_copy(output, result)
    for name, why in not_taken(system):
        output.note(f"the ping {name!r} was not taken: {why}")
    codes, verifications = [result.exit_code for result in results], {}
    for rhythm in rhythms:  # after the copies, so that the newest is what is proven
        from recoup.cli.verify_rhythm import run_rhythm

        code, verifications[rhythm] = run_rhythm(system, rhythm, output, None)
        codes.append(code)
    copies = [copy_document(result) for result in results]
    output.document("backup", {"copies": copies, **({"verifications": verifications} if rhythms else {})})
    return max(codes, key=severity)


def severity(code: Exit) -> tuple[int, int]:
    """For ``max``: the worse of several exit codes."""
    order = [Exit.OK, Exit.UNKNOWN, Exit.BAD, Exit.FAILED]
    return (order.index(code), 0) if code in order else (len(order), int(code))


def say_copy(output: Any, result: Protected) -> None:
    """Print how one copy ended."""
    from recoup.kernel.finding import Verdict
    from recoup.kernel.units import show_duration, show_size

    task = result.task
    subject = f"{task.service} {task.kind}"
    for name, error in result.unopened.items():
        if error is not result.error:
            output.note(_failure(f"{subject}: not in {name}", error))
    if result.error is not None or result.taken is None:
        assert result.error is not None, "a task has a copy or an error"
        output.note(_failure(f"{subject}: FAILED", result.error))
        return
    taken, manifest = result.taken, result.taken.outcome.manifest
    for name, error in taken.outcome.failed.items():
        output.note(_failure(f"{subject}: not in {name}", error))
    verification = result.verification
    grade = "stored, read back" if verification is None else f"{verification.reached or 'NOT INTACT'}"
    output.line(
        f"{task.service} {task.kind}  {manifest.id}  {show_size(manifest.plain_bytes)} as "
        f"{show_size(manifest.stored_bytes)} in {show_duration(taken.seconds)}  "
        f"in {', '.join(taken.outcome.stored_in)}  {grade}"
    )
    if result.not_kept is not None:
        output.note(_failure("the images that the stack runs were not kept", result.not_kept))
    for finding in verification.findings if verification is not None else ():
        if finding.verdict is not Verdict.OK:
            output.line(f"  {finding.verdict}: {finding.check}: {finding.subject}: {finding.detail}")


def _failure(what: str, error: RecoupError) -> str:
    return f"{what}: {error}" + (f"\nhint: {error.hint}" if error.hint else "")


def copy_document(result: Protected) -> dict[str, Any]:
    """How one copy ended, as JSON."""
    from recoup.cli.documents import finding_document, manifest_summary

    document: dict[str, Any] = {"service": result.task.service, "kind": result.task.kind}
    errors = {name: {"message": error.message, "hint": error.hint} for name, error in result.unopened.items()}
    if result.taken is not None:
        outcome = result.taken.outcome
        errors |= {name: {"message": error.message, "hint": error.hint} for name, error in outcome.failed.items()}
        document |= {
            **manifest_summary(outcome.manifest),
            "repositories": list(outcome.stored_in),
            "seconds": round(result.taken.seconds, 3),
        }
    if result.error is not None:
        document["error"] = {"message": result.error.message, "hint": result.error.hint}
    if result.not_kept is not None:
        document["images_not_kept"] = {"message": result.not_kept.message, "hint": result.not_kept.hint}
    if result.verification is not None:
        document["grade"] = result.verification.reached
        document["findings"] = [finding_document(one) for one in result.verification.findings]
    return {**document, "failed_repositories": errors, "exit_code": int(result.exit_code)}


def show_plan(output: Any, tasks: list[tuple[str, str]], system: Any) -> None:
    """Print which copies would be taken: service and kind each."""
    rows = []
    for service, kind in tasks:
        places = [name for name, one in system.plan.repositories.items() if one.takes(kind)]
        rows.append((service, kind, ", ".join(places)))
    output.table(("SERVICE", "KIND", "INTO"), rows)
    output.document(
        "backup-plan", {"copies": [{"service": s, "kind": k, "repositories": p.split(", ")} for s, k, p in rows]}
    )
