"""The same recovery, typed on a laptop and carried out on a new server that is reached by SSH.

The server does the work: it reads the repository, and goes on when the laptop is closed. What it needs goes there
through the standard input of ``ssh``, never in a command line: the key, the credentials of the repository, and Recoup
itself when it is not there. They lie in memory (``/dev/shm``) until the recovery has ended. Whoever only looks brings a
key of their own, and takes it away again: that of a recovery that goes on is left alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from recoup import __version__
from recoup.assembly.recover.own_wheel import own_wheel
from recoup.kernel.errors import EngineError, Exit, UncheckedError, UsageError
from recoup.kernel.process import Command, Completed, run, run_attached
from recoup.kernel.secret import Secret

_ANSWER_SECONDS: Final = 60.0
_INSTALL_SECONDS: Final = 900.0
_SSH_FAILED: Final = 255
#: A minute without an answer is a broken connection: a network that is gone says nothing.
_STAYING: Final = ("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4")
#: Where Recoup is put on a server that has none.
_HOME: Final = "/opt/recoup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A server that is reached by SSH. ``user`` and ``port`` None: as the SSH configuration says."""

    name: str
    user: str | None = None
    port: int | None = None

    @property
    def target(self) -> str:
        """As ``ssh`` takes it."""
        return self.name if self.user is None else f"{self.user}@{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """What is to be typed there. ``words`` are the arguments after ``recoup``, without the key's file. ``terminal``:
    somebody is here, and is asked from there. ``looks``: nothing is changed, as with ``--show`` and ``--plan``.
    ``from_here`` is a command as it is typed on this machine: those that are printed there name places of that one.
    """

    host: Host
    words: tuple[str, ...]
    key: Secret = field(repr=False)
    key_id: str
    environment: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)
    terminal: bool = False
    looks: bool = False
    from_here: str


def parse_host(address: str) -> Host:
    """Given ``ssh://[USER@]HOST[:PORT]``, return where it leads. Raise ``UsageError`` for anything else."""
    wrong = UsageError(f"{address!r} is no address of a server", hint="Write --host ssh://root@HOST, or …@HOST:PORT.")
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise wrong from None
    name, user = parts.hostname, parts.username
    # A leading minus would be an option of ssh; what else stands there would be a part of a command.
    plain = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]*")
    if parts.scheme != "ssh" or parts.password or parts.path not in ("", "/") or not name or not plain.fullmatch(name):
        raise wrong
    if user is not None and not plain.fullmatch(user):
        raise wrong
    return Host(name=name, user=user, port=port)


def recover_there(remote: Remote, say: Callable[[str], None]) -> Exit:
    """Prepare the server and carry the command out on it, with this terminal. Returns how it ended there.

    Raise ``EngineError`` when the server cannot be reached or prepared. Repeated, it finds what it has brought.
    """
    host = remote.host
    program = _program(host, say)
    place = _place(remote)
    _send(host, f"{place}/recoup.key", remote.key.reveal().encode() + b"\n")
    exports = "".join(
        f"export {name}={shlex.quote(value.reveal() if isinstance(value, Secret) else value)}\n"
        for name, value in remote.environment.items()
    )
    _send(host, f"{place}/environment", exports.encode())
    words = shlex.join([program, *remote.words, "--key-file", f"{place}/recoup.key"])
    say(f"on {host.target}: {words}")
    code = run_attached(Command(argv=(*_argv(host, *_STAYING, *(("-t",) if remote.terminal else ())), _script(
        words, place, goes_on=not remote.terminal and not remote.looks
    ))))  # fmt: skip
    if code == _SSH_FAILED or code < 0:  # ssh itself failed, or somebody has ended it
        raise EngineError(
            f"the connection to {host.target} broke",
            hint="What was begun there goes on. See how far it is: the same command with --show in place of the "
            "situation. Once it has stopped there, the same command goes on with it.",
        )
    if remote.looks or (remote.terminal and code == Exit.OK):
        _ssh(host, f"rm -rf {place}", doing="remove the key that was brought there")
    elif code != Exit.OK:
        say(f"the key stays in {place} of {host.target}, in memory, until the recovery has ended there")
    say(f"commands that it names are for {host.target}; from here they are typed like this: {remote.from_here}")
    return Exit(code) if code in set(Exit) else Exit.FAILED


