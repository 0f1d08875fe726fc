"""Bringing a Redis copy to life in a sandbox: by which server, and with the checks that the plan has for it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from recoup.assembly.access import Found, Readable
from recoup.assembly.prove.redis_image import image_launcher
from recoup.assembly.prove.redis_scratch import Replayer, find_replayer
from recoup.assembly.prove.redis_stream import cross_check
from recoup.assembly.stack import open_stack
from recoup.assembly.system import System
from recoup.engines.engine import CopyReader
from recoup.engines.redis.live import RedisLive, open_redis_live
from recoup.engines.redis.local_servers import find_local_server, fitting, local_servers, release
from recoup.engines.redis.plan_checks import RedisCheck
from recoup.engines.redis.replay import Scratch
from recoup.engines.redis.sandbox_server import Launcher, local_launcher, reachable_program
from recoup.engines.redis.seal import newest_loadable
from recoup.engines.sandbox import Sandbox
from recoup.kernel.errors import EngineError, UsageError
from recoup.plan.services import RedisService


def redis_live(
    opened: Readable, found: Found, reader: CopyReader, sandbox: Sandbox
) -> AbstractContextManager[RedisLive]:
    """The RDB copy ``found``, to be loaded in ``sandbox``. Without a plan it is asked nothing.

    When it lies on a command stream, the stream before it is proven by it as well. Raise ``UsageError`` saying what to
    install when no server here loads the copy.
    """
    facts = found.manifest.facts
    rdb_version, version = int(facts.get("rdb_version", 0)), str(facts.get("redis_version", ""))
    service = found.manifest.service

    def replayer() -> Replayer:
        program = fitting(local_servers(), rdb_version=rdb_version, server_version=version)
        if program is not None and release(program.version) == release(version):
            program = replace(program, path=reachable_program(sandbox, program.path))
            return Replayer(program=program, where=program.path, replay=_replay)
        return find_replayer(opened.system, service, rdb_version=rdb_version, server_version=version)

    return open_redis_live(
        sandbox,
        reader,
        find_launcher(opened.system, service, rdb_version=rdb_version, server_version=version),
        checks=checks_of(opened.system, service),
        cross_check=cross_check(opened, found, sandbox, replayer),
    )


def _replay(scratch: Scratch, databases: int) -> Path:
    return scratch.replay(databases=databases)


def find_launcher(system: System | None, service: str, *, rdb_version: int, server_version: str) -> Launcher:
    """The server for a copy: one of this machine of its release, else the service's own image, else a newer one.

    Raise ``UsageError`` saying what to install when there is none.
    """
    program = fitting(local_servers(), rdb_version=rdb_version, server_version=server_version)
    if program is None or release(program.version) != release(server_version):
        image = _of_image(system, service)
        if image is not None and newest_loadable(image.version) >= rdb_version:
            return image
    if program is None:
        program = find_local_server(rdb_version=rdb_version, server_version=server_version)  # says what is missing
    return local_launcher(program.path, program.version)


def _of_image(system: System | None, service: str) -> Launcher | None:
    described = None if system is None else system.plan.services.get(service)
    if system is None or not isinstance(described, RedisService) or described.compose is None:
        return None
    try:
        return image_launcher(open_stack(system), described.compose)
    except (EngineError, UsageError):
        return None


def checks_of(system: System | None, service: str) -> list[RedisCheck]:
    """What the plan wants to be true of a Redis service."""
    described = None if system is None else system.plan.services.get(service)
    return [
        RedisCheck(
            command=one.redis,
            name=one.name,
            database=one.database,
            at_least=one.at_least,
            at_most=one.at_most,
            equals=one.equals,
        )
        for one in (described.checks if isinstance(described, RedisService) else ())
    ]
