"""What a program without an end says of itself: one event a line. Who prints the lines is the command line's matter."""

from __future__ import annotations

import enum
from typing import Protocol


class Level(enum.IntEnum):
    """How much an event matters; the numbers are those of syslog(3)."""

    ERROR = 3  #: something failed, and somebody should look
    WARNING = 4  #: something is not as it should be, and is being dealt with
    INFO = 6  #: something happened


class Log(Protocol):
    """Takes one event. May be called from any thread, and never raises."""

    def __call__(self, level: Level, event: str, /) -> None: ...
