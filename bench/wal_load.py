"""What a production feels of archiving its WAL all the time: pgbench alone, and with each way at work.

One server, which syncs, with ``archive_mode`` on throughout: its ``archive_command`` is the shell's ``:`` (which keeps
nothing) unless pgBackRest's turn has come.
"""

from __future__ import annotations

import os
import shlex
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.contenders import PGBACKREST, Scene, new_stanza
from bench.load import CLIENTS, pgbench
from bench.measure import Say, spread
from bench.report import Part, at_least
from bench.wal import slot_of
from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer

_MIB = 1 << 20
_NOTHING = ":"
_ALONE, _OURS = "nothing archived", "recoup daemon, streaming"
_THEIRS = f"{PGBACKREST} archive-push, synchronous, zst 3"
_WAITS_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run of pgbench, the WAL it wrote, and what of it was not in the repository when it ended."""

    tps: float
    latency_ms: float
    wal_mib: float
    behind_mib: float


def measure_wal_load(scale: int, seconds: int, rounds: int, work: Path, say: Say) -> Part:
    """Run pgbench in turn without archiving and with each way, ``rounds`` times, after one short run."""
    settings = {"autovacuum": "off", "max_wal_size": "4GB", "shared_buffers": "512MB", "archive_mode": "on"}
    with PostgresServer(find_postgres(15), settings=settings, durable=True) as server:
        _archive_with(server, _NOTHING)
        database = server.new_database("bench")
        url = server.url(database)
        subprocess.run([server.program("pgbench"), "-i", "-q", "-s", str(scale), url], check=True, capture_output=True)
        scene = Scene.prepare(server, database, work)
        found: dict[str, list[Sample]] = {name: [] for name in (_ALONE, _OURS, _THEIRS)}
        pgbench(server, url, min(seconds, 5))
        names = list(found)
        for number in range(1, rounds + 1):
            turn = number % len(names)
            for name in (*names[turn:], *names[:turn]):
                sample = _run(scene, name, url, seconds)
                found[name].append(sample)
                say(f"  round {number}  {name}: {sample.tps:.0f} tps, {sample.behind_mib:.1f} MiB behind")
    return _part(found, scale, seconds)


def _run(scene: Scene, name: str, url: str, seconds: int) -> Sample:
    server = scene.server
    if name == _THEIRS:
        new_stanza(scene)
        _archive_with(server, f"{shlex.join(scene.pgbackrest('archive-push'))} %p")
    server.execute("select pg_switch_wal()")
    server.execute("checkpoint")
    os.sync()
    try:
        if name == _OURS:
            with _streaming(scene):
                return _sample(server, name, url, seconds, slot_of(scene))
        return _sample(server, name, url, seconds, "")
    finally:
        _archive_with(server, _NOTHING)


def _sample(server: PostgresServer, name: str, url: str, seconds: int, slot: str) -> Sample:
    begun = _position(server, "pg_current_wal_lsn()")
    tps, latency = pgbench(server, url, seconds)
    end = _position(server, "pg_current_wal_lsn()")
    if name == _OURS:
        safe = _position(
            server, f"(select flush_lsn from pg_stat_replication where pid = (select active_pid from "
            f"pg_replication_slots where slot_name = '{slot}'))"
        )  # fmt: skip
    elif name == _THEIRS:
        # Where the newest archived segment ends; its name is that of a file, 24 digits.
        ((last,),) = server.execute("select last_archived_wal from pg_stat_archiver")
        safe = ((int(last[8:16], 16) << 8) + int(last[16:24], 16) + 1) << 24
    else:
        safe = end
    wal, behind = (end - begun) / _MIB, max(0, end - safe) / _MIB
    return Sample(tps=tps, latency_ms=latency, wal_mib=wal, behind_mib=behind)


def _position(server: PostgresServer, what: str) -> int:
    ((value,),) = server.execute(f"select coalesce({what} - '0/0'::pg_lsn, 0)::bigint")
    return int(value)


def _archive_with(server: PostgresServer, command: str) -> None:
    quoted = command.replace("'", "''")
    server.execute(f"alter system set archive_command = '{quoted}'")
    server.execute("select pg_reload_conf()")


@contextmanager
def _streaming(scene: Scene) -> Iterator[None]:
    """Recoup's daemon, from when it has caught up. Its slot goes with it."""
    server, slot = scene.server, slot_of(scene)
    scene.without_recoup()
    argv = scene.recoup("daemon", "--only-workers", plan="recoup-wal")[:-1]
    with open(scene.work / "daemon", "wb") as log:
        daemon = subprocess.Popen(argv, env={**os.environ, **scene.environment()}, stdout=log, stderr=log)
    try:
        caught_up = (
            "select coalesce(flush_lsn > '0/0' and pg_current_wal_lsn() - flush_lsn < 65536, false) from "
            f"pg_stat_replication r join pg_replication_slots s on s.active_pid = r.pid and s.slot_name = '{slot}'"
        )
        if not wait_until(lambda: server.execute(caught_up) == [(True,)], limit_seconds=_WAITS_SECONDS):
            raise RuntimeError(f"Recoup did not catch up: {(scene.work / 'daemon').read_text()[-2000:]}")
        yield
    finally:
        daemon.terminate()
        daemon.wait(_WAITS_SECONDS)
        time.sleep(0.2)  # until the server has noticed; then the slot is nobody's
        server.execute(
            f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{slot}'"
        )


def _part(found: dict[str, list[Sample]], scale: int, seconds: int) -> Part:
    alone = found[_ALONE]
    table = [
        "| archived by | tps, median | min–max | ms | by nothing's (min / median / max) | WAL MiB | behind MiB |",
        "| --- | --: | --: | --: | --- | --: | --: |",
    ]
    for name, samples in found.items():
        low, middle, high = spread([sample.tps for sample in samples])
        latency = statistics.median(sample.latency_ms for sample in samples)
        wal = statistics.median(sample.wal_mib for sample in samples)
        behind = spread([sample.behind_mib for sample in samples])
        table.append(
            f"| {name} | {middle:.0f} | {low:.0f}–{high:.0f} | {latency:.2f} | "
            f"{'–' if samples is alone else ' / '.join(f'{one:.2f}' for one in _shares(samples, alone))} | "
            f"{wal:.0f} | {'–' if samples is alone else f'{behind[0]:.1f}–{behind[2]:.1f}'} |"
        )
    bar = "tps while Recoup streams the WAL within 5 % of tps with pgBackRest's archive-push: ratio 0.95"
    return Part(
        name="wal-load",
        about=f"pgbench, scale {scale}, {CLIENTS} clients, {seconds} s, on a server that syncs.",
        table=table,
        bars=[at_least(bar, 0.95, _shares(found[_OURS], found[_THEIRS]))],
        notes=(
            "ms: mean latency; behind: what was in no repository when pgbench ended, and would be lost with it.",
            "archive-push is called for full segments only.",
        ),
        data={name: [asdict(sample) for sample in samples] for name, samples in found.items()},
    )


def _shares(ours: Sequence[Sample], theirs: Sequence[Sample]) -> tuple[float, float, float]:
    return spread([our.tps / their.tps for our, their in zip(ours, theirs, strict=True)])
