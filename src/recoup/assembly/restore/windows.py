"""To which instants each service can be brought back, from what the repositories hold."""

from __future__ import annotations

from collections.abc import Sequence

from recoup.assembly.access import Readable
from recoup.assembly.protect.incremental import KINDS
from recoup.kernel.errors import RecoupError
from recoup.recovery.windows import Gap, Point, ServiceWindows, Window
from recoup.repository.catalog import REPLACED, STACK, Catalog, Entry


def read_windows(opened: Readable, only: str | None = None) -> tuple[ServiceWindows, ...]:
    """The windows of every service that the plan or the repositories know, or of the one called ``only``."""
    catalog = opened.catalog()
    known = {one.service: one.engine for one in reversed(catalog.entries)}
    if opened.system is not None:
        planned = {name: one.engine for name, one in opened.system.plan.services.items() if one.engine != "compose"}
        known = {**planned, **{name: engine for name, engine in known.items() if name not in planned}}
    return tuple(_of(opened, catalog, name, engine) for name, engine in known.items() if only is None or name == only)


def _of(opened: Readable, catalog: Catalog, name: str, engine: str) -> ServiceWindows:
    if engine == "postgres":
        return _postgres(opened, catalog, name)
    if engine == "redis":
        return _redis(opened, catalog, name)
    return ServiceWindows(service=name, engine=engine, points=_points(catalog, name))


def _points(catalog: Catalog, name: str, but: Sequence[str] = ()) -> tuple[Point, ...]:
    """The copies of a service, each a point, the oldest first; without the kinds in ``but``."""
    mine = (one for one in catalog.entries if one.service == name and one.kind not in but and one.label != REPLACED)
    return tuple(_point(one) for one in reversed(list(mine)))


def _point(entry: Entry) -> Point:
    return Point(at=entry.ended, copy=entry.id, kind=entry.kind, position=entry.label if entry.kind == STACK else None)


def _redis(opened: Readable, catalog: Catalog, name: str) -> ServiceWindows:
    from recoup.assembly.protect.redis_inventory import read_holdings, redis_windows

    points = _points(catalog, name)
    try:
        holdings = read_holdings(opened.repositories, name, opened.state_folder, catalog=catalog)
    except RecoupError as failure:
        why = (f"its command stream could not be listed: {failure.message}",)
        return ServiceWindows(service=name, engine="redis", points=points, problems=why)
    windows, gaps = redis_windows(holdings)
    inside = {base.id for one in windows for base in one.bases}
    return ServiceWindows(
        service=name,
        engine="redis",
        windows=tuple(
            Window(begin=one.begin_time, end=one.end_time, copies=tuple(base.id for base in one.bases))
            for one in windows
        ),
        points=tuple(one for one in points if one.copy not in inside),
        gaps=tuple(Gap(begin=one.begin_time, end=one.end_time, why=holdings.why_lost(one)) for one in gaps),
    )


def _postgres(opened: Readable, catalog: Catalog, name: str) -> ServiceWindows:
    from recoup.assembly.protect.wal_facts import read_clusters
    from recoup.engines.postgres.wal_windows import reach_of

    windows: list[Window] = []
    points: list[Point] = list(_points(catalog, name, but=KINDS))
    gaps: list[Gap] = []
    problems: dict[str, None] = {}
    for cluster in read_clusters(opened, name, catalog):
        reach = reach_of(cluster.inventory, cluster.bases)
        problems.update(dict.fromkeys(cluster.problems))
        windows += [
            Window(
                begin=one.begin_time,
                end=one.end_time,
                begin_position=str(one.begin),
                end_position=str(one.end),
                timeline=one.timeline,
                copies=tuple(base.id for base in one.bases),
            )
            for one in reach.windows
        ]
        points += [
            Point(at=one.time, copy=one.id, kind=cluster.found[one.id].manifest.kind, position=str(one.end))
            for one in reach.points
        ]
        gaps += [
            Gap(
                begin=one.begin_time,
                end=one.end_time,
                begin_position=str(one.begin),
                end_position=None if one.end is None else str(one.end),
                timeline=one.timeline,
                why=one.why,
            )
            for one in reach.gaps
        ]
    return ServiceWindows(
        service=name,
        engine="postgres",
        windows=tuple(sorted(windows, key=lambda one: (one.begin, one.timeline or 0))),
        points=tuple(sorted(points, key=lambda one: (one.at, one.copy))),
        gaps=tuple(gaps),
        problems=tuple(problems),
    )
