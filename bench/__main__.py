"""``python -m bench``: base backup and restore beside the alternatives, peak memory, and load on a production.

Every contender of a part works on the same cluster (PostgreSQL 15 of Debian; 17 for incremental backups) and the same
disk, with zstd level 3 where it can, and with encryption. Nothing is dropped from the page cache: all read the same
warm files. Ratios are taken round by round, so a machine that slows down for a while slows all of them.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from bench.catalog import measure_catalog
from bench.contenders import LIMIT, PGBACKREST, Scene, backups, make_sources, restores
from bench.data import fill
from bench.grades import measure_grades
from bench.incremental import measure_incremental
from bench.load import measure_load
from bench.measure import Series, interleave
from bench.memory import measure_memory
from bench.report import Judged, Part, at_least, speed_data, speed_table, surroundings, write
from bench.wal import measure_wal
from bench.wal_load import measure_wal_load
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer

_PARTS = ("backup", "restore", "incremental", "memory", "load", "wal", "wal-load", "catalog", "grades", "recover")


def _say(text: str) -> None:
    print(text, flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--only", action="append", choices=_PARTS, help="this part; may be repeated (default: all)")
    add("--size-mib", type=int, default=1024, help="data for backup and restore (default %(default)s)")
    add("--rounds", type=int, default=3, help="counted rounds (default %(default)s)")
    add("--no-plain", action="store_true", help="leave out pg_dump; gzip; openssl, which takes the longest")
    add("--memory-mib", type=int, nargs="+", default=[1024, 10240], help="sizes for memory (default 1024 10240)")
    add("--load-scale", type=int, default=50, help="pgbench's scale, 15 MiB each (default %(default)s)")
    add("--load-seconds", type=int, default=20, help="for each run of pgbench (default %(default)s)")
    add("--wal-segments", type=int, default=48, help="of 16 MiB each, for wal (default %(default)s)")
    add("--artefacts", type=int, default=10_000, help="for the catalog (default %(default)s)")
    add("--work", type=Path, help="where the copies go (default: a temporary folder)")
    return parser.parse_args()


def main() -> int:
    """Measure, print what was found and write it to ``bench/results/``."""
    options = _options()
    missing = [name for name in ("pgbackrest", "zstd", "openssl", "gzip", "tar") if shutil.which(name) is None]
    if missing:
        print(f"the bench needs {', '.join(missing)}: install them", file=sys.stderr)
        return 2
    wanted = [name for name in _PARTS if options.only is None or name in options.only]
    machine = surroundings()
    work = Path(tempfile.mkdtemp(prefix="recoup-bench-", dir=options.work))
    work.chmod(0o755)
    parts: list[Part] = []
    try:
        if "backup" in wanted or "restore" in wanted:
            parts += _speed(options, wanted, work / "speed")
            shutil.rmtree(work / "speed")
        if "incremental" in wanted:
            _say("incremental")
            where = work / "incremental"
            parts.append(measure_incremental(options.size_mib, options.rounds, where, _say))
            shutil.rmtree(where)
        if "memory" in wanted:
            _say("memory")
            parts.append(measure_memory(options.memory_mib, work / "memory", _say))
            shutil.rmtree(work / "memory")
        if "load" in wanted:
            _say("load")
            parts.append(measure_load(options.load_scale, options.load_seconds, options.rounds, work / "load", _say))
        if "wal" in wanted:
            _say("wal")
            parts.append(measure_wal(options.wal_segments, options.rounds, work / "wal", _say))
            shutil.rmtree(work / "wal")
        if "wal-load" in wanted:
            _say("wal-load")
            where = work / "wal-load"
            parts.append(measure_wal_load(options.load_scale, options.load_seconds, options.rounds, where, _say))
            shutil.rmtree(where)
        if "catalog" in wanted:
            _say("catalog")
            parts.append(measure_catalog(options.artefacts, options.rounds, work / "catalog", _say))
            shutil.rmtree(work / "catalog")
        if "grades" in wanted:
            _say("grades")
            parts += measure_grades(options.size_mib, options.rounds, work / "grades", _say)
            shutil.rmtree(work / "grades")
        if "recover" in wanted:
            from bench.recover import measure_recover  # the pretend machines of the tests need what those need

            _say("recover")
            parts.append(measure_recover(options.size_mib, options.rounds, work / "recover", _say))
            shutil.rmtree(work / "recover")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    _say(write(parts, machine, {"rounds": options.rounds, "after": "one warm-up", "asked for MiB": options.size_mib}))
    return 0


def _speed(options: argparse.Namespace, wanted: list[str], work: Path) -> list[Part]:
    settings = {"autovacuum": "off", "max_wal_size": "4GB", "shared_buffers": "512MB", "archive_mode": "off"}
    plain = not options.no_plain
    parts = []
    with PostgresServer(find_postgres(15), settings=settings) as server:
        database = server.new_database("bench")
        _say(f"generating {options.size_mib} MiB")
        size = fill(server.url(database), options.size_mib) / (1 << 20)
        scene = Scene.prepare(server, database, work)
        about = f"{size:.0f} MiB in the cluster's databases; {options.rounds} rounds, interleaved."
        if "backup" in wanted:
            _say("backup")
            scene.make_tar()
            series = interleave(backups(scene, plain=plain), options.rounds, work, _say, server.pid)
            bars = [_beside_limit(series, size)]
            parts.append(
                Part(name="backup", about=about, table=speed_table(series), bars=bars, data=speed_data(series))
            )
        if "restore" in wanted:
            _say("restore")
            make_sources(scene, plain=plain)
            series = interleave(restores(scene, plain=plain), options.rounds, work, _say, server.pid)
            bars = [_beside_pgbackrest(series)]
            parts.append(
                Part(name="restore", about=about, table=speed_table(series), bars=bars, data=speed_data(series))
            )
    return parts


def _beside_limit(series: list[Series], size_mib: float) -> Judged:
    limit = next(one for one in series if one.name == LIMIT)
    bar = "at least 0.9 of the speed of zstd -3 -T2 alone on the same tar, with 2 GB or more"
    if size_mib < 1900:
        bar += f" (this was {size_mib / 1000:.1f} GB, where what is the same for any size weighs more)"
    return at_least(bar, 0.9, series[0].ratio_to(limit))


def _beside_pgbackrest(series: list[Series]) -> Judged:
    best = min((one for one in series if one.name.startswith(PGBACKREST)), key=lambda one: one.median_seconds)
    return at_least(f"at least twice as fast as pgBackRest ({best.name})", 2.0, series[0].ratio_to(best))


if __name__ == "__main__":
    sys.exit(main())
