"""Databases in a sandbox by servers of its own: in a drill those that production reaches by an address, and whatever
a recovery looks at before it goes back to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from recoup.assembly.access import Found, Readable
from recoup.assembly.drill.psql import rows_of
from recoup.assembly.protect.heartbeats import Beat, in_postgres, in_redis
from recoup.assembly.protect.incremental import chain_of
from recoup.assembly.prove.live_postgres import checks_of as postgres_checks
from recoup.assembly.prove.live_redis import checks_of as redis_checks
from recoup.assembly.prove.live_redis import find_launcher, redis_live
from recoup.assembly.prove.postgres_image import find_installation
from recoup.assembly.restore.homes import IDENTITY
from recoup.assembly.restore.postgres_moment import PostgresMoment
from recoup.assembly.restore.redis_moment import RedisTarget, build_copy
from recoup.assembly.restore.stack_moment import TimedMember
from recoup.assembly.system import System
from recoup.drill.reach import Rows
from recoup.engines.engine import CopyReader, ProgressListener
from recoup.engines.postgres.plan_checks import check_plan as check_postgres
from recoup.engines.postgres.recover_folder import TargetTooEarlyError, recover_to_folder
from recoup.engines.postgres.recovery_script import Reached
from recoup.engines.postgres.recovery_verdict import judge
from recoup.engines.postgres.sameness import compare_with_recorded
from recoup.engines.postgres.sandbox_programs import Installation
from recoup.engines.postgres.sandbox_restore import major_of, restore_base, wanted_extensions
from recoup.engines.postgres.sandbox_server import SandboxServer, start_sandbox_server
from recoup.engines.postgres.soundness import check_soundness
from recoup.engines.postgres.wal_windows import Base
from recoup.engines.redis.live import RedisLive, open_redis_live
from recoup.engines.sandbox import Sandbox
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.process import Command
from recoup.plan.services import PostgresService
from recoup.recovery.step import Done
from recoup.repository.copy_reader import ArtefactReader


@dataclass(slots=True, kw_only=True)
class NativeDatabases:
    """The databases of one drill that run natively. ``scope`` ends their servers."""

    opened: Readable
    system: System
    sandbox: Sandbox
    say: Callable[[str], None]
    on_progress: ProgressListener
    scope: contextlib.ExitStack
    outcomes: dict[str, tuple[Base, Reached]] = field(default_factory=dict)  #: where recoveries to an instant stopped
    applied: dict[str, int] = field(default_factory=dict)  #: how many commands were replayed on a copy of a Redis
    _placed: dict[str, tuple[Path, CopyReader, bool]] = field(default_factory=dict)
    _boxes: dict[str, Sandbox] = field(default_factory=dict)
    _servers: dict[str, SandboxServer] = field(default_factory=dict)
    _redis: dict[str, RedisLive] = field(default_factory=dict)

    def restore(self, service: str, member: Found | TimedMember) -> Done:
        """Bring the data into a folder of the sandbox. Raise as the engine's procedures do."""
        box = self._boxes[service] = replace(self.sandbox, folder=self.sandbox.child(f"native-{service}"))
        if isinstance(self.system.plan.services[service], PostgresService):
            if isinstance(member, Found):
                chain = chain_of(self.opened, member)
                self._placed[service] = restore_base(box, chain, ()).folder, chain[-1], True
                return Done(detail=f"base {member.manifest.id}")
            return self._recover(service, member, box)
        if isinstance(member, Found):
            reader = ArtefactReader(member.manifest, member.holders)
            self._redis[service] = self.scope.enter_context(redis_live(self.opened, member, reader, box))
            return Done(detail=f"rdb {member.manifest.id}")
        target = member.moment
        assert isinstance(target, RedisTarget), "only databases have moments"
        stored = ArtefactReader(target.found.manifest, target.found.holders)
        built = build_copy(self.system, target, stored, box.child("stream"), self.say, self.on_progress)
        self.applied[service] = built.commands
        version, rdb = str(stored.facts.get("redis_version", "")), int(stored.facts.get("rdb_version", 0))
        launcher = find_launcher(self.system, service, rdb_version=rdb, server_version=version)
        live = open_redis_live(
            box, _WithFacts(built, stored.facts), launcher, checks=redis_checks(self.system, service)
        )
        self._redis[service] = self.scope.enter_context(live)
        return Done(detail=member.what)

    def start(self, service: str) -> Done:
        """Start the server on it, and look at what it holds."""
        if service in self._redis:
            return Done(findings=tuple(self._redis[service].boots()))
        folder, reader, compare = self._placed[service]
        major = major_of(reader.facts)
        box = self._boxes[service]
        server = self._servers[service] = self.scope.enter_context(
            start_sandbox_server(
                box, folder, major=major, facts=reader.facts, installation=self._installation(service, box, reader)
            )
        )
        with server.session(server.database) as session:
            found = str(session.query("SELECT system_identifier FROM pg_control_system()")[0][0])
        wanted = str(reader.facts["system_identifier"])
        right = found == wanted
        same = Finding(
            check=IDENTITY,
            subject=service,
            verdict=Verdict.OK if right else Verdict.FAILED,
            detail=f"system identifier {found}" + ("" if right else f", not {wanted}"),
        )
        more = compare_with_recorded(server, reader.fingerprint, reader.facts) if compare else []
        return Done(findings=(same, *more), detail=f"PostgreSQL {major}")

    def damage(self, service: str, allowed_seconds: float) -> Sequence[Finding]:
        """Look for damage inside a service that was started: of its storage, not of what applications wrote.

        A Redis that has loaded its data, which ``start`` shows, has decoded all of them.
        """
        if service in self._redis:
            return ()
        return check_soundness(self._server(service), allowed_seconds=allowed_seconds, rules=False)

    def keys(self, service: str) -> int | None:
        """How many keys a Redis that was started holds; None for another service."""
        return self._redis[service].keys() if service in self._redis else None

    def beat(self, service: str) -> Beat:
        """The newest heartbeat of a service that was started."""
        if service in self._redis:
            return in_redis(self._redis[service])
        return in_postgres(self._server(service))

    def check(self, service: str) -> Sequence[Finding]:
        """Ask the plan's questions of a service."""
        if service in self._redis:
            return self._redis[service].works()
        return check_postgres(self._server(service), postgres_checks(self.system, service))

    def sql(self, service: str, database: str | None, query: str, seconds: float) -> Rows:
        """Ask a PostgreSQL service one query, as a flow does."""
        server = self._server(service)
        described = self.system.plan.services[service]
        assert isinstance(described, PostgresService), "the flow was checked"
        names = [self.system.resolver.text(one) for one in described.databases]
        name = database or (names[0] if names else server.database)
        return rows_of(lambda *words: server.command([server.program("psql"), *words], database=name), query, seconds)

    def _recover(self, service: str, member: TimedMember, box: Sandbox) -> Done:
        moment = member.moment
        assert isinstance(moment, PostgresMoment), "a PostgreSQL service has such moments"
        too_early: TargetTooEarlyError | None = None
        for number, base in enumerate(moment.choice.bases):
            chain = chain_of(self.opened, moment.cluster.found[base.id])
            folder = box.child(f"data-{number}")
            installed = self._installation(service, box, chain[-1])
            try:
                done = recover_to_folder(
                    chain, folder, moment.recovery(base, ["postgres"]), owner=box.user, on_progress=self.on_progress,
                    server=installed.folder, inside=partial(_inside, installed, box),
                )  # fmt: skip
            except TargetTooEarlyError as failure:
                too_early = failure
                continue
            self.outcomes[service] = base, done.reached
            self._placed[service] = folder, chain[-1], False
            stopped = judge(
                moment.choice.target, done.reached, subject=service, wal_end=moment.choice.window.end,
                segment_bytes=moment.cluster.segment_bytes,
            )  # fmt: skip
            return Done(findings=(stopped,), detail=member.what)
        raise too_early or RefusedError(f"no base backup of {service} leads to {moment.choice.target}")

    def _installation(self, service: str, box: Sandbox, copy: CopyReader) -> Installation:
        """PostgreSQL's programs, for one service: those of this machine, or those of its own image."""
        return find_installation(self.system, service)(box, major_of(copy.facts), wanted_extensions(copy))

    def _server(self, service: str) -> SandboxServer:
        if service not in self._servers:
            raise EngineError(f"{service} was not started in the sandbox")
        return self._servers[service]


def _inside(installed: Installation, box: Sandbox, command: Command) -> Command:
    return installed.inside(box, command, False)  # WAL comes by its standard input: that is no leash


class _WithFacts:
    """What a replay built, with the facts of the copy that it was built on. Implements ``CopyReader``."""

    def __init__(self, built: CopyReader, facts: Mapping[str, Any]) -> None:
        self._built, self._facts = built, facts

    @property
    def facts(self) -> Mapping[str, Any]:
        """See ``CopyReader``."""
        return {**self._facts, **self._built.facts}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._built, name)
