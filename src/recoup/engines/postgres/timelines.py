"""Timelines: which WAL follows which after a recovery or a fail-over.

Format of a history file: src/backend/access/transam/timeline.c, ``readTimeLineHistory``; documentation, "Timelines".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import DamageError

_LINE = re.compile(r"\s*(\d{1,10})\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s+(.*))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Where an ancestor ended and the next timeline began. ``reason`` is the server's own text."""

    timeline: int
    at: Lsn
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A timeline and the ancestors it grew out of, the oldest first."""

    timeline: int
    switches: tuple[Switch, ...] = ()

    @property
    def timelines(self) -> tuple[int, ...]:
        """All timelines of this history, the oldest first."""
        return (*(switch.timeline for switch in self.switches), self.timeline)

    def end_of(self, timeline: int) -> Lsn | None:
        """Where ``timeline`` ended in this history; None for the last one. Raise ``KeyError`` for a stranger."""
        if timeline == self.timeline:
            return None
        for switch in self.switches:
            if switch.timeline == timeline:
                return switch.at
        raise KeyError(timeline)

    def begin_of(self, timeline: int) -> Lsn:
        """Where ``timeline`` began in this history; 0 for the oldest. Raise ``KeyError`` for a stranger."""
        at = self.timelines.index(timeline) if timeline in self.timelines else -1
        if at < 0:
            raise KeyError(timeline)
        return Lsn(0) if at == 0 else self.switches[at - 1].at

    def holds(self, timeline: int, lsn: Lsn) -> bool:
        """Whether the position ``lsn`` of ``timeline`` is part of this history."""
        if timeline not in self.timelines:
            return False
        end = self.end_of(timeline)
        return end is None or lsn <= end

    def owner(self, segment: int, segment_bytes: int) -> int:
        """The timeline under whose name a server looks for a segment when it follows this history.

        It is the newest that has begun by the segment's end: the segment of a switch is copied to the new timeline up
        to the switch, so that file holds both (``XLogInitNewTimeline``).
        """
        found = self.timelines[0]
        for switch, following in zip(self.switches, self.timelines[1:], strict=True):
            if switch.at.value // segment_bytes <= segment:
                found = following
        return found


def parse_history(timeline: int, data: bytes) -> History:
    """Given the content of the history file of ``timeline``, return it. Raise ``DamageError`` for anything else."""
    switches: list[Switch] = []
    for line in data.decode("utf-8", "replace").splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise DamageError(f"the history file of timeline {timeline} has a line that is none: {line[:80]!r}")
        switch = Switch(timeline=int(match[1]), at=Lsn.parse(match[2]), reason=(match[3] or "").strip())
        if switches and (switch.timeline <= switches[-1].timeline or switch.at < switches[-1].at):
            raise DamageError(f"the history file of timeline {timeline} is out of order at {line[:80]!r}")
        switches.append(switch)
    if not switches or switches[-1].timeline >= timeline:
        raise DamageError(f"the history file of timeline {timeline} does not lead to it")
    return History(timeline=timeline, switches=tuple(switches))
