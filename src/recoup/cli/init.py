"""``recoup init``: the first plan of a system, its key, and the recovery kit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recoup.cli.options import JsonOption, PlanOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.cli.first_plan import Wanted
    from recoup.cli.output import Output
    from recoup.plan.guess import Inventory
    from recoup.plan.urls import VariableToSet
    from recoup.repository.seal import Key

Several = list[str]
FewFiles = list[Path]


def register(app: typer.Typer) -> None:
    """Add ``recoup init``."""
    add_command(
        app,
        "init",
        init,
        examples=(
            "recoup init  # in the folder of a Compose file",
            "recoup init --compose docker-compose.prod.yml --env-file .env.production --plan",
            "recoup init --repository /mnt/backups --repository s3://shop-backup/production",
            "recoup init --postgres postgresql://recoup@127.0.0.1:5432/shop --redis redis://127.0.0.1:6379/0",
        ),
    )


def init(
    file: Annotated[
        Path | None,
        typer.Option(
            "-f", "--file", metavar="FILE", help="The plan to write. Default: recoup.yaml here.", show_default=False
        ),
    ] = None,
    compose: Annotated[
        FewFiles | None,
        typer.Option(
            "--compose", metavar="FILE", help="A Compose file; may be repeated. Default: Compose's own names."
        ),
    ] = None,
    env_file: Annotated[
        FewFiles | None,
        typer.Option("--env-file", metavar="FILE", help="An env file of the Compose project; may be repeated."),
    ] = None,
    profile: Annotated[
        Several | None, typer.Option("--profile", metavar="NAME", help="A Compose profile that is on; may be repeated.")
    ] = None,
    postgres: Annotated[
        Several | None, typer.Option("--postgres", metavar="URL", help="A PostgreSQL server, without Compose.")
    ] = None,
    redis: Annotated[
        Several | None, typer.Option("--redis", metavar="URL", help="A Redis server, without Compose.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            "--system", metavar="NAME", help="What people call it. Default: the folder's name.", show_default=False
        ),
    ] = None,
    repository: Annotated[
        Several | None,
        typer.Option(
            "--repository",
            metavar="ADDRESS",
            help="Where copies go: a folder or s3://bucket/folder; may be repeated. Default: backups beside the plan.",
        ),
    ] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            "--key-file", metavar="FILE", help="The key. Default: recoup.key beside the plan.", show_default=False
        ),
    ] = None,
    as_json: JsonOption = False,
    dry_run: PlanOption = False,
) -> Exit:
    """Write recoup.yaml from what is found here, make the key, and print the recovery kit.

    Each guess is explained in a comment. Secrets are written as references only. A plan that exists is never
    overwritten, and neither is a key: one that is there is used.
    """
    from recoup.cli.first_plan import Wanted, check_nothing_is_lost, prepare
    from recoup.cli.output import Output
    from recoup.kernel.files import expanded

    path = Path.cwd() / (file or "recoup.yaml")
    wanted = Wanted(
        plan=path,
        key=path.parent / "recoup.key" if key_file is None else Path.cwd() / expanded(key_file),
        compose=tuple(compose or ()),
        env_files=tuple(env_file or ()),
        profiles=tuple(profile or ()),
        postgres=tuple(postgres or ()),
        redis=tuple(redis or ()),
        system=system,
        repositories=tuple(repository or ()),
    )
    check_nothing_is_lost(wanted)
    inventory, variables, text = prepare(wanted)
    output = Output(json=as_json)
    if dry_run:
        output.line(f"# would be written to {path}\n{text.rstrip()}")
        output.document("init", {"changed": False, "file": str(path), "text": text, **_found(inventory, variables)})
        return Exit.OK
    return _write(wanted, text, inventory, variables, output)


def _write(
    wanted: Wanted, text: str, inventory: Inventory, variables: tuple[VariableToSet, ...], output: Output
) -> Exit:
    from recoup.cli.first_plan import ignore_in_git, new_or_kept_key, write_plan
    from recoup.cli.kit import kit_document, kit_text

    key, kept = new_or_kept_key(wanted.key)
    write_plan(wanted.plan, text)
    ignored = ignore_in_git(wanted)
    _report(wanted, key, kept=kept, inventory=inventory, output=output)
    if ignored:
        output.line(f"{wanted.plan.parent / '.gitignore'}: added {', '.join(ignored)}")
    for variable in variables:
        output.line(
            f"set {variable.name} to {variable.meaning}: it was taken out of the address and is not in the plan"
        )
    output.line()
    output.line(kit_text(wanted.plan, key))
    output.line()
    output.line("Next: read the plan, then run `recoup check` and `recoup backup`.")
    content = {"changed": True, "file": str(wanted.plan), "ignored_by_git": ignored, **_found(inventory, variables)}
    key_content = {"file": str(wanted.key), "id": key.id, "kept": kept}
    output.document("init", {**content, "key": key_content, "kit": kit_document(wanted.plan, key)})
    return Exit.OK


def _report(wanted: Wanted, key: Key, *, kept: bool, inventory: Inventory, output: Output) -> None:
    output.line(f"wrote {wanted.plan}")
    output.table(
        ("service", "engine", "recognised by"),
        [
            (one.name, one.engine, "; ".join((*([one.image] if one.image else []), *one.reasons)))
            for one in inventory.services
        ],
    )
    for left_out in inventory.unprotected:
        output.line(f"NOT PROTECTED: {left_out}")
    for note in inventory.notes:
        output.line(f"note: {note}")
    output.line(f"{'kept' if kept else 'wrote'} {wanted.key} (key {key.id[:16]}, readable by its owner only)")


def _found(inventory: Inventory, variables: tuple[VariableToSet, ...]) -> dict[str, Any]:
    return {
        "system": inventory.system,
        "services": [
            {"name": one.name, "engine": one.engine, "compose": one.compose, "reasons": list(one.reasons)}
            for one in inventory.services
        ],
        "unprotected": [
            {"volume": one.volume, "used_by": list(one.used_by), "reason": one.reason} for one in inventory.unprotected
        ],
        "notes": list(inventory.notes),
        "variables": [{"name": one.name, "meaning": one.meaning} for one in variables],
    }
