"""Acting on a running Compose project: what runs, stop and start in order, commands inside its services.

Facts about containers come from ``docker inspect``, whose form is the engine's API and does not change with Compose's
version. Every change is made by ``docker compose``, so that the containers stay the ones its users know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from recoup.engines.compose.docker import ANSWER_SECONDS, ComposeSource, call
from recoup.engines.compose.ports import with_who_has_the_port
from recoup.engines.compose.project import Project
from recoup.kernel.clock import from_text, monotonic, pause
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, run
from recoup.kernel.secret import Secret

_POLL_SECONDS = 0.25
_SECRET_NAME = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL|DSN|_URL|AUTH", re.IGNORECASE)
# Variables that would change what the docker client itself does.
_CLIENTS_OWN = re.compile(r"(DOCKER|COMPOSE|BUILDKIT|BUILDX)_.*|PATH|HOME|LD_.*|SSH_.*|HTTPS?_PROXY|NO_PROXY")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerMount:
    """What is really mounted in a container. ``name`` is a volume's name in the engine, empty for a bind mount."""

    kind: str
    name: str
    source: str
    target: str
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """One container of a service, as it is now."""

    id: str
    name: str
    service: str
    state: str  #: ``created``, ``running``, ``paused``, ``restarting``, ``removing``, ``exited`` or ``dead``
    health: str | None  #: ``starting``, ``healthy`` or ``unhealthy``; None without a health check
    exit_status: int | None  #: of the last run, when it has ended
    started: datetime | None
    image_id: str
    image: str  #: the name it was started by
    restarts: int
    out_of_memory: bool
    mounts: tuple[ContainerMount, ...]
    addresses: tuple[str, ...] = ()  #: on its networks; the engine's own machine reaches them

    @property
    def running(self) -> bool:
        """Whether commands can be run inside."""
        return self.state == "running"

    @property
    def well(self) -> bool:
        """Running, and healthy where there is a health check."""
        return self.state == "running" and self.health in (None, "healthy")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageDigest:
    """Which image a service runs: enough to get the very same one again from its registry."""

    service: str
    image: str
    image_id: str
    repository_digests: tuple[str, ...]  #: ``name@sha256:…``; empty for an image that was built here
    created: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRunner:
    """Runs commands inside a service's container (``kernel.process.Runner``).

    A command's environment reaches it through the environment of the docker client: only names are in argv.
    """

    source: ComposeSource = field(repr=False)
    service: str
    user: str | None = None

    def wrap(self, command: Command) -> Command:
        """Given a command for the container, return the ``docker compose exec`` that runs it.

        Raise ``ValueError`` for a secret in a variable that the docker client would obey itself.
        """
        options: list[str] = ["exec", "-T"]
        passed: dict[str, str | Secret] = {}
        for name, value in command.environment.items():
            if not _CLIENTS_OWN.fullmatch(name):
                options += ["-e", name]
                passed[name] = value
            elif isinstance(value, Secret):
                raise ValueError(f"a secret cannot be handed to a container in the variable {name}")
            else:
                options += ["-e", f"{name}={value}"]
        user = f"{command.user[0]}:{command.user[1]}" if command.user is not None else self.user
        if user is not None:
            options += ["--user", user]
        if command.folder is not None:
            options += ["--workdir", str(command.folder)]
        outer = self.source.compose(*options, self.service, *command.argv, timeout_seconds=command.timeout_seconds)
        return Command(
            argv=outer.argv,
            environment={**outer.environment, **passed},
            without=outer.without,
            timeout_seconds=outer.timeout_seconds,
        )

    def __str__(self) -> str:
        return f"the Compose service {self.service}"


