"""``recoup windows``: every instant one can go back to."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recoup.cli.options import FileOption, FromOption, JsonOption, KeyFileOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.recovery.windows import ServiceWindows

_MOST_POINTS = 5


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "windows",
        windows,
        examples=(
            "recoup windows",
            "recoup windows postgres --json",
            "recoup windows --from s3://bucket/production --key-file recoup.key    # on a machine without the plan",
        ),
    )


def windows(
    service: Annotated[str | None, typer.Argument(help="Only this service.")] = None,
    source: FromOption = None,
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> Exit:
    """Show every instant one can go back to, by service, with the gaps and why they are there.

    A window is every instant between two; a point is one copy alone. Times of a window's end are of the server's
    clock. When something could not be read or believed, it is named and the exit code is 4.
    """
    from recoup.assembly.restore.windows import read_windows
    from recoup.cli.output import Output
    from recoup.cli.restore import open_readable
    from recoup.kernel.errors import UsageError

    output = Output(json=as_json)
    opened = open_readable(output, file, source, key_file)
    found = read_windows(opened, service)
    if service is not None and not found:
        raise UsageError(f"there is no service {service!r}", hint="`recoup windows` shows all of them.")
    for one in found:
        _show(output, one)
    output.document("windows", {"services": [_document(one) for one in found], "unreachable": list(opened.failed)})
    return Exit.UNKNOWN if opened.failed or any(one.problems for one in found) else Exit.OK


def _show(output: Any, one: ServiceWindows) -> None:
    output.line(f"{one.service} ({one.engine})")
    for window in one.windows:
        where = f"  {window.begin_position} to {window.end_position}" if window.begin_position else ""
        where += f", timeline {window.timeline}" if window.timeline is not None else ""
        copies = len(window.copies)
        output.line(f"  window  {_text(window.begin)} to {_text(window.end)}{where}")
        output.line(f"          from {copies} cop{'y' if copies == 1 else 'ies'}, the newest {window.copies[-1]}")
    for gap in one.gaps:
        until = _text(gap.end) if gap.end is not None else "now"
        positions = f"  {gap.begin_position} to {gap.end_position or 'the end'}" if gap.begin_position else ""
        output.line(f"  gap     {_text(gap.begin)} to {until}{positions}")
        output.line(f"          {gap.why}")
    shown = one.points[-_MOST_POINTS:]
    for point in reversed(shown):
        name = f"  {point.position}" if point.kind == "stack" else ""
        output.line(f"  point   {_text(point.at)}  {point.kind} {point.copy}{name}")
    if len(shown) < len(one.points):
        output.line(f"          and {len(one.points) - len(shown)} older; `recoup list {one.service} -n 0` shows all")
    if not (one.windows or one.points):
        output.line("  nothing: there is no copy of it")
    for problem in one.problems:
        output.note(f"{one.service}: {problem}")


def _text(instant: datetime | None) -> str:
    return "the beginning" if instant is None else f"{instant:%Y-%m-%d %H:%M:%SZ}"


def _document(one: ServiceWindows) -> dict[str, Any]:
    from recoup.kernel.clock import to_text

    def text(instant: datetime | None) -> str | None:
        return None if instant is None else to_text(instant)

    return {
        "service": one.service,
        "engine": one.engine,
        "windows": [
            {
                "begin": text(window.begin),
                "end": text(window.end),
                "begin_position": window.begin_position,
                "end_position": window.end_position,
                "timeline": window.timeline,
                "copies": list(window.copies),
            }
            for window in one.windows
        ],
        "points": [
            {"at": text(point.at), "copy": point.copy, "kind": point.kind, "position": point.position}
            for point in one.points
        ],
        "gaps": [
            {
                "begin": text(gap.begin),
                "end": text(gap.end),
                "begin_position": gap.begin_position,
                "end_position": gap.end_position,
                "timeline": gap.timeline,
                "why": gap.why,
            }
            for gap in one.gaps
        ],
        "problems": list(one.problems),
    }
