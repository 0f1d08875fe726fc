"""A second backup after few rows changed all over: Recoup's incremental one beside PostgreSQL's own, piped.

PostgreSQL 17 or later. Each way has a base backup from before the change and takes the same incremental backup of it
in every round, from the same place: nothing is built upon what the round before has left.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from bench.contenders import OPENSSL, Scene, bytes_in, recoup_backup
from bench.data import fill
from bench.measure import Contender, Say, Series, interleave
from bench.report import Judged, Part, speed_data, speed_table
from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer

_MIB = 1 << 20
#: Every 400th row: 0.25 %, in as many pages as there are, or nearly.
_EVERY = 400
_BAR = 1.3
_MAJOR = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """A contender, and what it left before the round, which is not what it added."""

    contender: Contender
    before: int


def measure_incremental(size_mib: int, rounds: int, work: Path, say: Say) -> Part:
    """Fill a cluster, back it up, change 0.25 % of the rows, and measure the second backup."""
    settings = {"autovacuum": "off", "max_wal_size": "4GB", "shared_buffers": "512MB", "summarize_wal": "on"}
    with PostgresServer(find_postgres(_MAJOR), settings=settings) as server:
        database = server.new_database("bench")
        say(f"generating {size_mib} MiB")
        size = fill(server.url(database), size_mib) / _MIB
        # The first to read new rows changes their pages (hint bits). No contender shall find that in its way.
        server.execute("vacuum (freeze, analyze)", database)
        server.execute("checkpoint")
        scene = Scene.prepare(server, database, work)
        ways = [_recoup(scene, "recoup", "recoup backup --kind incremental")]
        default = _recoup(scene, "recoup-default", "the same as by default: fingerprints, verify intact")
        scene.fresh("earlier")()
        scene.run(Contender(name="base", argv=f"{_pg_basebackup(scene)} -D {work}/earlier"))
        changed = _change(server, database)
        ways += [_pipe(scene, synced=True), _pipe(scene, synced=False), default]
        series = interleave([way.contender for way in ways], rounds, work, say, server.pid)
    taken = [
        replace(
            one, samples=tuple(replace(sample, size_bytes=sample.size_bytes - way.before) for sample in one.samples)
        )
        for one, way in zip(series, ways, strict=True)
    ]
    about = (
        f"PostgreSQL {_MAJOR}; {size:.0f} MiB in the cluster's databases, {changed} rows (0.25 %) changed all over; "
        f"{rounds} rounds, interleaved. What was left is what the incremental backup added."
    )
    return Part(
        name="incremental", about=about, table=speed_table(taken), bars=_bars(taken), data=speed_data(taken),
        notes=("The pipe reads nothing back, writes no index, and authenticates nothing.",),
    )  # fmt: skip


def _change(server: PostgresServer, database: str) -> int:
    changed = 0
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        for statement in (
            f"update accounts set balance = balance + 1 where aid % {_EVERY} = 7",
            f"update orders set status = 'done', note = 'changed ' || note where id % {_EVERY} = 7",
            f"update attachments set body = body || '\\x00' where id % {_EVERY} = 7",
            f"update messages set body = body || ' again' where id % {_EVERY} = 7",
        ):
            changed += connection.execute(statement.encode()).rowcount
        connection.execute("checkpoint")
        # the summarizer works behind; whoever came first would wait for it
        row = connection.execute("select pg_current_wal_lsn()").fetchone()
        assert row is not None
        asked = "select summarized_lsn >= %s::pg_lsn - 65536 from pg_get_wal_summarizer_state()"
        assert wait_until(lambda: connection.execute(asked, row).fetchone() == (True,), limit_seconds=60)
    return changed


def _pg_basebackup(scene: Scene) -> str:
    server = scene.server
    return f"{server.bin}/pg_basebackup -d '{server.url(scene.database)}' -Ft -X fetch -c fast"


def _recoup(scene: Scene, plan: str, name: str) -> _Way:
    """Takes the base backup. The repository, and the memory of it, are set back to it before every round."""
    work = scene.work
    places = (plan, "state")
    scene.run(recoup_backup(scene, plan=plan))
    for place in places:
        shutil.move(work / place, work / f"{place}-{plan}-base")

    def back() -> None:
        for place in places:
            shutil.rmtree(work / place, ignore_errors=True)
            shutil.copytree(work / f"{place}-{plan}-base", work / place)

    contender = Contender(
        name=name,
        argv=scene.recoup("backup", "postgres", "--kind", "incremental", plan=plan),
        prepare=back,
        size=lambda: bytes_in(work / plan),
        environment=scene.environment(),
    )
    return _Way(contender=contender, before=bytes_in(work / f"{plan}-{plan}-base"))


def _pipe(scene: Scene, *, synced: bool) -> _Way:
    target = scene.work / "pipe" / "incremental.tar.zst.enc"
    sync = f" && sync {target} {target.parent}" if synced else ""
    contender = Contender(
        name=f"pg_basebackup --incremental, zstd -3 -T2, openssl{', sync' if synced else ''}",
        argv=(
            f"{_pg_basebackup(scene)} --incremental={scene.work}/earlier/backup_manifest -D - | zstd -q -3 -T2 "
            f"| {OPENSSL} -salt -pass file:{scene.work}/key -out {target}{sync}"
        ),
        prepare=scene.fresh("pipe"),
        size=lambda: bytes_in(target.parent),
    )
    return _Way(contender=contender, before=0)


def _bars(series: list[Series]) -> list[Judged]:
    ours, pipe = series[0], series[1]
    low, middle, high = ours.ratio_to(pipe)
    times = (1 / high, 1 / middle, 1 / low)
    sizes = ours.samples[-1].size_bytes / pipe.samples[-1].size_bytes
    return [
        _at_most(f"at most {_BAR} times the time of {pipe.name}", times),
        _at_most(f"at most {_BAR} times the bytes of {pipe.name}", (sizes, sizes, sizes)),
    ]


def _at_most(bar: str, ratios: tuple[float, float, float]) -> Judged:
    low, middle, high = ratios
    return Judged(bar=bar, met=middle <= _BAR, found=f"{middle:.2f} ({low:.2f} to {high:.2f})")
