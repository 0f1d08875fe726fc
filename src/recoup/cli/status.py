"""``recoup status``: how everything stands, on one screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recoup.cli.options import FileOption, JsonOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.system import System
    from recoup.cli.output import Output


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "status",
        status,
        examples=(
            "recoup status",
            "recoup status --html /var/www/status/index.html    # a page that needs no server",
            "recoup status --metrics /var/lib/node_exporter/textfile/recoup.prom",
        ),
    )


def status(
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a self-contained page as well.")] = None,
    metrics: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a file for node_exporter's textfile collector as well.")
    ] = None,
    announce: Annotated[
        bool,
        typer.Option("--announce", help="Tell the channels what is due and renew the heartbeat, as the daemon does."),
    ] = False,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> Exit:
    """Show how everything stands: what would be lost now, what is proven, what runs next, what is wrong.

    Exit code 3 when an objective is broken or an alarm is on, 4 when something could not be found out; what could be is
    shown all the same. Nothing is changed but notes in the state folder and the files that are asked for.
    """
    from recoup.assembly.system import System
    from recoup.assembly.watch.status import document
    from recoup.assembly.watch.status import status as look
    from recoup.cli.output import Output
    from recoup.kernel import clock
    from recoup.kernel.finding import exit_code

    output = Output(json=as_json)
    system = System.from_file(file)
    if announce:
        _announce(system, output)
    found = look(system, clock.now())
    said = document(found)
    if html is not None:
        from recoup.cli.status_page import write_page

        write_page(html, said)
    if metrics is not None:
        from recoup.assembly.watch.metrics import families, write_textfile

        write_textfile(metrics, families(found.survey, found.alarms))
    _show(output, said)
    output.document("status", said)
    return exit_code(found.verdict)


def _announce(system: System, output: Output) -> None:
    from recoup.assembly.watch.alarms import announce
    from recoup.kernel import clock

    done = announce(system, clock.now())
    if done.message is not None:
        output.note("the alarms were not taken: " + done.error if done.error else "the channels were told")
    for name, why in done.not_beating.items():
        output.note(f"{name}: the heartbeat was not taken: {why}")


def _show(output: Output, said: dict[str, Any]) -> None:
    from recoup.cli.status_words import ago, ahead, best, coverage, duration, proven, rehearsal, size

    at = said["at"]
    services = said["services"]
    rows = [
        (
            one["verdict"].upper() if one["verdict"] != "ok" else "ok",
            one["name"],
            duration(one["rto_seconds"]),
            duration(one["rpo_seconds"]),
            duration(one["rpo_now_seconds"]),
            duration(one["rpo_worst_seconds"]),
            ago(one["last_good"], at, one["verdict"]),
            proven(one["last_proven"], at, one["verdict"]),
            best(one["best_proof"], at),
            ahead([run["next"] for run in one["runs"]], at),
        )
        for one in services
    ]
    output.line(f"{said['system']}: {said['verdict'].upper() if said['verdict'] != 'ok' else 'ok'}, {at[:19]}Z")
    output.line()
    headings = (
        "",
        "SERVICE",
        "RTO",
        "RPO",
        "LOST NOW",
        "WORST 30 D",
        "LAST GOOD",
        "LAST PROVEN",
        "BEST PROOF",
        "NEXT RUN",
    )
    output.table(headings, rows)
    _show_streams(output, services)
    output.line()
    places = [
        (
            "ok" if one["error"] is None else "UNKNOWN",
            one["name"],
            size(one["used_bytes"]),
            "" if one["bytes_per_day"] is None else f"{size(one['bytes_per_day'])}/d",
            size(one["free_bytes"]) if one["free_bytes"] is not None else "",
            "" if one["full_in_days"] is None else f"{one['full_in_days']:.0f} d",
            one["error"] or one["address"],
        )
        for one in said["repositories"]
    ]
    output.table(("", "REPOSITORY", "USED", "GROWS", "FREE", "FULL IN", "WHERE"), places)
    for sentence in (coverage(said["coverage"], at), rehearsal(said["plan"], at)):
        if sentence is not None:
            output.line()
            output.line(sentence)
    if said["daemon"]["state"] != "never":
        output.line()
        output.line(f"daemon: {said['daemon']['state']}")
    for alarm in said["alarms"]:
        word = "UNKNOWN" if alarm["verdict"] == "unknown" else alarm["severity"].upper()
        output.line()
        output.line(f"{word}: {alarm['what']}")
        output.line(f"  hint: {alarm['hint']}")


def _show_streams(output: Output, services: list[dict[str, Any]]) -> None:
    from recoup.cli.status_words import duration

    streams = [
        (
            one["name"],
            each["kind"],
            each["state"],
            duration(each["lag_seconds"]),
            each["position"] or "",
            each["gap"] or "",
        )
        for one in services
        for each in one["streams"]
    ]
    if streams:
        output.line()
        output.table(("STREAM OF", "KIND", "STATE", "BEHIND", "POSITION", "MISSING"), streams)
