"""The page of a recovery kit: for somebody who never saw Recoup, at three in the morning. As Markdown and as HTML.

The commands on it are complete: typed as they stand, in their order, they bring the stack back. What cannot be on the
page, because the kit was made without secrets, stands there in capitals.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

from recoup.assembly.recover.kit import Kit, KitRepository
from recoup.kernel.secret import Secret


@dataclass(frozen=True, slots=True)
class _Head:
    text: str


@dataclass(frozen=True, slots=True)
class _Words:
    text: str


@dataclass(frozen=True, slots=True)
class _Commands:
    lines: tuple[str, ...]
    instead: bool = False  #: not typed in their turn, but in the place of others


@dataclass(frozen=True, slots=True)
class _Table:
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


#: What says to boto3 where an object store is and who asks.
_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
_Block = _Head | _Words | _Commands | _Table

_STYLE = """@page{size:A4;margin:16mm}body{font:15px/1.45 Georgia,'DejaVu Serif',serif;max-width:44em;margin:2em auto;
padding:0 1em;color:#000;background:#fff}h1{font-size:1.5em}h2{font-size:1.1em;margin:1.2em 0 .3em}
pre{font:13px/1.4 'DejaVu Sans Mono',monospace;border:1px solid #888;padding:.6em .8em;white-space:pre-wrap;
overflow-wrap:anywhere;page-break-inside:avoid}table{border-collapse:collapse}td,th{border:1px solid #888;
padding:.2em .5em;text-align:left;overflow-wrap:anywhere}code{font-family:'DejaVu Sans Mono',monospace}"""


def kit_markdown(kit: Kit, wheel: str | None) -> str:
    """The page as Markdown, which reads as well as plain text. ``wheel`` is what Recoup is called in the kit's file."""
    lines = [f"# {_title(kit)}", ""]
    for block in _blocks(kit, wheel):
        match block:
            case _Head(text):
                lines += [f"## {text}", ""]
            case _Words(text):
                lines += [text, ""]
            case _Commands(commands, instead):
                lines += ["```text" if instead else "```sh", *commands, "```", ""]
            case _Table(head, rows):
                lines += [_row(head), _row(tuple("---" for _ in head)), *(_row(one) for one in rows), ""]
    return "\n".join(lines)


def kit_html(kit: Kit, wheel: str | None) -> str:
    """The page as HTML that prints on paper. Nothing in it is loaded from elsewhere."""
    said = []
    for block in _blocks(kit, wheel):
        match block:
            case _Head(text):
                said.append(f"<h2>{html.escape(text)}</h2>")
            case _Words(text):
                said.append(f"<p>{html.escape(text)}</p>")
            case _Commands(commands):
                said.append(f"<pre>{html.escape(chr(10).join(commands))}</pre>")
            case _Table(head, rows):
                cells = "".join(f"<th>{html.escape(one)}</th>" for one in head)
                body = "".join(
                    "<tr>" + "".join(f"<td>{html.escape(one)}</td>" for one in row) + "</tr>" for row in rows
                )
                said.append(f"<table><tr>{cells}</tr>{body}</table>")
    title = html.escape(_title(kit))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<h1>{title}</h1>{''.join(said)}</html>\n"
    )


def _title(kit: Kit) -> str:
    return f"Recovery kit of {kit.system}"


def _blocks(kit: Kit, wheel: str | None) -> Iterator[_Block]:
    secret = kit.key_text is not None
    guard = "It opens every backup: keep it like money. " if secret else ""
    if kit.shares is not None:
        guard = "It opens no backup without the shares of the key: keep it where they are not. "
    yield _Words(
        f"Made {kit.made:%Y-%m-%d %H:%M} UTC by Recoup {kit.version}. {guard}Keep it away from the machines of "
        f"{kit.system}, on paper and in a password manager. Make a new one when the key or a repository changes."
    )
    yield _Head("Where the backups are")
    yield _Table(
        ("repository", "address", "endpoint", "region"),
        tuple((one.name, one.address, one.endpoint or "", one.region or "") for one in kit.repositories),
    )
    yield _Words(f"Fingerprint of the key: {kit.key}")
    if not any(one.remote for one in kit.repositories):
        yield _Words("WARNING: no repository is off the machine of production. Its loss takes the backups with it.")
    if not kit.holds_plan:
        yield _Words("WARNING: no copy of files holds the plan (recoup.yaml). Keep the plan beside this page.")
    yield _Head("The server is gone: on a new machine, as root")
    yield _Words("1. Recoup itself, which is in the file of this kit. It needs Python 3.11 and what it depends on.")
    yield _Commands(_install(kit, wheel))
    yield _Words(f"2. The key. {_who_has_it(kit)}What is printed last must be {kit.key}.")
    yield _Commands(_key(kit))
    yield _Words("3. How to read the repository.")
    yield _Commands(_credentials(kit.best))
    yield _Words(
        "4. The one command. It says what is missing on this machine (or installs it, with --install), shows each "
        "step, and asks before it replaces anything. Whatever interrupts it, the same command goes on where it was."
    )
    yield _Commands(_recover(kit))
    yield from _otherwise(kit)


