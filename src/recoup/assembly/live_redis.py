"""Bringing a Redis copy to life in a sandbox: by which server, and with the checks that the plan has for it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from recoup.assembly.access import Found
from recoup.assembly.system import System
from recoup.engines.engine import CopyReader
from recoup.engines.redis.live import RedisLive, open_redis_live
from recoup.engines.redis.local_servers import find_local_server
from recoup.engines.redis.plan_checks import RedisCheck
from recoup.engines.redis.sandbox_server import Launcher, local_launcher
from recoup.engines.sandbox import Sandbox
from recoup.plan.services import RedisService


def redis_live(
    system: System | None, found: Found, reader: CopyReader, sandbox: Sandbox
) -> AbstractContextManager[RedisLive]:
    """The RDB copy ``found``, to be loaded in ``sandbox``. Without a plan it is asked nothing.

    Opening it raises ``UsageError`` saying what to install when no server here loads the copy.
    """
    launcher = find_launcher(found)
    return open_redis_live(sandbox, reader, launcher, checks=checks_of(system, found.manifest.service))


def find_launcher(found: Found) -> Launcher:
    """The server that fits the copy best. Raise ``UsageError`` saying what to install when there is none."""
    facts = found.manifest.facts
    program = find_local_server(
        rdb_version=int(facts.get("rdb_version", 0)), server_version=str(facts.get("redis_version", ""))
    )
    return local_launcher(program.path, program.version)


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