def _script(words: str, place: str, *, goes_on: bool) -> str:
    """What the shell there gets. ``goes_on``: it goes on when nobody reads what it says, and cleans up by itself.

    With a terminal the loss of it is a signal (SIGHUP), which ``recoup recover`` outlives. Without one the pipes of
    sshd break, or fill up while a laptop sleeps: what it says goes into files there, and those are read.
    """
    if not goes_on:
        return f". {place}/environment && exec {words}"
    script = f"""
said=$(mktemp -d {place}/said-XXXXXXXXXX) && : > "$said/out" && : > "$said/err" || exit 1
(. {place}/environment && {words}) < /dev/null > "$said/out" 2> "$said/err" &
run=$!
tail -n +1 -s 0.2 -f --pid=$run "$said/err" >&2 2> /dev/null && heard=yes || heard=no
wait $run
code=$?
[ $heard = yes ] || cat "$said/err" >&2
cat "$said/out"
if [ $code = 0 ]; then rm -rf {place}; else rm -rf "$said"; fi
exit $code
"""
    return f"trap '' HUP; exec sh -c {shlex.quote(script)}"


def _place(remote: Remote) -> str:
    """Make the private folder there. A recovery's is found again by its key; that of a look is nobody else's."""
    if remote.looks:
        made = _ssh(remote.host, "mktemp -d /dev/shm/recoup-look-XXXXXXXXXX", doing="make a private folder")
        said = made.stdout.decode(errors="replace").strip().splitlines()  # a shell may greet before
        place = said[-1] if said else ""
        if re.fullmatch(r"/dev/shm/recoup-look-\w+", place) is None:  # noqa: S108
            raise EngineError(f"cannot make a private folder on {remote.host.target}: it answered {place[:80]!r}")
        return place
    place = f"/dev/shm/recoup-{remote.key_id[:16]}"  # noqa: S108 - made there by us alone, for its owner only
    _ssh(remote.host, f"umask 077 && mkdir -p {place} && chmod 700 {place}", doing="make a private folder")
    return place


def _program(host: Host, say: Callable[[str], None]) -> str:
    """The program there, of this version; brought there when it is not."""
    for candidate in ("recoup", f"{_HOME}/bin/recoup"):
        seen = _ssh(host, f"command -v {candidate} && {candidate} --version", doing="look for Recoup", expect=None)
        # What a login greets with comes first, in whatever encoding.
        if seen.exit_status == 0 and seen.stdout.decode(errors="replace").strip().endswith(f" {__version__}"):
            return candidate
    wheel = own_wheel()
    if wheel is None:
        raise UncheckedError(
            f"there is no Recoup {__version__} on {host.target}, and none can be made of this installation",
            hint="Install it there, and repeat the command.",
        )
    install = f"python3 -m venv {_HOME} && {_HOME}/bin/pip install --quiet --upgrade {_HOME}/{wheel.name}"
    say(f"on {host.target}: {install}")
    _ssh(host, f"mkdir -p {_HOME}", doing=f"make {_HOME}")
    _send(host, f"{_HOME}/{wheel.name}", wheel.data)
    done = _ssh(host, install, doing="install Recoup", seconds=_INSTALL_SECONDS, expect=None)
    if done.exit_status != 0:
        said = (done.stderr.strip() or done.stdout.decode(errors="replace").strip()).splitlines()
        raise EngineError(
            f"Recoup could not be installed on {host.target}: {said[-1] if said else 'it said nothing'}",
            hint=f"It needs Python 3.11 with venv, and an index for what it depends on. Its wheel is there: "
            f"{_HOME}/{wheel.name}. Install it by hand, and repeat the command.",
        )
    return f"{_HOME}/bin/recoup"


def _send(host: Host, path: str, data: bytes) -> None:
    """Put a file there whole or not at all, for its owner only. What is in it is in no command line."""
    _ssh(host, f"umask 077 && cat > {path}.new && mv {path}.new {path}", doing=f"send {path}", stdin=data)


def _ssh(
    host: Host,
    script: str,
    *,
    doing: str,
    stdin: bytes | None = None,
    seconds: float = _ANSWER_SECONDS,
    expect: Sequence[int] | None = (0,),
) -> Completed:
    """Run a script there. Raise ``EngineError`` in the words of ssh when it cannot be reached."""
    command = Command(argv=(*_argv(host), script), timeout_seconds=seconds)
    done = run(command, stdin=b"" if stdin is None else stdin, expect=None)
    said = done.stderr.strip().splitlines()
    last = said[-1] if said else f"status {done.exit_status}"
    if done.exit_status == _SSH_FAILED:
        raise EngineError(
            f"cannot sign in to {host.target}: {last}",
            hint=f"Try it by hand first, until it asks nothing any more: {shlex.join(_argv(host))} true",
        )
    if expect is not None and done.exit_status not in expect:
        raise EngineError(f"cannot {doing} on {host.target}: {last}")
    return done


def _argv(host: Host, *options: str) -> tuple[str, ...]:
    port = () if host.port is None else ("-p", str(host.port))
    return ("ssh", "-o", "ConnectTimeout=20", *options, *port, "--", host.target)
