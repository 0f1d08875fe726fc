"""Fixtures over pretend machines. ``tests/conftest.py`` makes them known to every test.

Tests that use them are marked ``testhost``, and ``xdist_group("testhost")`` so that one worker starts the machines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.real import not_run
from tests.testhost.machine import Hall, Machine, copy_stack, what_is_missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The example stack, running on a machine: a marketplace whose database is not published."""

    machine: Machine
    folder: Path
    file: Path
    env_file: Path
    health: str = "http://127.0.0.1:3000/api/health"  #: as seen on the machine

    def compose(self, *argv: str, stdin: bytes | None = None) -> str:
        """Call ``docker compose`` for this stack as an operator would; return what it printed."""
        where = ("compose", "-f", str(self.file), "--env-file", str(self.env_file))
        return self.machine.docker(*where, *argv, stdin=stdin, folder=self.folder)

    def sql(self, query: str) -> str:
        """What the database says to a query."""
        return self.compose("exec", "-T", "postgres", "psql", "-XAtq", "-U", "market", "-d", "market", "-c", query)

    def answers(self) -> bool:
        """Whether the application container says that it, its database and its Redis are well."""
        said = self.machine.run(["curl", "-s", "--max-time", "5", self.health], check=False)
        return said.returncode == 0 and b'"status": "ok"' in said.stdout


@pytest.fixture(scope="session")
def hall() -> Iterator[Hall]:
    """The place where this run's machines stand. Everything in it is gone afterwards."""
    missing = what_is_missing()
    if missing is not None:
        not_run(missing)
    with Hall() as place:
        yield place


@pytest.fixture(scope="session")
def testhost(hall: Hall) -> Machine:
    """A running machine with the images ``postgres:15``, ``redis:7`` and ``api:1``. Leave it running."""
    return hall.machine("alpha")


@pytest.fixture(scope="session")
def second_host(hall: Hall, testhost: Machine) -> Machine:
    """Another running machine with the same images and nothing else."""
    return hall.machine("beta", images_of=testhost)


@pytest.fixture
def stack(testhost: Machine, tmp_path: Path) -> Iterator[Stack]:
    """A fresh example stack, up and healthy, in a folder of its own; removed with its volumes afterwards."""
    with _running(testhost, tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def standing_stack(testhost: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The example stack for a whole module whose tests change nothing. A module has this one or ``stack``, not both."""
    with _running(testhost, tmp_path_factory.mktemp("standing")) as running:
        yield running


@contextlib.contextmanager
def _running(machine: Machine, folder: Path) -> Iterator[Stack]:
    file = copy_stack(folder / "marketplace")
    running = Stack(machine=machine, folder=file.parent, file=file, env_file=file.parent / ".env.production")
    try:
        running.compose("up", "--detach", "--wait", "--wait-timeout", "240")
        yield running
    finally:
        # The project's name finds everything, also what a test has made of the files.
        with contextlib.suppress(AssertionError):
            machine.docker("compose", "-p", "marketplace", "down", "--volumes", "--remove-orphans", "-t", "0")
        _remove_all(machine)


def _remove_all(machine: Machine) -> None:
    """Containers and volumes a test has made beside the stack. The machine is the tests' own."""
    containers = machine.docker("ps", "-aq").split()
    if containers:
        machine.docker("rm", "-f", "-v", *containers)
    volumes = machine.docker("volume", "ls", "-q").split()
    if volumes:
        machine.docker("volume", "rm", "-f", *volumes)
