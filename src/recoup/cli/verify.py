"""``recoup verify``: prove copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from recoup.cli.options import FileOption, FromOption, JsonOption, KeyFileOption, QuietOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.assembly.access import Readable
    from recoup.assembly.system import System
    from recoup.cli.output import Output
    from recoup.plan.proving import Budget


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "verify",
        verify,
        examples=(
            "recoup verify                       # the newest copy of every service and kind",
            "recoup verify 20261123-020000-k7f3q2 --grade same    # restored into a sandbox, and compared",
            "recoup verify --all --grade stored  # everything is where it should be",
            "recoup verify --all --sample 5%     # reads what was not read for the longest time",
        ),
    )


def verify(
    reference: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="An id, part of one, or latest. Default: the newest of each.")
    ] = None,
    service: Annotated[str | None, typer.Option(help="Only of this service.")] = None,
    grade: Annotated[
        Literal["stored", "intact", "boots", "sound", "same", "works"] | None,
        typer.Option(help="How far to go. Default: intact.", show_default=False),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every artefact there is.")] = False,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE|PERCENT",
            help="Read only so much, such as 20GB or 5%: the bytes that were not read for the longest time.",
        ),
    ] = None,
    rhythm: Annotated[
        Literal["daily", "weekly", "monthly", "slice"] | None,
        typer.Option(help="As the plan says under verify.daily and so on, and note down that it was done."),
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long it may take in all. Default: the plan's budget.")
    ] = None,
    disk: Annotated[
        str | None, typer.Option(metavar="SIZE", help="The room a restored copy may take. Default: the plan's budget.")
    ] = None,
    processors: Annotated[
        int | None, typer.Option(min=1, max=1024, help="On how many processors it runs at most.")
    ] = None,
    source: FromOption = None,
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Verify artefacts, each grade including the ones before it.

    stored: all objects are there, in every repository. intact: every byte was read, matched, decrypted and
    decompressed, and the content is what it says. boots: restored into a closed sandbox and started there. sound: no
    damage inside. same: it holds the data that was copied. works: the plan's checks hold. Exit code 3 when something is
    bad, 4 when something could not be checked. What was not checked is said, and when the proof expires.
    """
    from recoup.assembly.access import open_for_reading
    from recoup.cli.output import Output

    output = Output(json=as_json, quiet=quiet)
    budget = _budget(time, disk, processors)
    if rhythm is not None:
        from recoup.assembly.system import System
        from recoup.cli.verify_rhythm import verify_rhythm

        _check_alone(
            {"ID": reference, "--service": service, "--grade": grade, "--all": everything, "--sample": sample,
             "--from": source, "--key-file": key_file}
        )  # fmt: skip
        return verify_rhythm(System.from_file(file), rhythm, output, budget)
    opened = open_for_reading(file, source, key_file)
    if sample is not None:
        from recoup.cli.verify_rhythm import verify_sample

        if grade not in (None, "stored"):
            _refuse("--sample reads bytes and proves no grade", "Leave out --grade, or --sample.")
        return verify_sample(opened, reference, service, sample, output, budget, everything=everything)
    return _verify(opened, reference, service, grade or "intact", output, budget, everything=everything)


def _verify(
    opened: Readable,
    reference: str | None,
    service: str | None,
    grade: str,
    output: Output,
    budget: Budget,
    *,
    everything: bool,
) -> Exit:
    from recoup.assembly.prove.copies import choose
    from recoup.assembly.prove.live import allow
    from recoup.assembly.prove.run import verify_all
    from recoup.cli.verify_words import document, say_each, say_rest
    from recoup.verification.grade import Grade

    chosen = choose(opened, reference, service=service, everything=everything)
    allowed = allow(plan_budget(opened.system, budget))
    outcomes = verify_all(opened, chosen, Grade(grade), allowed, lambda one: say_each(output, one))
    say_rest(output, opened, outcomes)
    output.document("verify", document(opened, outcomes))
    return outcomes.exit_code


def plan_budget(system: System | None, given: Budget | None) -> Budget:
    """What a verification may take: what the plan says, but for what was given."""
    from recoup.plan.proving import Budget

    planned = Budget() if system is None else system.plan.verify.budget
    if given is None:
        return planned
    chosen = {"time": given.time, "disk": given.disk, "processors": given.processors}
    return planned.model_copy(update={name: value for name, value in chosen.items() if value is not None})


def _budget(time: str | None, disk: str | None, processors: int | None) -> Budget:
    from recoup.kernel.units import parse_duration, parse_size
    from recoup.plan.proving import Budget

    try:
        return Budget.model_construct(
            time=None if time is None else parse_duration(time),
            disk=None if disk is None else parse_size(disk),
            processors=processors,
        )
    except ValueError as wrong:
        _refuse(str(wrong), "For example: --time 30m --disk 20GB.")
        raise AssertionError("unreachable") from wrong


def _check_alone(others: dict[str, object]) -> None:
    for name, value in others.items():
        if value:
            _refuse(f"the plan says what --rhythm looks at, so it does not go with {name}", "Leave one of them out.")


def _refuse(what: str, hint: str) -> None:
    from recoup.kernel.errors import UsageError

    raise UsageError(what, hint=hint)
