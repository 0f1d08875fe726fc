"""``recoup demo``: lose and recover a sample production on this machine."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.options import add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.demo.production import Production


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "demo",
        demo,
        examples=(
            "recoup demo         # a minute; leaves nothing behind",
            "recoup demo --keep  # stays up until Ctrl-C, to try commands on",
        ),
    )


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Stay up at the end, for commands of your own.")] = False,
) -> Exit:
    """Lose a sample production and bring it back, with real servers on this machine.

    Starts PostgreSQL, Redis and an S3 service on the loopback (as an ordinary user, also for root), loads a
    marketplace, protects it into a folder and a bucket, deletes the data folders and the local copies, restores from
    the bucket alone, and compares everything with what was copied. Needs the extra recoup[demo].
    """
    from recoup.cli.output import Output
    from recoup.demo.story import tell

    output = Output()
    outcome = tell(output.line, afterwards=_stay if keep else None)
    return outcome.exit_code


def _stay(production: Production) -> None:
    from recoup.cli.output import Output

    output = Output()
    output.line()
    output.line("Everything stays up until Ctrl-C. In another terminal:")
    output.line(f"  cd {production.folder} && . ./environment")
    output.line("  recoup backup --new-repository local  # the local repository is gone: this begins a new one")
    output.line("  recoup list")
    output.line("  recoup verify")
    output.line("  recoup backup postgres --kind dump --format plain --compression gzip")
    output.line("  recoup restore latest --service postgres --kind base --from offsite --destination ./second")
    output.line(f"  {production.postgres.program('psql')} {production.psql_address}")
    try:
        signal.pause()
    except KeyboardInterrupt:
        output.line()
