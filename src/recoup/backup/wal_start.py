"""Where receiving WAL begins, decided from what the archives hold and what the server can still give. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recoup.backup.wal_held import HeldWal, Reach, owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Begin at ``position`` (where a segment begins) on ``timeline``.

    ``gap_from`` is set when WAL from there to ``position`` is lost: no archive has it and the server cannot give it.
    ``behind`` are the archives that must first copy from another one.
    """

    timeline: int
    position: int
    gap_from: int | None = None
    gap_timeline: int | None = None
    behind: frozenset[str] = frozenset()


def starts(
    held: Mapping[str, HeldWal | None], history: Sequence[Reach], *, slot_from: int, segment_bytes: int
) -> tuple[Start, ...]:
    """The places to begin at, best first: try each until the server has the WAL for it.

    ``held`` is what each archive holds, by repository; ``slot_from`` is where the server certainly still has WAL. The
    best is where the archive that holds least ends; then where the one that holds most ends, from which the others
    copy; the last is where the slot begins, with a gap if that is later.
    """
    ends = {name: one.end for name, one in held.items() if one is not None}
    slot_begin = slot_from // segment_bytes * segment_bytes

    def start_at(position: int) -> Start:
        return Start(
            timeline=owner(history, position // segment_bytes, segment_bytes),
            position=position,
            behind=frozenset(name for name, end in ends.items() if end < position),
        )

    if not ends:
        return (start_at(slot_begin),)
    found = [start_at(position) for position in sorted({min(ends.values()), max(ends.values())})]
    most = max(ends, key=lambda name: ends[name])
    if slot_begin > ends[most]:
        best = held[most]
        assert best is not None
        found.append(
            Start(
                timeline=owner(history, slot_begin // segment_bytes, segment_bytes),
                position=slot_begin,
                gap_from=best.safe,
                gap_timeline=best.timeline,
                behind=frozenset(name for name, end in ends.items() if end < ends[most]),
            )
        )
    return tuple(found)
