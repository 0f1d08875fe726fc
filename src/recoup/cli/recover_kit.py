"""``recoup recover`` with a recovery kit, and on another machine by SSH."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from recoup.cli.recover_asked import Asked, wish_of
from recoup.kernel.errors import Exit, RefusedError, UsageError, WrongKeyError

if TYPE_CHECKING:
    from recoup.assembly.recover.kit import KitRepository
    from recoup.cli.output import Output
    from recoup.kernel.secret import Secret


def with_kit(asked: Asked) -> Asked:
    """The options with what the kit says: the repository, its credentials, the key.

    The credentials become this process's environment, where boto3 looks for them; what is set there already counts. The
    key goes into a private file that is gone when this process ends. Raise ``WrongKeyError`` when the kit holds no key
    and none is given, or the given one is another.
    """
    from recoup.assembly.access import read_key_file
    from recoup.assembly.recover.kit import read_kit
    from recoup.repository.seal import Key

    assert asked.kit is not None, "the caller has a kit"
    kit = read_kit(asked.kit)
    text = kit.key_text if asked.key_file is None else read_key_file(asked.key_file)
    if text is None:
        hint = "Give it as well: --key-file FILE."
        if (shares := kit.shares) is not None:
            hint = (
                f"Bring {shares.needed} of its {shares.count} shares together: `{shares.command}`; "
                "then give it as well: --key-file recoup.key."
            )
        raise WrongKeyError(f"the kit {asked.kit} was made without the key {kit.key}", hint=hint)
    if Key.from_text(text.reveal()).id[:16] != kit.key:
        raise WrongKeyError(f"this is not the key of the kit, which is {kit.key}", hint="Is it an older one?")
    chosen = kit.at(asked.source)
    return replace(
        asked,
        lent=_into_environment(chosen),
        source=asked.source or chosen.address,
        key_file=asked.key_file or _private(text),
        brought=frozenset(
            name for name, given in (("--from", asked.source), ("--key-file", asked.key_file)) if given is None
        ),
    )


def _into_environment(repository: KitRepository) -> frozenset[str]:
    """Put the credentials there; the names of what was not there before."""
    from recoup.kernel.secret import Secret

    new = {name: value for name, value in repository.environment().items() if name not in os.environ}
    for name, value in new.items():
        os.environ[name] = value.reveal() if isinstance(value, Secret) else value
    return frozenset(new)


@contextlib.contextmanager
def _without(names: Collection[str]) -> Iterator[None]:
    """While inside, these are not in the environment of what is started: they are not for it."""
    taken = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(taken)


def _private(text: Secret) -> Path:
    handle, name = tempfile.mkstemp(prefix="recoup-key-", dir=_memory())
    path = Path(name)
    atexit.register(path.unlink, missing_ok=True)
    with os.fdopen(handle, "wb") as file:
        file.write(text.reveal().encode() + b"\n")
    return path


def _memory() -> str | None:
    """A folder that is no disk, where there is one."""
    return next((one for one in ("/dev/shm",) if os.access(one, os.W_OK)), None)  # noqa: S108


#: What boto3 signs in with, that a server needs as well.
_CREDENTIALS = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY",
                "AWS_SESSION_TOKEN")  # fmt: skip


def on_host(output: Output, asked: Asked) -> Exit:
    """Carry it out on another machine. The exit code is the one that it ended with there."""
    from recoup.assembly.access import read_key_file
    from recoup.assembly.recover.host import Remote, parse_host, recover_there
    from recoup.cli.asking import somebody_is_here
    from recoup.kernel.secret import Secret
    from recoup.repository.seal import Key

    assert asked.host is not None, "the caller has a host"
    parse_host(asked.host)
    if asked.source is None or asked.key_file is None or not asked.source.startswith("s3://"):
        raise UsageError(
            "--host needs a repository that the new server reaches, and its key",
            hint="Give --kit FILE, or --from s3://BUCKET/FOLDER and --key-file FILE.",
        )
    if asked.file is not None:
        raise UsageError(
            "-f names a plan of this machine; a new server takes it from the repository", hint="Leave it out."
        )
    key = read_key_file(asked.key_file)
    # A run that is there already needs no new server; and what it runs for is not among these options.
    begins = asked.what == "server-loss" and not asked.dry_run
    address = _provisioned(output, asked) if begins and not asked.no_provision else asked.host
    remote = Remote(
        host=parse_host(address),
        words=words_there(asked, as_json=output.json, quiet=output.quiet),
        key=key,
        key_id=Key.from_text(key.reveal()).id,
        terminal=somebody_is_here() and sys.stdout.isatty(),
        looks=asked.show or asked.dry_run,
        from_here=replace(asked, host=address).command("--resume"),
        environment={name: Secret(os.environ[name]) for name in _CREDENTIALS if os.environ.get(name)},
    )
    return recover_there(remote, output.note)


def _provisioned(output: Output, asked: Asked) -> str:
    """Run the plan's own command, after saying which; the address of the server."""
    import shlex

    from recoup.assembly.recover.blank import open_to_look
    from recoup.assembly.recover.provision import provision, provision_command
    from recoup.cli.asking import somebody_is_here, yes_or_no

    assert asked.host is not None, "the caller has a host"
    _, system = open_to_look(wish_of(asked))
    argv = provision_command(system)
    if argv is None:
        return asked.host
    output.note(f"the plan makes the server first: {shlex.join(argv)}")
    agreed = asked.yes or (somebody_is_here() and yes_or_no("run it"))
    if not agreed:
        raise RefusedError(
            "nobody agreed to run it", hint="Agree beforehand with --yes, or leave it out: --no-provision."
        )
    # The credentials of the backups are not those that servers are made with, nor is the endpoint.
    with _without(asked.lent):
        return provision(system, situation=str(asked.what), host=asked.host, say=output.note)


def words_there(asked: Asked, *, as_json: bool = False, quiet: bool = False) -> tuple[str, ...]:
    """The arguments after ``recoup`` as the other machine gets them. Pure. The key's file is its own."""
    words = ["recover", *([asked.what] if asked.what is not None else [])]
    flags = {
        "--plan": asked.dry_run, "--resume": asked.resume, "--show": asked.show, "--yes": asked.yes,
        "--install": asked.install, "--force": asked.force, "--close": asked.close, "--rollback": asked.rollback,
        "--abandon": asked.abandon, "--keep": asked.keep, "--take-over": asked.take_over,
        "--json": as_json, "--quiet": quiet,
    }  # fmt: skip
    words += [name for name, given in flags.items() if given]
    values: list[tuple[str, str | None]] = [
        ("--format", asked.form if asked.form != "text" and not as_json else None),
        ("--confirm", asked.confirm),
        *(("--skip", one) for one in asked.skip),
        ("--because", asked.because),
        ("--pause-before", asked.pause_before),
        *(("--service", one) for one in asked.services),
        ("--to-time", asked.to_time),
        ("--destination", None if asked.destination is None else str(asked.destination)),
        ("--detected", asked.detected),
        ("--as", asked.as_name),
        ("--from", asked.source),
    ]
    for name, value in values:
        words += [name, value] if value is not None else []
    return tuple(words)
