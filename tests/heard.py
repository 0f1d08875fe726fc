"""Signals that whoever started the tests ignores, and that what the tests start has to hear.

A shell ignores SIGINT for what a script runs in the background (POSIX, Shell Command Language, 2.11), and ``nohup``
ignores SIGHUP. Both are inherited by every program that a test starts, so a test that types Ctrl-C would wait for
nothing.
"""

from __future__ import annotations

import signal
from types import FrameType


def hear_in_children() -> None:
    """Let programs that are started from now on hear them. These tests themselves go on ignoring what they ignored."""
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, _ignored)  # not inherited: what is executed gets the default


def _ignored(_number: int, _frame: FrameType | None) -> None:
    pass
