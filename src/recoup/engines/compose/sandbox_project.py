"""From a Compose project as it is in production, the project of a sandbox: the same services, and no way out.

Pure: a document goes in, a document comes out. What a service may keep is a list; everything else is left out, and
what could have mattered is said, so that a drill never claims what it did not test. Nothing that production has a hand
on survives: no name of a container, volume or network, no published port, no path of the host outside of the sandbox.

Format: https://github.com/compose-spec/compose-spec/blob/main/spec.md, as normalised by ``config --format json``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from recoup.kernel.secret import Secret

#: On every container, volume and network of a sandbox: its id, and whose sandboxes it belongs to.
SANDBOX_LABEL: Final = "recoup.sandbox"
OWNER_LABEL: Final = "recoup.sandbox.owner"
PROJECT_PREFIX: Final = "recoup-drill-"
#: Where files of the host that lay outside of the plan's folder are in the sandbox's files (``engines.files.walk``).
OUTSIDE: Final = "_outside"

#: A name server that is nowhere (TEST-NET-1, RFC 5737). Names of the sandbox are answered by the engine itself; with
#: one of the host's own name servers, which is reached from outside of the network, a question could get out.
_NOWHERE: Final = "192.0.2.1"

#: This machine has no address in the network. An internal network alone keeps containers from the world, but not from
#: this machine: whatever production publishes here would be reached by any of the machine's own addresses.
#: https://docs.docker.com/engine/network/drivers/bridge/ and libnetwork, drivers/bridge (``InhibitIPv4``).
_NO_ADDRESS: Final = "com.docker.network.bridge.inhibit_ipv4"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_KEPT: Final = _words(
    "cap_drop command domainname entrypoint expose group_add hostname init platform read_only shm_size stdin_open "
    "stop_grace_period stop_signal tmpfs tty ulimits user working_dir"
)
#: Made anew below.
_REWRITTEN: Final = _words(
    "configs depends_on dns environment healthcheck image labels network_mode networks secrets volumes"
)
#: Left out, and nothing that a drill shows rests on it.
_SILENT: Final = _words(
    "annotations attach build container_name cpu_count cpu_percent cpu_period cpu_quota cpu_shares cpus cpuset "
    "deploy develop dns_opt dns_search env_file label_file logging mem_limit mem_reservation mem_swappiness "
    "memswap_limit oom_kill_disable oom_score_adj pids_limit ports profiles pull_policy restart scale"
)
_NO_PLACE: Final = re.compile(r"/(var/)?run(/.*)?|/(proc|sys|dev|etc/docker)(/.*)?|/|.*docker\.sock")


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxWish:
    """What the sandbox is to be. ``services`` take part; ``images`` are what each of them runs.

    ``files`` is the folder of the restored files, the only one of the host that containers may see. ``secrets`` stand
    in for variables of the same name that a service is given. ``arguments`` are more arguments for a service's program.
    """

    id: str
    owner: str
    files: PurePosixPath
    services: Collection[str]
    images: Mapping[str, str]
    secrets: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    arguments: Mapping[str, Sequence[str]] = field(default_factory=dict)
    memory_bytes: int = 4 << 30
    processors: float = 2.0
    processes: int = 4096

    @property
    def project(self) -> str:
        """The Compose project's name."""
        return PROJECT_PREFIX + self.id

    @property
    def labels(self) -> dict[str, str]:
        """The labels of everything in it."""
        return {SANDBOX_LABEL: self.id, OWNER_LABEL: self.owner}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A folder or file of the host that a service had mounted: where it was, and where it is in the sandbox."""

    service: str
    was: str
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolated:
    """The project of a sandbox. The document holds secrets: it belongs into a file that only its user reads."""

    document: Mapping[str, Any] = field(repr=False)
    binds: tuple[Bind, ...]
    not_tested: tuple[str, ...]
    without_arguments: tuple[str, ...]  #: services whose program could not be given more arguments


@dataclass(slots=True)
class _Making:
    wish: SandboxWish
    source: Mapping[str, Any]
    binds: list[Bind] = field(default_factory=list)
    not_tested: list[str] = field(default_factory=list)
    without_arguments: list[str] = field(default_factory=list)
    volumes: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    anonymous: int = 0

    def leave_out(self, what: str) -> None:
        if what not in self.not_tested:
            self.not_tested.append(what)


def isolate(source: Mapping[str, Any], wish: SandboxWish) -> Isolated:
    """Given what ``docker compose config --format json`` says, return the project of the sandbox."""
    making = _Making(wish=wish, source=source)
    services = {
        name: _service(making, name, body)
        for name, body in (source.get("services") or {}).items()
        if name in wish.services
    }
    document: dict[str, Any] = {"name": wish.project, "services": services}
    made = (("volumes", making.volumes), ("networks", making.networks))
    document |= {section: found for section, found in made if found}
    for section in ("secrets", "configs"):
        if found := _sources(making, section, services):
            document[section] = found
    return Isolated(
        document=document,
        binds=tuple(dict.fromkeys(making.binds)),
        not_tested=tuple(making.not_tested),
        without_arguments=tuple(making.without_arguments),
    )


def _service(making: _Making, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    wish = making.wish
    made: dict[str, Any] = {key: value for key, value in body.items() if key in _KEPT}
    for key in sorted(set(body) - _KEPT - _REWRITTEN - _SILENT):
        if body[key] and not key.startswith("x-"):
            making.leave_out(f"{name}: {key}, which the sandbox does not have")
    if body.get("ports"):
        making.leave_out(f"{name}: its published ports")
    made |= {
        "image": wish.images.get(name) or str(body.get("image") or ""),
        "pull_policy": "never",
        "restart": "no",
        "labels": wish.labels,
        "dns": [_NOWHERE],
        "dns_opt": ["timeout:1", "attempts:1"],
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "2"}},
        "mem_limit": wish.memory_bytes,
        "cpus": wish.processors,
        "pids_limit": wish.processes,
        "environment": _environment(making, name, body),
    }
    if body.get("healthcheck"):
        made["healthcheck"] = body["healthcheck"]
    if needed := _needed(making, body):
        made["depends_on"] = needed
    made |= _network(making, name, body)
    if mounts := [found for entry in body.get("volumes") or () if (found := _mount(making, name, entry)) is not None]:
        made["volumes"] = mounts
    for section in ("secrets", "configs"):
        if body.get(section):
            made[section] = [
                one for one in body[section] if _usable_source(making, name, section, str(one.get("source")))
            ]
    if wish.arguments.get(name):
        _add_arguments(making, name, made)
    return made


def _environment(making: _Making, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    given = body.get("environment") or {}
    if isinstance(given, list):
        given = {key: value for key, _, value in (str(entry).partition("=") for entry in given)}
    secrets = making.wish.secrets
    replaced = [key for key in given if key in secrets]
    if replaced:
        making.leave_out(f"{name}: production's own {', '.join(sorted(replaced))}; the drill has others")
    # A file is read again: what is a dollar sign must be written twice.
    return {key: secrets[key].reveal().replace("$", "$$") if key in secrets else value for key, value in given.items()}


def _needed(making: _Making, body: Mapping[str, Any]) -> dict[str, Any]:
    needed = body.get("depends_on") or {}
    if isinstance(needed, list):
        needed = {name: {} for name in needed}
    return {
        name: {"condition": (how or {}).get("condition") or "service_started", "required": True}
        for name, how in needed.items()
        if name in making.wish.services
    }


def _network(making: _Making, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    mode = str(body.get("network_mode") or "")
    if mode == "none" or (mode.startswith("service:") and mode[8:] in making.wish.services):
        return {"network_mode": mode}
    if mode:
        making.leave_out(f"{name}: the network {mode.partition(':')[0]} of the host; it is in the sandbox's own")
    wanted = body.get("networks") or {"default": None}
    if isinstance(wanted, list):
        wanted = dict.fromkeys(wanted)
    joined: dict[str, Any] = {}
    for key, how in wanted.items():
        described = (making.source.get("networks") or {}).get(key) or {}
        if described.get("external"):
            making.leave_out(f"{name}: the external network {key}; what it reached there is not in the sandbox")
        making.networks[key] = {
            "internal": True,
            "driver": "bridge",
            "driver_opts": {_NO_ADDRESS: "true"},
            "labels": making.wish.labels,
        }
        if any((how or {}).get(address) for address in ("ipv4_address", "ipv6_address", "link_local_ips")):
            making.leave_out(f"{name}: its fixed address in the network {key}")
        aliases = [str(alias) for alias in (how or {}).get("aliases") or ()]
        joined[key] = {"aliases": aliases} if aliases else None
    return {"networks": joined}


def _mount(making: _Making, name: str, entry: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, target = entry.get("type"), str(entry.get("target") or "")
    made: dict[str, Any] = {"type": kind, "target": target}
    if entry.get("read_only"):
        made["read_only"] = True
    if kind == "tmpfs":
        return made | ({"tmpfs": entry["tmpfs"]} if entry.get("tmpfs") else {})
    if kind == "volume":
        key = str(entry.get("source") or "")
        if not key:
            making.anonymous += 1
            key = f"unnamed-{making.anonymous}"
        described = (making.source.get("volumes") or {}).get(key) or {}
        if described.get("external") or described.get("driver_opts") or described.get("driver") not in (None, "local"):
            making.leave_out(f"{name}: where the volume {key} is kept outside of the project; it is a new one")
        making.volumes[key] = {"labels": making.wish.labels}
        return made | {"source": key}
    if kind == "bind" and (place := place_of(making.wish.files, str(entry.get("source") or ""))) is not None:
        making.binds.append(Bind(service=name, was=str(entry["source"]), now=place))
        return made | {"source": place, "bind": {"create_host_path": True}}
    making.leave_out(f"{name}: what it has at {target}, which is the host's own ({kind})")
    return None


def place_of(files: PurePosixPath, source: str) -> str | None:
    """Where a path of the host is in the sandbox's files; None for what no file set can hold (sockets, ``/proc``).

    What is in the folder of the files already stays; everything else is where a file set puts what lay outside.
    """
    path = PurePosixPath("/" + source.lstrip("/"))  # two slashes at the beginning are a root of their own (POSIX)
    if not source.startswith("/") or ".." in path.parts:
        return None
    if path.is_relative_to(files):
        return str(path)
    return None if _NO_PLACE.fullmatch(str(path)) else str(files / OUTSIDE / path.relative_to("/"))


def _usable_source(making: _Making, name: str, section: str, key: str) -> bool:
    described = (making.source.get(section) or {}).get(key) or {}
    if _readable(making, described):
        return True
    making.leave_out(f"{name}: {section[:-1]} {key}, which is not in a file set")
    return False


def _readable(making: _Making, described: Mapping[str, Any]) -> bool:
    if described.get("external"):
        return False
    if "content" in described or "environment" in described:
        return True
    return place_of(making.wish.files, str(described.get("file") or "")) is not None


def _sources(making: _Making, section: str, services: Mapping[str, Any]) -> dict[str, Any]:
    """The top-level ``secrets`` or ``configs`` that the services still use."""
    used = {str(one.get("source")) for body in services.values() for one in body.get(section) or ()}
    found: dict[str, Any] = {}
    for key, described in (making.source.get(section) or {}).items():
        if key not in used:
            continue
        if "content" in described:
            found[key] = {"content": described["content"]}
        elif "environment" in described:
            found[key] = {"environment": described["environment"]}
        else:
            place = place_of(making.wish.files, str(described["file"]))
            assert place is not None, "it was looked at with the service"
            making.binds.append(Bind(service=section, was=str(described["file"]), now=place))
            found[key] = {"file": place}
    return found


def _add_arguments(making: _Making, name: str, made: dict[str, Any]) -> None:
    """Put more arguments behind a service's own: what comes last counts."""
    program, *more = making.wish.arguments[name]
    command = made.get("command")
    plain = isinstance(command, list) and bool(command)
    if not command:
        made["command"] = [program, *more]
    elif plain and (PurePosixPath(str(command[0])).name in (program, "docker-entrypoint.sh") or command[0][:1] == "-"):
        made["command"] = [*command, *more]
    else:
        making.without_arguments.append(name)
