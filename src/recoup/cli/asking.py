"""Questions to the person at the terminal: asked on stderr, so that results stay alone on stdout."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from recoup.cli.output import without_bars

if TYPE_CHECKING:
    from recoup.assembly.voice import Ask
    from recoup.cli.output import Output
    from recoup.recovery.step import Step


def somebody_is_here() -> bool:
    """Whether a person can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def asking_person(output: Output) -> Ask:
    """Asks a person to do a step, and whether they did."""

    def ask(step: Step) -> bool | None:
        output.note(f"  for a person: {step.title}\n  {step.meaning}")
        with without_bars():
            answer = typer.prompt("  done, no, or skip", default="skip", err=True).strip().lower()
        return True if answer in ("done", "d", "yes", "y") else False if answer in ("no", "n") else None

    return ask


def yes_or_no(question: str) -> bool:
    """Ask; only a yes is one."""
    with without_bars():
        return typer.confirm(question, default=False, err=True)


def typed(question: str, wanted: str, *, tries: int = 3) -> bool:
    """Whether the person types ``wanted``. An empty line is a no; anything else is asked again."""
    for _ in range(tries):
        with without_bars():
            said = typer.prompt(question, default="", show_default=False, err=True).strip()
        if said == wanted:
            return True
        if not said:
            return False
        typer.echo(f"  that is {said!r}, and not {wanted!r}", err=True)
    return False
