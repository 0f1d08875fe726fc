"""What of sandboxes is in a Docker engine: looking at it, and removing it. By label only, and only one's own.

Every container, volume and network of a sandbox carries the sandbox's id and its owner (``sandbox_project``). One-off
containers of the restore procedures carry the name of the sandbox's project instead.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from recoup.engines.compose.docker import ComposeSource, call
from recoup.engines.compose.enter_network import inside_network
from recoup.engines.compose.one_off import PROJECT_LABEL
from recoup.engines.compose.sandbox_project import OWNER_LABEL, PROJECT_PREFIX, SANDBOX_LABEL
from recoup.kernel.errors import UncheckedError
from recoup.kernel.finding import Finding, Verdict

Kind = Literal["container", "network", "volume"]
_REMOVE_SECONDS: Final = 300.0
_ANSWER_SECONDS: Final = 0.5
_CLOSED_PORT: Final = 1  #: nobody listens there, so a machine that is reached says so at once
_LISTS: Final[dict[Kind, tuple[str, ...]]] = {
    "container": ("ps", "--all", "--no-trunc", "--format", "{{.ID}}"),
    "network": ("network", "ls", "--no-trunc", "--format", "{{.ID}}"),
    "volume": ("volume", "ls", "--format", "{{.Name}}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    """One thing in the engine that belongs to a sandbox."""

    kind: Kind
    id: str
    name: str
    sandbox: str


def things_of(source: ComposeSource, owner: str) -> tuple[Thing, ...]:
    """Everything that the sandboxes of ``owner`` have in the engine, containers first. Raise ``EngineError``."""
    found = [one for kind in _LISTS for one in _labelled(source, kind, f"{OWNER_LABEL}={owner}")]
    known = {one.sandbox for one in found}
    extra = [one for one in _one_offs(source) if one.sandbox in known]
    return (*extra, *found)


def things_in(source: ComposeSource, sandbox: str) -> tuple[Thing, ...]:
    """Everything that one sandbox has in the engine, containers first. Raise ``EngineError``."""
    return tuple(one for kind in _LISTS for one in _labelled(source, kind, f"{SANDBOX_LABEL}={sandbox}"))


def one_offs_of(source: ComposeSource, sandboxes: Collection[str]) -> tuple[Thing, ...]:
    """The one-off containers of these sandboxes: their own labels do not name the owner."""
    return tuple(one for one in _one_offs(source) if one.sandbox in sandboxes)


def remove(source: ComposeSource, things: Iterable[Thing]) -> None:
    """Remove containers with their anonymous volumes, then networks, then volumes. Raise ``EngineError``.

    What has gone meanwhile is not an error.
    """
    by_kind: dict[Kind, list[str]] = {"container": [], "network": [], "volume": []}
    for one in things:
        by_kind[one.kind].append(one.id)
    for kind, argv in (
        ("container", ("rm", "--force", "--volumes")),
        ("network", ("network", "rm")),
        ("volume", ("volume", "rm", "--force")),
    ):
        for identity in dict.fromkeys(by_kind[kind]):  # type: ignore[index]
            command = source.docker(*argv, identity, timeout_seconds=_REMOVE_SECONDS)
            done = call(command, doing=f"remove the {kind} {identity}", expect=None)
            if done.exit_status != 0 and not _gone(done.stderr):
                call(command, doing=f"remove the {kind} {identity}")


def isolation_of(source: ComposeSource, sandbox: str) -> tuple[Finding, ...]:
    """Whether what runs of a sandbox is as closed as it was meant, by what the engine says. Raise ``EngineError``."""
    networks = _inspected(source, "network", sandbox)
    containers = _inspected(source, "container", sandbox)
    ids = {one["Id"] for one in networks}
    wrong = [f"the network {one['Name']} has a way out" for one in networks if not one.get("Internal")]
    for one in containers:
        host, name = one.get("HostConfig") or {}, one["Name"].lstrip("/")
        joined = ((one.get("NetworkSettings") or {}).get("Networks") or {}).values()
        wrong += [f"{name} is in a network of others" for net in joined if net.get("NetworkID") not in (*ids, "")]
        if host.get("PortBindings") or any(((one.get("NetworkSettings") or {}).get("Ports") or {}).values()):
            wrong.append(f"{name} publishes ports")
        if host.get("Privileged") or host.get("NetworkMode") == "host" or host.get("PidMode") == "host":
            wrong.append(f"{name} is not separated from the host")
        sockets = [mount for mount in one.get("Mounts") or () if "docker.sock" in str(mount.get("Source"))]
        if sockets:
            wrong.append(f"{name} has the engine's socket")
    seen = f"{len(containers)} containers, {len(networks)} networks"
    nothing = not containers
    return (
        Finding(
            check="the sandbox has no way out",
            subject="its containers and networks",
            verdict=Verdict.UNKNOWN if nothing else Verdict.FAILED if wrong else Verdict.OK,
            detail="; ".join(wrong) or (f"{seen}: internal networks only, no published ports" if not nothing else seen),
        ),
    )


def machine_answers(source: ComposeSource, container: str, address: str) -> Finding:
    """Whether this machine answers from in the network of a container of a sandbox: production is here, perhaps.

    Unknown when this machine cannot be asked from there; then nothing was tried.
    """
    check, subject = "this machine cannot be reached from in the sandbox", "its network"
    (described,) = _inspect(source, "container", container) or ({},)
    joined = ((described.get("NetworkSettings") or {}).get("Networks") or {}).values()
    gateways = sorted({str(one["Gateway"]) for one in joined if one.get("Gateway")})

    def ask() -> list[str]:
        return [gateway for gateway in gateways if _answers(gateway)]

    try:
        answering = inside_network(source, container, address, ask)
    except UncheckedError as why:
        return Finding(check=check, subject=subject, verdict=Verdict.UNKNOWN, detail=why.message, hint=why.hint)
    return Finding(
        check=check,
        subject=subject,
        verdict=Verdict.FAILED if answering else Verdict.OK,
        detail=f"it answers on {', '.join(answering)}" if answering else "it answers on none of the network's gateways",
        hint="The engine did not heed the network's options; update Docker." if answering else None,
    )


def _answers(address: str) -> bool:
    """Whether anything there answers, if only to refuse."""
    try:
        socket.create_connection((address, _CLOSED_PORT), timeout=_ANSWER_SECONDS).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return True


def _labelled(source: ComposeSource, kind: Kind, label: str) -> list[Thing]:
    listed = call(source.docker(*_LISTS[kind], "--filter", f"label={label}"), doing=f"list {kind}s of sandboxes")
    found = []
    for identity in dict.fromkeys(listed.stdout.decode().split()):
        for entry in _inspect(source, kind, identity):
            labels = (entry.get("Config") or {}).get("Labels") if kind == "container" else entry.get("Labels")
            sandbox = (labels or {}).get(SANDBOX_LABEL)
            if sandbox:
                name = str(entry["Name"]).lstrip("/")
                found.append(Thing(kind=kind, id=identity, name=name, sandbox=sandbox))
    return found


def _one_offs(source: ComposeSource) -> list[Thing]:
    form = '{{.ID}} {{.Names}} {{.Label "' + PROJECT_LABEL + '"}}'
    listed = call(
        source.docker("ps", "--all", "--no-trunc", "--filter", f"label={PROJECT_LABEL}", "--format", form),
        doing="list one-off containers",
    )
    found = []
    for line in listed.stdout.decode().splitlines():
        identity, name, project = [*line.split(" ", 2), "", ""][:3]
        if project.startswith(PROJECT_PREFIX):
            sandbox = project.removeprefix(PROJECT_PREFIX)
            found.append(Thing(kind="container", id=identity, name=name, sandbox=sandbox))
    return found


def _inspected(source: ComposeSource, kind: Kind, sandbox: str) -> list[dict[str, Any]]:
    listed = call(
        source.docker(*_LISTS[kind], "--filter", f"label={SANDBOX_LABEL}={sandbox}"), doing=f"list {kind}s of sandboxes"
    )
    return [entry for identity in listed.stdout.decode().split() for entry in _inspect(source, kind, identity)]


def _inspect(source: ComposeSource, kind: Kind, identity: str) -> list[dict[str, Any]]:
    seen = call(source.docker(kind, "inspect", identity), doing=f"inspect the {kind} {identity}", expect=None)
    if seen.exit_status != 0:  # it has gone since it was listed
        return []
    found: list[dict[str, Any]] = json.loads(seen.stdout)
    return found


def _gone(said: str) -> bool:
    return "no such" in said.lower() or "not found" in said.lower() or "already in progress" in said.lower()
