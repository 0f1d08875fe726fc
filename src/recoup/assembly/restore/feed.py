"""Feeding a copy to a one-off container that puts it into a volume."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from recoup.engines.compose.client import ComposeProject
from recoup.engines.compose.one_off import OneOff, finish, open_one_off
from recoup.engines.engine import Progress, ProgressListener
from recoup.kernel.errors import EngineError, RecoupError

#: How long a script may take to clean up behind itself once its input has ended early.
_CLEANING_SECONDS = 60.0
#: Moving files inside a volume is renames and syncs; a volume that takes longer has a sick disk.
SCRIPT_SECONDS = 1800.0


def feed(
    client: ComposeProject,
    one_off: OneOff,
    pieces: Iterable[bytes],
    *,
    what: str,
    total_bytes: int,
    on_progress: ProgressListener,
) -> bytes:
    """Start ``one_off``, write ``pieces`` into it, and return what it printed when it ended well.

    Raise ``EngineError`` with its last words when it did not. When ``pieces`` raises, the script's input ends early:
    it gives up and removes what it had unpacked, and the error goes on.
    """
    done = 0
    with open_one_off(client, one_off) as child:
        try:
            for piece in pieces:
                child.stdin.write(piece)
                done += len(piece)
                on_progress(Progress(what=what, done_bytes=done, total_bytes=total_bytes))
            child.stdin.close()
        except BrokenPipeError:
            finish(child, timeout_seconds=_CLEANING_SECONDS)  # says why it stopped reading
            raise EngineError("the one-off container stopped reading before the copy was complete") from None
        except BaseException:
            with contextlib.suppress(OSError):
                child.stdin.close()
            with contextlib.suppress(RecoupError):
                child.wait(_CLEANING_SECONDS)
            raise
        said = child.stdout.read()
        finish(child, timeout_seconds=SCRIPT_SECONDS)
    return said
