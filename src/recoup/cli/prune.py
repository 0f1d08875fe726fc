"""``recoup prune``: remove what the plan does not keep, and say of every copy why it stays or goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from recoup.cli.options import FileOption, JsonOption, PlanOption, QuietOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.protect.prune import Fate, Pruned
    from recoup.assembly.protect.retain_stream import LogFate

_ORDER = (Exit.OK, Exit.BUSY, Exit.UNKNOWN, Exit.REFUSED, Exit.BAD, Exit.NO_REPOSITORY, Exit.FAILED)


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "prune",
        prune,
        examples=(
            "recoup prune --dry-run          # what would stay and go, with every reason",
            "recoup prune",
            "recoup prune --from offsite     # one repository of the plan",
        ),
    )


def prune(
    source: Annotated[
        str | None, typer.Option("--from", metavar="REPOSITORY", help="Only this repository of the plan.")
    ] = None,
    file: FileOption = None,
    as_json: JsonOption = False,
    dry_run: PlanOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Remove the copies and the WAL that no rule of the plan keeps, in every repository.

    Says of every copy why it stays or goes. Nothing goes below a minimum, under a hold, when something that stays
    depends on it, while the newest of its kind is failed or unproven, or when its date is in the future. What the
    store locks is named and stays; that is no failure. It can be killed at any time and given again.
    """
    from recoup.assembly.protect.prune import prune as prune_all
    from recoup.assembly.system import System
    from recoup.cli.output import Output

    output = Output(json=as_json, quiet=quiet)
    system = System.from_file(file)
    results = prune_all(system, only=source, dry_run=dry_run, on_work=output.note)
    for result in results:
        _say(output, result)
    output.document("prune", {"dry_run": dry_run, "repositories": [_document(result) for result in results]})
    return max((result.exit_code for result in results), key=_severity)


def _severity(code: Exit) -> tuple[int, int]:
    return (_ORDER.index(code), 0) if code in _ORDER else (len(_ORDER), int(code))


def _say(output: Any, result: Pruned) -> None:
    from recoup.kernel.units import show_size

    if result.error is not None:
        hint = f"\nhint: {result.error.hint}" if result.error.hint else ""
        output.note(f"{result.repository}: not pruned: {result.error}{hint}")
        return
    rows = []
    for fate in result.copies:
        copy = fate.decision.copy
        size, why = show_size(fate.stored_bytes), "; ".join(fate.decision.reasons)
        rows.append((_word(fate, result.dry_run), copy.id, copy.service, copy.kind, size, why))
    output.line(f"{result.repository}:")
    output.table(("", "ID", "SERVICE", "KIND", "STORED", "WHY"), rows)
    for log in (*result.wal, *result.streams):
        named = f"WAL of {log.service}, cluster {log.system_identifier}"
        output.line(
            f"{named if log.system_identifier else f'command stream of {log.service}'}: "
            f"{log.expired if result.dry_run else log.removed} objects ({show_size(log.expired_bytes)}) "
            f"{'goes' if result.dry_run else 'removed'}, {log.kept} stay: {log.reason}"
        )
    if result.orphans:
        ripe = sum(orphan.ripe for orphan in result.orphans)
        size = show_size(sum(orphan.stored_bytes for orphan in result.orphans))
        done = f"{ripe} are old enough to go" if result.dry_run else f"{result.orphans_removed} removed"
        output.line(f"left by runs that died: {len(result.orphans)} ({size}), {done}")
    for problem in result.problems:
        output.note(f"{result.repository}: nothing is removed: {problem}")
    for service, taken in (result.busy or {}).items():
        output.note(f"{result.repository}: {service}: {taken.message}")
    for error in result.errors:
        if error is not None:
            output.note(f"{result.repository}: {error}" + (f"\nhint: {error.hint}" if error.hint else ""))


def _word(fate: Fate, dry_run: bool) -> str:
    if fate.decision.keep:
        return "keep"
    if dry_run:
        return "goes"
    return "removed" if fate.removed else "FAILED" if fate.error is not None else "left"


def _document(result: Pruned) -> dict[str, Any]:
    return {
        "repository": result.repository,
        "exit_code": int(result.exit_code),
        "error": _error(result.error),
        "copies": [
            {
                "id": fate.decision.copy.id,
                "service": fate.decision.copy.service,
                "kind": fate.decision.copy.kind,
                "keep": fate.decision.keep,
                "removed": fate.removed,
                "reasons": list(fate.decision.reasons),
                "stored_bytes": fate.stored_bytes,
                "error": _error(fate.error),
            }
            for fate in result.copies
        ],
        "wal": [_log_document(wal) for wal in result.wal],
        "streams": [_log_document(stream) for stream in result.streams],
        "orphans": [
            {"id": one.place.id, "service": one.place.service, "kind": one.place.kind, "old_enough": one.ripe}
            for one in result.orphans
        ],
        "orphans_removed": result.orphans_removed,
        "problems": list(result.problems),
        "busy": {service: taken.message for service, taken in (result.busy or {}).items()},
    }


def _log_document(log: LogFate) -> dict[str, Any]:
    return {
        "service": log.service,
        **({} if log.system_identifier is None else {"system_identifier": log.system_identifier}),
        "kept": log.kept,
        "expired": log.expired,
        "expired_bytes": log.expired_bytes,
        "removed": log.removed,
        "reason": log.reason,
        "error": _error(log.error),
    }


def _error(error: Any) -> dict[str, Any] | None:
    return None if error is None else {"message": error.message, "hint": error.hint}
