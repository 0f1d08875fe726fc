"""Bringing a Redis copy to life in a sandbox: by which server, and with the checks that the plan has for it."""

from __future__ import annotations

from contextlib import AbstractContextManager

from recoup.assembly.access import Found, Readable
from recoup.assembly.prove_redis_stream import cross_check
from recoup.assembly.redis_scratch import Replayer
from recoup.assembly.system import System
from recoup.engines.engine import CopyReader
from recoup.engines.redis.live import RedisLive, open_redis_live
from recoup.engines.redis.local_servers import find_local_server
from recoup.engines.redis.plan_checks import RedisCheck
from recoup.engines.redis.sandbox_server import local_launcher
from recoup.engines.sandbox import Sandbox
from recoup.plan.services import RedisService


def redis_live(
    opened: Readable, found: Found, reader: CopyReader, sandbox: Sandbox
) -> AbstractContextManager[RedisLive]:
    """The RDB copy ``found``, to be loaded in ``sandbox``. Without a plan it is asked nothing.

    When it lies on a command stream, the stream before it is proven by it as well. Raise ``UsageError`` saying what to
    install when no server here loads the copy.
    """
    facts = found.manifest.facts
    program = find_local_server(
        rdb_version=int(facts.get("rdb_version", 0)), server_version=str(facts.get("redis_version", ""))
    )

    def replayer() -> Replayer:
        return Replayer(
            program=program, where=program.path, replay=lambda scratch, count: scratch.replay(databases=count)
        )

    return open_redis_live(
        sandbox,
        reader,
        local_launcher(program.path, program.version),
        checks=checks_of(opened.system, found.manifest.service),
        cross_check=cross_check(opened, found, sandbox, replayer),
    )


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
