"""The command line: which commands there are. Each has a file of its own with a ``register`` function.

To add a command: write ``cli/NAME.py`` with ``def register(app: typer.Typer) -> None`` that calls
``options.add_command``, and list the module below in the order in which the help shows it. Such a file imports only
what its signature needs; everything heavy is imported inside the command's function, so that ``--help`` stays fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

#: Each command and the module that registers it, in the order in which the help shows them.
COMMANDS = {
    "init": "recoup.cli.init",
    "check": "recoup.cli.check",
    "status": "recoup.cli.status",
    "diagnose": "recoup.cli.diagnose",
    "watch": "recoup.cli.watch",
    "backup": "recoup.cli.backup",
    "daemon": "recoup.cli.daemon",
    "list": "recoup.cli.catalog",
    "show": "recoup.cli.catalog",
    "windows": "recoup.cli.windows",
    "verify": "recoup.cli.verify",
    "restore": "recoup.cli.restore",
    "recover": "recoup.cli.recover",
    "drill": "recoup.cli.drill",
    "sync": "recoup.cli.sync",
    "prune": "recoup.cli.prune",
    "hold": "recoup.cli.hold",
    "plan": "recoup.cli.plan_command",
    "key": "recoup.cli.key",
    "kit": "recoup.cli.kit",
    "demo": "recoup.cli.demo",
}


def build(arguments: Sequence[str] | None = None) -> typer.Typer:
    """The application. Given the arguments of a call, only what they name: a known command need not wait for others."""
    word = next((one for one in arguments or () if not one.startswith("-")), None)
    wanted = [COMMANDS[word]] if word in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    app = typer.Typer(
        name="recoup",
        help="A disaster recovery plan that runs itself and proves itself.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback(epilog="\b\nStart with:\n  recoup init\n  recoup check\n  recoup backup")(_common)
    for module in wanted:
        import_module(module).register(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        from recoup.cli.output import write_out

        write_out(f"recoup {version('recoup')}\n")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks of internal errors (as RECOUP_DEBUG=1).")
    ] = False,
) -> None:
    pass
