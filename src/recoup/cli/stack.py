"""``recoup backup --stack`` and ``recoup restore --stack``: all services under one label."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.protect.copies import Options
    from recoup.assembly.protect.stack_points import StackTaken
    from recoup.assembly.restore.stack import FoundStack, StackJob
    from recoup.assembly.system import System
    from recoup.cli.output import Output
    from recoup.recovery.in_place import Consent
    from recoup.recovery.stack_in_place import StackRestored
    from recoup.repository.stack_points import StackPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of a restore that concern a stack point."""

    file: Path | None
    source: str | None
    key_file: Path | None
    destination: str | None
    without: tuple[str, ...]
    time: str | None = None  #: an instant instead of a point


def take_point(system: System, output: Output, name: str | None, options: Options, *, dry_run: bool) -> Exit:
    """Take a stack point, or show what it would consist of."""
    from recoup.assembly.protect.stack_points import default_name, take_stack_point, tasks_of
    from recoup.cli.backup import say_copy, severity, show_plan
    from recoup.kernel import clock
    from recoup.kernel.process import give_way
    from recoup.repository.stack_points import check_name

    name = check_name(default_name(clock.now()) if name is None else name)
    if dry_run:
        show_plan(output, [(one.service, one.kind) for one in tasks_of(system)], system)
        return Exit.OK
    give_way()  # production comes first
    with output.progress() as listener:
        taken = take_stack_point(system, name, options, listener, lambda copy: say_copy(output, copy))
    _say_taken(output, taken)
    return max(taken.exit_codes, key=severity)


def _say_taken(output: Output, taken: StackTaken) -> None:
    from recoup.cli.backup import copy_document

    copies = [copy_document(one) for one in taken.copies]
    if taken.point is None or taken.outcome is None:
        output.note(f"no stack point {taken.name}: {taken.why}" + (f"\nhint: {taken.hint}" if taken.hint else ""))
        if taken.not_taken:
            output.note(f"not copied any more: {', '.join(one.service for one in taken.not_taken)}")
        output.document("stack-point", {"name": taken.name, "point": None, "why": taken.why, "copies": copies})
        return
    for repository, error in taken.outcome.failed.items():
        output.note(f"stack point {taken.name}: not in {repository}: {error}")
    where = ", ".join(taken.outcome.stored_in)
    output.line(f"stack point {taken.name}  {taken.point.id}  in {where}  {distance(taken.point)}")
    for what, why in taken.point.left_out:
        output.note(f"left out: {what}: {why}")
    output.document(
        "stack-point",
        {
            "name": taken.name,
            "point": point_document(taken.point),
            "repositories": list(taken.outcome.stored_in),
            "copies": copies,
        },
    )


def distance(point: StackPoint) -> str:
    """How far apart the states of the databases are at most, in words."""
    apart = point.apart
    if apart is None:
        return "one database"
    return f"databases at most {apart // timedelta(milliseconds=1)} ms apart"


def point_document(point: StackPoint) -> dict[str, Any]:
    """A stack point as JSON."""
    from recoup.kernel import clock

    apart = point.apart
    return {
        "id": point.id,
        "name": point.name,
        "begun": clock.to_text(point.begun),
        "ended": clock.to_text(point.ended),
        "apart_ms": None if apart is None else apart // timedelta(milliseconds=1),
        "members": [
            {
                "service": one.service,
                "kind": one.kind,
                "artefact": one.artefact,
                "way": one.way,
                "moment": clock.to_text(one.moment),
                "earliest": clock.to_text(one.earliest or one.moment),
                "position": dict(one.position),
            }
            for one in point.members
        ],
        "left_out": [list(one) for one in point.left_out],
    }


def restore_to_point(
    output: Output,
    reference: str | None,
    asked: Asked,
    others: Mapping[str, object],
    consent: Consent,
    *,
    dry_run: bool,
) -> Exit:
    """Bring all services back to a stack point, or show the steps. ``others`` are options that do not go with it."""
    from recoup.assembly.restore.stack import StackJob, drifted, find_instant, find_stack, prepare, restore_point
    from recoup.cli.restore import open_readable
    from recoup.kernel.errors import UsageError
    from recoup.kernel.finding import exit_code, overall
    from recoup.recovery.instant import parse_instant

    if reference is None:
        raise UsageError(
            "restore what?", hint="Give an id, latest or a file; or --stack NAME for all services together."
        )
    for name, value in others.items():
        if value is not None:
            raise UsageError(
                f"--stack is of all services, so it does not go with {name}", hint="Leave one of them out."
            )
    opened = open_readable(output, asked.file, asked.source, asked.key_file)
    if asked.time is None:
        found = find_stack(opened, reference, asked.without)
    else:
        zone = "UTC" if opened.system is None else opened.system.plan.timezone
        instant = None if asked.time == "latest" else parse_instant(asked.time, zone)
        found = find_instant(opened, instant, asked.without)
    with output.progress() as listener, contextlib.ExitStack() as scope:
        job = StackJob(
            opened=opened,
            found=found,
            destination=asked.destination,
            consent=consent,
            command=_command(reference, asked),
            say=output.note,
            on_progress=listener,
        )
        if dry_run:
            _show_steps(output, job, [one.text for one in prepare(job, scope).steps()])
            return Exit.OK
        done = restore_point(job)
    notes = (*dict.fromkeys(done.notes), *drifted(job))
    _say_restored(output, found, done, notes)
    return exit_code(overall(done.findings)) if done.findings else Exit.OK


def _command(reference: str, asked: Asked) -> str:
    words = ["recoup", "restore", "--stack", reference]
    words += [] if asked.time is None else ["--to-time", f"'{asked.time}'"]
    words += [word for name in asked.without for word in ("--without", name)]
    words += ["--destination", asked.destination] if asked.destination is not None else []
    return " ".join(words)


def _target(found: FoundStack) -> str:
    if found.point is None:
        return "the stack as far as there is anything" if found.name == "latest" else f"the stack as of {found.name}"
    return f"the stack point {found.name} ({found.point.id}), {distance(found.point)}"


def _show_steps(output: Output, job: StackJob, texts: list[str]) -> None:
    point = job.found.point
    output.line(f"would restore {_target(job.found)}:")
    for number, text in enumerate(texts, start=1):
        output.line(f"{number:>3}. {text}")
    document = None if point is None else point_document(point)
    output.document("restore-stack-plan", {"point": document, "to": job.found.name, "steps": texts})


def _say_restored(output: Output, found: FoundStack, done: StackRestored, notes: tuple[str, ...]) -> None:
    from recoup.cli.documents import finding_document
    from recoup.cli.restore import say_findings
    from recoup.kernel.units import show_duration

    services = ", ".join(found.services)
    output.line(f"restored {_target(found)}: {services}, in {show_duration(done.seconds)}")
    for service, where in done.kept.items():
        output.line(f"what was replaced of {service} is kept: {where}")
    for note in notes:
        output.line(note)
    if done.running:
        output.line(f"running again: {', '.join(done.running)}")
    say_findings(output, done.findings)
    output.document(
        "restore-stack",
        {
            "point": None if found.point is None else point_document(found.point),
            "to": found.name,
            "without": list(found.without),
            "kept": dict(done.kept),
            "running": list(done.running),
            "notes": list(notes),
            "seconds": round(done.seconds, 3),
            "findings": [finding_document(one) for one in done.findings],
        },
    )
