"""``recoup drill``: rehearse a recovery in a sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.options import FileOption, FromOption, JsonOption, KeyFileOption, PlanOption, QuietOption, add_command
from recoup.kernel.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "drill",
        drill,
        examples=(
            "recoup drill                                # the situation that was rehearsed longest ago",
            "recoup drill --situation server-loss --from offsite --announce",
            "recoup drill --at '2026-11-23 14:05:00' --situation data-loss",
            "recoup drill --surprise                     # situation, time and who is absent by chance",
            "recoup drill --due                          # from cron: only when the plan's schedule says so",
            "recoup drill --plan                         # the steps, and nothing is done",
            "recoup drill --clean                        # what a killed drill has left",
            "recoup drill --list                         # those that were held, and how the plan stands",
            "recoup drill --show latest --html drill.html --pdf drill.pdf",
            "recoup drill --issues",
            'recoup drill --close 20261102-090000-aaaaaa.1 --because "a second disk" --proof disk.txt',
            "recoup drill --verify drill.json --public-key drills.pem   # needs neither plan nor key",
        ),
    )


def drill(
    situation: Annotated[
        str | None,
        typer.Option(
            metavar="SITUATION",
            help="server-loss, data-loss or database-corruption. Default: of the plan's, the one longest ago.",
            show_default=False,
        ),
    ] = None,
    source: FromOption = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Back to this instant; default: the newest there is.")
    ] = None,
    absent: Annotated[
        list[str] | None, typer.Option("--absent", metavar="ROLE", help="A role of the team that may not help.")
    ] = None,
    announce: Annotated[bool, typer.Option("--announce", help="Tell the team that it is a drill.")] = False,
    surprise: Annotated[bool, typer.Option("--surprise", help="Let chance choose; the seed is printed.")] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="The seed of an earlier surprise, again.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Only when the plan's schedule says so; for cron.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Only remove what killed drills have left.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the drills that were held.")] = False,
    show: Annotated[
        str | None, typer.Option(metavar="ID|latest", help="Show the report on a drill.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report, as one page.", show_default=False)
    ] = None,
    pdf: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report, as PDF (recoup[pdf]).", show_default=False)
    ] = None,
    issues: Annotated[bool, typer.Option("--issues", help="List the open issues of all drills.")] = False,
    close: Annotated[str | None, typer.Option(metavar="ISSUE", help="Close an issue, with a proof.")] = None,
    because: Annotated[str | None, typer.Option(metavar="TEXT", help="What was done about it.")] = None,
    proof: Annotated[
        str | None,
        typer.Option(metavar="FILE|ID", help="What shows it; default: the newest drill since that passed."),
    ] = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check the signature of a report.", show_default=False)
    ] = None,
    public_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Whose it must be; default: the plan's.", show_default=False)
    ] = None,
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
    dry_run: PlanOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Rehearse a recovery in an isolated test environment, and measure it.

    The stack is brought back from the repository alone, as the real thing would be, into a sandbox without a way out.
    Production is only looked at. The record of the drill is stored in the repositories; --list, --show and --issues
    tell of those that were held. A drill in which nothing would prove the data is refused.
    """
    from recoup.cli import drill_book
    from recoup.cli.drill_run import Asked, clean_up, run_drill
    from recoup.cli.output import Output

    output = Output(json=as_json, quiet=quiet)
    told = drill_book.Asked(
        listing=listing,
        show=show,
        html=html,
        pdf=pdf,
        issues=issues,
        close=close,
        because=because,
        proof=proof,
        verify=verify,
        public_key=public_key,
        file=file,
        source=source,
        key_file=key_file,
    )
    if told.tells():
        return drill_book.tell(output, told)
    if clean:
        return clean_up(output, file)
    asked = Asked(
        situation=situation,
        at=at,
        source=source,
        file=file,
        key_file=key_file,
        absent=tuple(absent or ()),
        announce=announce,
        surprise=surprise or seed is not None,
        seed=seed,
        due=due,
        dry_run=dry_run,
    )
    return run_drill(output, asked, lambda held: drill_book.write_latest(output, told, held))
