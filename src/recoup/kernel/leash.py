"""A child that ends with the process that started it, even when that one was killed and could tell nobody.

The parent holds the writing end of the child's standard input and writes nothing. However the parent dies, the kernel
closes that end, and the child sees the end of its input.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Final

#: Set in the environment of a child whose standard input is such a leash.
VARIABLE: Final = "RECOUP_LEASH"
VALUE: Final = "stdin"
#: How long a child may unwind before it is killed.
UNWIND_SECONDS: Final = 20.0


def follow() -> None:
    """If this process was started on a leash: ask it to end (SIGTERM) when its parent is gone, and kill it if it stays.

    Call it once, early, in the main thread. What this process starts itself is not on the leash.
    """
    if os.environ.pop(VARIABLE, None) != VALUE:
        return
    threading.Thread(target=_watch, name="leash", daemon=True).start()


def _watch() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(UNWIND_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
