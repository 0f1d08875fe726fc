"""``recoup key``: making, naming and checking the key of the backups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recoup.cli.options import FileOption, JsonOption, KeyFileOption, add_command, new_group
from recoup.kernel.errors import Exit


def register(app: typer.Typer) -> None:
    """Add ``recoup key generate|show-id|show-public|check|split|combine``."""
    from recoup.cli.key_shares import register_shares

    group = new_group(app, "key", "Make, name, check and share the key of the backups.")
    add_command(
        group,
        "generate",
        generate,
        examples=("recoup key generate recoup.key", "recoup key generate -  # to stdout, for a secret manager"),
    )
    add_command(
        group, "show-id", show_id, examples=("recoup key show-id", "recoup key show-id --key-file /mnt/usb/recoup.key")
    )
    add_command(
        group,
        "show-public",
        show_public,
        examples=("recoup key show-public > drills.pem", "recoup key show-public --key-file /mnt/usb/recoup.key"),
    )
    add_command(group, "check", check, examples=("recoup key check", "recoup key check --json"))
    register_shares(group)


def generate(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to write it; - for stdout.")] = "recoup.key",
    as_json: JsonOption = False,
) -> Exit:
    """Make a new random key of 256 bits.

    The file can be read by its owner only. A file that exists is never overwritten: what it opens would be lost.
    """
    from recoup.cli.key_file import write_new_key
    from recoup.cli.output import Output, write_out
    from recoup.kernel.errors import UsageError
    from recoup.repository.seal import Key

    output = Output(json=as_json)
    if file == "-":
        if as_json:
            raise UsageError("- and --json exclude each other", hint="A key never goes into a JSON document.")
        write_out(Key.generate().text.reveal() + "\n")
        return Exit.OK
    made = write_new_key(Path(file))
    output.line(f"{file}: key {made.id[:16]}, readable by its owner only")
    output.line("Keep a second copy where this machine's loss cannot reach it: without the key no backup can be read.")
    output.document("key", {"file": file, "id": made.id, "kind": "random"})
    return Exit.OK


def show_id(file: FileOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False) -> Exit:
    """Print the fingerprint of the key; compare it with the one in the recovery kit."""
    from recoup.cli.key_file import read_key
    from recoup.cli.output import Output

    made, source = read_key(file, key_file)
    output = Output(json=as_json)
    output.line(made.id[:16])
    output.document("key", {"source": source, "id": made.id, "kind": "random" if made.is_random else "passphrase"})
    return Exit.OK


def show_public(file: FileOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False) -> Exit:
    """Print the public key that checks the signatures of drills, in PEM.

    It is no secret, and opens no backup. Give it to who has to check the reports, on another way than the reports.
    """
    from recoup.cli.key_file import read_key
    from recoup.cli.output import Output
    from recoup.repository.signature import ALGORITHM, public_key

    made, source = read_key(file, key_file)
    public = public_key(made)
    output = Output(json=as_json)
    output.line(public.pem.rstrip())
    output.note(f"fingerprint {public}")
    output.document(
        "public-key",
        {"source": source, "id": made.id, "algorithm": ALGORITHM, "public_key": public.pem, "fingerprint": str(public)},
    )
    return Exit.OK


def check(file: FileOption = None, key_file: KeyFileOption = None, as_json: JsonOption = False) -> Exit:
    """Say whether the key is there, what kind it is, and whether others could read it.

    Ends with 12 when the key is missing or unreadable, and with 3 when it is there but not kept well.
    """
    from recoup.cli.key_file import read_key, weaknesses
    from recoup.cli.output import Output

    made, source = read_key(file, key_file)
    wrong = weaknesses(made, file, key_file)
    output = Output(json=as_json)
    kind = "random key of 256 bits" if made.is_random else "passphrase"
    output.line(f"key {made.id[:16]} from {source}: {kind}")
    for what in wrong:
        output.line(f"warning: {what}")
    content = {"source": source, "id": made.id, "kind": "random" if made.is_random else "passphrase"}
    output.document("key", {**content, "warnings": wrong})
    return Exit.BAD if wrong else Exit.OK
