"""A Compose project as typed values, read through ``docker compose config`` (which needs no engine).

The resolved configuration holds every secret of the stack in clear. Values of environment variables are kept as
``Secret``; commands and health checks, which may carry passwords as well, are never part of a ``repr``.

Format: https://github.com/compose-spec/compose-spec/blob/main/spec.md, as normalised by ``config --format json``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recoup.engines.compose.docker import ComposeSource, call
from recoup.kernel.errors import EngineError
from recoup.kernel.secret import Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One place inside a container that is kept outside of it."""

    kind: str  #: ``volume``, ``bind``, ``tmpfs`` ...
    source: str  #: the volume's key in the file, or a path of the host; empty for an anonymous volume
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A published port. ``published`` is None when the engine chooses one."""

    target: int
    published: int | None
    host: str = ""  #: the address it is bound to; empty means all
    protocol: str = "tcp"

    @property
    def everywhere(self) -> bool:
        """Whether it is published on every address of the machine."""
        return self.host in ("", "0.0.0.0", "::")  # noqa: S104 - compared with, never listened on

    @property
    def nearby(self) -> str:
        """The address at which the machine itself reaches it."""
        return "127.0.0.1" if self.everywhere else self.host


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """What a service waits for, and how far that one must be (``service_started``, ``service_healthy`` ...)."""

    service: str
    condition: str = "service_started"
    required: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeService:
    """One service. ``written`` holds environment values and the command as the file has them: ``${VARIABLE}``."""

    name: str
    image: str | None
    build: str | None  #: the folder it is built from
    command: tuple[str, ...] | None = field(repr=False)
    entrypoint: tuple[str, ...] | None = field(repr=False)
    environment: Mapping[str, Secret] = field(repr=False)
    written_environment: Mapping[str, str] = field(repr=False)
    written_command: str = field(repr=False)
    env_files: tuple[str, ...]
    mounts: tuple[Mount, ...]
    ports: tuple[Port, ...]
    exposed: tuple[int, ...]
    healthcheck: tuple[str, ...] | None = field(repr=False)  #: its test; None when there is none or it is disabled
    depends_on: tuple[Dependency, ...]
    profiles: tuple[str, ...]
    restart: str
    labels: Mapping[str, str]
    secret_files: Mapping[str, str]  #: paths inside the container → files of the host (``secrets:`` of the file)
    container_name: str | None
    replicas: int

    @property
    def environment_names(self) -> tuple[str, ...]:
        """The variables it is given, by name. The names are not secret."""
        return tuple(sorted(self.environment))


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A named volume: its key in the file, its name in the engine, and whether something else manages it."""

    key: str
    name: str
    external: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A whole Compose project. ``warnings`` are Compose's own, about variables that are not set."""

    name: str
    source: ComposeSource
    services: Mapping[str, ComposeService]
    volumes: Mapping[str, Volume]
    warnings: tuple[str, ...] = ()

    def service(self, name: str) -> ComposeService:
        """Raise ``EngineError`` when the project has no such service."""
        if name not in self.services:
            raise EngineError(
                f"the Compose project {self.name} has no service {name}",
                hint=f"It has: {', '.join(sorted(self.services))}. Correct the service's compose: in the plan.",
            )
        return self.services[name]


def read_project(source: ComposeSource) -> Project:
    """Read a project. Raise ``EngineError`` with Compose's own words when the files are missing or wrong."""
    for path in (*source.files, *source.env_files):
        if not path.is_file():
            raise EngineError(f"no such file: {path}", hint="Correct the plan's compose: section.")
    doing = f"read {', '.join(str(file) for file in source.files)}"
    resolved = call(source.compose("config", "--format", "json"), doing=doing)
    # As written, to learn which variable a secret comes from. Some valid files cannot be shown without resolving
    # them (a variable where a number must be); then only the references stay unknown.
    as_written = source.compose("config", "--format", "json", "--no-interpolate", "--no-env-resolution")
    written = call(as_written, doing=doing, expect=None)
    raw = json.loads(written.stdout) if written.exit_status == 0 else {}
    return parse_project(json.loads(resolved.stdout), raw, source, _warnings(resolved.stderr))


def parse_project(
    resolved: Mapping[str, Any], written: Mapping[str, Any], source: ComposeSource, warnings: tuple[str, ...] = ()
) -> Project:
    """Given the two documents of ``read_project``, return the typed project."""
    raw = written.get("services") or {}
    return Project(
        name=resolved["name"],
        source=source,
        services={
            name: _service(name, body, raw.get(name) or {}, resolved.get("secrets") or {})
            for name, body in (resolved.get("services") or {}).items()
        },
        volumes={
            key: Volume(key=key, name=body.get("name") or key, external=bool(body.get("external")))
            for key, body in ((key, body or {}) for key, body in (resolved.get("volumes") or {}).items())
        },
        warnings=warnings,
    )


