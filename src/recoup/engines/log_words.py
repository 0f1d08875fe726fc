"""Finding lines in the log of a server that does not start. What they mean is known to each engine."""

from __future__ import annotations

import re
from typing import Final

_MOST: Final = 3
_LONGEST: Final = 300


def lines_with(pattern: re.Pattern[str], log: str, *, after: str, head: re.Pattern[str]) -> tuple[str, ...]:
    """The last few different lines in which ``pattern`` is found, the newest last, each cut to a readable length.

    Only what was said since ``after`` was said last, if it was: that is when the server was well. ``head`` is what a
    line begins with, the time and the process, which are left out.
    """
    lines = log.rpartition(after)[2].splitlines()
    found = [head.sub("", line.strip(), count=1)[:_LONGEST] for line in lines if pattern.search(line)]
    return tuple(dict.fromkeys(found))[-_MOST:]
