"""What a blank machine lacks before a stack can come to life on it, and what would install it. Pure.

Everything that is missing is named at once: at three in the morning nobody wants to learn of the full disk after an
hour of installing. Nothing is installed unless it was asked for, and then by the distribution's own programs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal

from recoup.kernel.units import show_size
from recoup.recovery.wall_clock import HINT, clock_fault

#: Docker 20.10 and Compose 2.19 are the oldest that Recoup was tried with.
OLDEST_ENGINE: Final = (20, 10)
OLDEST_COMPOSE: Final = (2, 19)

Part = Literal["docker", "compose", "git"]
Argv = tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """One file system: what will be put there, and what is free. ``place`` is a folder on it, for people."""

    place: str
    needed_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenPort:
    """A port that the stack publishes and somebody else has."""

    port: int
    protocol: str
    service: str
    why: str  #: in the system's words


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineFacts:
    """What was seen. Versions are as the programs print them; None: there is no such program, or it does not answer.

    ``ahead`` is how far this clock is ahead of the repository's; None when nobody could be asked. ``newest`` is how
    far the newest copy lies in this clock's future; zero or less when it does not. ``not_seen`` is what could not be
    looked at, and what is missing to do so.
    """

    engine: str | None
    engine_problem: str = ""
    compose: str | None
    compose_problem: str = ""
    needs_docker: bool = True
    git: bool = True
    needs_git: bool = False
    rooms: tuple[Room, ...] = ()
    ports: tuple[TakenPort, ...] = ()
    ahead: timedelta | None = None
    newest: timedelta | None = None
    not_seen: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """One thing that is missing or wrong, and what to do. ``part``: it can be installed."""

    what: str
    hint: str
    part: Part | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Which one this is, by ``os-release(5)``: its id, those it is like, and its version."""

    id: str
    like: tuple[str, ...] = ()
    version: str = ""
    pretty: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installing:
    """What the distribution's own programs would be asked to do, or why it is not known."""

    commands: tuple[Argv, ...] = ()
    why_not: str = ""
    parts: tuple[Part, ...] = field(default=())


def lacks_of(facts: MachineFacts) -> tuple[Lack, ...]:
    """Everything that keeps the stack from coming up here."""
    return (*_programs(facts), *_rooms(facts.rooms), *_ports(facts.ports), *_clock(facts))


def _programs(facts: MachineFacts) -> list[Lack]:
    found = _docker(facts) if facts.needs_docker else []
    if facts.needs_git and not facts.git:
        hint = "Install the package git."
        found.append(Lack(what="git is not installed, and the stack's source is kept by it", hint=hint, part="git"))
    return found


def _docker(facts: MachineFacts) -> list[Lack]:
    found = []
    start = "Install Docker: https://docs.docker.com/engine/install/"
    if facts.engine is None:
        silent = "does not answer" in facts.engine_problem or "may not talk" in facts.engine_problem
        hint = "Start it: systemctl start docker. Or run as root." if silent else start
        found.append(Lack(what=facts.engine_problem or "Docker is not installed", hint=hint, part="docker"))
    elif _older(facts.engine, OLDEST_ENGINE):
        what = f"the Docker engine is {facts.engine}, and {_dotted(OLDEST_ENGINE)} is the oldest that will do"
        found.append(Lack(what=what, hint=start, part="docker"))
    if facts.compose is None:
        hint = "Install docker-compose-plugin (Docker's packages) or docker-compose-v2 (Ubuntu)."
        found.append(Lack(what=facts.compose_problem or "docker has no Compose plugin", hint=hint, part="compose"))
    elif _older(facts.compose, OLDEST_COMPOSE):
        what = f"Docker Compose is {facts.compose}, and {_dotted(OLDEST_COMPOSE)} is the oldest that will do"
        found.append(Lack(what=what, hint="Update its plugin.", part="compose"))
    return found


def _rooms(rooms: Sequence[Room]) -> list[Lack]:
    return [
        Lack(
            what=f"{one.place} has {show_size(one.free_bytes)} free, and {show_size(one.needed_bytes)} come there",
            hint=f"Free space, or mount a larger disk at {one.place}.",
        )
        for one in rooms
        if one.free_bytes < one.needed_bytes
    ]


