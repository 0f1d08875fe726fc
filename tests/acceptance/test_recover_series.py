"""A recovery on a real stack, killed at every boundary and at random instants, ends as one that nobody killed.

Long series for ``make soak``: ``RECOUP_KILLS`` is how many random instants there are for each situation at least,
``RECOUP_SEED`` repeats those whose seed was printed, ``RECOUP_BOUNDARIES`` takes so many of the boundaries instead of
all. In a second series it is the machine that loses its power.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.demo.s3_server import S3Server
from recoup.kernel import clock
from tests.acceptance.blank_place import BlankPlace, blank_place, git
from tests.acceptance.recover_place import AGREED, RecoverPlace, damage_database, damage_redis, recover_place
from tests.acceptance.recover_series import (
    Ground,
    kill_at_boundaries,
    kill_at_random_instants,
    look_at,
    uninterrupted,
)
from tests.cable import Cable, listen_on
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine

pytestmark = [
    pytest.mark.testhost,
    pytest.mark.s3,
    pytest.mark.xdist_group("testhost"),
    pytest.mark.timeout(7200),
    pytest.mark.soak,
]

_KILLS = int(os.environ.get("RECOUP_KILLS", "12"))
_BOUNDARIES = int(os.environ["RECOUP_BOUNDARIES"]) if "RECOUP_BOUNDARIES" in os.environ else None
_SEED = int(os.environ.get("RECOUP_SEED") or random.SystemRandom().randrange(1 << 32))
#: A power cut leaves a stream that waits for its next attempt; the list would wait for it. It has tests of its own.
_BUT_FOR_THE_LIST = ("--skip", "checklist", "--because", "it is tested by itself")

_KILLED = pytest.mark.parametrize("killed", ["orchestrator", "machine"])


def _series(ground: Ground, name: str) -> None:
    chance = random.Random(_SEED)
    began = clock.monotonic()
    whole = uninterrupted(ground)
    print(f"\n{name}: nobody killed it: {whole.seconds:.0f} s, exit code {whole.code}", flush=True)
    at_boundaries = kill_at_boundaries(ground, whole, chance, _BOUNDARIES)
    print(f"{name}: killed at {at_boundaries} boundaries: {clock.monotonic() - began:.0f} s", flush=True)
    at_random = kill_at_random_instants(ground, whole, chance, _KILLS)
    took = clock.monotonic() - began
    print(f"{name}: killed at {at_random} random instants: {took:.0f} s in all, RECOUP_SEED={_SEED}", flush=True)


@_KILLED
@pytest.mark.parametrize("situation", ["database-corruption", "redis-loss"])
def test_a_lost_database_comes_back_whatever_is_killed(
    stack: Stack, tmp_path: Path, situation: str, killed: str
) -> None:
    with recover_place(stack, tmp_path) as place:
        place.redis("rpush", "queue", "one", "two")
        place.redis("set", "basket", "apples")
        place.order("the last one")
        _series(_database_ground(place, situation, killed), f"{situation}, {killed}")


#: What is damaged in each, and a file of its data that is.
_ACCIDENTS = {
    "database-corruption": (damage_database, "postgres", "pg_filenode.map"),
    "redis-loss": (damage_redis, "redis", "*.base.rdb"),
}


def _database_ground(place: RecoverPlace, situation: str, killed: str) -> Ground:
    damage, service, file = _ACCIDENTS[situation]
    power = killed == "machine"
    damaged: set[str] = set()

    def lose() -> None:
        for kept in place.set_aside()[service]:  # closing it asks people, who are not here
            place.machine.run(["rm", "-r", f"{_volume(place, service)}/{kept}"])
        place.wait_for_wal()
        place.wait_for_stream()
        damage(place.stack)
        assert wait_until(lambda: not place.stack.answers(), limit_seconds=30)
        damaged.clear()
        damaged.update(_digests(place, service, file))

    def looks() -> dict[str, object]:
        aside = {one: len(found) for one, found in place.set_aside().items()}
        kept = damaged <= _digests(place, service, file, "*replaced*")
        return {**look_at(place.stack), "aside": aside, "damaged kept": kept, "left over": place.left_over()}

    return Ground(
        machine=place.machine,
        folder=place.folder,
        environment=place.environment,
        state=place.state,
        log=place.state / "series.log",
        command=(situation, *AGREED, *(_BUT_FOR_THE_LIST if power else ())),
        lose=lose,
        looks=looks,
        cut_power=place.cut_power if power else None,
    )


def _digests(place: RecoverPlace, service: str, file: str, within: str = "*") -> set[str]:
    find = ["find", _volume(place, service), "-name", file, "-path", within, "-exec", "sha256sum", "{}", "+"]
    return {line.split()[0] for line in place.machine.run(find).stdout.decode().splitlines()}


def _volume(place: RecoverPlace, service: str) -> str:
    volume = f"marketplace_{service}-data"
    return place.machine.docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume).strip()


@pytest.fixture(scope="module")
def protected(
    standing_stack: Stack, second_host: Machine, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BlankPlace]:
    """Production with copies in a bucket, and a machine with nothing."""
    with blank_place(standing_stack, second_host, s3, tmp_path_factory.mktemp("blank")) as found:
        yield found


@dataclass
class _Wire:
    """What connects a machine with the bucket. It has to be plugged in again when the machine was switched on again."""

    machine: Machine
    port: int
    scope: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def plug_in(self) -> None:
        self.scope.close()
        self.scope.enter_context(Cable(self.port, listener=listen_on(self.machine, self.port)))

    def cut_power(self, process: subprocess.Popen[bytes]) -> None:
        """The machine loses its power, and has it again; what starts by itself does."""
        self.machine.power_cut()
        process.wait(30)
        self.machine.start()
        self.plug_in()


@contextlib.contextmanager
def _wire(machine: Machine, port: int) -> Iterator[_Wire]:
    wire = _Wire(machine, port)
    with wire.scope:
        wire.plug_in()
        yield wire


@_KILLED
def test_a_lost_application_comes_back_whatever_is_killed(protected: BlankPlace, killed: str) -> None:
    stack, power = protected.stack, killed == "machine"
    databases = protected.databases()

    def looks() -> dict[str, object]:
        stand = {} if power else {"databases": protected.databases() == databases}  # they start with the machine
        return {**_placed(stack, protected), **stand}

    with _wire(stack.machine, protected.s3.port) as wire:
        there = protected.on_production()
        ground = _blank_ground(there, "application-loss", lambda: shutil.rmtree(stack.folder), looks)
        _series(replace(ground, cut_power=wire.cut_power if power else None), f"application-loss, {killed}")


@_KILLED
def test_a_lost_server_comes_back_whatever_is_killed(protected: BlankPlace, killed: str) -> None:
    def lose() -> None:
        # A run that is killed right after its last line has ended on that machine, and not for the repository: this
        # copies the rest. Without it the next run would be refused, which has tests of its own.
        protected.recoup("recover", "--close", *protected.where, expect=None)
        protected.wipe()

    def looks() -> dict[str, object]:
        return _placed(protected.there(), protected)

    protected.stack.machine.power_cut()
    try:
        with _wire(protected.blank, protected.s3.port) as wire:
            ground = _blank_ground(protected, "server-loss", lose, looks)
            cut = wire.cut_power if killed == "machine" else None
            _series(replace(ground, cut_power=cut), f"server-loss, {killed}")
    finally:
        protected.stack.machine.start()


def _blank_ground(
    place: BlankPlace, situation: str, lose: Callable[[], None], looks: Callable[[], dict[str, object]]
) -> Ground:
    return Ground(
        machine=place.blank,
        folder=place.folder,
        environment=place.environment,
        state=Path(place.environment["RECOUP_STATE"]),
        log=place.folder.parent / f"{situation}.log",
        command=(situation, *place.where, "--yes"),
        lose=lose,
        looks=looks,
    )


def _placed(stack: Stack, place: BlankPlace) -> dict[str, object]:
    return {
        **look_at(stack),
        "identity": stack.sql("select system_identifier from pg_control_system()") == place.identity,
        "commit": git(stack.folder, "rev-parse", "HEAD") == place.commit,
        "changed": git(stack.folder, "status", "--porcelain"),
        "files": {str(one.relative_to(stack.folder)): one.stat().st_mode for one in _files(stack.folder)},
    }


def _files(folder: Path) -> list[Path]:
    return sorted(one for one in folder.rglob("*") if ".git" not in one.relative_to(folder).parts)