def _service(name: str, body: Mapping[str, Any], raw: Mapping[str, Any], secrets: Mapping[str, Any]) -> ComposeService:
    build = body.get("build")
    healthcheck = body.get("healthcheck") or {}
    return ComposeService(
        name=name,
        image=body.get("image"),
        build=build.get("context", ".") if isinstance(build, dict) else build,
        command=_words(body.get("command")),
        entrypoint=_words(body.get("entrypoint")),
        environment={key: Secret(_plain(value)) for key, value in _pairs(body.get("environment")).items()},
        written_environment=_pairs(raw.get("environment")),
        written_command=_text(raw.get("command")),
        env_files=tuple(_path(entry) for entry in _listed(raw.get("env_file"))),
        mounts=tuple(_mount(entry) for entry in body.get("volumes") or ()),
        ports=tuple(port for entry in body.get("ports") or () for port in _ports(entry)),
        exposed=tuple(int(str(entry).split("/")[0]) for entry in body.get("expose") or () if _is_port(entry)),
        healthcheck=_health_test(healthcheck),
        depends_on=tuple(_dependencies(body.get("depends_on"))),
        profiles=tuple(body.get("profiles") or ()),
        restart=body.get("restart") or "no",
        labels={key: _plain(value) for key, value in _pairs(body.get("labels")).items()},
        secret_files=_secret_files(body.get("secrets") or (), secrets),
        container_name=body.get("container_name"),
        replicas=_replicas(body),
    )


def _plain(text: str) -> str:
    # `config` writes $ as $$, so that its output can be read as a Compose file again.
    return text.replace("$$", "$")


def _words(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        return tuple(shlex.split(_plain(value)))
    assert isinstance(value, list)
    return tuple(_plain(str(word)) for word in value)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(str(word) for word in value)
    return "" if value is None else str(value)


def _pairs(value: object) -> dict[str, str]:
    if isinstance(value, dict):
        return {str(key): "" if text is None else str(text) for key, text in value.items()}
    if isinstance(value, list):
        return {key: text for key, _, text in (str(entry).partition("=") for entry in value)}
    return {}


def _listed(value: object) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _path(entry: object) -> str:
    return str(entry["path"]) if isinstance(entry, dict) else str(entry)


def _mount(entry: Mapping[str, Any]) -> Mount:
    return Mount(
        kind=entry["type"],
        source=entry.get("source") or "",
        target=entry["target"],
        read_only=bool(entry.get("read_only")),
    )


def _is_port(entry: object) -> bool:
    return str(entry).split("/")[0].isdecimal()


def _ports(entry: Mapping[str, Any]) -> list[Port]:
    # `published` is a text, empty or a range ("8000-8010") when the engine chooses.
    published = str(entry.get("published") or "")
    return [
        Port(
            target=int(entry["target"]),
            published=int(published) if published.isdecimal() else None,
            host=entry.get("host_ip") or "",
            protocol=entry.get("protocol") or "tcp",
        )
    ]


def _health_test(healthcheck: Mapping[str, Any]) -> tuple[str, ...] | None:
    test = healthcheck.get("test")
    if healthcheck.get("disable") or not test or test == ["NONE"]:
        return None
    return ("CMD-SHELL", _plain(test)) if isinstance(test, str) else tuple(_plain(str(word)) for word in test)


def _dependencies(value: object) -> list[Dependency]:
    if isinstance(value, list):
        return [Dependency(service=str(name)) for name in value]
    if not isinstance(value, dict):
        return []
    return [
        Dependency(
            service=name,
            condition=(body or {}).get("condition") or "service_started",
            required=(body or {}).get("required", True),
        )
        for name, body in sorted(value.items())
    ]


def _secret_files(entries: object, secrets: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for entry in _listed(entries):
        source = entry["source"] if isinstance(entry, dict) else str(entry)
        target = (entry.get("target") if isinstance(entry, dict) else None) or source
        file = (secrets.get(source) or {}).get("file")
        if file:
            found[target if target.startswith("/") else f"/run/secrets/{target}"] = str(file)
    return found


def _replicas(body: Mapping[str, Any]) -> int:
    deployed = (body.get("deploy") or {}).get("replicas")
    return int(body["scale"] if body.get("scale") is not None else 1 if deployed is None else deployed)


def _warnings(stderr: str) -> tuple[str, ...]:
    # logrus text format: time="…" level=warning msg="The \"X\" variable is not set. …"
    found = re.findall(r'level=warning msg="((?:[^"\\]|\\.)*)"', stderr)
    return tuple(dict.fromkeys(text.replace('\\"', '"') for text in found))
