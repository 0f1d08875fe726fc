"""Somebody who is logged in on a machine of its own and types ``recoup`` there."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recoup.backup.run_records import read_task, read_workers
from recoup.kernel import clock
from recoup.kernel.errors import Exit
from tests.acceptance.workplace import RECOUP
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine

#: A flow of the example stack, for the plans of drills and recoveries.
CLIENT_SEES_ORDERS = """
    - name: a client sees the orders
      within: 2m
      steps:
        - get: http://127.0.0.1:3000/api/health
          expect: {json: {status: ok}, value: orders, at_least: 1}
        - sql: select count(*) from orders
          expect: {at_least: 1}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin:
    """Somebody who is logged in on a machine, in a folder, with the bucket's address and key in the environment."""

    machine: Machine
    folder: Path
    environment: dict[str, str]

    @property
    def stack(self) -> Stack:
        """The stack whose files are in the folder."""
        file = self.folder / "docker-compose.prod.yml"
        return Stack(machine=self.machine, folder=self.folder, file=file, env_file=self.folder / ".env.production")

    def recoup(self, *arguments: str, expect: int = 0) -> str:
        """Run ``recoup`` on the machine, again while the daemon is at the same service (exit 6); what it printed."""
        until = clock.monotonic() + 240
        while True:
            done = self.machine.run(
                [RECOUP, *arguments], folder=self.folder, environment=self.environment, check=False, timeout=400
            )
            if done.returncode != Exit.BUSY or expect == Exit.BUSY or clock.monotonic() > until:
                break
            clock.pause(0.5)
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == expect, f"recoup {' '.join(arguments)} ended with {done.returncode}:\n{said}"
        return said

    @contextlib.contextmanager
    def daemon(self, log: Path) -> Iterator[None]:
        """``recoup daemon`` on the machine, for as long as this lasts or the power."""
        with open(log, "wb") as said:
            process = subprocess.Popen(
                self.machine.inside([RECOUP, "daemon"], self.folder),
                env=self.machine.environment_inside(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )
            try:
                yield
            finally:
                process.kill()
                process.wait(120)


def protected(state: Path) -> bool:
    """Whether both streams flow and have a copy to begin at."""
    folder = next(state.iterdir(), None) if state.is_dir() else None
    if folder is None:
        return False
    facts = {one.name: one.facts for one in read_workers(folder)}
    base = read_task(folder, "postgres", "base")
    return (
        facts.get("wal postgres", {}).get("state") == "streaming"
        and facts.get("stream redis", {}).get("base") == "present"
        and base is not None
        and base.outcome == "ok"
    )