def _ports(ports: Sequence[TakenPort]) -> list[Lack]:
    return [
        Lack(
            what=f"port {one.port}/{one.protocol}, which {one.service} publishes, is not free: {one.why}",
            hint=f"See who has it: ss -l{'u' if one.protocol == 'udp' else 't'}np 'sport = :{one.port}'. Stop that.",
        )
        for one in ports
    ]


def _clock(facts: MachineFacts) -> list[Lack]:
    fault = clock_fault(facts.ahead, facts.newest)
    return [] if fault is None else [Lack(what=fault, hint=HINT)]


def _older(version: str, oldest: tuple[int, int]) -> bool:
    """Whether a version is older; one that cannot be read is not."""
    numbers = re.findall(r"\d+", version)[:2]
    return len(numbers) == 2 and (int(numbers[0]), int(numbers[1])) < oldest


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(str(one) for one in version)


def read_distribution(text: str) -> Distribution:
    """Given ``/etc/os-release``, return which distribution it is of. Format: os-release(5)."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            values[name.strip()] = value.strip().strip("\"'")
    return Distribution(
        id=values.get("ID", "").lower(),
        like=tuple(values.get("ID_LIKE", "").lower().split()),
        version=values.get("VERSION_ID", ""),
        pretty=values.get("PRETTY_NAME", ""),
    )


#: What the parts are called by each family's package program.
_PACKAGES: Final[Mapping[str, Mapping[Part, str]]] = {
    "ubuntu": {"docker": "docker.io", "compose": "docker-compose-v2", "git": "git"},
    "debian": {"docker": "docker.io", "compose": "docker-compose", "git": "git"},
    "fedora": {"docker": "moby-engine", "compose": "docker-compose", "git": "git"},
    "alpine": {"docker": "docker", "compose": "docker-cli-compose", "git": "git"},
    "arch": {"docker": "docker", "compose": "docker-compose", "git": "git"},
    "suse": {"docker": "docker", "compose": "docker-compose", "git": "git"},
}
_INSTALL: Final[Mapping[str, tuple[Argv, ...]]] = {
    "ubuntu": (("apt-get", "update"), ("apt-get", "install", "--yes", "--no-install-recommends")),
    "debian": (("apt-get", "update"), ("apt-get", "install", "--yes", "--no-install-recommends")),
    "fedora": (("dnf", "install", "--assumeyes"),),
    "alpine": (("apk", "add"),),
    "arch": (("pacman", "--sync", "--refresh", "--noconfirm", "--needed"),),
    "suse": (("zypper", "--non-interactive", "install"),),
}
_START: Final[Mapping[str, tuple[Argv, ...]]] = {
    "alpine": (("rc-update", "add", "docker", "default"), ("service", "docker", "start")),
}
_SYSTEMD: Final[tuple[Argv, ...]] = (("systemctl", "enable", "--now", "docker"),)


def installing(system: Distribution, lacks: Sequence[Lack]) -> Installing:
    """The commands of the distribution that bring what is missing and can be installed."""
    parts = tuple(dict.fromkeys(one.part for one in lacks if one.part is not None))
    if not parts:
        return Installing()
    family = next((one for one in (system.id, *system.like) if one in _PACKAGES), None)
    if family is None and any("suse" in one for one in (system.id, *system.like)):
        family = "suse"
    if family is None:
        return Installing(
            why_not=f"Recoup does not know how {system.pretty or 'this system'} installs Docker; do it by hand: "
            "https://docs.docker.com/engine/install/"
        )
    if system.id == "debian" and "compose" in parts and _older(f"{system.version}.0", (13, 0)):
        return Installing(
            why_not=f"{system.pretty or 'this Debian'} has no Compose plugin; take Docker's own packages: "
            "https://docs.docker.com/engine/install/debian/"
        )
    *first, install = _INSTALL[family]
    packages = tuple(_PACKAGES[family][part] for part in parts)
    start = _START.get(family, _SYSTEMD) if "docker" in parts else ()
    return Installing(commands=(*first, (*install, *packages), *start), parts=parts)
