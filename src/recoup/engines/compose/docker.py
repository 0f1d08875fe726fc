"""Calling ``docker`` and ``docker compose`` by their command line, and saying what is wrong when they cannot work.

The command line is the interface that stays: Compose 2 and 5 share it, and it brings contexts, proxies and remote
engines (``DOCKER_HOST``) with it. The failures every new machine shows once (no docker, no Compose plugin, engine not
running, no permission on the socket) become errors that say what to do.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, Completed, failure_of, run
from recoup.kernel.secret import Secret

#: Longest wait for an answer that needs no work of the engine's.
ANSWER_SECONDS = 60.0
#: What boto3 reads from the environment, where a line of an env file sets it.
_SIGNING_IN = re.compile(r"(?m)^\s*(?:export\s+)?(AWS_[A-Z_]+)\s*[=:]")


class ContainerEngineError(EngineError):
    """Docker itself is missing, not running, or not open to this user. No statement about the stack follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComposeSource:
    """Where a Compose project is described. ``files`` are merged in order, as ``docker compose -f`` does.

    ``docker_environment`` reaches every docker call (``DOCKER_HOST`` of a remote engine); it is not shown.
    """

    files: tuple[Path, ...]
    env_files: tuple[Path, ...] = ()
    name: str | None = None  #: the project's name, when it is not what the files say
    docker_environment: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)

    @property
    def folder(self) -> Path:
        """The project's folder: the first file's, as Compose has it. Relative paths in the files start there."""
        return self.files[0].absolute().parent

    def docker(self, *argv: str, timeout_seconds: float | None = ANSWER_SECONDS) -> Command:
        """The command ``docker ARGV``."""
        environment = dict(self.docker_environment)
        return Command(argv=("docker", *argv), environment=environment, timeout_seconds=timeout_seconds)

    def compose(self, *argv: str, timeout_seconds: float | None = ANSWER_SECONDS) -> Command:
        """The command ``docker compose ARGV`` for this project, services of every profile included.

        Callers name the services they mean: with every profile on, "all services" would be more than production.
        """
        options: list[str] = ["compose", "--ansi", "never", "--progress", "quiet", "--profile", "*"]
        if self.name is not None:
            options += ["--project-name", self.name]
        for file in self.files:
            options += ["--file", str(file.absolute())]
        for env_file in self.env_files:
            options += ["--env-file", str(env_file.absolute())]
        command = self.docker(*options, *argv, timeout_seconds=timeout_seconds)
        return replace(command, without=self._own())

    def _own(self) -> frozenset[str]:
        """What the project's env files say of ``_SIGNING_IN``. Compose lets its environment overrule them, and what is
        in the environment of Recoup are the credentials of the backups: no application gets those instead of its own.
        """
        found: set[str] = set()
        for file in self.env_files or (self.folder / ".env",):
            with contextlib.suppress(OSError):
                found |= set(_SIGNING_IN.findall(file.read_text(errors="replace")))
        return frozenset(found)


def call(command: Command, *, doing: str, stdin: bytes | None = None, expect: Sequence[int] | None = (0,)) -> Completed:
    """Run a docker command. ``doing`` completes the sentence "cannot …" when it fails.

    Raise ``ContainerEngineError`` when docker cannot work here, ``EngineError`` for other failures.
    """
    try:
        completed = run(command, stdin=stdin, expect=None)
    except EngineError as failure:
        if failure.message.startswith("program not found: docker"):
            raise ContainerEngineError(
                "docker is not installed here, or not on the PATH",
                hint="Install Docker with its Compose plugin: https://docs.docker.com/engine/install/",
            ) from failure
        raise
    if completed.exit_status != 0:
        check_docker(completed)
        if expect is not None and completed.exit_status not in expect:
            raise EngineError(f"cannot {doing}: {said_by(completed)}")
    return completed


def check_docker(completed: Completed) -> None:
    """Raise ``ContainerEngineError`` when a failed call failed for docker's own reasons."""
    said = completed.stderr
    if re.search(r"permission denied while trying to connect|dial unix .*: permission denied", said):
        raise ContainerEngineError(
            "this user may not talk to the Docker engine",
            hint="Run recoup as root, or add the user to the group docker (which is as powerful as root).",
        )
    if re.search(
        r"Cannot connect to the Docker daemon|error during connect|docker daemon is not running"
        r"|failed to connect to the docker API",
        said,
    ):
        raise ContainerEngineError(
            f"the Docker engine does not answer: {_last_line(said)}",
            hint="Start it (systemctl start docker), or correct DOCKER_HOST or the docker context.",
        )
    if re.search(
        r"'compose' is not a docker command|unknown command: docker compose|unknown flag: --(ansi|progress)", said
    ):
        raise ContainerEngineError(
            "docker has no Compose plugin here",
            hint="Install docker-compose-plugin (Docker's packages) or docker-compose-v2 (Ubuntu). "
            "Version 2.19 is the oldest that will do.",
        )
    if re.search(r"client version \S+ is too (new|old)", said):
        raise ContainerEngineError(
            f"docker's client and engine do not fit: {_last_line(said)}",
            hint="Set DOCKER_API_VERSION to the version that the engine names, or update the older of the two.",
        )


def said_by(completed: Completed) -> str:
    """Why a docker call failed, in its own last words, without Compose's warnings and colours."""
    lines = [line.strip() for line in completed.stderr.splitlines() if line.strip()]
    words = [line for line in lines if not line.startswith("time=") or "level=warning" not in line]
    how = failure_of(completed).message.partition(":")[0].removeprefix(str(completed.command.argv[0])).strip()
    return "; ".join(words[-4:]) or how


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
