"""``recoup sync``: let every repository catch up with what the others hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from recoup.cli.options import FileOption, JsonOption, PlanOption, QuietOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.protect.lacking import Lack
    from recoup.assembly.protect.sync import Synced

_ORDER = (Exit.OK, Exit.BUSY, Exit.UNKNOWN, Exit.FAILED)


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "sync",
        sync,
        examples=(
            "recoup sync --plan    # what each repository lacks",
            "recoup sync",
        ),
    )


def sync(
    file: FileOption = None, as_json: JsonOption = False, plan: PlanOption = False, quiet: QuietOption = False
) -> Exit:
    """Copy to every repository what it should hold and does not, from one that holds it.

    It should hold what its `copy` names and its retention would keep: copies, WAL and command streams. Copies arrive
    byte for byte and are read back before they count; what is damaged in one repository comes from another. It can be
    killed at any time and given again. Exit code 0: every repository holds everything; 1: something could not be
    copied; 4: a repository did not answer, or has another key; 6: another run was at work on a service.
    """
    from recoup.assembly.protect.sync import sync as sync_all
    from recoup.assembly.system import System
    from recoup.cli.output import Output

    output = Output(json=as_json, quiet=quiet)
    results = sync_all(System.from_file(file), plan=plan, on_work=output.note)
    for result in results:
        _say(output, result)
    output.document("sync", {"plan": plan, "repositories": [_document(result) for result in results]})
    return max((result.exit_code for result in results), key=_ORDER.index)


def _say(output: Any, result: Synced) -> None:
    from recoup.kernel.units import show_size

    name, lack = result.repository, result.lack
    if result.error is not None:
        hint = f"\nhint: {result.error.hint}" if result.error.hint else ""
        output.note(f"{name}: skipped: {result.error}{hint}")
    if lack is None:
        return
    if lack.nothing:
        others = f" that is known: {', '.join(result.unasked)} could not be asked" if result.unasked else ""
        output.line(f"{name}: holds everything{others}")
    elif result.planned:
        output.line(f"{name}: lacks {_counts(len(lack.copies), len(lack.wal), len(lack.streams))}, "
                    f"{show_size(lack.stored_bytes)}")  # fmt: skip
        rows = [(one.id, one.service, one.kind, show_size(one.stored_bytes)) for one in lack.copies]
        if rows:
            output.table(("ID", "SERVICE", "KIND", "STORED"), rows)
    else:
        output.line(f"{name}: got {_counts(len(result.copies), result.wal, result.streams)}")
    for identifier, why in lack.left:
        output.note(f"{name}: {identifier} stays away: {why}")
    for problem in lack.problems:
        if problem.id not in result.healed:
            output.note(f"{name}: {problem.error().message}")
    for what, failure in result.failed.items():
        hint = f"\nhint: {failure.hint}" if failure.hint else ""
        output.note(f"{name}: FAILED: {what}: {failure}{hint}")
    for service, taken in result.busy.items():
        output.note(f"{name}: {service}: {taken.message}")


def _counts(copies: int, wal: int, streams: int) -> str:
    parts = [f"{copies} {'copy' if copies == 1 else 'copies'}"]
    parts += [f"{wal} objects of WAL"] if wal else []
    parts += [f"{streams} objects of command streams"] if streams else []
    return ", ".join(parts)


def _document(result: Synced) -> dict[str, Any]:
    return {
        "repository": result.repository,
        "exit_code": int(result.exit_code),
        "error": _error(result.error),
        "lacked": None if result.lack is None else _lacked(result.lack),
        "copies": list(result.copies),
        "healed": list(result.healed),
        "wal": result.wal,
        "streams": result.streams,
        "failed": {what: _error(failure) for what, failure in result.failed.items()},
        "busy": {service: taken.message for service, taken in result.busy.items()},
    }


def _lacked(lack: Lack) -> dict[str, Any]:
    return {
        "copies": [
            {"id": one.id, "service": one.service, "kind": one.kind, "stored_bytes": one.stored_bytes}
            for one in lack.copies
        ],
        "wal": len(lack.wal),
        "streams": len(lack.streams),
        "stored_bytes": lack.stored_bytes,
        "left": [{"id": identifier, "why": why} for identifier, why in lack.left],
        "problems": [{"id": problem.id, "what": problem.what} for problem in lack.problems],
    }


def _error(error: Any) -> dict[str, Any] | None:
    return None if error is None else {"message": error.message, "hint": error.hint}
