"""Disks that are full while production is recovered: that of the data, that of the journal. Real file systems."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from tests.acceptance.recover_place import AGREED, RecoverPlace, damage_database, kill, recover_place
from tests.real import not_run, require, require_root
from tests.testhost.fixtures import Stack
from tests.testhost.machine import Machine

pytestmark = [pytest.mark.testhost, pytest.mark.xdist_group("testhost"), pytest.mark.timeout(600)]

_MEBIBYTE = 1 << 20
_SIZE = 1700 * _MEBIBYTE  #: of a disk: enough for one database twice, and what it writes while it recovers
_VOLUME = "/var/lib/docker/volumes/marketplace_postgres-data/_data"
_FILLING = "somebodys-file"
_INCOMING = "pgsql_tmp_recoup_incoming"
#: The list waits for copies and streams, and has tests of its own.
_BUT_FOR_THE_LIST = (*AGREED, "--skip", "checklist", "--because", "it is tested by itself")


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A file system of its own. ``folder`` is where it is seen from here."""

    folder: Path

    @contextlib.contextmanager
    def filled(self, *, leave: int = 0) -> Iterator[Callable[[], None]]:
        """A file grows until no more than ``leave`` bytes are free, and later somebody removes it.

        Nothing is written for it, so it takes no time. What is yielded takes what came free since.
        """
        ballast = self.folder / _FILLING

        def fill() -> None:
            with ballast.open("ab") as handle, contextlib.suppress(OSError):
                while (free := self._free() - leave) > 0:
                    os.posix_fallocate(handle.fileno(), handle.seek(0, os.SEEK_END), free)

        fill()
        try:
            yield fill
        finally:
            ballast.unlink()

    def _free(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


@contextlib.contextmanager
def disk_at(
    place: Path | str, machine: Machine, folder: Path, *, keep: bool = False, also_here: bool = False
) -> Iterator[Disk]:
    """While inside, ``place`` of the machine is a disk of its own. ``keep``: with what was there before.

    ``also_here``: it is seen under the same name from outside of the machine.
    """
    require_root("mounting a small file system")
    image, here = folder / "disk.img", folder / "disk"
    here.mkdir(parents=True)
    with image.open("wb") as handle:
        handle.truncate(_SIZE)
    # Small blocks: a file that grows by a line soon needs another one. No reserve: full is full for root as well.
    subprocess.run([require("mkfs.ext4"), "-q", "-F", "-b", "1024", "-m", "0", "-O", "^has_journal", image], check=True)
    done = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if done.returncode:
        not_run(f"this machine has no loop device to give: {done.stderr.strip()}")
    device = done.stdout.strip()
    with contextlib.ExitStack() as ends:
        try:
            subprocess.run(["mount", device, here], check=True)
            ends.callback(_unmount, here)
            (here / "lost+found").rmdir()
            if keep:
                machine.run(["mount", device, "/mnt"])
                machine.run(["cp", "-a", f"{place}/.", "/mnt"])
                machine.run(["umount", "/mnt"])
            if also_here:
                subprocess.run(["mount", device, str(place)], check=True)
                ends.callback(_unmount, place)
            machine.run(["mount", device, str(place)])
            ends.callback(machine.run, ["umount", "--lazy", str(place)], check=False)
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)  # it goes with the last who has it mounted
        yield Disk(folder=here)


def _unmount(place: Path | str) -> None:
    subprocess.run(["umount", "--lazy", place], check=True)


