"""A production that is protected without a break, an accident, and an operator who types ``recoup recover``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recoup.demo.host import wait_until
from recoup.recovery.journal import Line, parse_journal
from tests.acceptance.admin import Admin, protected
from tests.acceptance.workplace import RECOUP
from tests.testhost.fixtures import Stack

#: How often what does not fill a segment is stored.
_EVERY = "1s"
#: How long it may take until something is stored; after a power cut a stream may wait for its next attempt.
_ARCHIVED_SECONDS = 180
_PROOF = """
    checks: [{name: there are orders, sql: select count(*) from orders, at_least: 1}]
"""
#: What an operator gives who agrees beforehand.
AGREED = ("--yes", "--confirm", "marketplace")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverPlace(Admin):
    """Somebody who is logged in on the machine of production, and what they look at."""

    state: Path
    backups: Path
    daemons: contextlib.ExitStack  #: the daemon that runs, and those that a power cut has ended

    # -- what users have -----------------------------------------------------------------------------------------------

    def order(self, what: str) -> None:
        """A user orders something."""
        self.stack.sql(f"insert into orders (client_id, what, price) values (1, '{what}', 7)")

    def has_order(self, what: str) -> bool:
        """Whether the order is there."""
        return self.stack.sql(f"select count(*) from orders where what = '{what}'").strip() == "1"

    def redis(self, *words: str) -> str:
        """What the Redis of production answers."""
        where = ("exec", "-T", "-e", "REDISCLI_AUTH=redis-example-4711", "redis", "redis-cli", "--no-auth-warning")
        return self.stack.compose(*where, *words).strip()

    # -- what is stored of it ------------------------------------------------------------------------------------------

    def wait_for_wal(self) -> None:
        """Wait until everything that PostgreSQL has acknowledged is in the repository."""
        lsn = self.stack.sql("select pg_current_wal_insert_lsn()").strip()
        asked = ("restore", "--to-lsn", lsn, "--before", "--service", "postgres", "--plan")
        assert wait_until(lambda: self._ends(0, *asked), limit_seconds=_ARCHIVED_SECONDS, every=0.3), (
            f"{lsn} was never archived"
        )

    def wait_for_stream(self) -> str:
        """Wait until everything that Redis has done up to now is in the repository; when that was."""
        stamp = datetime.now(UTC).isoformat()
        asked = ("restore", "--to-time", stamp, "--service", "redis", "--plan")

        def covered() -> bool:
            self.redis("set", "later", "than the stamp")  # an idle server says only once a minute that it is there
            return self._ends(0, *asked)

        assert wait_until(covered, limit_seconds=_ARCHIVED_SECONDS, every=0.3), f"{stamp} was never archived"
        return stamp

    def _ends(self, code: int, *arguments: str) -> bool:
        done = self.machine.run([RECOUP, *arguments], folder=self.folder, environment=self.environment, check=False)
        return done.returncode == code

    # -- the run -------------------------------------------------------------------------------------------------------

    def recover(self, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Carry out ``recoup recover``; its document."""
        said = self.machine.run(
            [RECOUP, "recover", *arguments, "--json"],
            folder=self.folder,
            environment=self.environment,
            check=False,
            timeout=400,
        )
        words = said.stdout.decode() + said.stderr.decode()
        assert said.returncode == expect, f"recoup recover {' '.join(arguments)} ended with {said.returncode}:\n{words}"
        document: dict[str, Any] = json.loads(said.stdout) if said.stdout.strip() else {"said": words}
        return document

    def begin(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Begin ``recoup recover`` and do not wait for it. Its children have groups of their own."""
        with open(self.state / "recover.log", "ab") as log:
            return subprocess.Popen(
                self.machine.inside([RECOUP, "recover", *arguments], self.folder),
                env=self.machine.environment_inside(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def interrupt_at(self, boundary: int, *arguments: str, end: Callable[[subprocess.Popen[bytes]], None]) -> bool:
        """Begin or resume it, and ``end`` it as soon as its journal is so many boundaries far. False: it had ended."""
        process = self.begin(*arguments)
        try:
            reached = wait_until(
                lambda: self.boundaries() >= boundary or process.poll() is not None, limit_seconds=400, every=0.02
            )
            assert reached, f"the journal never came to boundary {boundary}:\n{self.story()}"
            if process.poll() is not None:
                return False
            end(process)
            return True
        finally:
            kill(process)

    def boundaries(self) -> int:
        """How many boundaries its journal has passed; one that was passed again counts once."""
        return len({(one.event, one.data.get("step")) for one in self.journal() if "step" in one.data})

    def cut_power(self, process: subprocess.Popen[bytes]) -> None:
        """The machine loses its power, and has it again; what starts by itself does."""
        self.machine.power_cut()
        process.wait(120)
        self.machine.start()
        self.daemons.enter_context(self.daemon(self.state / "daemon.log"))

    def story(self) -> str:
        """The newest journal, for whoever reads that a test failed."""
        log = self.state / "recover.log"
        lines = [f"{one.number} {one.event} {json.dumps(dict(one.data))[:300]}" for one in self.journal()]
        return "\n".join([*lines, log.read_text() if log.exists() else ""])

    def journal(self) -> tuple[Line, ...]:
        """The journal of the newest run."""
        return next(reversed(journals(self.state)), ())

    def took(self, step: str) -> float:
        """How many seconds a step took, by the journal."""
        lines = {one.event: one.clock for one in self.journal() if one.data.get("step") == step}
        return lines["step-done"] - lines["step-begun"]

    # -- what must be so afterwards ------------------------------------------------------------------------------------

    def set_aside(self) -> dict[str, list[str]]:
        """What is kept of the old data, by service."""
        found = {}
        for service, folder in (("postgres", "/var/lib/postgresql/data"), ("redis", "/data")):
            names = self.stack.compose("exec", "-T", service, "ls", "-A", folder).split()
            found[service] = sorted(one for one in names if "replaced" in one)
        return found

    def left_over(self) -> str:
        """One-off containers and unpacked copies that nobody needs any more; nothing, when all is well."""
        containers = self.machine.docker("ps", "--all", "--quiet", "--filter", "label=recoup.one-off.project")
        names = self.stack.compose("exec", "-T", "postgres", "ls", "-A", "/var/lib/postgresql/data").split()
        names += self.stack.compose("exec", "-T", "redis", "ls", "-A", "/data").split()
        marks = ("incoming", "placing", "parts", "recoup_staging", "recoup-restore")
        return " ".join([*containers.split(), *(one for one in names if any(mark in one for mark in marks))])


def journals(state: Path) -> list[tuple[Line, ...]]:
    """The journals of the runs that were begun, the newest last. Each is valid, or this raises."""
    found = [parse_journal(one.read_bytes())[0] for one in sorted(state.glob("*/runs/*/journal"))]
    return [one for one in found if one]


def kill(process: subprocess.Popen[bytes]) -> None:
    """``kill -9`` it, and nothing that it started: its children have groups of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(120)


def damage_database(stack: Stack) -> None:
    """Damage the data folder while the server runs, so that it fails: its map of relations and its commit log."""
    folder = "/var/lib/postgresql/data"
    files = f"{folder}/base/*/pg_filenode.map {folder}/global/pg_filenode.map {folder}/pg_xact/0000"
    script = f'for file in {files}; do head -c 512 /dev/urandom 1<> "$file"; done'
    stack.compose("exec", "-T", "postgres", "sh", "-c", script)
    with contextlib.suppress(AssertionError):  # its end is the point; it starts again, and does not come up
        stack.compose("kill", "postgres")
        stack.compose("start", "postgres")


def damage_redis(stack: Stack) -> None:
    """Damage the append-only files, so that Redis does not come up again."""
    stack.compose("exec", "-T", "redis", "sh", "-c", "head -c 512 /dev/urandom 1<> $(echo appendonlydir/*.base.rdb)")
    with contextlib.suppress(AssertionError):
        stack.compose("kill", "redis")
        stack.compose("start", "redis")


def lose_redis(stack: Stack) -> None:
    """The container and the volume of Redis are gone, as after ``docker volume rm`` by mistake."""
    stack.compose("rm", "--stop", "--force", "redis")
    stack.machine.docker("volume", "rm", "marketplace_redis-data")


@contextlib.contextmanager
def recover_place(
    stack: Stack, folder: Path, *, edit: Callable[[str], str] = lambda text: text
) -> Iterator[RecoverPlace]:
    """The example stack with a folder as repository, its daemon, and all streams flowing."""
    with contextlib.ExitStack() as daemons:
        place = RecoverPlace(
            machine=stack.machine,
            folder=stack.folder,
            environment={"RECOUP_STATE": str(folder / "state")},
            state=folder / "state",
            backups=folder / "backups",
            daemons=daemons,
        )
        files = ("--compose", "docker-compose.prod.yml", "--env-file", ".env.production")
        place.recoup("init", *files, "--repository", str(place.backups))
        plan = stack.folder / "recoup.yaml"
        text = re.sub(r"(?m)^ *dump: .*\n", "", plan.read_text())
        text = re.sub(r"# (wal|stream): continuous .*", rf"\1: continuous\n    \1_every: {_EVERY}", text)
        plan.write_text(edit(text.replace("    base: daily", _PROOF.strip("\n") + "\n    base: daily")))
        place.recoup("check", "--prepare", "--yes")
        daemons.enter_context(place.daemon(folder / "daemon.log"))
        ready = wait_until(lambda: protected(place.state), limit_seconds=120, every=0.1)
        assert ready, (folder / "daemon.log").read_text()
        yield place
