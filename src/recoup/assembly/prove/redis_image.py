"""A Redis for a sandbox out of the image of the plan's own Compose service, where this machine has none that fits.

A container of its own, made from the image and nothing else of the service: no network, no volume, no variable of it,
no capability, a read-only file system; the folder of the sandbox is all that it sees. It ends when its stdin does, so
that it cannot outlive the run that started it, however that ends.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from recoup.assembly.stack import Stack
from recoup.engines.compose.docker import ComposeSource, call
from recoup.engines.compose.sandbox_project import SANDBOX_LABEL
from recoup.engines.redis.local_servers import release
from recoup.engines.redis.sandbox_server import Launcher
from recoup.engines.sandbox import SANDBOX_VARIABLE, Sandbox
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command

_INSIDE = "/sandbox"
#: $1: the configuration. The server goes when the pipe from this machine is closed.
_SCRIPT = r"""set -u
redis-server "$1" </dev/null &
server=$!
( cat >/dev/null; kill -9 "$server" 2>/dev/null ) <&3 &
wait "$server"
"""
_CLOSED = (
    *("--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
    *("--pids-limit", "64", "--pull", "never", "--log-driver", "none"),
)


def image_launcher(stack: Stack, compose_service: str) -> Launcher:
    """The server in the image that ``compose_service`` runs. Raise ``EngineError`` when there is none here."""
    source = stack.client.source
    images = stack.client.images([compose_service])
    image = images[0].image_id if images else stack.project.service(compose_service).image
    if not image:
        raise EngineError(f"the service {compose_service} names no image that is here")
    asked = source.docker("run", "--rm", *_CLOSED, "--entrypoint", "redis-server", image, "--version")
    said = call(asked, doing=f"ask the image of {compose_service} for its version").stdout.decode(errors="replace")
    match = re.search(r"v=(\d+\.\d+\.\d+)", said)
    if match is None or release(match[1]) is None:
        raise EngineError(f"the image of {compose_service} does not say which Redis it holds")

    def command(sandbox: Sandbox, folder: Path, configuration: str) -> Command:
        return _command(source, image, sandbox, folder, configuration)

    where = f"the image of {compose_service}"
    return Launcher(version=match[1], where=where, command=command, leashed=True, closed=True)


def _command(source: ComposeSource, image: str, sandbox: Sandbox, folder: Path, configuration: str) -> Command:
    uid, gid = sandbox.user or (os.geteuid(), os.getegid())
    outer = source.docker(
        *("run", "--rm", "--interactive", "--name", f"recoup-sandbox-{sandbox.id}-{secrets.token_hex(3)}"),
        *(*_CLOSED, "--label", f"{SANDBOX_LABEL}={sandbox.id}", "--user", f"{uid}:{gid}"),
        *("--mount", f"type=bind,source={folder},target={_INSIDE}", "--workdir", _INSIDE),
        *("--entrypoint", "/bin/sh", image, "-c", f"exec 3<&0; {_SCRIPT}", "recoup", configuration),
        timeout_seconds=None,
    )
    # Not behind the walls of the sandbox, where it would not reach the engine; but it can be found by the sandbox's id.
    return Command(argv=outer.argv, environment={**outer.environment, SANDBOX_VARIABLE: sandbox.id})
