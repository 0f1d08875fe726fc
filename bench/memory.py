"""Peak memory of a base backup and a restore, of clusters of several sizes.

What Recoup copies is the data folder as the server sends it. So a large cluster is made cheaply: a small one is
filled with the data of the other parts, and copies of its data files are put beside them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.contenders import Scene, bytes_in, recoup_backup, recoup_restore
from bench.data import fill
from bench.measure import Sample, Say, run_once
from bench.report import Judged, Part
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer

LIMIT_MIB = 200
#: Flat: at the largest size at most this much more than at the smallest.
_GROWTH = 1.20
_MIB = 1 << 20
_SEED_MIB = 200
_FILE_BYTES = 64 * _MIB


def measure_memory(sizes_mib: Sequence[int], work: Path, say: Say) -> Part:
    """Back up and restore a cluster of each size once. A size for which the disk has no room is left out, and said."""
    samples: dict[int, tuple[Sample, Sample]] = {}
    notes = []
    settings = {"autovacuum": "off", "max_wal_size": "4GB", "archive_mode": "off"}
    with PostgresServer(find_postgres(15), settings=settings) as server:
        database = server.new_database("bench")
        fill(server.url(database), min(_SEED_MIB, min(sizes_mib) // 2))
        scene = Scene.prepare(server, database, work)
        for size in sorted(sizes_mib):
            if not _room(scene, size):
                notes.append(f"{size} MiB were left out: too little room on the disk")
                continue
            have = grow(server, size)
            say(f"  a cluster of {have / _MIB:.0f} MiB")
            log = work / "output"
            backup = run_once(recoup_backup(scene), log, server.pid)
            say(f"  backup: {backup.peak_mib:.0f} MiB, {backup.seconds:.1f} s")
            restore = run_once(recoup_restore(scene), log)
            say(f"  restore: {restore.peak_mib:.0f} MiB, {restore.seconds:.1f} s")
            samples[have] = backup, restore
            scene.fresh("restored")()
    return _part(samples, notes)


def grow(server: PostgresServer, size_mib: int) -> int:
    """Add copies of the cluster's own data files, 64 MiB in each, until it has ``size_mib``; return its bytes."""
    root = server.data_folder
    filler = root / "filler"
    filler.mkdir(exist_ok=True)
    sources = sorted((root / "base").glob("*/[1-9]*"), key=lambda path: path.stat().st_size)[-20:]
    have = bytes_in(root)
    number = len(list(filler.iterdir()))
    while have < size_mib * _MIB:
        path = filler / f"{number:06d}"
        with open(path, "wb") as file:
            while file.tell() < _FILE_BYTES and have + file.tell() < size_mib * _MIB:
                for source in sources:
                    with open(source, "rb") as data:
                        shutil.copyfileobj(data, file, _MIB)
        have += path.stat().st_size
        number += 1
        if server.owner is not None:
            os.chown(path, *server.owner)
    if server.owner is not None:
        os.chown(filler, *server.owner)
    return have


def _room(scene: Scene, size_mib: int) -> bool:
    """Whether the cluster, its copy (at most two thirds) and what is restored fit, with a little left over."""
    places = [(scene.server.data_folder, 1.0), (scene.work, 1.7)]
    if places[0][0].stat().st_dev == places[1][0].stat().st_dev:
        places = [(scene.work, 2.7)]
    return all(shutil.disk_usage(place).free > (size_mib * share + 1024) * _MIB for place, share in places)


def _part(samples: dict[int, tuple[Sample, Sample]], notes: Sequence[str]) -> Part:
    table = ["| cluster MiB | backup: peak MiB | s | restore: peak MiB | s |", "| --: | --: | --: | --: | --: |"]
    for size, (backup, restore) in samples.items():
        table.append(
            f"| {size / _MIB:.0f} | {backup.peak_mib:.0f} | {backup.seconds:.1f} "
            f"| {restore.peak_mib:.0f} | {restore.seconds:.1f} |"
        )
    data: dict[str, Any] = {
        str(size): {"backup": asdict(backup), "restore": asdict(restore)} for size, (backup, restore) in samples.items()
    }
    return Part(
        name="memory",
        about="Peak resident memory of the whole Recoup process; one run each.",
        table=table,
        bars=_judge(samples),
        data=data,
        notes=notes,
    )


def _judge(samples: dict[int, tuple[Sample, Sample]]) -> list[Judged]:
    if not samples:
        return []
    worst = max(sample.peak_mib for pair in samples.values() for sample in pair)
    bars = [
        Judged(
            bar=f"peak memory of a backup or a restore at most {LIMIT_MIB} MiB",
            met=worst <= LIMIT_MIB,
            found=f"{worst:.0f} MiB",
        )
    ]
    small, large = min(samples), max(samples)
    if small != large:
        growth = [
            after.peak_mib / before.peak_mib for before, after in zip(samples[small], samples[large], strict=True)
        ]
        bars.append(
            Judged(
                bar=f"flat: at {large / small:.1f} times the size at most {_GROWTH - 1:.0%} more",
                met=max(growth) <= _GROWTH,
                found=f"backup {growth[0] - 1:+.0%}, restore {growth[1] - 1:+.0%}",
            )
        )
    return bars
