"""To which instants each service can be brought back, whatever product it is. For people and for ``--json``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Every instant from ``begin`` to ``end`` can be reached. Positions are the product's own words."""

    begin: datetime
    end: datetime
    begin_position: str | None = None
    end_position: str | None = None
    timeline: int | None = None
    copies: tuple[str, ...] = ()  #: the artefacts it starts from, the oldest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One instant, and nothing around it. ``at`` is when its copy was complete."""

    at: datetime
    copy: str
    kind: str
    position: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Instants that cannot be reached, and why. ``end`` None: up to the present."""

    begin: datetime | None
    end: datetime | None
    why: str
    begin_position: str | None = None
    end_position: str | None = None
    timeline: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceWindows:
    """What one service can be brought back to. ``problems`` is what could not be read or believed."""

    service: str
    engine: str
    windows: tuple[Window, ...] = ()
    points: tuple[Point, ...] = ()
    gaps: tuple[Gap, ...] = ()
    problems: tuple[str, ...] = ()

    def holds(self, instant: datetime) -> bool:
        """Whether the instant is in a window."""
        return any(window.begin <= instant <= window.end for window in self.windows)
