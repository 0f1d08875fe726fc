"""Full disks, small enough to fill: of a repository, a destination, the state. Made with tmpfs, so only as root."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer, RedisServer
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.kernel.finding import Verdict, overall
from tests.acceptance.workplace import Workplace
from tests.integration.logical import direct, small_database
from tests.real import not_run, require_found, require_root

_MEBIBYTE = 1 << 20
Disk = Callable[[Path, str], Path]


@pytest.fixture
def small_disk(work: Workplace) -> Iterator[Disk]:
    """Makes a folder that is a disk of its own, of the size given (``3m``)."""
    require_root("mounting a small file system")
    mounted: list[Path] = []

    def mount(folder: Path, size: str) -> Path:
        folder.mkdir(parents=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "recoup-test", str(folder)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            not_run(f"this machine does not let root mount a tmpfs: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _grow(folder: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def _fill(folder: Path) -> Path:
    """Leave nothing free."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
        while True:
            handle.write(bytes(4096))
    return ballast


def _incompressible(work: Workplace, mebibytes: int = 6) -> None:
    source = work.folder / "data"
    source.mkdir()
    chance = random.Random(5)
    for number in range(mebibytes):
        (source / f"file {number}").write_bytes(chance.randbytes(_MEBIBYTE))
    work.services["files"] = "{engine: files, paths: [data]}"


def test_a_full_repository_takes_nothing_says_so_and_takes_the_copy_when_there_is_room(
    work: Workplace, small_disk: Disk
) -> None:
    _incompressible(work)
    disk = small_disk(work.folder / "small", "4m")
    work.repositories["local"] = "{path: small/backups}"
    work.write_plan()
    ended = work.recoup("backup", expect=1)
    assert "no space left" in ended.err
    assert "hint: " in ended.err
    assert work.listed() == {}
    assert work.strays(disk / "backups") == []
    _grow(disk, "32m")
    artefact = work.backup()
    assert work.listed() == {artefact: ["local"]}
    assert work.unfinished() == []


@pytest.mark.parametrize("full", ["first", "second"])
def test_a_full_repository_does_not_lose_the_copy_in_the_other(work: Workplace, small_disk: Disk, full: str) -> None:
    _incompressible(work)
    disk = small_disk(work.folder / "small", "3m")
    places = {"first": "{path: roomy}", "second": "{path: roomy}"} | {full: "{path: small/backups}"}
    work.repositories = dict(places)
    work.write_plan()
    document = work.json("backup", expect=1)
    (copy,) = document["copies"]
    other = "second" if full == "first" else "first"
    assert copy["repositories"] == [other]
    assert "no space left" in copy["failed_repositories"][full]["message"]
    assert copy["failed_repositories"][full]["hint"]
    assert work.listed() == {copy["id"]: [other]}
    assert work.strays(disk / "backups") == []
    assert work.json("verify", copy["id"])["artefacts"][0]["verdict"] == "ok"
    # The next backup finds room, goes to both and removes what the first left behind.
    _grow(disk, "64m")
    artefact = work.backup()
    assert work.listed()[artefact] == ["first", "second"]
    assert work.unfinished() == []


def test_a_base_backup_restored_onto_a_full_disk_is_no_database_and_is_finished_when_there_is_room(
    work: Workplace, small_disk: Disk, postgres18: PostgresServer
) -> None:
    database = small_database(postgres18)
    work.add_postgres(postgres18, database)
    work.write_plan()
    artefact = work.backup()
    plain = sum(stored["plain_bytes"] for stored in work.json("show", artefact)["objects"])  # other tests' data as well
    disk = small_disk(work.folder.parent / "small", f"{plain // 2 >> 20}m")
    folder = disk / "restored"
    arguments = ("restore", artefact, "--destination", str(folder))
    ended = work.recoup(*arguments, expect=None)
    assert ended.code in (1, 5), ended
    assert "free" in ended.err or "No space left" in ended.err
    assert "hint: " in ended.err
    assert not (folder / "global" / "pg_control").exists()
    _grow(disk, f"{(2 * plain >> 20) + 200}m")
    work.recoup(*arguments)
    fingerprint = work.json("show", artefact)["fingerprint"]
    with PostgresServer(require_found(lambda: find_postgres(18)), data_folder=folder) as restored:
        findings = compare_with_base(fingerprint, direct(restored))
    assert overall(findings) is Verdict.OK, findings


@pytest.mark.parametrize("kind", ["files", "rdb", "dump"])
def test_what_does_not_fit_into_a_folder_is_not_left_there_as_if_it_were_whole(
    work: Workplace, small_disk: Disk, redis8: RedisServer, postgres17: PostgresServer, kind: str
) -> None:
    chance = random.Random(6)
    if kind == "files":
        _incompressible(work)
    elif kind == "rdb":
        client = redis8.client()
        for number in range(6):
            client.set(f"big:{number}", chance.randbytes(_MEBIBYTE))
        client.close()
        work.add_redis(redis8)
    else:
        database = postgres17.new_database("big")
        postgres17.execute("CREATE TABLE big (content bytea)", database)
        with postgres17.connect(database) as connection:
            for _ in range(6):
                connection.execute("INSERT INTO big VALUES (%s)", [chance.randbytes(_MEBIBYTE)])
        work.add_postgres(postgres17, database)
    work.write_plan()
    artefact = work.backup(*(["postgres", "--kind", "dump"] if kind == "dump" else []))
    disk = small_disk(work.folder.parent / "small", "3m")
    folder = disk / "restored"
    arguments = ("restore", artefact, "--destination", str(folder))
    ended = work.recoup(*arguments, expect=None)
    assert ended.code in (1, 5), ended
    assert "no such" not in ended.err.lower()
    assert "free" in ended.err or "No space left" in ended.err
    assert "hint: " in ended.err
    whole = {"rdb": ["dump.rdb"], "dump": ["*.dump"], "files": ["file 5"]}[kind]
    assert [path for pattern in whole for path in folder.rglob(pattern)] == []
    _grow(disk, "64m")
    work.recoup(*arguments)
    assert [path for pattern in whole for path in folder.rglob(pattern)] != []


def test_a_full_state_folder_stops_a_backup_with_a_reason_and_does_not_hide_what_there_is(
    work: Workplace, small_disk: Disk
) -> None:
    _incompressible(work, 1)
    work.write_plan()
    artefact = work.backup()
    work.state = small_disk(work.folder.parent / "tiny", "64k")
    _fill(work.state)
    ended = work.recoup("backup", expect=1)
    assert str(work.state) in ended.err
    assert "No space left on device" in ended.err
    assert "hint: " in ended.err
    assert work.listed() == {artefact: ["local"]}
    work.recoup("verify", artefact)
    (work.state / "ballast").unlink()
    work.recoup("backup")


def test_a_state_folder_that_cannot_be_made_is_named(work: Workplace) -> None:
    _incompressible(work, 1)
    work.write_plan()
    artefact = work.backup()
    (work.folder.parent / "file").write_text("not a folder")
    nowhere = {"RECOUP_STATE": str(work.folder.parent / "file" / "state")}
    ended = work.recoup("backup", environment=nowhere, expect=1)
    assert nowhere["RECOUP_STATE"] in ended.err
    assert "hint: " in ended.err
    listed = work.recoup("list", "--json", environment=nowhere)
    assert [one["id"] for one in listed.json["artefacts"]] == [artefact]
