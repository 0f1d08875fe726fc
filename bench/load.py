"""What a production feels of a backup: pgbench alone, and while base backups are taken one after the other.

This server syncs as a production does. Each tool runs in a loop as long as pgbench runs; who is faster, begins more
often. So there are two numbers: what remains of the transactions, and how many one backup costs.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.contenders import Scene, pgbackrest_backup, recoup_backup
from bench.measure import Contender, Say, run_once, spread
from bench.report import Part, at_least
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer

CLIENTS = 4
_ALONE = "alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run of pgbench. ``backups_seconds`` are those of the backups that ended while it ran."""

    tps: float
    latency_ms: float
    backups_seconds: tuple[float, ...]


def measure_load(scale: int, seconds: int, rounds: int, work: Path, say: Say) -> Part:
    """Run pgbench in turn alone and beside each tool's backups, ``rounds`` times, after one short run."""
    settings = {"autovacuum": "off", "max_wal_size": "4GB", "shared_buffers": "512MB", "archive_mode": "off"}
    with PostgresServer(find_postgres(15), settings=settings, durable=True) as server:
        database = server.new_database("bench")
        url = server.url(database)
        subprocess.run([server.program("pgbench"), "-i", "-q", "-s", str(scale), url], check=True, capture_output=True)
        scene = Scene.prepare(server, database, work)
        ways: list[Contender | None] = [None, recoup_backup(scene), pgbackrest_backup(scene)]
        found: dict[str, list[Sample]] = {_name(way): [] for way in ways}
        pgbench(server, url, min(seconds, 5))
        for number in range(1, rounds + 1):
            turn = number % len(ways)
            for way in (*ways[turn:], *ways[:turn]):
                sample = _beside(way, work, lambda: pgbench(server, url, seconds), server)
                found[_name(way)].append(sample)
                say(
                    f"  round {number}  {_name(way)}: {sample.tps:.0f} tps, {len(sample.backups_seconds)} backups ended"
                )
    return _part(found, scale, seconds)


def _name(way: Contender | None) -> str:
    return _ALONE if way is None else way.name


def _beside(
    way: Contender | None, work: Path, transact: Callable[[], tuple[float, float]], server: PostgresServer
) -> Sample:
    """Run pgbench while ``way`` is done over and over. The one under way at the end is not counted."""
    server.execute("checkpoint")
    if way is None:
        tps, latency = transact()
        return Sample(tps=tps, latency_ms=latency, backups_seconds=())
    way.prepare()
    again = replace(way, prepare=lambda: None, settle=False)
    stop, ended, failures = threading.Event(), list[float](), list[Exception]()

    def loop() -> None:
        while not stop.is_set():
            try:
                took = run_once(again, work / "loop-output").seconds
            except (RuntimeError, OSError) as failure:
                failures.append(failure)
                return
            if not stop.is_set():
                ended.append(took)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        tps, latency = transact()
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]
    return Sample(tps=tps, latency_ms=latency, backups_seconds=tuple(ended))


def pgbench(server: PostgresServer, url: str, seconds: int) -> tuple[float, float]:
    """Transactions per second, and the mean latency of one in milliseconds."""
    argv = [server.program("pgbench"), "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), url]
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    tps = re.search(r"^tps = ([\d.]+)", said, re.MULTILINE)
    latency = re.search(r"^latency average = ([\d.]+) ms", said, re.MULTILINE)
    if tps is None or latency is None:
        raise RuntimeError(f"pgbench said something else than expected: {said}")
    return float(tps[1]), float(latency[1])


def _part(found: dict[str, list[Sample]], scale: int, seconds: int) -> Part:
    alone, ours, theirs = found.values()
    table = [
        "| beside | tps, median | min–max | ms | by alone (min / median / max) | copies | s each | cost of one |",
        "| --- | --: | --: | --: | --- | --: | --: | --: |",
    ]
    for name, samples in found.items():
        low, middle, high = spread([sample.tps for sample in samples])
        latency = statistics.median(sample.latency_ms for sample in samples)
        part = spread([sample.tps / base.tps for sample, base in zip(samples, alone, strict=True)])
        took = [one for sample in samples for one in sample.backups_seconds]
        each = statistics.median(took) if took else None
        lost = statistics.median(base.tps - sample.tps for sample, base in zip(samples, alone, strict=True))
        cost = "–" if each is None else f"{lost * each:.0f}"
        table.append(
            f"| {name} | {middle:.0f} | {low:.0f}–{high:.0f} | {latency:.2f} | "
            f"{'–' if samples is alone else ' / '.join(f'{one:.2f}' for one in part)} | {len(took)} | "
            f"{'–' if each is None else f'{each:.1f}'} | {cost} |"
        )
    ratios = spread([our.tps / their.tps for our, their in zip(ours, theirs, strict=True)])
    return Part(
        name="load",
        about=f"pgbench, scale {scale}, {CLIENTS} clients, {seconds} s, on a server that syncs.",
        table=table,
        notes=["ms: mean latency; copies: those that ended in time; cost of one: transactions it kept from being done"],
        bars=[at_least("tps beside Recoup's backups within 5 % of tps beside pgBackRest's: ratio 0.95", 0.95, ratios)],
        data={name: [asdict(sample) for sample in samples] for name, samples in found.items()},
    )
