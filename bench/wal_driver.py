"""Gets a backlog of WAL acknowledged and says how long that took. A program of its own; nothing of it is Recoup's.

``push SAID POOL USER COMMAND...`` calls ``COMMAND FILE`` for each segment that has a ``.ready`` in ``POOL``, in order,
as PostgreSQL's archiver does (src/backend/postmaster/pgarch.c): through a shell, one at a time, ``.done`` after
success. ``USER`` is a number; -1 is who runs this.
``stream SAID URL SLOT LSN COMMAND...`` starts ``COMMAND`` and waits until the server has heard through ``SLOT`` that
everything before ``LSN`` is safe; then it ends ``COMMAND``.

The seconds until the last segment is acknowledged go to ``SAID``; for a stream, those from when the server sends. What
the commands leave running is waited for afterwards, so that its processor time is counted with the rest.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
_LOOK_SECONDS = 0.02
_LIMIT_SECONDS = 300.0


def push(pool: Path, user: int, command: list[str]) -> float:
    """Call the command for each segment. Raise ``RuntimeError`` when it fails for one."""
    # pgBackRest's asynchronous process is left behind by its parent; it comes to us instead of to init.
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    status = pool / "archive_status"
    who = {} if user < 0 else {"user": user, "group": user, "extra_groups": []}
    begun = time.perf_counter()
    for ready in sorted(status.glob("*.ready")):
        called = subprocess.run(["/bin/sh", "-c", f"{shlex.join(command)} {pool / ready.stem}"], check=False, **who)
        if called.returncode != 0:
            raise RuntimeError(f"{ready.stem}: the command failed ({called.returncode})")
        ready.rename(ready.with_suffix(".done"))
    took = time.perf_counter() - begun
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    return took


def stream(said: str, url: str, slot: str, lsn: str, command: list[str]) -> float:
    """Start the command and wait for the slot. Raise ``RuntimeError`` when it ends before."""
    import psycopg

    question = f"select active, restart_lsn >= '{lsn}'::pg_lsn from pg_replication_slots where slot_name = '{slot}'"
    with psycopg.connect(url, autocommit=True) as connection:
        started = time.perf_counter()
        begun: float | None = None
        process = subprocess.Popen(command)
        while True:
            row = connection.execute(question.encode()).fetchone() or (False, False)
            begun = time.perf_counter() if begun is None and row[0] else begun
            if begun is not None and row[1]:
                break
            if process.poll() is not None or time.perf_counter() - started > _LIMIT_SECONDS:
                process.kill()
                raise RuntimeError(f"{command[0]} did not do it ({process.wait()})")
            time.sleep(_LOOK_SECONDS)
        took = time.perf_counter() - begun + _LOOK_SECONDS  # it may have begun as long before it was seen
        Path(f"{said}-start").write_text(str(begun - started))
    process.send_signal(signal.SIGTERM)
    process.wait(60)
    return took


if __name__ == "__main__":
    mode, said, *rest = sys.argv[1:]
    seconds = push(Path(rest[0]), int(rest[1]), rest[2:]) if mode == "push" else stream(said, *rest[:3], rest[3:])
    Path(said).write_text(str(seconds))
