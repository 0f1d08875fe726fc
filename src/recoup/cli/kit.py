"""``recoup kit``: what must be at hand, away from production, to bring it back on a new machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recoup.cli.options import FileOption, JsonOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.plan.load import LoadedPlan
    from recoup.repository.seal import Key
    from recoup.repository.shared_key import SharedKey


def register(app: typer.Typer) -> None:
    """Add the command."""
    add_command(
        app,
        "kit",
        kit,
        examples=(
            "recoup kit                                        # the page, to read; without secrets",
            "recoup kit --with-key --output /media/usb/kit     # the page to print, and the file; both open everything",
            "recoup kit --shares recoup-key-7f696eedcd3302bb-shares.txt --output kit    # after `recoup key split`",
        ),
    )


def kit(
    output_folder: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FOLDER",
            help="Write recovery-kit.md, .html (to print) and .tar (for Recoup) there; default: show the page.",
            show_default=False,
        ),
    ] = None,
    with_key: Annotated[
        bool,
        typer.Option("--with-key", help="Put the key and the repositories' credentials in; only with --output."),
    ] = False,
    shares: Annotated[
        Path | None,
        typer.Option(
            "--shares",
            metavar="FILE",
            help="The key is in shares: put in who has them, and the credentials; only with --output. FILE is the note "
            "of `recoup key split`.",
            show_default=False,
        ),
    ] = None,
    file: FileOption = None,
    as_json: JsonOption = False,
) -> Exit:
    """Make the recovery kit: one page for people and one file for Recoup, to be kept away from production.

    The page alone is enough to bring the stack back on a blank machine; the file saves the typing. Without --with-key
    the key and the credentials stay out of both, and have to be at hand as well. With --shares the page says who has to
    come together for the key, and what they type.
    """
    from recoup.assembly.recover.kit import kit_file, make_kit
    from recoup.assembly.recover.kit_page import kit_html, kit_markdown
    from recoup.assembly.recover.own_wheel import own_wheel
    from recoup.assembly.system import System
    from recoup.cli.output import Output

    _agree(with_key=with_key, shares=shares, output_folder=output_folder)
    shared = None if shares is None else _shared(shares)
    made = make_kit(System.from_file(file), with_key=with_key, shares=shared)
    wheel = own_wheel()
    name_of_wheel = None if wheel is None else wheel.name
    page = kit_markdown(made, name_of_wheel)
    output = Output(json=as_json)
    if output_folder is None:
        output.line(page.rstrip())
    else:
        parts = {
            "recovery-kit.md": page.encode(),
            "recovery-kit.html": kit_html(made, name_of_wheel).encode(),
            "recovery-kit.tar": kit_file(made, page, wheel),
        }
        _write(output_folder, parts)
        for name in parts:
            output.line(str(output_folder / name))
        output.line("Print the page, keep both away from this machine, and try them once: docs/how-to/recovery-kit.md.")
        if with_key:
            output.line("They open every backup. Whoever finds them can read everything.")
        if shared is not None:
            output.line(f"The key is not in them, the credentials are. {shared.needed} shares make it whole.")
    document = {name: value for name, value in made.document().items() if name not in ("schema", "key")}
    for one in document["repositories"]:
        one.pop("secret_key")
    files = [] if output_folder is None else sorted(parts)
    output.document("kit", {**document, "key": made.key, "with_key": with_key, "files": files})
    return Exit.OK


def _shared(note: Path) -> SharedKey:
    from recoup.cli.key_shares import read_share_file  # loads the words of shares, which no other kit needs

    return read_share_file(note).of


def _agree(*, with_key: bool, shares: Path | None, output_folder: Path | None) -> None:
    from recoup.kernel.errors import UsageError

    if with_key and shares is not None:
        raise UsageError(
            "--with-key and --shares exclude each other", hint="A kit with the key makes its shares worth nothing."
        )
    if output_folder is None and (with_key or shares is not None):
        option = "--with-key" if with_key else "--shares"
        raise UsageError(f"{option} needs --output FOLDER", hint="A key or a credential is not shown on a screen.")


def _write(folder: Path, parts: dict[str, bytes]) -> None:
    from recoup.kernel.errors import RecoupError
    from recoup.kernel.files import write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, data in parts.items():
            write_atomically(folder / name, data)
    except OSError as failure:
        raise RecoupError(
            f"cannot write the kit into {folder}: {failure.strerror}", hint="Name a folder that you may write."
        ) from failure


def kit_document(plan_file: Path, key: Key) -> dict[str, Any]:
    """What ``recoup init`` says of the kit: repositories, the key's fingerprint, the commands for a new machine."""
    from recoup.plan.load import load

    loaded = load(plan_file)
    addresses = _addresses(loaded)
    return {
        "system": loaded.plan.system,
        "repositories": addresses,
        "only_on_this_machine": not any(address.startswith("s3://") for address in addresses.values()),
        "key": key.id[:16],
        "commands": _commands(addresses, loaded),
        "afterwards": _afterwards(loaded),
    }


