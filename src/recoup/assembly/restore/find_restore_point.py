"""Finding a named restore point in the WAL of a cluster: newest first, and never a guess."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from recoup.assembly.protect.wal_facts import ClusterFacts
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recovery_choice import Choice, wal_files
from recoup.engines.postgres.recovery_target import AtName
from recoup.engines.postgres.restore_points import NAME_BYTES, RestorePoint, RestorePointSearch
from recoup.engines.postgres.wal_windows import Base, Window, reach_of, show_time
from recoup.kernel.errors import RefusedError, UsageError

_SEARCHING = 4  #: segments in memory at once


def find_restore_point(
    cluster: ClusterFacts, bases: Sequence[Base], name: str, timeline: int | None
) -> tuple[Window, RestorePoint]:
    """The newest restore point of that name. Raise ``RefusedError`` when there is none, or it is not one alone."""
    if not 0 < len(name.encode()) <= NAME_BYTES:
        raise UsageError(f"{name!r} is no name of a restore point", hint=f"A name has 1 to {NAME_BYTES} bytes.")
    reach = reach_of(cluster.inventory, bases)
    windows = reach.windows if timeline is None else [one for one in reach.every if one.timeline == timeline]
    found: dict[tuple[int, Lsn], tuple[Window, RestorePoint]] = {}
    for window in windows:
        points = _newest_points(cluster, window, name)
        if len(points) > 1:
            said = ", ".join(f"{one.lsn} at {show_time(one.time)}" for one in points)
            raise RefusedError(
                f"there are {len(points)} restore points called {name!r} since one base backup: {said}",
                hint="Say which one by its LSN: --to-lsn.",
            )
        for point in points:
            owner = window.history.owner(point.lsn.segment(cluster.segment_bytes), cluster.segment_bytes)
            found.setdefault((owner, point.lsn), (window, point))
    if len(found) != 1:
        what = "no restore point" if not found else f"{len(found)} restore points on different timelines"
        raise RefusedError(
            f"{what} called {name!r} can be reached",
            hint=f"Name a --timeline, or a time. What there is: {reach.describe()}.",
        )
    return next(iter(found.values()))


def _newest_points(cluster: ClusterFacts, window: Window, name: str) -> list[RestorePoint]:
    """Those behind the newest base backup that has any behind it: the server stops at the first one it meets."""
    until = window.run.last
    for base in reversed(window.bases):
        first = base.end.segment(cluster.segment_bytes)
        search, points = RestorePointSearch(name), []
        for segment, data in segments_between(cluster, window, first, until):
            points += search.look(Lsn(segment * cluster.segment_bytes), data)
        points = [one for one in points if one.lsn >= base.end]
        if points:
            return points
        until = first  # the segment in which the backup ended is looked through once more
    return []


def segments_between(cluster: ClusterFacts, window: Window, first: int, last: int) -> Iterator[tuple[int, bytes]]:
    """The segments of a window from ``first`` to ``last``, by their numbers and in order. Raise as ``fetch`` does."""
    choice = Choice(target=AtName(name="-"), window=window, bases=window.bases, end_suffices=False)
    begin = Base(id="", timeline=0, begin=Lsn(first * cluster.segment_bytes), end=Lsn(0), time=window.begin_time)
    files = [one for one in wal_files(choice, begin, cluster.inventory) if one.segment is not None]
    wanted = [one for one in files if one.segment is not None and one.segment <= last]
    with ThreadPoolExecutor(_SEARCHING) as pool:
        for at in range(0, len(wanted), _SEARCHING):
            batch = wanted[at : at + _SEARCHING]
            for file, data in zip(batch, pool.map(cluster.fetch, batch), strict=True):
                assert file.segment is not None, "history files were left out"
                yield file.segment, data
