"""The options that commands share, and how a command is added with its examples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

FileOption = Annotated[
    Path | None,
    typer.Option(
        "-f",
        "--file",
        metavar="FILE",
        help="The plan. Default: $RECOUP_FILE, else recoup.yaml here or in a folder above.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document with a schema field.")]
PlanOption = Annotated[bool, typer.Option("--plan", "--dry-run", help="Show what would be done; change nothing.")]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="REPOSITORY",
        help="One repository: its name in the plan, or a folder or s3://bucket/folder (then no plan is needed).",
    ),
]
KeyFileOption = Annotated[
    Path | None, typer.Option("--key-file", metavar="FILE", help="The key, instead of the plan's.", show_default=False)
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but results and errors.")]


def add_command(
    app: typer.Typer, name: str, function: Callable[..., Any], *, examples: tuple[str, ...], hidden: bool = False
) -> None:
    """Add ``function`` to ``app`` as the command ``name``. Its docstring is the help; it returns an ``Exit`` or None.

    ``examples`` are command lines, each with an optional ``  # remark``; they end the help and the reference page.
    """
    # \b keeps the line breaks of the paragraph that follows
    epilog = "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
    app.command(name, epilog=epilog, hidden=hidden, short_help=_first_sentence(function))(function)


def new_group(app: typer.Typer, name: str, text: str) -> typer.Typer:
    """A group of commands (``recoup key …``), added to ``app``. ``text`` is its help."""
    group = typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None, add_completion=False)
    app.add_typer(group, name=name)
    return group


def _first_sentence(function: Callable[..., Any]) -> str:
    return (function.__doc__ or "").strip().split("\n", 1)[0].rstrip(".")
