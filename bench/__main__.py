"""``python -m bench``: base backup and restore against the alternatives, interleaved in one run.

Every contender works on the same cluster (PostgreSQL 15 of Debian, fsync off for all), on the same disk, with zstd
level 3 where it can, and with encryption. Nothing is dropped from the page cache: all read the same warm files.
Ratios are taken round by round, so a machine that slows down for a while slows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.contenders import Scene, backups, restores
from bench.data import fill
from bench.measure import Series, interleave
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer

_RESULTS = Path(__file__).parent / "results"


def _say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Measure, print the table and write it to ``bench/results/``."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size-mib", type=int, default=1024, help="how much data is generated (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="counted rounds (default %(default)s)")
    parser.add_argument("--only", choices=["backup", "restore"], help="one of the two parts")
    parser.add_argument("--no-plain", action="store_true", help="leave out pg_dump; gzip; openssl, which takes minutes")
    parser.add_argument("--work", type=Path, help="where the data and the copies go (default: a temporary folder)")
    options = parser.parse_args()
    missing = [name for name in ("pgbackrest", "zstd", "openssl", "gzip") if shutil.which(name) is None]
    if missing:
        print(f"the bench needs {', '.join(missing)}: install them", file=sys.stderr)
        return 2
    work = Path(tempfile.mkdtemp(prefix="recoup-bench-", dir=options.work))
    work.chmod(0o755)
    try:
        return _measure(options, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _measure(options: argparse.Namespace, work: Path) -> int:
    settings = {"autovacuum": "off", "max_wal_size": "4GB", "shared_buffers": "512MB", "archive_mode": "off"}
    with PostgresServer(find_postgres(15), settings=settings) as server:
        database = server.new_database("bench")
        _say(f"generating {options.size_mib} MiB")
        size = fill(server.url(database), options.size_mib)
        _say(f"the cluster has {size / (1 << 20):.0f} MiB in its databases")
        scene = Scene.prepare(server, database, work)
        parts: dict[str, list[Series]] = {}
        if options.only != "restore":
            _say("base backup")
            parts["backup"] = interleave(backups(scene, plain=not options.no_plain), options.rounds, work, _say)
        if options.only != "backup":
            _say("restore")
            scene.make_sources()
            parts["restore"] = interleave(restores(scene, plain=not options.no_plain), options.rounds, work, _say)
        _report(parts, size, options)
    return 0


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "kernel": platform.release(), "cores": str(os.cpu_count())}
    for name, argv in {
        "pgbackrest": ["pgbackrest", "version"],
        "zstd": ["zstd", "--version"],
        "openssl": ["openssl", "version"],
    }.items():
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
        found[name] = said.strip("* ")[:80]
    return found


def _table(series: Sequence[Series]) -> list[str]:
    ours = series[0]
    lines = [
        "| contender | median s | min–max s | CPU s | peak MiB | left MiB | Recoup is faster by (min / median / max) |",
        "| --- | --: | --: | --: | --: | --: | --- |",
    ]
    for one in series:
        times = [sample.seconds for sample in one.samples]
        low, middle, high = ours.ratio_to(one)
        cpu = sorted(sample.cpu_seconds for sample in one.samples)[len(times) // 2]
        peak = max(sample.peak_mib for sample in one.samples)
        left = one.samples[-1].size_bytes / (1 << 20)
        ratio = "–" if one is ours else f"{low:.2f} / **{middle:.2f}** / {high:.2f}"
        span = f"{min(times):.2f}–{max(times):.2f}"
        lines.append(
            f"| {one.name} | {one.median_seconds:.2f} | {span} | {cpu:.2f} | {peak:.0f} | {left:.0f} | {ratio} |"
        )
    return lines


def _report(parts: dict[str, list[Series]], size: int, options: argparse.Namespace) -> None:
    versions = _versions()
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    text = [f"# {stamp}: {size / (1 << 20):.0f} MiB, {options.rounds} rounds", ""]
    text += [", ".join(f"{name} {value}" for name, value in versions.items()), ""]
    for name, series in parts.items():
        text += [f"## {name}", "", *_table(series), ""]
    text += [
        "CPU and peak memory are those of the measured processes, not of the server; for a pipeline the peak is that",
        "of its largest process. Commands: `bench/contenders.py`.",
        "",
    ]
    print("\n".join(text))
    _RESULTS.mkdir(exist_ok=True)
    (_RESULTS / f"{stamp}.md").write_text("\n".join(text))
    document = {
        "schema": "recoup-bench/1",
        "taken": stamp,
        "size_bytes": size,
        "versions": versions,
        "parts": {
            name: {
                one.name: [
                    {
                        "seconds": sample.seconds,
                        "cpu_seconds": sample.cpu_seconds,
                        "peak_mib": sample.peak_mib,
                        "size_bytes": sample.size_bytes,
                    }
                    for sample in one.samples
                ]
                for one in series
            }
            for name, series in parts.items()
        },
    }
    (_RESULTS / f"{stamp}.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
