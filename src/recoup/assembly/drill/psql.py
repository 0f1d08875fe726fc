"""One query through ``psql``, and one command, with everything that comes back bounded."""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Callable
from typing import Final

from recoup.drill.reach import LIMIT_BYTES, LIMIT_ROWS, Ended, Rows
from recoup.kernel import clock
from recoup.kernel.errors import EngineError, UncheckedError
from recoup.kernel.process import Command, failure_of, open_child

_NULL: Final = "\x01null"
_PIECE: Final = 64 << 10


def rows_of(psql: Callable[..., Command], query: str, seconds: float) -> Rows:
    """Ask one query. ``psql`` makes a command of the arguments that it is given.

    Raise ``EngineError`` when it is refused or takes longer, ``UncheckedError`` for an answer that is too large.
    """
    arguments = ("-X", "-q", "--csv", "-v", "ON_ERROR_STOP=1", "-P", f"null={_NULL}", "-c", query)
    ended, errors = bounded(psql(*arguments), seconds)
    if ended.exit_status != 0:
        raise EngineError(f"the query was refused: {errors}")
    if not ended.whole:
        raise UncheckedError(f"the answer is larger than {LIMIT_BYTES >> 20} MiB", hint="Ask for less.")
    said = list(csv.reader(io.StringIO(ended.output.decode(errors="replace"))))
    rows = [tuple(None if cell == _NULL else cell for cell in row) for row in said[1 : LIMIT_ROWS + 1]]
    return Rows(columns=tuple(said[0]) if said else (), rows=tuple(rows))


def bounded(command: Command, seconds: float) -> tuple[Ended, str]:
    """Run it and read at most so much of what it says. Raise ``EngineError`` when it takes longer than ``seconds``."""
    deadline = clock.monotonic() + seconds
    held: list[bytes] = []
    size = 0
    with open_child(command) as child:
        # A thread that waits for the deadline: reading a pipe has no limit of its own.
        watch = threading.Timer(seconds, child.end)
        watch.daemon = True
        watch.start()
        try:
            while size <= LIMIT_BYTES and (piece := child.stdout.read1(_PIECE)):  # type: ignore[attr-defined]
                held.append(piece)
                size += len(piece)
        finally:
            watch.cancel()
        if clock.monotonic() >= deadline:
            raise EngineError(f"no answer within {seconds:g} s")
        whole = size <= LIMIT_BYTES
        if not whole:
            child.end()
        completed = child.wait(max(1.0, deadline - clock.monotonic()))
    failure = failure_of(completed).message if completed.exit_status else ""
    output = b"".join(held)[:LIMIT_BYTES]
    return Ended(exit_status=completed.exit_status if whole else 0, output=output, whole=whole), failure