def _contents(folder: Path) -> dict[str, str]:
    """What lies there, but for the file that fills it."""
    files = [one for one in folder.rglob("*") if one.is_file() and one.name != _FILLING]
    return {str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


def test_what_has_no_room_is_said_before_anything_is_done_and_the_same_command_goes_on_when_there_is_room(
    stack: Stack, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    stack.sql("create table ledger as select n, repeat(md5(n::text), 20) line from generate_series(1, 40000) n")
    stack.compose("stop", "postgres")
    with (
        disk_at(_VOLUME, stack.machine, tmp_path / "data", keep=True) as data,
        disk_at(state, stack.machine, tmp_path / "notes", also_here=True) as notes,
    ):
        stack.compose("start", "postgres")
        assert wait_until(stack.answers, limit_seconds=120)
        with recover_place(stack, tmp_path) as place:
            place.order("the last one")
            place.wait_for_wal()
            damage_database(stack)
            assert wait_until(lambda: not stack.answers(), limit_seconds=120)
            _nothing_is_stopped_for_a_copy_that_has_no_room(place, data)
            _room_that_goes_while_it_is_unpacked_harms_nothing(place, data)
            _nothing_is_done_that_the_journal_has_no_room_for(place, data, notes)
            assert place.recover("--resume", *_BUT_FOR_THE_LIST, expect=4)["finished"]
            assert stack.answers()
            assert place.has_order("the last one")
            assert len(place.set_aside()["postgres"]) == 1
            assert place.left_over() == ""


def _nothing_is_stopped_for_a_copy_that_has_no_room(place: RecoverPlace, data: Disk) -> None:
    with data.filled(leave=300 * _MEBIBYTE):
        refused = place.recover("database-corruption", *AGREED, expect=1)
    assert refused["stopped_at"] == "stop", refused
    assert re.search(r"the volume of postgres .* needs 1\.\d GiB .* \d\d\d\.\d MiB are free", refused["detail"]), (
        refused
    )
    assert "Make room on that disk" in refused["hint"]
    running = place.stack.compose("ps", "--services", "--status", "running").split()
    assert "api" in running, "who had something to work with still has it"


def _room_that_goes_while_it_is_unpacked_harms_nothing(place: RecoverPlace, data: Disk) -> None:
    place.stack.compose("stop", "postgres")
    before = _contents(data.folder)
    unpacking = (data.folder / _INCOMING / "base").exists
    with _going_on(place, until=unpacking) as (process, log), data.filled():
        assert process.wait(180) == 1, place.story()
    said = log.read_text()
    assert "No space left on" in said, said
    assert re.search(r"restore-postgres, failed: the volume of postgres .* needs 1\.\d GiB .* are free", said), said
    assert "hint: Make room on that disk, and give the same command again" in said
    assert _contents(data.folder) == before, "the old data are untouched, and nothing lies beside them"


def _nothing_is_done_that_the_journal_has_no_room_for(place: RecoverPlace, data: Disk, notes: Disk) -> None:
    before = _done(place)
    with notes.filled():
        refused = place.recover("--resume", *AGREED, expect=1)["error"]
    assert re.search(f"{place.state}.*: No space left on device", refused["message"]), refused
    assert "make room" in refused["hint"].lower()
    assert _done(place) == before

    with _going_on(place, until=lambda: _has(place, "step-done", "restore-postgres")) as (process, log):
        with notes.filled() as fill:
            full = wait_until(lambda: (fill(), process.poll())[1] is not None, limit_seconds=120, every=0.02)
        assert full, place.story()
        assert process.returncode == 1, place.story()
    said = log.read_text()
    assert re.search(r"recoup: the journal .* cannot be written: No space left on device", said), said
    assert "hint: Nothing is done that is not journaled first. Make room" in said
    # How far it came before the disk was full depends on the machine.
    if not _has(place, "step-begun", "swap-postgres"):
        assert not [*data.folder.glob("pgsql_tmp_recoup_replaced_*")], "what is not written down is not done"


@contextlib.contextmanager
def _going_on(place: RecoverPlace, *, until: Callable[[], bool]) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Go on with the run, and wait ``until`` it is there. What it says goes to a disk that is not full."""
    folder = Path(tempfile.mkdtemp(dir=place.state.parent))
    process = replace(place, state=folder).begin("--resume", *AGREED)
    try:
        assert wait_until(lambda: until() or process.poll() is not None, limit_seconds=180, every=0.002)
        yield process, folder / "recover.log"
    finally:
        kill(process)


def _done(place: RecoverPlace) -> list[str]:
    return [one.data["step"] for one in place.journal() if one.event == "step-done"]


def _has(place: RecoverPlace, event: str, step: str) -> bool:
    return any(one.event == event and one.data.get("step") == step for one in place.journal())
