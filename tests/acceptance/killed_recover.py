"""``recoup`` that kills itself at one line of a recovery's journal. Run as a program by the tests.

Arguments: the event of that line, its step (or ``-``), ``before`` or ``after`` the line is on the disk, and then what
``recoup`` gets. What it has started stays.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from recoup.cli.main import main
from recoup.recovery.journal import Journal, Line


def kill_at(event: str, step: str, when: str) -> None:
    """From now on, this process ends there."""
    append = Journal.append

    def killed(journal: Journal, line_event: str, /, **data: Any) -> Line:
        meant = (line_event, data.get("step", "-")) == (event, step)
        if meant and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        line = append(journal, line_event, **data)
        if meant:
            os.kill(os.getpid(), signal.SIGKILL)
        return line

    Journal.append = killed  # type: ignore[method-assign]


if __name__ == "__main__":
    kill_at(*sys.argv[1:4])
    sys.argv = ["recoup", *sys.argv[4:]]
    sys.exit(main())
