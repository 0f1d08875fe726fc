"""Restoring a base backup into a folder: interrupted, contested, damaged, refused. The copies are of a real server."""

from __future__ import annotations

import os
import pickle
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from recoup.demo.host import wait_until
from recoup.demo.programs import Programs, find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.engine import CopyFacts
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_check import check_base_copy
from recoup.engines.postgres.identity import MARKER, describe_folder
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.kernel.errors import BusyError, DamageError, EngineError, RefusedError
from recoup.kernel.finding import Finding, Verdict, overall
from recoup.kernel.process import Command, run
from recoup.kernel.secret import Secret
from tests.integration.postgres_copies import MemoryCopy
from tests.real import not_run, require_found, require_root

ROWS = 40_000


@pytest.fixture(scope="module")
def source(postgres17: PostgresServer) -> PostgresServer:
    postgres17.execute("DROP TABLE IF EXISTS restore_test")
    postgres17.execute(
        f"CREATE TABLE restore_test AS SELECT i, repeat(md5(i::text), 9) AS t FROM generate_series(1, {ROWS}) i"
    )
    return postgres17


@pytest.fixture(scope="module")
def taken(source: PostgresServer) -> MemoryCopy:
    copy = MemoryCopy()
    copy.copy_facts = take_base_backup(Secret(source.url()), copy, label="restore tests")
    return copy


@pytest.fixture
def copy(taken: MemoryCopy) -> MemoryCopy:
    """The same copy, for a test to damage."""
    mine = MemoryCopy()
    mine.data, mine.contents, mine.copy_facts = dict(taken.data), dict(taken.contents), taken.copy_facts
    return mine


def boots(source: PostgresServer, folder: Path) -> bool:
    with PostgresServer(Programs(path=source.bin), data_folder=folder) as server:
        return server.execute("SELECT count(*), min(length(t)) FROM restore_test") == [(ROWS, 288)]


# -- killed ------------------------------------------------------------------------------------------------------

CHILD = """
import itertools, pickle, sys, time
from pathlib import Path
from recoup.engines.postgres import place_folder
copy, folder, stop = pickle.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]), sys.argv[3]

def here(*_, **__):
    print("here", flush=True)
    time.sleep(600)

if stop.isdigit():
    whole = copy.each_frame
    def each_frame(name, act, workers=0):
        numbers = itertools.count()
        def until(start, data):
            if next(numbers) == int(stop):
                here()
            act(start, data)
        whole(name, until, 1)
    copy.each_frame = each_frame
else:
    setattr(place_folder, stop, here)
place_folder.restore_base_to_folder(copy, folder)
"""


def killed_at(copy: MemoryCopy, folder: Path, work: Path, stop: str) -> None:
    """Run a restore in another process and end it with SIGKILL when it gets to ``stop``."""
    pickled = work / "copy.pickle"
    pickled.write_bytes(pickle.dumps(copy))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(pickled), str(folder), stop], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    try:
        assert child.stdout is not None
        assert select.select([child.stdout], [], [], 240)[0]
        assert child.stdout.readline() == b"here\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(120)
        child.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("stop", ["_require_space", "0", "3", "40", "sync_file_systems"])
def test_a_killed_restore_does_not_start_and_the_same_call_finishes_it(
    source: PostgresServer, copy: MemoryCopy, server_folder: Path, tmp_path: Path, stop: str
) -> None:
    folder = server_folder / "restored"
    killed_at(copy, folder, tmp_path, stop)
    assert describe_folder(folder).unfinished_restore
    server = Command(
        argv=[str(source.bin / "postgres"), "-D", str(folder), "-c", f"unix_socket_directories={server_folder}"],
        user=source.owner, timeout_seconds=60,
    )  # fmt: skip
    if source.owner is not None:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *source.owner, follow_symlinks=False)
    refusal = run(server, expect=None)
    assert refusal.exit_status != 0
    placed = restore_base_to_folder(copy, folder, owner=source.owner)
    assert placed.started_over
    assert not (folder / MARKER).exists()
    if stop in ("3", "sync_file_systems"):
        assert boots(source, folder)


def test_a_restore_killed_at_its_very_end_is_only_finished(copy: MemoryCopy, tmp_path: Path) -> None:
    folder = tmp_path / "restored"
    killed_at(copy, folder, tmp_path, "_finish")
    assert (folder / MARKER).exists()
    (folder / "PG_VERSION").write_text("changed since\n")
    placed = restore_base_to_folder(copy, folder)
    assert not placed.started_over
    assert not (folder / MARKER).exists()
    assert (folder / "PG_VERSION").read_text() == "changed since\n"


