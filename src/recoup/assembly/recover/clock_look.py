"""What others say of the time: the servers of the repositories, and the newest copy in them."""

from __future__ import annotations

from datetime import timedelta

from recoup.assembly.access import Readable
from recoup.assembly.system import System
from recoup.assembly.watch.alarms import clock_skews
from recoup.kernel import clock
from recoup.kernel.finding import Finding
from recoup.recovery import wall_clock


def clock_facts(opened: Readable, system: System) -> tuple[timedelta | None, timedelta | None]:
    """How far this clock is ahead of the repositories' servers, and how far the newest copy lies in its future.

    None for what nobody could say. Never raises for a server that does not answer.
    """
    skews = clock_skews(system)
    newest = max((one.ended for one in opened.catalog().entries), default=None)
    return (
        None if not skews else -timedelta(seconds=max(skews.values(), key=abs)),
        None if newest is None else newest - clock.now(),
    )


def clock_finding(opened: Readable, system: System) -> Finding:
    """Whether this machine's clock is right, as far as can be told."""
    return wall_clock.clock_finding(*clock_facts(opened, system))
