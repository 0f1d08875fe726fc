"""One command in a throw-away container that sees the volumes of a service whose own container is stopped.

This is how data get back into a volume. The container is made from the service's own image and takes exactly the
mounts of the service's container (``--volumes-from``), so that it works for named, anonymous and bind mounts alike,
has no network, and needs nothing on the host. ``docker compose run`` is not used: it would give the command a fresh
anonymous volume where the service has one, and the data would be lost with it.

Each one-off container carries labels with the project and the run that made it. When Recoup is killed, its container
may go on for a moment; ``remove_leftovers`` ends it, and only such ones.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from recoup.engines.compose.client import ComposeProject, Container
from recoup.engines.compose.docker import ANSWER_SECONDS, call, check_docker, said_by
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.process import Child, Command, Completed, open_child, run
from recoup.kernel.secret import Secret

PROJECT_LABEL = "recoup.one-off.project"
RUN_LABEL = "recoup.one-off.run"
_ROOM: Final = "Make room on the disk of the volume (docker system df -v, df -h); the same command goes on."


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOff:
    """What to run beside a stopped service. ``run_id`` is the caller's, to tell its containers from older ones."""

    service: str
    argv: tuple[str, ...]
    run_id: str
    user: str = "0:0"
    environment: Mapping[str, str | Secret] | None = None
    timeout_seconds: float | None = None
    writable: bool = True  #: False mounts everything read-only: looking cannot harm
    beside: bool = False  #: it writes only where the service never looks, so the service may run meanwhile


@contextlib.contextmanager
def open_one_off(project: ComposeProject, one_off: OneOff, *, stdin: bool = True) -> Iterator[Child]:
    """Start a one-off container with a pipe into it and one out of it; on leaving it is removed.

    Call ``finish(child)`` inside, after closing its stdin. Raise ``RefusedError`` when the service runs: two programs
    must not write the same data.
    """
    container = _container_of(project, one_off)
    name = f"recoup-{project.project.name}-{one_off.service}-{secrets.token_hex(4)}"
    try:
        with open_child(_command(project, one_off, container, name), stdin=stdin) as child:
            yield child
    finally:
        # The client's end is not the container's end. Without -v: its volumes are the service's.
        run(project.source.docker("rm", "--force", name), expect=None)


def run_one_off(project: ComposeProject, one_off: OneOff, *, stdin: bytes | None = None) -> Completed:
    """Run a one-off container to its end and return what it printed. Raise ``EngineError`` unless it ends with 0."""
    container = _container_of(project, one_off)
    name = f"recoup-{project.project.name}-{one_off.service}-{secrets.token_hex(4)}"
    try:
        return call(
            _command(project, one_off, container, name),
            doing=f"run {one_off.argv[0]} for {one_off.service}",
            stdin=stdin,
        )
    finally:
        run(project.source.docker("rm", "--force", name), expect=None)


def finish(child: Child, *, timeout_seconds: float | None = None) -> None:
    """Wait for a one-off's end. Raise ``EngineError`` with its last words unless it ended with 0."""
    completed = child.wait(timeout_seconds)
    if completed.exit_status != 0:
        check_docker(completed)
        said = said_by(completed)
        full = "No space left" in said or "Disk quota exceeded" in said
        raise EngineError(f"the one-off container failed: {said}", hint=_ROOM if full else None)


def remove_leftovers(project: ComposeProject, *, except_run: str | None = None) -> tuple[str, ...]:
    """Remove one-off containers of this project that earlier runs left behind; return their names.

    The caller holds the stack's lease, so no other run is alive. Containers of others are never touched: only those
    with Recoup's label for this very project.
    """
    listed = call(
        project.source.docker(
            *("ps", "--all", "--no-trunc", "--filter", f"label={PROJECT_LABEL}={project.project.name}"),
            *("--format", '{{.ID}} {{.Names}} {{.Label "' + RUN_LABEL + '"}}'),
        ),
        doing="list one-off containers",
    )
    removed = []
    for line in listed.stdout.decode().splitlines():
        identity, name, run_id = [*line.split(" ", 2), ""][:3]
        if except_run is None or run_id != except_run:
            call(project.source.docker("rm", "--force", identity), doing=f"remove {name}")
            removed.append(name)
    return tuple(removed)


def _container_of(project: ComposeProject, one_off: OneOff) -> Container:
    """The service's container, made if need be: it owns the mounts. It must not run when data are to be written."""
    project.create([one_off.service])
    containers = project.of_service(one_off.service)
    if len(containers) != 1:
        raise EngineError(
            f"{one_off.service} has {len(containers)} containers, one is needed to know its data by",
            hint=f"Scale it to one first: docker compose up -d --scale {one_off.service}=1",
        )
    if one_off.writable and not one_off.beside and containers[0].state not in ("created", "exited", "dead"):
        raise RefusedError(
            f"{one_off.service} is {containers[0].state}: its data are not written while it may use them",
            hint=f"Stop it first: docker compose stop {one_off.service}",
        )
    return containers[0]


def _command(project: ComposeProject, one_off: OneOff, container: Container, name: str) -> Command:
    options = ["run", "--interactive", "--name", name, "--network", "none", "--user", one_off.user]
    options += ["--label", f"{PROJECT_LABEL}={project.project.name}", "--label", f"{RUN_LABEL}={one_off.run_id}"]
    options += ["--volumes-from", container.id if one_off.writable else f"{container.id}:ro"]
    environment = dict(one_off.environment or {})
    for variable in environment:
        options += ["--env", variable]
    options += ["--log-driver", "none", "--pull", "never", "--entrypoint", one_off.argv[0], container.image_id]
    limit = None if one_off.timeout_seconds is None else one_off.timeout_seconds + ANSWER_SECONDS
    command = project.source.docker(*options, *one_off.argv[1:], timeout_seconds=limit)
    return Command(
        argv=command.argv,
        environment={**command.environment, **environment},
        timeout_seconds=command.timeout_seconds,
    )


def shell(script: str, *arguments: str) -> Sequence[str]:
    """The argv that runs a POSIX shell script in a container, with ``$1``, ``$2`` … as given. Nothing is expanded."""
    return ("/bin/sh", "-euc", script, "sh", *arguments)