class ComposeProject:
    """The acts on a project. Order is the caller's: names are taken one after the other as given."""

    def __init__(self, project: Project) -> None:
        self.project = project
        # The project's own name, so that every call means the same containers whatever the files say later.
        self.source = ComposeSource(
            files=project.source.files,
            env_files=project.source.env_files,
            name=project.name,
            docker_environment=project.source.docker_environment,
        )

    def runner(self, service: str, *, user: str | None = None) -> ServiceRunner:
        """A runner for commands inside a running service. Raise ``EngineError`` for a service that is not there."""
        self.project.service(service)
        return ServiceRunner(source=self.source, service=service, user=user)

    def containers(self) -> tuple[Container, ...]:
        """Every container of the project, running or not, without one-off ones; ordered by service and name."""
        for _ in range(5):
            listing = call(
                self.source.docker(
                    *("ps", "--all", "--quiet", "--no-trunc"),
                    *("--filter", f"label=com.docker.compose.project={self.project.name}"),
                    *("--filter", "label=com.docker.compose.oneoff=False"),
                ),
                doing="list the containers",
            )
            ids = listing.stdout.decode().split()
            if not ids:
                return ()
            seen = call(
                self.source.docker("inspect", "--type", "container", *ids), doing="inspect containers", expect=None
            )
            if seen.exit_status == 0:
                found = [_container(entry) for entry in json.loads(seen.stdout)]
                return tuple(sorted(found, key=lambda container: (container.service, container.name)))
            pause(_POLL_SECONDS)  # one of them was removed between the two calls
        raise EngineError(f"the containers of {self.project.name} change faster than they can be listed")

    def of_service(self, service: str) -> tuple[Container, ...]:
        """The containers of one service."""
        self.project.service(service)
        return tuple(container for container in self.containers() if container.service == service)

    def has_volume(self, name: str) -> bool:
        """Whether the engine has a volume of this name. Makes none. Raise ``EngineError`` when it cannot be asked."""
        asked = self.source.docker("volume", "ls", "--quiet", "--filter", f"name={name}")
        return name in call(asked, doing="list the volumes").stdout.decode().split()

    def status(self) -> Mapping[str, str]:
        """Each service of the project and its state in a word or two: ``running (healthy)``, ``not created``."""
        by_service: dict[str, list[str]] = {name: [] for name in self.project.services}
        for container in self.containers():
            text = container.state + (f" ({container.health})" if container.running and container.health else "")
            by_service.setdefault(container.service, []).append(text)
        return {name: ", ".join(states) or "not created" for name, states in by_service.items()}

    def stop(self, services: Sequence[str], *, grace_seconds: int = 60) -> None:
        """Stop services, one after the other. One that does not run is left as it is.

        Raise ``EngineError`` when one still runs afterwards.
        """
        for service in services:
            if not any(container.state in _LIVE for container in self.of_service(service)):
                continue
            command = self.source.compose(
                "stop", "--timeout", str(grace_seconds), service, timeout_seconds=grace_seconds + ANSWER_SECONDS
            )
            call(command, doing=f"stop {service}")
            left = [container for container in self.of_service(service) if container.state in _LIVE]
            if left:
                raise EngineError(
                    f"{service} is still {left[0].state} after it was stopped",
                    hint="Something starts it again; look for a supervisor or a second Compose project.",
                )

    def start(
        self,
        services: Sequence[str],
        *,
        seconds: float = 120,
        build_seconds: float = 1800,
        unhealthy_seconds: float | None = None,
    ) -> None:
        """Start services, one after the other, each well before the next. See ``wait_until_well``.

        A container that exists is started as it is, never replaced; one that does not is made (pulling or building
        its image may take ``build_seconds``). Raise ``EngineError`` with the container's last lines when one is not
        well within ``seconds``.
        """
        for service in services:
            self.create([service], build_seconds=build_seconds)
            command = self.source.compose("start", service, timeout_seconds=seconds + ANSWER_SECONDS)
            try:
                call(command, doing=f"start {service}")
            except EngineError as failure:
                raise with_who_has_the_port(self.source, failure) from failure
            self.wait_until_well(service, seconds=seconds, unhealthy_seconds=unhealthy_seconds)

    def create(self, services: Sequence[str], *, build_seconds: float = 1800) -> None:
        """Make the containers and volumes of services without starting anything. What exists stays as it is."""
        for service in services:
            if self.of_service(service):
                continue
            command = self.source.compose(
                *("up", "--no-start", "--no-deps", "--no-recreate", service), timeout_seconds=build_seconds
            )
            call(command, doing=f"create {service}")

    def replace(self, services: Sequence[str], *, build_seconds: float = 1800) -> None:
        """Make the containers of services anew, stopping those that run. Volumes stay. Nothing is started."""
        for service in services:
            command = self.source.compose(
                *("up", "--no-start", "--no-deps", "--force-recreate", service), timeout_seconds=build_seconds
            )
            call(command, doing=f"make {service} anew")

    def wait_until_well(self, service: str, *, seconds: float, unhealthy_seconds: float | None = None) -> None:
        """Wait until every container of a service runs and is healthy, or has done its job and ended with 0.

        Raise ``EngineError`` with the container's last lines when it is not so within ``seconds``, and at once when
        a container has ended for good. One that is unhealthy by its own retries may still become healthy; with
        ``unhealthy_seconds`` it is given no more than so long for that.
        """
        limit = monotonic() + seconds
        while True:
            containers = self.of_service(service)
            if containers and all(container.well or self._done(container) for container in containers):
                return
            ended = [one for one in containers if one.state in ("exited", "dead") and not self._restarts(service)]
            if unhealthy_seconds is not None and any(one.health == "unhealthy" for one in containers):
                limit, unhealthy_seconds = min(limit, monotonic() + unhealthy_seconds), None
            if ended or monotonic() > limit:
                raise self._not_well(service, ended or containers, seconds)
            pause(_POLL_SECONDS)

    def logs(self, service: str, *, lines: int = 20) -> str:
        """The last lines its containers wrote, secrets of the project's environment replaced by stars."""
        said = []
        for container in self.of_service(service):
            log = run(self.source.docker("logs", "--tail", str(lines), container.id), expect=None)
            said += [log.stdout.decode(errors="replace"), log.stderr]
        return self.without_secrets("".join(said)).strip()

    def without_secrets(self, text: str) -> str:
        """Replace what looks like a secret of the project's services by stars."""
        for value in sorted(self._secrets(), key=len, reverse=True):
            text = text.replace(value, "***")
        return text

    def images(self, services: Iterable[str] | None = None) -> tuple[ImageDigest, ...]:
        """The images that the services' containers run, with the digests their registry knows them by."""
        wanted = None if services is None else set(services)
        found: dict[tuple[str, str], ImageDigest] = {}
        for container in self.containers():
            if wanted is not None and container.service not in wanted:
                continue
            image = call(
                self.source.docker("image", "inspect", container.image_id), doing="inspect images", expect=None
            )
            # The image can be gone while its container runs (docker image rm --force).
            body = json.loads(image.stdout)[0] if image.exit_status == 0 else {}
            found[container.service, container.image_id] = ImageDigest(
                service=container.service,
                image=container.image,
                image_id=container.image_id,
                repository_digests=tuple(sorted(body.get("RepoDigests") or ())),
                created=body.get("Created") or "",
            )
        return tuple(found.values())

    def _restarts(self, service: str) -> bool:
        described = self.project.services.get(service)  # none of a container that the file does not know any more
        policy = "no" if described is None else described.restart
        return policy in ("always", "unless-stopped") or policy.startswith("on-failure")

    def is_over(self, container: Container) -> bool:
        """Whether it has done its job: it ended with 0, and the engine would not start it again.

        A service that should always run and ended with 0 is one that somebody stopped.
        """
        return container.state == "exited" and container.exit_status == 0 and not self._restarts(container.service)

    def _done(self, container: Container) -> bool:
        """Whether it is a job (migrations and the like) that others wait for, and it has ended well."""
        awaited = {
            dependency.service
            for service in self.project.services.values()
            for dependency in service.depends_on
            if dependency.condition == "service_completed_successfully"
        }
        return container.service in awaited and container.state == "exited" and container.exit_status == 0

    def _not_well(self, service: str, containers: Sequence[Container], seconds: float) -> EngineError:
        if not containers:
            return EngineError(f"{service} has no container", hint=f"Create it: docker compose up -d {service}")
        worst = next((one for one in containers if not one.well), containers[0])
        how = worst.state + (f" ({worst.health})" if worst.running and worst.health else "")
        if worst.state in ("exited", "dead"):
            how += f" with status {worst.exit_status}" + (", out of memory" if worst.out_of_memory else "")
        else:
            how += f" after {seconds:g} s"
        said = self.logs(service, lines=8)
        return EngineError(
            f"{service} is {how}" + (f"; it said last: {said}" if said else "; it said nothing"),
            hint=f"See all of it: docker compose -p {self.project.name} logs {service}",
        )

    def _secrets(self) -> set[str]:
        values = set()
        for service in self.project.services.values():
            for name, value in service.environment.items():
                if _SECRET_NAME.search(name):
                    values.add(value.reveal())
            for word, following in zip(service.command or (), (service.command or ())[1:], strict=False):
                if word in ("--requirepass", "--masterauth", "-a", "--password"):
                    values.add(following)
        # A short value would blacken ordinary words.
        return {value for value in values if len(value) >= 6 and not value.startswith("/run/secrets/")}


