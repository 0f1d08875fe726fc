"""The recovery points of a database, as lines to look for the newest clean one in: copies, and the logs behind them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from recoup.assembly.access import Readable
from recoup.assembly.protect.redis_inventory import read_holdings, redis_windows
from recoup.assembly.protect.wal_facts import ClusterFacts
from recoup.assembly.prove.proven import Proven, proven_copies
from recoup.assembly.restore.find_restore_point import segments_between
from recoup.assembly.restore.postgres_moment import recoverable_clusters
from recoup.engines.postgres.commit_records import CommitSearch
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.wal_windows import Base, Window, reach_of, show_time
from recoup.engines.redis.stream_windows import RdbBase
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RecoupError, StorageError
from recoup.recovery.clean_point import Changes, Count, Line, Spot, Start
from recoup.repository.catalog import REPLACED, Catalog
from recoup.verification.grade import Grade

#: Of so many copies of a Redis, the newest ones, the manifests are read.
_MOST_COPIES: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: In so much WAL commits are counted: a few seconds.
_COUNTED_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """The lines of a service, the newest first, and what each of them is. ``said``: what could not be read at all."""

    service: str
    lines: tuple[Line, ...]
    windows: Mapping[str, Window]  #: of PostgreSQL, by the line's name
    copies: frozenset[str]  #: lines that are one copy, without a log behind it
    cluster: ClusterFacts | None = None  #: that the windows are of
    said: tuple[str, ...] = ()
    keys: int | None = None  #: of a Redis: the most that a copy holds; None for another service

    def line(self, spot: Spot) -> Line:
        """The line that a point lies on."""
        return next(one for one in self.lines if one.name == spot.line)

    def count(self, asked: Count) -> Changes:
        """Where transactions commit in a stretch of WAL."""
        window, cluster = self.windows[asked.line], self.cluster
        assert cluster is not None, "only WAL is counted"
        size = cluster.segment_bytes
        search, found = CommitSearch(), list[int]()
        at: tuple[int, ...] | None
        try:
            for segment, data in segments_between(cluster, window, asked.low // size, asked.high // size):
                found += [one.value for one in search.look(Lsn(segment * size), data)]
            at = tuple(one for one in found if asked.low < one < asked.high)
        except (DamageError, StorageError):
            at = None
        return Changes(line=asked.line, low=asked.low, high=asked.high, at=at)

    def data(self, spot: Spot) -> dict[str, Any]:
        """A point as a choice for the journal (``member.data_of``), without the reason."""
        said: dict[str, Any] = {
            "service": self.service, "kind": "copy", "artefact": spot.start, "target": {}, "timeline": None,
            "base": None,
        }  # fmt: skip
        if spot.line in self.copies:
            return said
        said |= {"kind": "moment", "base": spot.start}
        window = self.windows.get(spot.line)
        if window is None:
            return said | {"target": {"time": clock.to_text(_instant(spot.at))}}
        whole = spot.at == self.line(spot).end
        target = {"latest": True} if whole else {"lsn": str(Lsn(spot.at)), "before": False}
        return said | {"target": target, "timeline": window.timeline}

    def show(self, spot: Spot) -> str:
        """A point, for people."""
        if spot.line in self.copies:
            return f"the copy {spot.start}"
        window = self.windows.get(spot.line)
        if window is None:
            return f"{clock.to_text(_instant(spot.at))} from the copy {spot.start}"
        if spot.at == self.line(spot).end:
            return (
                f"the end of the WAL ({Lsn(spot.at)}, {show_time(window.end_time)}) from the base backup {spot.start}"
            )
        return f"LSN {Lsn(spot.at)} from the base backup {spot.start}"


def postgres_points(opened: Readable, service: str) -> Points:
    """What a PostgreSQL service can go back to. Raise ``UsageError`` when there is no base backup of it."""
    cluster = recoverable_clusters(opened, service, opened.catalog())[0]
    reach = reach_of(cluster.inventory, cluster.bases)
    known = proven_copies(opened.state_folder, opened.repositories, only=[one.id for one in cluster.bases])
    found: list[tuple[tuple[int, datetime], Line, Window | None]] = []
    for window in reach.windows:
        starts = tuple(_start(one, known) for one in window.bases)
        name = f"timeline {window.timeline} from {window.begin}"
        line = Line(name=name, starts=starts, end=window.end.value, counted=_COUNTED_BYTES)
        found.append(((window.timeline, window.end_time), line, window))
    for base in reach.points:
        line = Line(name=base.id, starts=(_start(base, known),), end=base.end.value)
        found.append(((base.timeline, base.time), line, None))
    found.sort(key=lambda one: one[0], reverse=True)
    return Points(
        service=service,
        lines=tuple(line for _, line, _ in found),
        windows={line.name: window for _, line, window in found if window is not None},
        copies=frozenset(line.name for _, line, window in found if window is None),
        cluster=cluster,
        said=cluster.problems,
    )


def redis_points(opened: Readable, service: str) -> Points:
    """What a Redis service can go back to. Positions are microseconds since 1970."""
    catalog = opened.catalog()
    copies = [one for one in catalog.entries if (one.service, one.kind) == (service, "rdb")]
    held = {one.id: one for one in copies[:_MOST_COPIES]}
    holdings = read_holdings(opened.repositories, service, opened.state_folder, catalog=catalog)
    known = proven_copies(opened.state_folder, opened.repositories, only=list(held))
    keys = {name: _keys(opened, catalog, name) for name in held}
    most = max((count for count in keys.values() if count is not None), default=0)

    def start(identifier: str, at: int) -> Start:
        if most and keys.get(identifier) == 0:
            return Start(id=identifier, at=at, proven=False, because=f"it holds no key, and others up to {most}")
        return _judged(identifier, at, known.get(identifier), Grade.BOOTS)

    found: list[tuple[datetime, Line, bool]] = []
    for number, window in enumerate(redis_windows(holdings)[0]):
        end = _position(window.end_time)
        starts = tuple(start(one.id, _begin(one, window.begin_time, end)) for one in window.bases)
        found.append((window.end_time, Line(name=f"stream {number}", starts=starts, end=end), False))
    streamed = {one.id for _, line, _ in found for one in line.starts}
    for name, entry in held.items():
        if name not in streamed and entry.label != REPLACED:
            at = _position(entry.ended)
            found.append((entry.ended, Line(name=name, starts=(start(name, at),), end=at), True))
    found.sort(key=lambda one: one[0], reverse=True)
    return Points(
        service=service,
        lines=tuple(line for _, line, _ in found),
        windows={},
        copies=frozenset(line.name for _, line, copy in found if copy),
        keys=most,
    )


def _begin(base: RdbBase, begin: datetime, end: int) -> int:
    """Where a copy of a Redis counts as reached: never before its window, never after what is there of the stream."""
    return min(max(_position(base.time), _position(begin)), end)


def _start(base: Base, known: Mapping[str, Proven]) -> Start:
    return _judged(base.id, base.end.value, known.get(base.id), Grade.SOUND)


def _judged(identifier: str, at: int, proven: Proven | None, enough: Grade) -> Start:
    """A copy with what earlier verifications say of it."""
    if proven is None:
        return Start(id=identifier, at=at)
    failed, since = proven.held.failed, proven.moments.get(enough)
    if failed is not None and failed.rank <= Grade.BOOTS.rank:
        return Start(id=identifier, at=at, proven=False, because=f"a verification found that it is not {failed}")
    # What fails above may be the work of an application, and is looked at again.
    if proven.held.grade is None or proven.held.grade.rank < enough.rank or since is None:
        return Start(id=identifier, at=at)
    return Start(id=identifier, at=at, proven=True, because=f"proven {enough} at {show_time(since)}")


def _keys(opened: Readable, catalog: Catalog, identifier: str) -> int | None:
    """How many keys a copy of a Redis holds, as its manifest says; None when that is not to be had."""
    with contextlib.suppress(RecoupError):
        counts = opened.find(identifier, catalog=catalog).manifest.facts.get("keys")
        return sum(int(count) for count in counts.values()) if isinstance(counts, Mapping) else None
    return None


def _position(instant: datetime) -> int:
    return (instant - _EPOCH) // _MICROSECOND


def _instant(position: int) -> datetime:
    return _EPOCH + position * _MICROSECOND
