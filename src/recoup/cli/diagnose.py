"""``recoup diagnose``: something is wrong. What happened, and what to type."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from recoup.cli.options import FileOption, JsonOption, QuietOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.recover.runs import RunSeen
    from recoup.recovery.diagnosis import Advice, Diagnosis, Seen

_WORDS = {
    "server-loss": "the server's data are gone",
    "database-corruption": "a database is damaged",
    "data-loss": "data are lost",
    "redis-loss": "Redis lost its data",
    "application-loss": "an application does not work",
    "stopped": "something is stopped, and nothing is lost",
    "nothing": "nothing is wrong that could be seen",
    "unknown": "not everything could be looked at",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "diagnose",
        diagnose,
        examples=("recoup diagnose", "recoup diagnose --json"),
    )


def diagnose(file: FileOption = None, as_json: JsonOption = False, quiet: QuietOption = False) -> Exit:
    """Look at every service, say what happened, and what to type. Changes nothing.

    What is stopped is told apart from what is lost. Exit code 0 when nothing is wrong, 3 when something is, 4 when it
    could not be found out.
    """
    from recoup.assembly.recover.likely import with_likely
    from recoup.assembly.recover.runs import local_runs, under_way
    from recoup.assembly.system import System
    from recoup.assembly.watch.symptoms import look_at_services
    from recoup.cli.output import Output
    from recoup.kernel import clock
    from recoup.kernel.finding import exit_code
    from recoup.recovery.diagnosis import diagnose as judge

    output = Output(json=as_json, quiet=quiet)
    system = System.from_file(file)
    seen = []
    for one in look_at_services(system, clock.now()):
        seen.append(one)
        output.line(f"{one.verdict.value:<8} {one.service}: {_seen(one)}")
    found = with_likely(judge(seen), file)
    run = under_way(local_runs(system.state_folder))
    found = replace(found, advice=_typed(found, run, file))
    _say(output, found, run)
    output.document("diagnose", {**_document(seen, found, file), "under_way": None if run is None else run.run})
    return exit_code(found.verdict)


def _seen(one: Seen) -> str:
    if one.damage or one.wrong or one.unasked:
        return "; ".join((*one.damage, *one.wrong, *one.unasked))
    if one.detail and (one.answers is not True or one.data not in ("there", "unknown")):
        return one.detail
    if one.engine == "files":
        return "its paths are there"
    return "it answers" + ("" if one.data != "there" else ", and its data are those that were copied")


def _of(file: Path | None) -> str:
    """The option that names the plan again, where it was named."""
    return "" if file is None else f" -f {shlex.quote(str(file))}"


def _typed(found: Diagnosis, run: RunSeen | None, file: Path | None) -> tuple[Advice, ...]:
    """What to type, from here: in the middle of a recovery first a look at it, and all of it with the plan's file."""
    from recoup.recovery.diagnosis import Advice

    where = _of(file)
    looking = Advice(command="recoup recover --show", meaning="What the recovery has stopped, it starts again itself.")
    return tuple(
        replace(one, command=one.command + where) if one.command.startswith("recoup ") else one
        for one in (*([] if run is None else [looking]), *found.advice)
    )


def _say(output: Any, found: Diagnosis, run: RunSeen | None) -> None:
    from recoup.kernel.units import show_duration

    output.line("")
    if run is not None:
        situation = "" if run.progress is None else f" from {run.progress.situation}"
        output.line(f"a recovery{situation} is under way, run {run.run}: what is seen may be its work")
    word = "" if found.situation in ("nothing", "unknown", "stopped") else f"{found.situation}: "
    output.line(f"{word}{_WORDS[found.situation]}")
    for reason in found.because:
        output.line(f"  {reason}")
    if found.situation in ("nothing", "stopped", "unknown"):
        pass
    elif found.loss is not None:
        output.line(f"  going back loses about {show_duration(found.loss)} of {', '.join(found.concerned)}")
    if found.recover is not None:
        output.line(f"  until users are back: {_likely(found)}")
    if found.advice:
        output.line("what to type:")
    for number, advice in enumerate(found.advice, start=1):
        output.line(f"  {number}. {advice.command}")
        output.line(f"     {advice.meaning}")


def _likely(found: Diagnosis) -> str:
    from recoup.kernel.units import show_duration

    if found.likely is None:
        return "how long is not known; nothing like it was rehearsed or done yet"
    if found.unmeasured:
        return f"more than {show_duration(found.likely)}; {found.unmeasured} of its steps were never measured"
    return f"likely {show_duration(found.likely)}, by drills and earlier recoveries"


def _document(seen: list[Seen], found: Diagnosis, file: Path | None) -> dict[str, Any]:
    return {
        "verdict": found.verdict.value,
        "situation": found.situation,
        "because": list(found.because),
        "concerned": list(found.concerned),
        "loss_seconds": None if found.loss is None else found.loss.total_seconds(),
        "recover": None
        if found.recover is None
        else {
            "situation": found.recover.situation,
            "services": list(found.recover.services),
            "command": found.recover.command + _of(file),
            "likely_seconds": None if found.likely is None else found.likely.total_seconds(),
            "steps_unmeasured": found.unmeasured,
        },
        "advice": [{"command": one.command, "meaning": one.meaning} for one in found.advice],
        "services": [
            {
                "service": one.service,
                "verdict": one.verdict.value,
                "answers": one.answers,
                "container": one.state,
                "data": one.data,
                "damage": list(one.damage),
                "wrong": list(one.wrong),
                "unasked": list(one.unasked),
                "detail": one.detail,
            }
            for one in seen
        ],
    }
