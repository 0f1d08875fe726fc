"""``recoup recover``: bring production back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from recoup.cli.moment import ToTime
from recoup.cli.options import FileOption, FromOption, JsonOption, KeyFileOption, PlanOption, QuietOption, add_command
from recoup.kernel.errors import Exit


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "recover",
        recover,
        examples=(
            "recoup recover database-corruption --plan        # every step and its time; nothing is done",
            "recoup recover database-corruption               # does it; asks before anything is replaced",
            "recoup recover --resume                          # goes on after an interruption, a failure, a pause",
            "recoup recover --show                            # how far it is, from any terminal or machine",
            "recoup recover server-loss --from s3://bucket/shop --key-file recoup.key --destination /srv/shop",
            "recoup recover server-loss --kit recovery-kit.tar --host ssh://root@new-server   # from a laptop",
            "recoup recover --resume --skip health-api --because 'its probe is broken, the flows pass'",
            "recoup recover --rollback                        # puts back what was replaced",
            "recoup recover --close                           # all is well: ends the hold, removes what was set aside",
            "recoup recover server-loss --plan --format md > runbook.md",
        ),
    )


def recover(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="SITUATION|RUN",
            help="database-corruption, server-loss, redis-loss or application-loss; "
            "with --show, --resume, --close, --rollback, --abandon: a run, by default the newest.",
            show_default=False,
        ),
    ] = None,
    dry_run: PlanOption = False,
    form: Annotated[
        Literal["text", "md", "json"], typer.Option("--format", help="Of --plan: text, Markdown to print, JSON.")
    ] = "text",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was interrupted.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Show how far a run is, or how it went.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Agree to what replaces nothing: stopping and starting.")] = False,
    confirm: Annotated[
        str | None, typer.Option(metavar="NAME", help="The name of the system: agree to what replaces data.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Leave a step out; needs --because.", show_default=False)
    ] = None,
    because: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Why, for --skip and --abandon; it is written down.")
    ] = None,
    pause_before: Annotated[
        str | None, typer.Option("--pause-before", metavar="STEP", help="Stop in front of a step.")
    ] = None,
    service: Annotated[
        list[str] | None, typer.Option(help="Only this database; default: what the situation hurts.")
    ] = None,
    to_time: ToTime = None,
    destination: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="On a new machine: where the stack shall live.")
    ] = None,
    detected: Annotated[
        str | None, typer.Option(metavar="TIME", help="When it was first seen; the RTO counts from then.")
    ] = None,
    install: Annotated[bool, typer.Option("--install", help="On a new machine: install what is missing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where the symptoms do not fit, or data are of another origin.")
    ] = False,
    as_name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Who acts and agrees; default: this login.")
    ] = None,
    close: Annotated[
        bool, typer.Option("--close", help="End it: all is well, nothing is kept aside any more.")
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="With --close: leave what was set aside where it is.")] = False,
    rollback: Annotated[bool, typer.Option("--rollback", help="Put back what was replaced.")] = False,
    abandon: Annotated[bool, typer.Option("--abandon", help="Give a run up as it is; needs --because.")] = False,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="From who is surely dead, or from another copy of the journal.")
    ] = False,
    kit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The recovery kit: repository, key, credentials.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(metavar="ssh://USER@HOST", help="Do it on that server, from here, by SSH.")
    ] = None,
    no_provision: Annotated[
        bool, typer.Option("--no-provision", help="With --host: do not run the plan's provision command.")
    ] = False,
    source: FromOption = None,
    key_file: KeyFileOption = None,
    file: FileOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> Exit:
    """Bring production back: every step looks first, acts, looks again, and is written down.

    It shows what it will do, asks before anything is replaced, and keeps what it replaces until --close. Interrupted at
    any instant, the same command goes on. Exit code 0: users can work and that was proven; 1: a step failed; 3: it was
    done, and a check, a flow or a promise failed; 4: not finished, or not everything could be checked; 5: refused, or
    nobody was there to agree; 6: somebody else carries it out; 130: interrupted.
    """
    from recoup.cli.output import Output
    from recoup.cli.recover_asked import Asked, carry_out

    return carry_out(
        Output(json=as_json, quiet=quiet),
        Asked(
            what=what,
            dry_run=dry_run,
            form="json" if as_json else form,
            resume=resume,
            show=show,
            yes=yes,
            confirm=confirm,
            skip=tuple(skip or ()),
            because=because,
            pause_before=pause_before,
            services=tuple(service or ()),
            to_time=to_time,
            destination=destination,
            detected=detected,
            install=install,
            force=force,
            as_name=as_name,
            close=close,
            keep=keep,
            rollback=rollback,
            abandon=abandon,
            take_over=take_over,
            kit=kit,
            host=host,
            no_provision=no_provision,
            source=source,
            key_file=key_file,
            file=file,
        ),
    )