def test_two_restores_into_one_folder_do_not_meet(copy: MemoryCopy, tmp_path: Path) -> None:
    second: list[Exception] = []

    class Nosy(MemoryCopy):
        def each_frame(self, name, act, workers=0):  # type: ignore[no-untyped-def]
            with pytest.raises(BusyError) as busy:
                restore_base_to_folder(copy, tmp_path / "restored")
            second.append(busy.value)
            copy.each_frame(name, act)

    first = Nosy()
    first.data, first.contents, first.copy_facts = copy.data, copy.contents, copy.copy_facts
    restore_base_to_folder(first, tmp_path / "restored")
    assert len(second) == 1
    assert not describe_folder(tmp_path / "restored").unfinished_restore


# -- refused -----------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_anything_is_refused_and_named(copy: MemoryCopy, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(RefusedError, match=r"holds 1 entries: holiday\.jpg"):
        restore_base_to_folder(copy, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_running_cluster_is_refused_and_named(source: PostgresServer, copy: MemoryCopy) -> None:
    identifier = copy.facts["system_identifier"]
    with pytest.raises(RefusedError, match=f"cluster {identifier}, running"):
        restore_base_to_folder(copy, source.data_folder)
    assert source.execute("SELECT count(*) FROM restore_test") == [(ROWS,)]


def test_a_finished_restore_is_refused_like_any_cluster(copy: MemoryCopy, tmp_path: Path) -> None:
    restore_base_to_folder(copy, tmp_path / "restored")
    with pytest.raises(RefusedError, match="not running"):
        restore_base_to_folder(copy, tmp_path / "restored")


def test_a_disk_that_is_too_small_is_refused_before_the_first_byte(copy: MemoryCopy, tmp_path: Path) -> None:
    require_root("to mount a small file system")
    small = tmp_path / "small"
    small.mkdir()
    mounted = run(Command(argv=["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)]), expect=None)
    if mounted.exit_status != 0:
        not_run("may not mount a small file system here")
    try:
        with pytest.raises(EngineError, match="not enough room"):
            restore_base_to_folder(copy, small / "restored")
        assert describe_folder(small / "restored").unfinished_restore
    finally:
        assert wait_until(
            lambda: run(Command(argv=["umount", str(small)]), expect=None).exit_status == 0, limit_seconds=120
        )


def test_a_cluster_with_its_settings_elsewhere_starts_all_the_same(server_folder: Path) -> None:
    with PostgresServer(require_found(lambda: find_postgres(15)), settings={"max_connections": "123"}) as server:
        outside = server_folder / "etc"
        outside.mkdir()
        server.stop()
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            shutil.move(server.data_folder / name, outside / name)
            if server.owner is not None:
                os.chown(outside / name, *server.owner)
            server.settings[name.replace(".conf", "_file").replace("pg_", "").replace("postgresql", "config")] = str(
                outside / name
            )
        server.start()
        server.execute("CREATE TABLE there AS SELECT 1 AS x")
        copy = MemoryCopy()
        copy.copy_facts = take_base_backup(Secret(server.url()), copy, label="as on Debian")
        assert {str(outside / "pg_hba.conf"), str(outside / "postgresql.conf")} <= {
            what for what, _ in copy.copy_facts.left_out
        }
        folder = restore_base_to_folder(copy, server_folder / "restored", owner=server.owner).folder
        assert "max_connections = 123" in (folder / "postgresql.conf").read_text()
        (folder / "pg_hba.conf").write_text("local all all trust\n")
        # Nothing but the folder, as an administrator would start it.
        started = Command(
            argv=[server.program("pg_ctl"), "-D", str(folder), "-w", "-l", str(server_folder / "log"), "-o",
                  f"-k {server_folder}", "start"],
            user=server.owner, timeout_seconds=60,
        )  # fmt: skip
        run(started)
        try:
            with psycopg.connect(host=str(server_folder), user="postgres", dbname="postgres") as connection:
                assert connection.execute("SELECT x FROM there").fetchall() == [(1,)]
        finally:
            stop = [server.program("pg_ctl"), "-D", str(folder), "-m", "immediate", "-w", "stop"]
            run(Command(argv=stop, user=server.owner, timeout_seconds=60))


# -- whole and damaged -------------------------------------------------------------------------------------------


def test_the_servers_own_tool_agrees_with_the_restored_folder(
    source: PostgresServer, copy: MemoryCopy, server_folder: Path
) -> None:
    placed = restore_base_to_folder(copy, server_folder / "restored", owner=source.owner)
    said = run(
        Command(argv=[str(source.bin / "pg_verifybackup"), str(placed.folder)], user=source.owner, timeout_seconds=120)
    )
    assert b"successfully verified" in said.stdout
    assert all(
        path.lstat().st_mode & 0o077 == 0
        for path in (placed.folder, *placed.folder.rglob("*"))
        if not path.is_symlink()
    )


def test_everything_goes_to_the_owner_of_the_folder_that_was_there(copy: MemoryCopy, tmp_path: Path) -> None:
    require_root("to give files to another user")
    folder = tmp_path / "volume"
    folder.mkdir()
    os.chown(folder, 999, 998)
    restore_base_to_folder(copy, folder)
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in (folder, *folder.rglob("*"))}
    assert owners == {(999, 998)}


def failed(findings: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.detail for finding in findings if finding.verdict is not Verdict.OK}


def offset_of(copy: MemoryCopy, ending: str) -> int:
    return next(m.offset for m in copy.members("base.tar") if m.path.endswith(ending) and m.size_bytes)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def test_a_whole_copy_is_intact(copy: MemoryCopy) -> None:
    findings = check_base_copy(copy)
    assert overall(findings) is Verdict.OK
    assert {finding.check for finding in findings} >= {"every file is what the server sent"}


@pytest.mark.parametrize(
    ("ending", "deep", "check"),
    [
        ("PG_VERSION", 0, "every file is what the server sent"),
        ("/1259", 5000, "every file is what the server sent"),
        ("backup_label", 3, "every file is what the server sent"),
        ("global/pg_control", 0, "pg_control is whole and of the right cluster"),
        ("global/pg_control", 60, "pg_control is whole and of the right cluster"),
    ],
)
def test_a_flipped_bit_in_a_member_is_found(copy: MemoryCopy, ending: str, deep: int, check: str) -> None:
    copy.replace("base.tar", flipped(copy.data["base.tar"], offset_of(copy, ending) + deep))
    assert check in failed(check_base_copy(copy))


def wal_segment_offset(copy: MemoryCopy) -> int:
    return next(m.offset for m in copy.members("base.tar") if m.path.startswith("pg_wal/0000") and m.size_bytes)


@pytest.mark.parametrize("deep", [0, 4, 8, 24])  # magic, timeline, address, system identifier
def test_a_wal_segment_of_something_else_is_found(copy: MemoryCopy, deep: int) -> None:
    at = wal_segment_offset(copy) + deep
    copy.replace("base.tar", flipped(copy.data["base.tar"], at))
    assert list(failed(check_base_copy(copy))) == ["the WAL that a start needs is there"]


def test_a_missing_wal_segment_is_found(copy: MemoryCopy) -> None:
    data = bytearray(copy.data["base.tar"])
    header = wal_segment_offset(copy) - 512
    del data[header : header + 512 + (16 << 20)]
    copy.replace("base.tar", bytes(data))
    assert "is missing" in failed(check_base_copy(copy))["the WAL that a start needs is there"]


def test_a_missing_file_is_found_by_name(copy: MemoryCopy) -> None:
    data = bytearray(copy.data["base.tar"])
    at = offset_of(copy, "backup_label")
    del data[at - 512 : at + 512]
    copy.replace("base.tar", bytes(data))
    assert failed(check_base_copy(copy)) == {"no file is missing and none was added": "missing: backup_label"}


def test_a_file_that_the_server_did_not_send_is_found(copy: MemoryCopy) -> None:
    data = copy.data["base.tar"]
    at = offset_of(copy, "PG_VERSION")
    header = bytearray(data[at - 512 : at])
    header[:100] = b"base/evil.so".ljust(100, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    copy.replace("base.tar", data[: at - 512] + bytes(header) + data[at : at + 512] + data[at - 512 :])
    assert failed(check_base_copy(copy)) == {
        "no file is missing and none was added": "not sent by the server: base/evil.so"
    }


def test_an_archive_cut_off_is_found_and_cannot_be_restored(copy: MemoryCopy, tmp_path: Path) -> None:
    members = list(copy.members("base.tar"))
    copy.replace("base.tar", copy.data["base.tar"][: len(copy.data["base.tar"]) // 2])
    copy._members["base.tar"] = members
    assert "cut off" in failed(check_base_copy(copy))["the archives can be read to their end"]
    with pytest.raises(DamageError):
        restore_base_to_folder(copy, tmp_path / "restored")
    assert describe_folder(tmp_path / "restored").unfinished_restore


def test_an_index_that_disagrees_with_the_archive_is_found(copy: MemoryCopy) -> None:
    members = list(copy.members("base.tar"))
    copy._members["base.tar"] = [m for m in members if not m.path.endswith("PG_VERSION")]
    assert "the index beside each archive agrees with it" in failed(check_base_copy(copy))


def test_a_damaged_manifest_of_the_server_is_found(copy: MemoryCopy) -> None:
    copy.replace("backup_manifest", flipped(copy.data["backup_manifest"], 5000))
    (finding,) = check_base_copy(copy)
    assert finding.verdict is Verdict.FAILED


def test_a_copy_of_another_cluster_than_its_facts_is_not_restored(copy: MemoryCopy, tmp_path: Path) -> None:
    copy.copy_facts = CopyFacts(facts={**copy.facts, "system_identifier": "42"})
    assert "pg_control is whole and of the right cluster" in failed(check_base_copy(copy))
    with pytest.raises(DamageError, match="of cluster 42"):
        restore_base_to_folder(copy, tmp_path / "restored")