def kit_text(plan_file: Path, key: Key) -> str:
    """The kit in short, as ``recoup init`` prints it."""
    kit = kit_document(plan_file, key)
    width = max(len(name) for name in kit["repositories"])
    lines = [
        f"RECOVERY KIT of {kit['system']} - print it and keep it away from this machine (all of it: recoup kit)",
        "",
        "  Repositories (the first is the primary):",
        *(f"    {name.ljust(width)}  {address}" for name, address in kit["repositories"].items()),
        f"  Key fingerprint:  {kit['key']}",
        "",
        "  On a new machine:",
        *(f"    {command}" for command in kit["commands"]),
        *(["  Then, with the key beside the plan that was restored:"] if kit["afterwards"] else []),
        *(f"    {command}" for command in kit["afterwards"]),
        "",
        "Keep the key file elsewhere too, in a password manager or on paper: whoever loses it loses every backup.",
    ]
    if kit["only_on_this_machine"]:
        lines.append("No repository is off this machine: losing it loses the backups. Add an S3 bucket to the plan.")
    return "\n".join(lines)


def _addresses(loaded: LoadedPlan) -> dict[str, str]:
    resolver = loaded.resolver()
    found = {}
    for name, repository in loaded.plan.repositories.items():
        if repository.path is not None:
            path = repository.path
            found[name] = str(path) if path.variables else str(resolver.path(path))
        else:
            found[name] = str(repository.url)
    return found


def _commands(addresses: dict[str, str], loaded: LoadedPlan) -> list[str]:
    from recoup import __version__
    from recoup.plan.services import FilesService

    # An address that a new machine can reach is worth more than the primary one.
    remote = next((one for one in addresses.values() if one.startswith("s3://")), None)
    address = shlex.quote(remote or next(iter(addresses.values())))
    services = [name for name, service in loaded.plan.services.items() if isinstance(service, FilesService)]
    first = services[0] if services else next(iter(loaded.plan.services))
    last = (
        f"recoup recover server-loss --from {address} --key-file recoup.key"
        if loaded.plan.compose is not None and services
        else f"recoup restore latest --service {first} --from {address} --key-file recoup.key --destination restored"
    )
    return [
        f"pipx install /PATH/TO/recoup    # its checkout, or the wheel built from it: {__version__} or newer",
        "install -m 600 /PATH/TO/YOUR/COPY/OF/recoup.key recoup.key",
        last,
    ]


def _afterwards(loaded: LoadedPlan) -> list[str]:
    from recoup.plan.services import FilesService, PostgresService, RedisService

    if loaded.plan.compose is not None and any(isinstance(one, FilesService) for one in loaded.plan.services.values()):
        return []  # the one command does it
    # The kind is written out: the newest copy of a PostgreSQL may be a dump, which needs a server that runs already.
    commands = []
    for name, service in loaded.plan.services.items():
        if isinstance(service, PostgresService):
            kind = "base" if service.compose is not None else "dump"  # by its address, only a dump can be put in place
            commands.append(f"recoup restore latest --service {name} --kind {kind}")
        elif isinstance(service, RedisService):
            commands.append(f"recoup restore latest --service {name}")
    return commands
