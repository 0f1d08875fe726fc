"""A real sshd on a pretend machine, and a laptop that has nothing but a cable to it."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.at_terminal import AtTerminal, at_terminal
from tests.real import require
from tests.testhost.machine import Machine, eventually

_HERE, _THERE = "198.51.100.1", "198.51.100.2"
#: What `ssh root@new` is; written where `ssh` looks for it.
NAME = "new"


@dataclass(frozen=True, slots=True, kw_only=True)
class Laptop:
    """A network of its own with a cable to the server, and a ``~/.ssh`` of its own. No Docker, no bucket."""

    keeper: subprocess.Popen[bytes]
    home: Path  #: its ``~/.ssh``
    host_key: str  #: of the server, as a line of ``known_hosts``

    def know_the_server(self) -> None:
        """As after somebody has looked at the fingerprint and said yes."""
        (self.home / "known_hosts").write_text(f"{_THERE} {self.host_key}\n")

    def begin(self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start something on the laptop, where nobody is at the keyboard."""
        return subprocess.Popen(
            self._inside(argv),
            env={**_without_credentials(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def at_terminal(self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None) -> AtTerminal:
        """Type something at a terminal of the laptop."""
        return at_terminal(self._inside(argv), environment={**_without_credentials(), **(environment or {})})

    def _inside(self, argv: Sequence[str]) -> list[str]:
        return ["nsenter", "-t", str(self.keeper.pid), "-m", "-n", f"--wdns={self.home}", "--", *argv]

    def run(
        self, argv: Sequence[str], *, environment: Mapping[str, str] | None = None, timeout: float = 280
    ) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        with self.begin(argv, environment=environment) as process:
            out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(list(argv), process.returncode, out, err)


def _without_credentials() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SSH_", "RECOUP_"))}


@contextlib.contextmanager
def laptop_of(server: Machine, folder: Path, *, environment: Mapping[str, str]) -> Iterator[Laptop]:
    """A laptop that may sign in to ``server`` as root by its key. ``environment`` is what a session there has."""
    programs = {name: require(name) for name in ("sshd", "ssh", "ssh-keygen", "unshare", "nsenter", "ip")}
    home = folder / "dot-ssh"
    home.mkdir(mode=0o700)
    for name in (folder / "host_key", home / "id"):
        subprocess.run([programs["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", name], check=True)
    (home / "config").write_text(
        f"Host {NAME}\n  HostName {_THERE}\n  IdentityFile {home}/id\n  UserKnownHostsFile {home}/known_hosts\n"
    )
    with contextlib.ExitStack() as ends:
        keeper = ends.enter_context(_keeper(home))
        _cable(keeper.pid, server)
        ends.enter_context(_sshd(server, folder, programs["sshd"], home / "id.pub", environment))
        yield Laptop(keeper=keeper, home=home, host_key=(folder / "host_key.pub").read_text().strip())


@contextlib.contextmanager
def _keeper(home: Path) -> Iterator[subprocess.Popen[bytes]]:
    """What keeps the network and the mounts of a laptop for as long as it lives; it ends with this process."""
    # OpenSSH asks the system where home is, and not the environment.
    usual = Path(pwd.getpwuid(0).pw_dir) / ".ssh"
    made = not usual.exists()
    usual.mkdir(mode=0o700, exist_ok=True)
    script = f'ip link set lo up; mount --bind "{home}" "{usual}"; echo ready; exec cat'
    keeper = subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-euc", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"ready\n"
        yield keeper
    finally:
        keeper.communicate(timeout=120)
        if made:
            with contextlib.suppress(OSError):
                usual.rmdir()


def _cable(laptop: int, server: Machine) -> None:
    token = secrets.token_hex(3)
    near, far = f"c{token}a", f"c{token}b"
    made = f"ip link add {near} netns {laptop} type veth peer name {far} netns {server.pid}"
    subprocess.run(made.split(), check=True, capture_output=True)
    for pid, end, address in ((laptop, near, _HERE), (server.pid, far, _THERE)):
        for words in (f"addr add {address}/24 dev {end}", f"link set {end} up"):
            subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", *words.split()], check=True, capture_output=True)


@contextlib.contextmanager
def _sshd(
    server: Machine, folder: Path, program: Path, key: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    server.run(["mkdir", "-p", "/run/sshd"])
    said = " ".join(f'"{name}={value}"' for name, value in environment.items())
    configuration = folder / "sshd_config"
    configuration.write_text(
        f"HostKey {folder}/host_key\nAuthorizedKeysFile {key}\nListenAddress {_THERE}\nStrictModes no\nPidFile none\n"
        f"PasswordAuthentication no\nSetEnv {said}\n"
    )
    log = folder / "sshd.log"
    argv = [str(program), "-D", "-f", str(configuration), "-E", str(log)]
    sshd = subprocess.Popen(server.inside(argv, folder), env=server.environment_inside({}), stdin=subprocess.DEVNULL)
    try:
        eventually(lambda: log.exists() and "listening" in log.read_text(), seconds=120, what="sshd")
        yield sshd
    finally:
        sshd.send_signal(signal.SIGTERM)
        server.run(["pkill", "-TERM", "-f", str(configuration)], check=False)
        sshd.wait(120)


@dataclass(slots=True)
class ArgumentWatch:
    """Reads every command line of this Linux, again and again, on both sides of every pretend machine."""

    secrets: Sequence[str]
    found: set[str] = field(default_factory=set)  #: command lines with a secret in them
    seen: set[str] = field(default_factory=set)  #: what was run, for the proof that it has looked
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join(120)

    def _look(self) -> None:
        known: set[tuple[str, str]] = set()
        while not self._over.wait(0.02):
            for name in os.listdir("/proc"):
                if name.isdigit():
                    with contextlib.suppress(OSError):
                        words = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        if (name, words) not in known:
                            known.add((name, words))
                            self.seen.add(words)
                            self.found |= {words} if any(one in words for one in self.secrets) else set()


def ssh_below(process: int, *, seconds: float = 120) -> int:
    """The process id of the ``ssh`` that something on the laptop has started."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError):
                rest = Path(f"/proc/{name}/stat").read_text()
                if rest.split("(", 1)[1].startswith("ssh)") and int(rest.rpartition(")")[2].split()[1]) == process:
                    return int(name)
        time.sleep(0.02)
    raise AssertionError("there was no ssh")
