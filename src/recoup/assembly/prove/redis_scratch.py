"""Where a command stream is replayed: by a ``redis-server`` of this machine, or in the image of the service."""

from __future__ import annotations

import re
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recoup.assembly.redis import redis_place
from recoup.assembly.system import System
from recoup.engines.compose.client import ComposeProject
from recoup.engines.compose.one_off import OneOff, finish, open_one_off, run_one_off
from recoup.engines.redis.replay import (
    BUILT,
    CONFIGURATION,
    IMAGE_SCRIPT,
    Scratch,
    ScratchProgram,
    find_scratch_program,
    image_settings,
)
from recoup.kernel.errors import EngineError, UsageError
from recoup.plan.services import RedisService

_REPLAY_SECONDS = 4 * 3600.0
_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayer:
    """A Redis that can replay. ``replay`` takes a laid-out scratch folder and the number of databases."""

    program: ScratchProgram
    where: str
    replay: Callable[[Scratch, int], Path]


def find_replayer(system: System | None, service: str, *, rdb_version: int, server_version: str) -> Replayer:
    """A program of this machine when there is one of the right release, else the image of the service.

    Raise ``UsageError`` saying what to install when there is neither.
    """
    described = None if system is None else system.plan.services.get(service)
    try:
        program = find_scratch_program(rdb_version, server_version)
        return Replayer(program=program, where=program.path, replay=_here)
    except UsageError as missing:
        if system is None or not isinstance(described, RedisService) or described.compose is None:
            raise
        stack = redis_place(system, service).stack
        if stack is None:
            raise
        return _by_image(stack.client, described.compose, missing)


def _here(scratch: Scratch, databases: int) -> Path:
    return scratch.replay(databases=databases)


def _by_image(client: ComposeProject, compose_service: str, missing: UsageError) -> Replayer:
    asked = OneOff(service=compose_service, argv=("redis-server", "--version"), run_id="version", writable=False)
    said = run_one_off(client, asked).stdout.decode(errors="replace")
    match = re.search(r"v=(\d+\.\d+\.\d+)", said)
    if match is None:
        raise UsageError(f"{missing.message}; and the image of {compose_service} does not say its version") from missing
    program = ScratchProgram(path="redis-server", version=match[1])

    def replay(scratch: Scratch, databases: int) -> Path:
        return _in_container(client, compose_service, scratch, databases)

    return Replayer(program=program, where=f"the image of {compose_service}", replay=replay)


def _in_container(client: ComposeProject, compose_service: str, scratch: Scratch, databases: int) -> Path:
    run_id = f"replay-{scratch.folder.name}"
    (scratch.folder / CONFIGURATION).write_bytes(image_settings(databases, multi_part=scratch.program.multi_part))
    argv = ("sh", "-c", IMAGE_SCRIPT, "recoup-replay")
    one_off = OneOff(service=compose_service, argv=argv, run_id=run_id, writable=False, timeout_seconds=_REPLAY_SECONDS)
    built = scratch.folder / BUILT
    with open_one_off(client, one_off) as child:
        try:
            with tarfile.open(fileobj=child.stdin, mode="w|") as tar:
                for path in sorted(scratch.folder.iterdir()):
                    tar.add(path, arcname=path.name)
            child.stdin.close()
        except BrokenPipeError:
            finish(child, timeout_seconds=_END_SECONDS)  # says why it stopped reading
            raise EngineError("the container stopped reading before the command stream was complete") from None
        with open(built, "wb") as handle:
            shutil.copyfileobj(child.stdout, handle)
        finish(child, timeout_seconds=_END_SECONDS)
    return built
