"""A terminal that may go away while work goes on: a connection breaks, a laptop is closed.

Work that brings production back does not end with the terminal it was begun at. From then on nobody can be asked, and
what would have been shown goes into a file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType


class Terminal:
    """Whether it is still there. ``log`` is where output goes when it is not; None: nowhere."""

    def __init__(self) -> None:
        self.lost = False
        self.log: Path | None = None
        self._written = False
        # Which of the outputs are the terminal; a file or a pipe stays what it is.
        self._ours = tuple(number for number in (1, 2) if os.isatty(number))

    def hang_up(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """It is gone: what is still written to it goes nowhere, so that writing does not fail."""
        self.lost = True
        self._point_at(Path(os.devnull))

    def write_to_log(self) -> None:
        """From now on output goes into the log. Call it when nothing is drawn any more."""
        if self.lost and not self._written and self.log is not None:
            self._written = True
            self._point_at(self.log)

    def _point_at(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            os.dup2(nowhere, 0)
            os.close(nowhere)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            for number in self._ours:
                os.dup2(handle, number)
            os.close(handle)


@contextlib.contextmanager
def outliving_the_terminal() -> Iterator[Terminal]:
    """While inside, the loss of the terminal (SIGHUP) ends nothing. Somebody's own choice (nohup) is kept."""
    terminal = Terminal()
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        yield terminal
        return
    before = signal.signal(signal.SIGHUP, terminal.hang_up)
    try:
        yield terminal
    finally:
        if not terminal.lost:
            signal.signal(signal.SIGHUP, before)
