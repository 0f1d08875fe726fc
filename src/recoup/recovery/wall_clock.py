"""Whether this machine's clock is right, by what others say of the time. Pure.

A wrong clock hurts a recovery later: a new copy that seems older than the ones before it is not the newest, and what
expires is judged by the time. Setting it takes seconds, so it is said before anything is done.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.units import show_duration

#: S3 refuses requests of a clock that is off by more than 15 minutes; recoveries to a time go wrong by far less.
CLOCK_TOLERANCE: Final = timedelta(minutes=5)
HINT: Final = "Set the clock: timedatectl set-ntp true."
CHECK: Final = "the clock of this machine is right"


def clock_fault(ahead: timedelta | None, newest: timedelta | None) -> str | None:
    """What is wrong with the clock; None when nothing is known to be.

    ``ahead`` is how far it is ahead of the repositories' servers; None when none could be asked. ``newest`` is how far
    the newest copy lies in its future: believed only then, since the clock that stamped the copy may be the wrong one.
    """
    if ahead is not None:
        if abs(ahead) <= CLOCK_TOLERANCE:
            return None
        how = "ahead of" if ahead > timedelta(0) else "behind"
        return f"the clock is {show_duration(abs(ahead))} {how} the repository's"
    if newest is not None and newest > CLOCK_TOLERANCE:
        return f"the clock is behind: the newest copy is {show_duration(newest)} in its future"
    return None


def clock_finding(ahead: timedelta | None, newest: timedelta | None) -> Finding:
    """The same as a finding. By copies alone it cannot be told whose clock is wrong, or whether this one is right."""
    fault = clock_fault(ahead, newest)
    if fault is not None:
        verdict = Verdict.UNKNOWN if ahead is None else Verdict.FAILED
        hint = HINT if ahead is not None else f"{HINT} When it is right, the one that took the copy was not."
        return Finding(check=CHECK, subject="this machine", verdict=verdict, detail=fault, hint=hint)
    asked = "no repository tells the time" if ahead is None else f"{show_duration(abs(ahead))} off the repository's"
    return Finding(
        check=CHECK, subject="this machine", verdict=Verdict.OK, detail=f"no copy is of its future; {asked}",
        not_checked="whether it is ahead" if ahead is None else "",
    )  # fmt: skip
