"""``recoup plan``: what the plan file says, whether it is right, and its schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.options import FileOption, JsonOption, add_command, new_group
from recoup.kernel.errors import Exit


def register(app: typer.Typer) -> None:
    """Add ``recoup plan show|check|schema``."""
    group = new_group(app, "plan", "Show and check the plan file, recoup.yaml.")
    add_command(group, "show", show, examples=("recoup plan show", "recoup plan show --json -f /etc/recoup/shop.yaml"))
    add_command(group, "check", check, examples=("recoup plan check", "recoup plan check -f recoup.yaml --json"))
    add_command(
        group,
        "schema",
        schema,
        examples=("recoup plan schema > recoup.schema.json", "recoup plan schema -o recoup.schema.json"),
    )


def show(file: FileOption = None, as_json: JsonOption = False) -> Exit:
    """Print the effective plan: with all defaults, without secrets.

    References such as ${REDIS_PASSWORD} are shown as they are written, never what they stand for.
    """
    from recoup.cli.output import Output, write_out
    from recoup.plan.load import find, load
    from recoup.plan.show import redacted, to_yaml

    loaded = load(find(file))
    data = redacted(loaded.plan)
    if not as_json:
        write_out(f"# {loaded.file}, with defaults\n{to_yaml(data)}")
    Output(json=as_json).document("plan", {"file": str(loaded.file), "plan": data})
    return Exit.OK


def check(file: FileOption = None, as_json: JsonOption = False) -> Exit:
    """Say whether the plan file is well formed; list all that is wrong with file:line:column.

    This reads the file only. `recoup check` looks at the servers and repositories as well.
    """
    from recoup.cli.output import Output
    from recoup.plan.load import find, load

    loaded = load(find(file))
    plan, output = loaded.plan, Output(json=as_json)
    services, repositories = list(plan.services), list(plan.repositories)
    output.line(f"{loaded.file} is a plan of {plan.system}")
    output.line(f"services:     {', '.join(services)}")
    output.line(f"repositories: {', '.join(repositories)}")
    output.line("The file is well formed; `recoup check` tells whether a recovery would work.")
    summary = {"system": plan.system, "services": services, "repositories": repositories}
    output.document("plan-check", {"file": str(loaded.file), **summary})
    return Exit.OK


def schema(
    to: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write it there instead of to stdout.", show_default=False),
    ] = None,
) -> Exit:
    """Print the JSON Schema of recoup.yaml, for completion and checks in an editor."""
    from recoup.cli.output import write_out
    from recoup.kernel.errors import RecoupError
    from recoup.kernel.files import write_atomically
    from recoup.plan.schema import shipped

    if to is None:
        write_out(shipped())
        return Exit.OK
    try:
        write_atomically(to, shipped().encode(), mode=0o644)
    except OSError as failure:
        raise RecoupError(
            f"cannot write {to}: {failure.strerror}", hint="Name a file in a folder that exists."
        ) from failure
    return Exit.OK
