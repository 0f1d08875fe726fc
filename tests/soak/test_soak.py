"""Load, random faults, and then: does a restore to a random instant hold exactly what was committed by then?

A few seconds with every run of the tests. ``make soak`` runs it for ten minutes; ``RECOUP_SOAK_SECONDS`` says how long,
``RECOUP_SOAK_SEED`` repeats the faults, the load's choices and the instants of a run whose seed was printed.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest

from recoup.backup.run_records import read_workers
from recoup.demo.host import wait_until
from recoup.demo.programs import Programs, find_postgres, find_redis, find_weed
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
from recoup.engines.postgres.lsn import Lsn
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError
from tests.acceptance.daemon_place import RunningDaemon, outcome_of
from tests.acceptance.daemon_place import state_of as state_of_plan
from tests.acceptance.workplace import Ended, Workplace, kill, new_workplace
from tests.cable import Cable
from tests.real import require_found
from tests.soak.load import Written, load, pause_until, wrong_in
from tests.soak.reference import Reference, difference, state_of
from tests.soak.schedule import Fault, Target, faults

_SECONDS = float(os.environ.get("RECOUP_SOAK_SECONDS", "12"))
_ROUND_SECONDS = 60.0  #: so long faults rain, then instants are tried
#: Without a seed, the short run is the same every time and a long one is new.
_SEED = int(os.environ.get("RECOUP_SOAK_SEED") or (secrets.randbelow(1 << 32) if _SECONDS > 30 else 1113))
_INTERVAL = timedelta(seconds=1)
#: The time of a Redis command is when it was received: until a stream flows again after a fault, that is later.
_RECEIVED_WITHIN = timedelta(seconds=2)
_FLOWS_AGAIN_WITHIN = timedelta(seconds=20)

#: While these last, nobody hears Redis.
_SILENCING = (Target.DAEMON, Target.REDIS, Target.REDIS_CABLE, Target.MACHINE)

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.s3,
    pytest.mark.timeout(300 + 10 * _SECONDS),
]


@dataclass(slots=True, kw_only=True)
class Soak:
    """The servers, the cables between them and the daemon, and what was done to them."""

    work: Workplace
    postgres: PostgresServer
    redis: RedisServer
    sandbox: RedisServer  #: an empty one, to restore into
    s3: S3Server
    cables: dict[Target, Cable]
    reference: Reference
    chance: random.Random
    running: RunningDaemon | None = None
    #: When Redis may have had no listener.
    silences: dict[Fault, tuple[datetime, datetime | None]] = field(default_factory=dict)
    tried: int = 0

    def start_daemon(self) -> None:
        """Start it unless it runs, and wait until it has read the plan."""
        if self.running is not None and self.running.process.poll() is None:
            return
        self.running = RunningDaemon(self.work, self.work.start("daemon"))
        self.running.wait_for("protects Shop")

    def kill_daemon(self) -> None:
        """End it, and what it has started."""
        assert self.running is not None
        self.running.kill_alone()
        kill(self.running.process)

    def start_postgres(self) -> None:
        """Start it when nothing of the killed one is left."""
        assert wait_until(lambda: _starts(self.postgres), limit_seconds=60, every=0.2), "PostgreSQL stays down"

    def break_it(self, fault: Fault) -> None:
        """Let a fault begin."""
        print(f"  {fault}", flush=True)
        if fault.target in _SILENCING:
            self.silences[fault] = (clock.now(), None)
        match fault.target:
            case Target.DAEMON:
                self.kill_daemon()
            case Target.POSTGRES:
                self.postgres.kill()
            case Target.REDIS:
                self.redis.kill()
            case Target.MACHINE:
                self.kill_daemon()
                self.postgres.kill()
                self.redis.kill()
            case Target.S3:
                self.s3.kill()
            case cable:
                self.cables[cable].cut()

    def heal(self, fault: Fault) -> None:
        """End a fault."""
        match fault.target:
            case Target.DAEMON:
                self.start_daemon()
            case Target.POSTGRES:
                self.start_postgres()
            case Target.REDIS:
                self.redis.start()
            case Target.MACHINE:
                self.start_postgres()
                self.redis.start()
                self.start_daemon()
            case Target.S3:
                self.s3.start()
            case cable:
                self.cables[cable].mend()
        if fault.target in _SILENCING:
            self.silences[fault] = (self.silences[fault][0], clock.now())

    def rain(self, seed: int, seconds: float) -> None:
        """Let the faults of a seed happen, and wait until their time is over."""
        planned = faults(seed, seconds)
        acts = sorted(
            [(one.at, True, one) for one in planned] + [(one.at + one.seconds, False, one) for one in planned],
            key=lambda act: act[0],
        )
        begun = clock.monotonic()
        for at, breaks, fault in acts:
            pause_until(begun + at)
            if breaks:
                self.break_it(fault)
            else:
                self.heal(fault)
                print(f"{clock.monotonic() - begun:8.1f} s: healed {fault.target.value}", flush=True)
        pause_until(begun + seconds)

    def windows(self, service: str) -> dict[str, Any]:
        """To where a service can go back. There may be no problem, and no gap but where Redis began a new history."""
        (found,) = self.work.json("windows", service)["services"]
        gaps = [one for one in found["gaps"] if service != "redis" or "began a new history" not in one["why"]]
        assert not gaps, self.told(f"{service} has gaps: {gaps}")
        assert not found["problems"], self.told(f"{service} has problems: {found['problems']}")
        return dict(found)

    def heard(self, instant: datetime) -> datetime:
        """Until when everything must have been received by ``instant``: when the silence around it began, if any."""
        return min(
            [
                instant,
                *(
                    since
                    for since, until in self.silences.values()
                    if since < instant and (until is None or instant < until + _FLOWS_AGAIN_WITHIN)
                ),
            ]
        )

    def told(self, what: str) -> str:
        """``what`` went wrong, with what one needs to repeat and to understand it."""
        log = "\n".join(self.running.lines[-40:]) if self.running is not None else ""
        return f"{what}\nRECOUP_SOAK_SEED={_SEED} RECOUP_SOAK_SECONDS={_SECONDS:g}; the daemon's last words:\n{log}"


def _starts(server: PostgresServer) -> bool:
    """Start it; not yet, while processes of the killed one hold its memory."""
    try:
        server.start()
    except RecoupError:
        return False
    return True


@pytest.fixture
def soak() -> Iterator[Soak]:
    """Everything up, streams flowing, nothing written yet."""
    settings = {"wal_level": "logical", "max_wal_size": "256MB"}
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(
            PostgresServer(
                require_found(lambda: find_postgres(17)), settings=settings, initdb_arguments=["--wal-segsize=1"]
            )
        )
        redis = stack.enter_context(RedisServer(require_found(lambda: find_redis(7)), appendonly=True))
        sandbox = stack.enter_context(RedisServer(require_found(lambda: find_redis(7)), password=""))
        s3 = stack.enter_context(S3Server(require_found(find_weed)))
        cables = {
            target: stack.enter_context(Cable(server.port))
            for target, server in (
                (Target.POSTGRES_CABLE, postgres),
                (Target.REDIS_CABLE, redis),
                (Target.S3_CABLE, s3),
            )
        }
        work = stack.enter_context(new_workplace())
        database = postgres.new_database("bank")
        made = Soak(
            work=work,
            postgres=postgres,
            redis=redis,
            sandbox=sandbox,
            s3=s3,
            cables=cables,
            reference=Reference(server=postgres, database=database),
            chance=random.Random(_SEED),
        )
        made.reference.begin()
        _write_plan(made, database)
        try:
            made.start_daemon()
            yield made
        finally:
            if made.running is not None:
                kill(made.running.process)


def _write_plan(made: Soak, database: str) -> None:
    work, cables = made.work, made.cables
    del work.repositories["local"]
    work.add_bucket(made.s3, endpoint=f"http://127.0.0.1:{cables[Target.S3_CABLE].port}")
    every = f"{_INTERVAL.total_seconds():g}s"
    work.add_postgres(
        made.postgres, database, more=f", base: every 2m, fingerprint: false, wal: continuous, wal_every: {every}"
    )
    work.add_redis(made.redis)
    work.services["redis"] = (
        work.services["redis"][:-1] + f", rdb: every 2m, stream: continuous, stream_every: {every}}}"
    )
    for name, server, target in (
        ("postgres", made.postgres, Target.POSTGRES_CABLE),
        ("redis", made.redis, Target.REDIS_CABLE),
    ):
        text = work.services[name]
        assert f":{server.port}/" in text
        work.services[name] = text.replace(f":{server.port}/", f":{cables[target].port}/")
    work.environment["PATH"] = f"{made.postgres.bin}:{made.redis.program.parent}:{os.environ['PATH']}"
    work.write_plan()


# -- restoring -----------------------------------------------------------------------------------------------------


def _restore(soak: Soak, service: str, target: tuple[str, ...], destination: str) -> Ended:
    return soak.work.recoup("restore", *target, "--service", service, "--destination", destination, "--quiet")


def _try_postgres(soak: Soak, target: tuple[str, ...], least: int, most: int) -> int:
    """Restore to a target and compare; how many commits it holds, of which ``least`` to ``most`` are right."""
    soak.tried += 1
    folder = soak.work.folder / f"restored-{soak.tried}"
    folder.mkdir()
    if soak.postgres.owner is not None:
        os.chown(folder, *soak.postgres.owner)
    _restore(soak, "postgres", target, str(folder))
    settings = {"wal_level": "logical", "max_slot_wal_keep_size": "-1"}
    with PostgresServer(Programs(path=soak.postgres.bin), data_folder=folder, settings=settings) as server:
        found = state_of(server, soak.reference.database)
    shutil.rmtree(folder)
    counts = range(least, most + 1)
    said = {count: difference(found, soak.reference.after(count)) for count in counts}
    right = [count for count, wrong in said.items() if wrong is None]
    assert right, soak.told(
        f"postgres {' '.join(target)}, after {least} to {most} commits: {said[least]}; {said[most]}"
    )
    return right[-1]


def _try_postgres_instants(soak: Soak, count: int) -> None:
    windows = soak.windows("postgres")["windows"]
    assert len(windows) == 1, soak.told(f"postgres has {len(windows)} windows: {windows}")
    soak.reference.take()
    begin, end = (datetime.fromisoformat(windows[0][side]) for side in ("begin", "end"))
    first = soak.reference.up_to(Lsn.parse(windows[0]["begin_position"]))
    last = soak.reference.up_to(Lsn.parse(windows[0]["end_position"]))
    for number in range(count):
        if number % 2:
            instant = begin + (end - begin) * soak.chance.uniform(0.02, 0.98)
            least, most = soak.reference.count_at(instant)
            held = _try_postgres(soak, ("--to-time", clock.to_text(instant)), least, most)
            print(f"  postgres at {clock.to_text(instant)}: {held} commits, as it should be", flush=True)
            continue
        place = soak.chance.randrange(first, last)
        commit = soak.reference.commits[place]
        before = soak.chance.random() < 0.5
        target = ("--to-lsn", str(commit.begin), *(["--before"] if before else []))
        _try_postgres(soak, target, *[place if before else place + 1] * 2)
        print(f"  postgres {' '.join(target)}: {place} commits before it, as it should be", flush=True)


def _try_redis_instants(soak: Soak, written: Written, count: int) -> None:
    windows = soak.windows("redis")["windows"]
    assert windows, soak.told("redis has no window")
    times = list(written.numbers)
    for _ in range(count):
        window = soak.chance.choice(windows)
        begin, end = (datetime.fromisoformat(window[side]) for side in ("begin", "end"))
        instant = begin + (end - begin) * soak.chance.uniform(0.02, 0.98)
        with contextlib.closing(soak.sandbox.client()) as client:
            client.flushall()
            address = soak.sandbox.url()
            _restore(soak, "redis", ("--to-time", clock.to_text(instant)), address)
            number, wrong = wrong_in(client)
        said = f"redis at {clock.to_text(instant)}: {number} transactions"
        assert wrong is None, soak.told(f"{said}, but {wrong}")
        later = [at for at, time in enumerate(times[:number], 1) if time is not None and time > instant]
        assert not later, soak.told(f"{said}, of which {len(later)} came later, such as {later[:5]}")
        heard = soak.heard(instant) - _RECEIVED_WITHIN
        missing = [at for at, time in enumerate(times[number:], number + 1) if time is not None and time < heard]
        assert not missing, soak.told(f"{said}; {len(missing)} earlier ones are missing, such as {missing[:5]}")
        print(f"  {said}, as it should be", flush=True)


def _flows(soak: Soak) -> bool:
    """Whether there is a base backup, and a copy that the stream of Redis begins at."""
    facts = {one.name: one.facts for one in read_workers(state_of_plan(soak.work))}
    base = outcome_of(soak.work, "postgres", "base")
    return base == "ok" and facts.get("stream redis", {}).get("base") == "present"


def _caught_up(soak: Soak, written: Written) -> bool:
    """Whether what was last written can be restored."""
    wanted = soak.reference.commits[-1]
    last = next(one for one in reversed(written.numbers) if one is not None)
    (postgres,) = soak.work.json("windows", "postgres", expect=None)["services"]
    (redis,) = soak.work.json("windows", "redis", expect=None)["services"]
    if not postgres["windows"] or not redis["windows"]:
        return False
    return bool(
        Lsn.parse(postgres["windows"][-1]["end_position"]) >= wanted.end
        and datetime.fromisoformat(redis["windows"][-1]["end"]) >= last
    )


def test_a_restore_to_any_instant_holds_what_was_committed_by_then_whatever_was_killed(soak: Soak) -> None:
    print(f"\nRECOUP_SOAK_SEED={_SEED} RECOUP_SOAK_SECONDS={_SECONDS:g}", flush=True)
    begun = clock.monotonic()
    rounds = max(1, round(_SECONDS / _ROUND_SECONDS))
    tries = 2 if rounds == 1 else 4
    with load(soak.postgres, soak.reference.database, soak.redis, _SEED) as written:
        assert wait_until(lambda: _flows(soak), limit_seconds=60, every=0.2), soak.told("the streams do not begin")
        for number in range(rounds):
            soak.rain(_SEED + number, _SECONDS / rounds)
            if number < rounds - 1:
                _try_postgres_instants(soak, tries)
                _try_redis_instants(soak, written, tries // 2)
    soak.reference.take()
    assert wait_until(lambda: _caught_up(soak, written), limit_seconds=90, every=0.5), soak.told("it did not catch up")
    acknowledged = soak.reference.after(len(soak.reference.commits)).moves
    assert written.moves <= acknowledged, "PostgreSQL itself has lost acknowledged moves"
    _try_postgres_instants(soak, tries)
    _try_redis_instants(soak, written, tries // 2)
    everything = len(soak.reference.commits)
    _try_postgres(soak, ("--to-time", "latest"), everything, everything)
    print(f"{everything} commits, {len(written.numbers)} Redis transactions, {clock.monotonic() - begun:.0f} s")
