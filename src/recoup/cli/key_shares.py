"""``recoup key split`` and ``recoup key combine``: a key that no single person and no single drawer has."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recoup.cli.options import FileOption, JsonOption, KeyFileOption, add_command
from recoup.kernel.errors import Exit

if TYPE_CHECKING:
    from recoup.cli.output import Output
    from recoup.repository.key_share_text import Read
    from recoup.repository.key_shares import Given, Share
    from recoup.repository.seal import Key
    from recoup.repository.shared_key import SharedKey


def register_shares(group: typer.Typer) -> None:
    """Add the two commands to ``recoup key``."""
    add_command(
        group,
        "split",
        split,
        examples=(
            "recoup key split --output shares    # three files, of which any two give the key back",
            "recoup key split --need 3 --shares 5 --output /media/usb/shares",
            "recoup key split --holder Ana --holder Ben --holder 'safe in the office' --output shares",
        ),
    )
    add_command(
        group,
        "combine",
        combine,
        examples=(
            "recoup key combine --key-id 7f696eedcd3302bb --output recoup.key    # asks for the words of the shares",
            "recoup key combine ana.txt ben.txt --output recoup.key",
            "recoup key combine ana.txt ben.txt --check    # a rehearsal: writes nothing",
        ),
    )


def split(
    needed: Annotated[int, typer.Option("--need", metavar="N", help="How many shares give the key back.")] = 2,
    count: Annotated[int, typer.Option("--shares", metavar="N", help="How many shares to make, 16 at most.")] = 3,
    holder: Annotated[
        list[str] | None,
        typer.Option(
            "--holder", metavar="NAME", help="Who gets a share, or where it lies; once for each.", show_default=False
        ),
    ] = None,
    output_folder: Annotated[
        Path, typer.Option("-o", "--output", metavar="FOLDER", help="Where to write them.")
    ] = Path("key-shares"),
    file: FileOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> Exit:
    """Split the key into shares, of which any few together give it back and fewer tell nothing.

    Writes a text for each holder, to be printed, and a note for `recoup kit --shares`, which is no secret. What was
    written is read again, and the key brought together from it, before this says that it is done.
    """
    from recoup.cli.key_file import read_key
    from recoup.cli.output import Output
    from recoup.kernel.errors import UsageError
    from recoup.repository import key_share_text, key_shares
    from recoup.repository.shared_key import SharedKey

    key, source = read_key(file, key_file)
    holders = tuple(key_share_text.check_holder(one) for one in holder or ())
    if holders and len(holders) != count:
        raise UsageError(
            f"there are {count} shares and {len(holders)} holders", hint="Give --holder once for each share, or never."
        )
    made = key_shares.split(key, needed=needed, count=count)
    of = SharedKey(key=key.id[:16], set=made[0].set, needed=needed, count=count, holders=holders)
    files = _write_shares(output_folder, of, made)
    output = Output(json=as_json)
    for number, path in enumerate(files[:-1], 1):
        output.line(f"{path}: share {number} of {count}" + (f", for {holders[number - 1]}" if holders else ""))
    output.line(f"{files[-1]}: which shares there are, for `recoup kit --shares`; no secret")
    output.line(f"Read again and brought together: any {needed} of them give key {of.key}.")
    output.line("Print each, give it to its holder, remove the files, and keep the key itself only where it is used.")
    if needed == count:
        output.note("warning: all of them are needed, so the loss of one share is the loss of the key")
    output.document(
        "key-shares",
        {"source": source, "id": key.id, "needed": needed, "shares": count, "set": of.set, "holders": list(holders),
         "files": [str(path) for path in files]},
    )  # fmt: skip
    return Exit.OK


def _write_shares(folder: Path, of: SharedKey, shares: tuple[Share, ...]) -> list[Path]:
    """Write the files and prove them; the note is last. Nothing of them is left when that fails."""
    from recoup.cli.key_file import write_secret
    from recoup.kernel.errors import RecoupError
    from recoup.kernel.files import sync_folder
    from recoup.kernel.secret import Secret
    from recoup.repository import key_share_text as texts
    from recoup.repository.key_shares import bring_together

    wanted = {texts.share_name(of, one.number): texts.share_text(of, one) for one in shares}
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, text in {**wanted, texts.note_name(of): texts.note_text(of)}.items():
            write_secret(folder / name, Secret(text.removesuffix("\n")), what="the share", there=(
                "Shares of two splits do not fit together. Remove the old ones, or name another folder."
            ))  # fmt: skip
            written.append(folder / name)
        sync_folder(folder)
        bring_together(shares_in_files(written[:-1]), wanted=of.key)
    except BaseException as failure:
        for path in written:
            path.unlink(missing_ok=True)
        if isinstance(failure, OSError):
            raise RecoupError(
                f"cannot write the shares into {folder}: {failure.strerror}", hint="Name a folder that you may write."
            ) from failure
        raise
    return written


def combine(
    shares: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SHARE", help="The files of the shares; without one, words are asked for.", show_default=False
        ),
    ] = None,
    output_file: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="Where to write the key.")] = Path(
        "recoup.key"
    ),
    key_id: Annotated[
        str | None,
        typer.Option(
            "--key-id",
            metavar="FINGERPRINT",
            help="Which key it must be: on each share and in the kit.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Bring it together and write nothing.")] = False,
    as_json: JsonOption = False,
) -> Exit:
    """Bring shares of the key together, and write the key that they give.

    Says which share is mistyped and, where its checksum can tell, near which word. Shares of another key or another set
    are refused by name. The key is written only when it is the one that the shares name; a file that exists is never
    overwritten.
    """
    from recoup.cli.key_file import write_key
    from recoup.cli.key_typed import typed_shares
    from recoup.cli.output import Output
    from recoup.repository.key_shares import bring_together

    output = Output(json=as_json)
    given = shares_in_files(shares) if shares else None
    wanted = _fingerprint(key_id)
    named = wanted or next((one.key for one in given or ()), None)
    there = None if check else _there(output_file, named)  # looked at before anybody types
    if there is not None:
        output.line(f"{output_file}: key {there.id[:16]} is there already")
        output.document("key", {"file": str(output_file), "id": there.id, "kind": _kind(there), "written": False})
        return Exit.OK
    if given is None:
        wanted, given = typed_shares(output, wanted)
    key = bring_together(given, wanted=wanted)
    numbers = sorted({one.share.number for one in given})
    if not check:
        write_key(output_file, key)
    _say(output, key, None if check else output_file, numbers)
    return Exit.OK


def _say(output: Output, key: Key, file: Path | None, numbers: list[int]) -> None:
    which = "shares " + ", ".join(str(one) for one in numbers)
    if file is None:
        output.line(f"{which} give key {key.id[:16]}; nothing was written")
    else:
        output.line(f"{file}: key {key.id[:16]} from {which}, readable by its owner only")
    where = {"file": None if file is None else str(file), "written": file is not None}
    output.document("key", {**where, "id": key.id, "kind": _kind(key), "shares": numbers})


def _kind(key: Key) -> str:
    return "random" if key.is_random else "passphrase"


def shares_in_files(files: list[Path]) -> list[Given]:
    """The shares in files. Raise ``WrongKeyError`` when one is mistyped or holds no share."""
    from recoup.kernel.errors import WrongKeyError

    given = []
    for path in files:
        read = read_share_file(path)
        if read.given is None:
            raise WrongKeyError(f"there are no words in {path}", hint="Is it the note that lies beside the shares?")
        given.append(read.given)
    return given


def read_share_file(path: Path) -> Read:
    """What is in a file of a share, or in the note beside them. Raise ``WrongKeyError`` when it cannot be read."""
    from recoup.kernel.errors import WrongKeyError
    from recoup.repository.key_share_text import LARGEST_BYTES, read_text

    try:
        with path.open("rb") as handle:
            data = handle.read(LARGEST_BYTES)
    except OSError as failure:
        raise WrongKeyError(f"cannot read the share {path}: {failure.strerror}", hint="Name its file.") from failure
    return read_text(data.decode(errors="replace"), str(path))


def _fingerprint(given: str | None) -> str | None:
    from recoup.kernel.errors import UsageError

    if given is None:
        return None
    text = given.strip().lower()
    if len(text) < 16 or not set(text) <= set("0123456789abcdef"):
        raise UsageError(
            "--key-id is no fingerprint of a key", hint="It is the 16 characters after `key:` on each share."
        )
    return text[:16]


def _there(file: Path, wanted: str | None) -> Key | None:
    """The wanted key, when ``file`` holds it already. Raise ``RefusedError`` when anything else is there."""
    from recoup.assembly.access import read_key_file
    from recoup.kernel.errors import RefusedError, WrongKeyError
    from recoup.repository.seal import Key

    if not file.exists() and not file.is_symlink():
        return None
    with contextlib.suppress(WrongKeyError):  # then it is no key at all
        key = Key.from_text(read_key_file(file).reveal())
        if key.id[:16] == wanted:
            return key
    raise RefusedError(
        f"{file} exists already, and is not known to be this key",
        hint="Keep it: it may open backups. Name another file: --output FILE.",
    )
