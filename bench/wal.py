"""How fast a backlog of WAL gets into a repository: Recoup's stream beside pgBackRest's ``archive-push``.

The backlog is made once and real: what filling tables of several kinds and changing their rows writes. A slot holds it
on the server. Before each run Recoup's slot is set back to the beginning, each segment is marked as not archived, and
the repository is empty.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import PGBACKREST, Scene, bytes_in, new_stanza
from bench.data import fill
from bench.measure import Contender, Say, Series, interleave
from bench.report import Part, at_least, speed_data
from recoup.assembly.protect.wal import slot_name
from recoup.assembly.system import System
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer

_MIB = 1 << 20
_SEGMENT = 16 * _MIB
_DRIVER = Path(__file__).with_name("wal_driver.py")
_HOLD = "bench_hold"
_BAR = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Backlog:
    """The segments, by their file names, and the position where the last one ends."""

    names: tuple[str, ...]
    end: str
    slot: str


def measure_wal(segments: int, rounds: int, work: Path, say: Say) -> Part:
    """Make ``segments`` segments of WAL and have each way archive them."""
    settings = {"autovacuum": "off", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "shared_buffers": "256MB"}
    with PostgresServer(find_postgres(15), settings=settings) as server:
        database = server.new_database("bench")
        scene = Scene.prepare(server, database, work)
        say(f"writing {segments} segments of WAL")
        backlog = _write(scene, segments)
        ways = [
            _recoup(scene, backlog, starts := []),
            _pgbackrest(scene, backlog, "synchronous, zst 3"),
            _pgbackrest(scene, backlog, "synchronous, zst 1", "--compress-level=1"),
            _pgbackrest(scene, backlog, "asynchronous, 2 processes, zst 3", "--archive-async"),
            _pgbackrest(scene, backlog, "asynchronous, 2 processes, zst 1", "--archive-async", "--compress-level=1"),
        ]
        series = interleave(ways, rounds, work, say, server.pid)
    return _part(series, len(backlog.names), statistics.median(starts))


def slot_of(scene: Scene) -> str:
    """The slot that Recoup streams from."""
    return slot_name(System.from_file(scene.work / "recoup-wal.yaml"), "postgres")


def _write(scene: Scene, segments: int) -> _Backlog:
    server, database = scene.server, scene.database
    slot = slot_of(scene)
    server.execute("select pg_switch_wal()")
    server.execute(f"select pg_create_physical_replication_slot('{_HOLD}', true)")
    first = _number(server, "pg_current_wal_lsn()")
    fill(server.url(database), segments * 16 * 2 // 3)
    turn = 0
    while _number(server, "pg_current_wal_insert_lsn()") - first < segments:
        server.execute(f"update orders set note = note || '.' where id % 41 = {turn}", database)
        server.execute(f"update messages set sender = sender + 1 where id % 41 = {turn}", database)
        server.execute("checkpoint", database)
        turn += 1
    last = first + segments
    server.execute("select pg_switch_wal()")
    ((timeline,),) = server.execute("select timeline_id from pg_control_checkpoint()")
    names = tuple(f"{timeline:08X}{one >> 8:08X}{one & 0xFF:08X}" for one in range(first, last))
    return _Backlog(names=names, end=f"{last >> 8:X}/{(last & 0xFF) << 24:X}", slot=slot)


def _number(server: PostgresServer, position: str) -> int:
    ((value,),) = server.execute(f"select (({position} - '0/0'::pg_lsn) / {_SEGMENT})::bigint")
    return int(value)


def _recoup(scene: Scene, backlog: _Backlog, starts: list[float]) -> Contender:
    """The daemon, streaming. Its slot is a copy of the one that holds the backlog, so it begins where that begins.

    ``starts`` hears how long each daemon needed before the server sent.
    """
    server, slot, said = scene.server, backlog.slot, scene.work / "said"

    def set_back() -> None:
        scene.without_recoup()
        server.execute(
            f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{slot}'"
        )
        server.execute(f"select pg_copy_physical_replication_slot('{_HOLD}', '{slot}')")

    def streamed() -> float:
        starts.append(float(Path(f"{said}-start").read_text()))
        return float(said.read_text())

    daemon = scene.recoup("daemon", "--only-workers", plan="recoup-wal")[:-1]
    return Contender(
        name="recoup daemon",
        argv=[sys.executable, str(_DRIVER), "stream", str(said), server.url(), slot, backlog.end, *daemon],
        prepare=set_back,
        size=lambda: bytes_in(scene.work / "recoup-wal" / "wal"),
        seconds=streamed,
        check=lambda: _all_there(scene.work / "recoup-wal" / "wal", backlog),
        environment=scene.environment(),
    )


def _pgbackrest(scene: Scene, backlog: _Backlog, how: str, *options: str) -> Contender:
    pool, said = scene.server.data_folder / "pg_wal", scene.work / "said"
    archive = scene.work / "pgbackrest" / "archive"

    def set_back() -> None:
        new_stanza(scene)
        scene.fresh("spool")()
        for old in (pool / "archive_status").iterdir():
            old.unlink()
        for name in backlog.names:
            ready = pool / "archive_status" / f"{name}.ready"
            ready.touch()
            scene.give(ready)

    return Contender(
        name=f"{PGBACKREST} archive-push, {how}",
        argv=[sys.executable, "-I", "-S", str(_DRIVER), "push", str(said), str(pool),
              "-1" if scene.owner is None else str(scene.owner), *scene.pgbackrest("archive-push", *options)],
        prepare=set_back,
        size=lambda: bytes_in(archive),
        seconds=lambda: float(said.read_text()),
        check=lambda: _all_there(archive, backlog),
    )  # fmt: skip


def _all_there(folder: Path, backlog: _Backlog) -> None:
    """An object for each segment. Whether it is the right one, tests with both tools' own restores say."""
    found = {path.name[:24] for path in folder.rglob("*") if path.is_file() and ".partial" not in path.name}
    missing = [name for name in backlog.names if name not in found]
    if missing:
        raise RuntimeError(f"{folder} lacks {len(missing)} of {len(backlog.names)} segments: {missing[0]}")


