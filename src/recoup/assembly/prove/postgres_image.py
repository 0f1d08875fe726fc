"""PostgreSQL for a sandbox out of the image of the plan's own Compose service, where this machine has none that fits.

Containers of their own, made from the image and nothing else of the service: no network, no volume, no variable of it,
no capability, a read-only file system; the folder of the sandbox, at its own path, is all that they see. The server
ends when its standard input does, so that it cannot outlive the run that started it, however that ends; the others
end with the server.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recoup.assembly.stack import open_stack
from recoup.assembly.system import System
from recoup.engines.compose.docker import ComposeSource, call
from recoup.engines.compose.sandbox_project import SANDBOX_LABEL
from recoup.engines.postgres.sandbox_programs import FindInstallation, Installation, lacks, local_installation
from recoup.engines.sandbox import SANDBOX_VARIABLE, Sandbox
from recoup.kernel.errors import EngineError, UsageError
from recoup.kernel.process import Command
from recoup.plan.services import PostgresService

#: Runs a server that goes when the pipe from this machine is closed, and is told to stop as it would be by itself.
_LEASHED = r"""set -u
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
trap 'kill -INT "$server" 2>/dev/null' INT TERM
( cat <&3 >/dev/null; kill -KILL "$server" 2>/dev/null ) &
while :; do
    wait "$server"
    status=$?
    kill -0 "$server" 2>/dev/null || break
done
exit "$status"
"""
_CLOSED = (
    *("--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
    *("--tmpfs", "/tmp", "--pids-limit", "256", "--pull", "never", "--log-driver", "none"),  # noqa: S108
)
#: What a container is told of the environment of its command; the rest is for the client.
_OURS = re.compile(r"PG\w+|LC_\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Image:
    source: ComposeSource
    image: str

    def inside(self, sandbox: Sandbox, command: Command, server: bool) -> Command:
        """See ``Installation``. It is not behind the walls of the sandbox, where it would not reach the engine."""
        uid, gid = sandbox.user or (os.geteuid(), os.getegid())
        environment = {**command.environment, SANDBOX_VARIABLE: sandbox.id}
        told = [name for name in environment if _OURS.fullmatch(name) or name == SANDBOX_VARIABLE]
        run = ("/bin/sh", self.image, "-c", _LEASHED, "recoup", *command.argv)
        plain = (command.argv[0], self.image, *command.argv[1:])
        outer = self.source.docker(
            *("run", "--rm", "--interactive", "--name", f"recoup-sandbox-{sandbox.id}-{secrets.token_hex(4)}"),
            *(*_CLOSED, "--label", f"{SANDBOX_LABEL}={sandbox.id}", "--user", f"{uid}:{gid}"),
            *("--mount", f"type=bind,source={sandbox.folder},target={sandbox.folder}"),
            *("--workdir", str(command.folder or sandbox.folder)),
            *("--env", f"HOME={sandbox.folder}", *(part for name in told for part in ("--env", name))),
            *("--entrypoint", *(run if server else plain)),
            timeout_seconds=command.timeout_seconds,
        )
        return Command(
            argv=outer.argv,
            environment={**outer.environment, **environment},
            timeout_seconds=outer.timeout_seconds,
        )


def image_installation(system: System, service: str, major: int) -> Installation:
    """The programs in the image that a service runs. Raise ``EngineError`` or ``UsageError`` when there are none."""
    described = system.plan.services.get(service)
    if not isinstance(described, PostgresService) or described.compose is None:
        raise UsageError(f"{service} is not a service of the plan's Compose project")
    stack = open_stack(system)
    source = stack.client.source
    images = stack.client.images([described.compose])
    image = images[0].image_id if images else stack.project.service(described.compose).image
    if not image:
        raise EngineError(f"the service {described.compose} names no image that is here")
    asked = source.docker("run", "--rm", *_CLOSED, "--entrypoint", "postgres", image, "--version")
    said = call(asked, doing=f"ask the image of {described.compose} for its version").stdout.decode(errors="replace")
    match = re.search(r"\(PostgreSQL\) (\d+)", said)
    if match is None or int(match[1]) != major:
        raise EngineError(f"the image of {described.compose} does not hold PostgreSQL {major}")
    return Installation(
        folder=Path(),
        where=f"the image of {described.compose}",
        inside=_Image(source=source, image=image).inside,
        leashed=True,
        closed=True,
    )


def find_installation(system: System | None, service: str) -> FindInstallation:
    """How to find the programs for a copy of ``service``: those of this machine, or else those in its own image.

    The image comes first when those of this machine lack an extension that the copy has.
    """
    return partial(_find, system, service)


def _find(
    system: System | None, service: str, sandbox: Sandbox, major: int, extensions: AbstractSet[str]
) -> Installation:
    try:
        local = local_installation(sandbox, major)
    except EngineError as missing:
        if system is None:
            raise
        try:
            return image_installation(system, service, major)
        except (EngineError, UsageError) as neither:
            raise EngineError(f"{missing.message}; and {neither.message}", hint=missing.hint) from neither
    if system is not None and lacks(sandbox, local, extensions):
        with contextlib.suppress(EngineError, UsageError):
            return image_installation(system, service, major)
    return local
