"""A program at a terminal: what it shows is read, and what a person types is typed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import termios
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.demo.host import wait_until

_SECONDS = 120.0


@dataclass
class AtTerminal:
    """The command in a session of its own, with a terminal, whose other end is here."""

    process: subprocess.Popen[bytes]
    screen: int
    shown: str = ""

    def _read(self) -> bool:
        """Read what is there; false when nobody has the other end open any more."""
        try:
            self.shown += os.read(self.screen, 65536).decode(errors="replace")
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def until(self, text: str) -> None:
        """Read the screen until ``text`` was shown."""
        wait_until(lambda: not self._read() or text in self.shown, limit_seconds=_SECONDS)
        assert text in self.shown, f"{text!r} was not shown: {self.shown}"

    def until_at(self, mark: Path) -> None:
        """Wait until a step has left its mark."""
        assert wait_until(lambda: mark.exists() or self.process.poll() is not None, limit_seconds=_SECONDS)
        assert mark.exists(), f"it ended with {self.process.returncode}"

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self.screen, text.encode() + b"\n")

    def hang_up(self) -> None:
        """The connection breaks."""
        os.close(self.screen)
        self.screen = -1

    def ended(self) -> int:
        """Read on until it ends; the exit code."""
        assert wait_until(lambda: (self._read(), self.process.poll())[1] is not None, limit_seconds=_SECONDS), (
            self.shown
        )
        return int(self.process.wait())


def at_terminal(argv: Sequence[str], *, environment: Mapping[str, str]) -> AtTerminal:
    """Type a command at a terminal of its own."""
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    termios.tcsetwinsize(theirs, (40, 150))
    process = subprocess.Popen(
        list(argv), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={**environment, "TERM": "xterm"}, preexec_fn=_own_the_terminal,
    )  # fmt: skip
    os.close(theirs)
    return AtTerminal(process, ours)


def _own_the_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