def _install(kit: Kit, wheel: str | None) -> tuple[str, ...]:
    if wheel is None:
        return (f"recoup --version || pipx install recoup   # {kit.version} or newer, from its checkout or wheel",)
    return (
        f"recoup --version || pipx install ./{wheel}",
        f"# without pipx: python3 -m venv /opt/recoup && /opt/recoup/bin/pip install ./{wheel}",
    )


def _who_has_it(kit: Kit) -> str:
    if kit.shares is None:
        return ""
    shares = kit.shares
    holders = "".join(f"; share {number}: {name}" for number, name in enumerate(shares.holders, 1))
    return (
        f"It was split into {shares.count} shares, of which any {shares.needed} give it back{holders}. So "
        f"{shares.needed} who have one come together here. Each types the words on their paper when they are asked "
        "for; four letters of each word are enough. Where the files of the shares are at hand: recoup key combine "
        "FILE FILE --output recoup.key. "
    )


def _key(kit: Kit) -> tuple[str, ...]:
    if kit.shares is not None:
        return (kit.shares.command, "recoup key show-id --key-file recoup.key")
    text = "THE KEY, 64 CHARACTERS" if kit.key_text is None else kit.key_text.reveal()
    return (
        "install -m 600 /dev/stdin recoup.key <<'END'",
        text,
        "END",
        "recoup key show-id --key-file recoup.key",
    )


def _credentials(best: KitRepository) -> tuple[str, ...]:
    if not best.remote:
        return (f"ls {shlex.quote(best.address)}   # its disk must be mounted there",)
    given = best.environment()
    names = {
        "AWS_ENDPOINT_URL": None,  # Amazon's own needs none
        "AWS_DEFAULT_REGION": "THE REGION" if best.endpoint is None else None,
        "AWS_ACCESS_KEY_ID": "AN ACCESS KEY THAT MAY READ AND WRITE THE BUCKET",
        "AWS_SECRET_ACCESS_KEY": "ITS SECRET KEY",
    }
    lines: list[str] = []
    for name, missing in names.items():
        value = given.get(name, missing)
        if value is not None:
            plain = value.reveal() if isinstance(value, Secret) else value
            lines.append(f"export {name}={shlex.quote(plain)}")
    return tuple(lines)


def _recover(kit: Kit) -> tuple[str, ...]:
    address = shlex.quote(kit.best.address)
    if kit.compose and kit.holds_plan:
        return (f"recoup recover server-loss --from {address} --key-file recoup.key",)
    return (
        f"recoup list --from {address} --key-file recoup.key",
        f"# each service: recoup restore latest --service NAME --from {address} --key-file recoup.key --destination .",
    )


def _otherwise(kit: Kit) -> Iterator[_Block]:
    address = shlex.quote(kit.best.address)
    yield _Head("Good to know")
    if kit.compose and kit.holds_plan:
        yield _Words(
            f"The stack comes up in {kit.folder}, where it was; --destination FOLDER says another place. Watch it from "
            "anywhere: recoup recover --show, with the same --from and --key-file. When all is well: recoup recover "
            "--close. To see every step first and change nothing: add --plan."
        )
        if kit.best.remote:
            yield _Words(
                "Type docker compose in another shell than this one: what was exported in 3 would take the place of "
                "the stack's own AWS_ variables."
            )
        yield _Words(
            "From a laptop with the file of this kit, without typing: recoup recover server-loss --kit "
            f"recovery-kit.tar{'' if kit.key_text is not None else ' --key-file recoup.key'} --host ssh://root@NEW-SERVER"
        )
    yield from _other_repositories(kit)
    yield _Words("Exit code 12: it is not the right key. Compare its fingerprint with the one above.")
    yield _Words(
        "Without Recoup: restore.sh and RESTORE.md lie in each repository and in the file of this kit. They need "
        f"openssl, zstd, tar, and the key. Fetch {address} with any S3 client first."
    )


def _other_repositories(kit: Kit) -> Iterator[_Block]:
    """Where else the backups are; how to sign in there, where that is not what was typed for the first one."""
    best = kit.best
    others = [one for one in kit.repositories if one is not best]
    alike = [one.address for one in others if not one.remote or one.environment() == best.environment()]
    if alike:
        yield _Words(f"When {best.address} does not answer, take another one: {', '.join(alike)}.")
    for one in others:
        if one.address not in alike:
            yield _Words(f"When {best.address} does not answer, take {one.address} in 4, and in the place of 3:")
            yield _Commands((f"unset {' '.join(_VARIABLES)}", *_credentials(one)), instead=True)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