def _part(series: list[Series], segments: int, start: float) -> Part:
    ours = series[0]
    mib = segments * _SEGMENT / _MIB
    measured = ("CPU s", "server's CPU s", "peak MiB", "left MiB", "time by Recoup's")
    table = [
        f"| contender | segments/s | MiB/s | median s | min–max s | {' | '.join(measured)} |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --- |",
    ]
    for one in series:
        times = [sample.seconds for sample in one.samples]
        low, middle, high = ours.ratio_to(one)
        ratio = "–" if one is ours else f"{low:.2f} / **{middle:.2f}** / {high:.2f}"
        cpu = statistics.median(sample.cpu_seconds for sample in one.samples)
        server = statistics.median(sample.server_cpu_seconds for sample in one.samples)
        peak, left = max(sample.peak_mib for sample in one.samples), one.samples[-1].size_bytes / _MIB
        table.append(
            f"| {one.name} | {segments / one.median_seconds:.1f} | {mib / one.median_seconds:.0f} "
            f"| {one.median_seconds:.2f} | {min(times):.2f}–{max(times):.2f} | {cpu:.2f} | {server:.2f} "
            f"| {peak:.0f} | {left:.0f} | {ratio} |"
        )
    usual, same_level = series[1:3]
    bar = f"at least {_BAR:g} times as fast as {usual.name}"
    low, middle, high = ours.ratio_to(same_level)
    with_start = usual.median_seconds / (ours.median_seconds + start)
    return Part(
        name="wal",
        about=(
            f"A backlog of {segments} segments ({mib:.0f} MiB) on PostgreSQL 15, until the last one is acknowledged; "
            f"local repositories, AES-256-CBC; {len(ours.samples)} rounds, interleaved."
        ),
        table=table,
        bars=[at_least(bar, _BAR, ours.ratio_to(usual))],
        notes=(
            f"Beside pgBackRest at zstd 1, which is Recoup's level too: {middle:.2f} ({low:.2f} to {high:.2f}).",
            "Recoup's time begins when the server sends and ends when it has heard that all is safe.",
            f"Its daemon took {start:.2f} s to start, once for months: {with_start:.2f} times as fast with that.",
        ),
        data=speed_data(series),
    )
