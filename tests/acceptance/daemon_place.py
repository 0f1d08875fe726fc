"""A running ``recoup daemon`` for tests: what it has logged, what it has recorded, and ends of every kind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from recoup.backup import run_records as records
from tests.acceptance.workplace import Workplace, kill, wait_for


class RunningDaemon:
    """A daemon that was started; its log is read all along."""

    def __init__(self, place: Workplace, process: subprocess.Popen[str]) -> None:
        self.place = place
        self.process = process
        self.lines: list[str] = []
        assert process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._reader.start()

    def _read(self, pipe: IO[str]) -> None:
        with contextlib.suppress(ValueError):
            for line in pipe:
                self.lines.append(line.rstrip("\n"))

    @property
    def log(self) -> str:
        """All it has logged."""
        return "\n".join(self.lines)

    def wait_for(self, text: str, times: int = 1, limit_seconds: float = 120) -> None:
        """Wait until it has logged this so often."""
        try:
            wait_for(lambda: self.log.count(text) >= times, text, limit_seconds)
        except AssertionError as never:
            raise AssertionError(f"{never}\n{self.log}") from None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, and to it alone."""
        self.process.send_signal(number)

    def ends(self, expect: int, limit_seconds: float = 120) -> None:
        """Wait for its end, which must be with this code, and check what it said."""
        code = self.process.wait(limit_seconds)
        self._reader.join(120)
        assert code == expect, f"it ended with {code}:\n{self.log}"
        assert "Traceback" not in self.log, self.log
        assert "a bug in Recoup" not in self.log, self.log
        for secret in self.place.secrets:
            assert secret not in self.log

    def kill_alone(self) -> None:
        """``kill -9`` of the daemon, and of nothing that it started."""
        self.process.kill()
        self.process.wait(120)

    def children(self) -> list[int]:
        """The processes that it started and that are there."""
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in found]


@contextlib.contextmanager
def daemon(place: Workplace, *arguments: str, environment: dict[str, str] | None = None) -> Iterator[RunningDaemon]:
    """A daemon of the place's plan, up and ready; killed on leaving if it is still there."""
    process = place.start("daemon", *arguments, environment=environment or {})
    running = RunningDaemon(place, process)
    try:
        running.wait_for("protects Shop")
        yield running
    finally:
        kill(process)


def state_of(place: Workplace) -> Path:
    """The state folder of the place's plan."""
    (folder,) = place.state.iterdir()
    return folder


def outcome_of(place: Workplace, service: str, kind: str) -> str | None:
    """How the last run of a task ended."""
    record = records.read_task(state_of(place), service, kind)
    return None if record is None else record.outcome


def is_there(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_gone(pids: list[int]) -> None:
    """Wait until these processes are gone."""
    wait_for(lambda: not any(is_there(pid) for pid in pids), f"{pids} are gone")


def kill_pid(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to one process."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