_LIVE = ("running", "restarting", "paused", "removing")


def _container(entry: Mapping[str, Any]) -> Container:
    state = entry["State"]
    ended = state["Status"] in ("exited", "dead")
    started = state.get("StartedAt") or ""
    return Container(
        id=entry["Id"],
        name=entry["Name"].lstrip("/"),
        service=(entry["Config"].get("Labels") or {}).get("com.docker.compose.service", ""),
        state=state["Status"],
        health=(state.get("Health") or {}).get("Status") or None,
        exit_status=state["ExitCode"] if ended else None,
        # The engine writes nanoseconds; year 1 means never.
        started=None if not started or started.startswith("0001") else from_text(_microseconds(started)),
        image_id=entry["Image"],
        image=entry["Config"]["Image"],
        restarts=entry.get("RestartCount") or 0,
        out_of_memory=bool(state.get("OOMKilled")),
        mounts=tuple(
            ContainerMount(
                kind=mount["Type"],
                name=mount.get("Name") or "",
                source=mount.get("Source") or "",
                target=mount["Destination"],
                writable=bool(mount.get("RW")),
            )
            for mount in entry.get("Mounts") or ()
        ),
        addresses=_addresses(entry),
    )


def _addresses(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The container's addresses, network by network; the host's loopback when it shares the host's network."""
    if (entry.get("HostConfig") or {}).get("NetworkMode") == "host":
        return ("127.0.0.1",)
    networks = ((entry.get("NetworkSettings") or {}).get("Networks") or {}).values()
    found = [network.get("IPAddress") or network.get("GlobalIPv6Address") for network in networks]
    return tuple(one for one in found if one)


def _microseconds(text: str) -> str:
    return re.sub(r"(\.\d{6})\d+", r"\1", text)
