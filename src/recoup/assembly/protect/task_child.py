"""One scheduled task in a process of its own: memory goes back when it ends, and its crash is its own.

It is a command as a user could type it. It ends with the daemon, however that ends (``kernel/leash.py``), and reads the
plan that the daemon has in force, not a file that somebody may be editing.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from recoup.assembly.protect.agenda import DRILL, PRUNE, SYNC, VERIFY
from recoup.assembly.system import PLAN_IN_FORCE, System
from recoup.backup.due import Run
from recoup.backup.run_records import WHOLE_PLAN, Outcome, TaskRecord, begin_task, end_task, read_task
from recoup.kernel import clock, files, leash
from recoup.kernel.errors import Exit
from recoup.kernel.process import Child, Command, spawn
from recoup.repository.catalog import STACK
from recoup.repository.lease import cannot_note

_IN_FORCE: Final = "plan-in-force.yaml"
_READ_BYTES: Final = 64 << 10


def put_in_force(system: System) -> None:
    """Keep the text of the plan for the children. Raise ``RecoupError`` when the state folder cannot be written."""
    path = system.state_folder / _IN_FORCE
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        files.write_atomically(path, system.loaded.text.encode())
    except OSError as failure:
        raise cannot_note(path, failure) from failure


def arguments_of(system: System, run: Run) -> list[str]:
    """The words after ``recoup`` that do a task."""
    plan = ["-f", str(system.loaded.file)]
    if run.service != WHOLE_PLAN:
        return ["backup", run.service, "--kind", run.kind, *plan]
    if run.kind == STACK:
        return ["backup", "--stack", *plan]
    if run.kind in (SYNC, PRUNE, DRILL):
        return [run.kind, *plan]
    return ["verify", "--rhythm", run.kind.removeprefix(VERIFY), *plan]


class TaskChild:
    """A task that runs. Start it with ``start``; ask ``alive``; then ``close`` it and learn how it ended."""

    def __init__(self, system: System, run: Run, child: Child, log: IO[bytes], record: TaskRecord) -> None:
        self.run = run
        self._system = system
        self._child = child
        self._log = log
        self._read_bytes = 0
        self._record = record
        self._asked_to_stop = False
        self._last_words = ""

    @classmethod
    def start(cls, system: System, run: Run) -> TaskChild:
        """Start the task. Raise ``RecoupError`` when that is not possible."""
        command = Command(
            argv=[sys.executable, "-m", "recoup.cli", *arguments_of(system, run)],
            environment={
                leash.VARIABLE: leash.VALUE,
                PLAN_IN_FORCE: str(system.state_folder / _IN_FORCE),
                "PYTHONUNBUFFERED": "1",
            },
        )
        record = begin_task(system.state_folder, run.service, run.kind, pid=os.getpid(), now=clock.now())
        log = tempfile.TemporaryFile("a+b")  # noqa: SIM115 - closed by ``close``
        try:
            child = spawn(command, log=log, stdin=True)
        except BaseException:
            log.close()
            raise
        return cls(system, run, child, log, record)

    @property
    def alive(self) -> bool:
        """Whether it has not ended yet."""
        return self._child.alive()

    @property
    def began(self) -> datetime:
        """When it was started."""
        return self._record.started

    def said(self) -> Iterator[str]:
        """The whole lines it wrote since the last call; when it has ended, also what is left without a line's end."""
        ended = not self.alive
        while True:
            data = os.pread(self._log.fileno(), _READ_BYTES, self._read_bytes)
            end = data.rfind(b"\n") + 1
            whole = data if (end == 0 and (ended or len(data) == _READ_BYTES)) else data[:end]
            if not whole:
                return
            self._read_bytes += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                if line.strip():
                    if not line.startswith("hint: "):
                        self._last_words = line.strip()
                    yield line

    def ask_to_stop(self) -> None:
        """Let it unwind: what it began is removed, by it or by the next run."""
        self._asked_to_stop = True
        self._child.signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it now."""
        self._asked_to_stop = True
        self._child.signal(signal.SIGKILL)

    def close(self) -> TaskRecord:
        """Wait for its end, which must be near; how it went. Raise ``RecoupError`` when that cannot be recorded."""
        status = self._child.wait().exit_status
        for _ in self.said():
            pass
        self._child.stdin.close()
        self._log.close()
        return self._conclude(status)

    def _conclude(self, status: int) -> TaskRecord:
        folder, run = self._system.state_folder, self.run
        if run.service != WHOLE_PLAN or run.kind == DRILL or run.kind.startswith(VERIFY):
            own = read_task(folder, run.service, run.kind)
            if own is not None and own.outcome != "running" and own.started > self._record.started:
                return own  # the command has recorded how it ended; it knows best
        outcome: Outcome
        code, error = (status, self._last_words) if status >= 0 else (int(Exit.FAILED), f"killed by signal {-status}")
        if self._asked_to_stop or code in (Exit.BUSY, Exit.INTERRUPTED):
            outcome = "interrupted"
        elif code == Exit.OK:
            outcome, error = "ok", ""
        else:
            outcome = "unknown" if code == Exit.UNKNOWN else "failed"
        return end_task(folder, self._record, outcome, now=clock.now(), exit_code=code, error=error or None)


def remains(state_folder: Path) -> None:
    """Remove half-written files that a killed run left among the records."""
    old = clock.now().timestamp() - 60
    for path in [*state_folder.glob(".*.tmp"), *(state_folder / "runs").glob(".*.tmp")]:
        try:
            if path.stat().st_mtime < old:
                path.unlink()
        except OSError:
            continue
