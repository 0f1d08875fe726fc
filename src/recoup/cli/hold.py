"""``recoup hold``: let nothing expire while something is being looked into."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from recoup.cli.options import FileOption, JsonOption, add_command
from recoup.kernel.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "hold",
        hold,
        examples=(
            "recoup hold                                            # what is held, and why",
            'recoup hold incident-42 --reason "rows are missing"    # nothing expires any more',
            'recoup hold audit --since 2026-11-01 --reason "audit"  # nothing from then on, and what leads there',
            "recoup hold --release incident-42",
        ),
    )


def hold(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="What to call the hold. None: list them.")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why, for those who find it.")] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="ID|TIME", help="Hold from this copy or time on, and what leads to it. Default: all."),
    ] = None,
    release: Annotated[str | None, typer.Option(metavar="NAME", help="Release this hold.")] = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> Exit:
    """Keep copies and WAL from expiring until the hold is released; without a name, list the holds.

    A hold is stored in every repository of the plan, so that it holds for whoever prunes, from any machine. A
    repository that does not answer is named, and the exit code is 1: it is not held there.
    """
    from recoup.assembly.protect.hold import hold as place
    from recoup.assembly.protect.hold import release as let_go
    from recoup.assembly.system import System
    from recoup.cli.output import Output
    from recoup.kernel.errors import UsageError

    output, system = Output(json=as_json), System.from_file(file)
    if release is not None:
        if name is not None or reason is not None or since is not None:
            raise UsageError("--release goes alone", hint=f"`recoup hold --release {release}`.")
        failed, found = let_go(system, release)
        if not found and not failed:
            raise UsageError(f"there is no hold {release!r}", hint="`recoup hold` lists those there are.")
        output.line(f"released {release} in {found} repositories")
        return _end(output, {"released": release, "in": found}, dict(failed))
    if name is None:
        if reason is not None or since is not None:
            raise UsageError("a hold needs a name", hint='`recoup hold NAME --reason "…"`.')
        return _list(output, system)
    if reason is None:
        raise UsageError("a hold needs its reason", hint="Say for those who find it why it is there: --reason TEXT.")
    outcome = place(system, name, reason=reason, since=since)
    placed = [repository for repository, failure in outcome.items() if failure is None]
    output.line(f"held by {name} in {', '.join(placed) or 'no repository'}")
    errors = {repository: failure for repository, failure in outcome.items() if failure is not None}
    return _end(output, {"held": name, "in": placed}, errors)


def _end(output: Any, document: dict[str, Any], failed: dict[str, Any]) -> Exit:
    for repository, failure in failed.items():
        output.note(f"{repository}: {failure}" + (f"\nhint: {failure.hint}" if failure.hint else ""))
    errors = {repository: {"message": one.message, "hint": one.hint} for repository, one in failed.items()}
    output.document("hold", {**document, "failed_repositories": errors})
    return next(iter(failed.values())).exit_code if failed else Exit.OK


def _list(output: Any, system: Any) -> Exit:
    from recoup.assembly.protect.hold import list_holds
    from recoup.kernel import clock

    held = list_holds(system)
    rows = [
        (one.name, clock.to_text(one.begins)[:19] + "Z" if one.begins else "everything",
         clock.to_text(one.created)[:19] + "Z", ", ".join(held.places[one.name]), one.reason)
        for one in held.records
    ]  # fmt: skip
    if rows:
        output.table(("NAME", "SINCE", "PLACED", "IN", "REASON"), rows)
    else:
        output.line("nothing is held")
    for repository, name, what in held.problems:
        output.note(f"{repository}: hold {name} cannot be believed, and holds everything: {what}")
    document = {
        "holds": [
            {
                "name": one.name,
                "since": None if one.begins is None else clock.to_text(one.begins),
                "artefact": one.artefact,
                "reason": one.reason,
                "created": clock.to_text(one.created),
                "repositories": list(held.places[one.name]),
            }
            for one in held.records
        ],
        "problems": [{"repository": r, "name": n, "what": w} for r, n, w in held.problems],
    }
    code = _end(output, document, dict(held.failed))
    return Exit.BAD if held.problems and code is Exit.OK else code
