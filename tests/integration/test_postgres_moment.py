"""Recovery to a moment on real servers: what comes back is exactly what was committed by then.

The WAL comes from the server's own ``pg_wal``, through a real repository.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from recoup.assembly.access import Found
from recoup.assembly.protect import wal_facts
from recoup.assembly.protect.wal_facts import ClusterFacts, read_clusters
from recoup.demo.host import temporary_folder
from recoup.engines.postgres.identity import describe_folder
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recover_folder import RECOVERY_NOTE
from recoup.engines.postgres.recovery_choice import WalFile
from recoup.engines.postgres.recovery_script import SPOOL
from recoup.engines.postgres.recovery_target import AtLsn, AtName, AtTime, AtXid, Latest, Target
from recoup.engines.postgres.wal_windows import Base, Window, reach_of
from recoup.kernel.errors import DamageError, EngineError, RefusedError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.process import Command, run
from recoup.repository.repository import Repository, open_repository
from recoup.repository.wal_names import WalSegment
from recoup.storage.local import LocalStore
from tests.integration.moment_place import KEY, readable, recover, repository_in
from tests.integration.wal_story import Commit, Story, booted, own, rows_in, story
from tests.real import not_run, require_root

# -- a past that most tests share ---------------------------------------------------------------------------------


class Past:
    """Fourteen rows, two base backups, a tablespace, a restore point, and the WAL of it all."""

    def __init__(self, told: Story, root: Path) -> None:
        self.story, self.root = told, root
        self.space = own(told, root / "space")
        server = told.server
        for name, value in (("archive_mode", "on"), ("archive_command", f"cp %p {own(told, root / 'archived')}/%f"),
                            ("recovery_target_time", "2001-01-01"), ("restore_command", "false")):  # fmt: skip
            server.execute(f"ALTER SYSTEM SET {name} = '{value}'")  # needs a restart, so it is in the file alone
        server.execute(f"CREATE TABLESPACE far LOCATION '{self.space}'")
        server.execute("CREATE TABLE far (row int) TABLESPACE far")
        told.commit(3)
        self.first = told.base()
        told.commit(3, filling=150_000)
        server.execute("INSERT INTO far VALUES (1)")
        told.archive()
        self.middle = told.commit()
        server.execute("SELECT pg_create_restore_point('before the accident')")
        told.commit(3, filling=300_000)
        told.archive()
        self.second = told.base()
        told.commit(3, filling=150_000)
        server.execute("INSERT INTO far VALUES (2)")
        self.last = told.commit()
        told.archive()


@pytest.fixture(scope="module")
def past(request: pytest.FixtureRequest) -> Iterator[Past]:
    with temporary_folder("past") as root, story(request.param, [repository_in(root / "repository")]) as told:
        yield Past(told, root)


def on(*majors: int) -> pytest.MarkDecorator:
    """Tell a test's past on these majors only."""
    return pytest.mark.parametrize("past", majors, indirect=True, ids=lambda major: f"postgres{major}")


def commit_of(past: Past, row: int) -> Commit:
    return past.story.commits[row - 1]


def target_of(kind: str, commit: Commit, *, before: bool = False) -> Target:
    match kind:
        case "time":
            return AtTime(time=commit.time, before=before)
        case "lsn":
            return AtLsn(lsn=commit.before if before else Lsn(commit.lsn.value - 8), before=before)
        case "xid":
            return AtXid(xid=commit.xid, before=before)
    raise AssertionError(kind)


@on(15, 18)
@pytest.mark.parametrize("before", [False, True], ids=["to", "before"])
@pytest.mark.parametrize("kind", ["time", "lsn", "xid"])
def test_a_recovery_shows_exactly_what_was_committed_by_its_target(
    past: Past, server_folder: Path, kind: str, before: bool
) -> None:
    commit = commit_of(past, 8)
    folder, report = recover(past.story, server_folder, target_of(kind, commit, before=before))
    assert overall(report.findings) is Verdict.OK, report
    assert rows_in(past.story, folder) == list(range(1, 8 if before else 9))


@on(16, 17)
def test_a_time_is_landed_on_by_every_major(past: Past, server_folder: Path) -> None:
    folder, report = recover(past.story, server_folder, AtTime(time=commit_of(past, 8).time))
    assert overall(report.findings) is Verdict.OK, report
    assert rows_in(past.story, folder) == list(range(1, 9))


@on(15, 16, 17, 18)
def test_a_named_point_is_found_wherever_it_is_and_landed_on(past: Past, server_folder: Path) -> None:
    folder, report = recover(past.story, server_folder, AtName(name="before the accident"))
    assert overall(report.findings) is Verdict.OK, report
    assert rows_in(past.story, folder) == list(range(1, past.middle.row + 1))
    with pytest.raises(RefusedError, match="no restore point called 'never'"):
        recover(past.story, server_folder, AtName(name="never"))


@on(15, 16, 17, 18)
def test_the_newest_end_is_all_of_it_and_a_time_after_the_last_commit_is_the_same(
    past: Past, server_folder: Path
) -> None:
    everything = [one.row for one in past.story.commits]
    (window,) = [one for one in _windows(past, server_folder) if one.timeline == 1]
    for target in (Latest(), AtTime(time=window.end_time)):
        folder, report = recover(past.story, server_folder, target)
        assert overall(report.findings) is Verdict.OK, report
        with booted(past.story, folder) as server:
            assert [row for (row,) in server.execute("SELECT row FROM story ORDER BY row")] == everything
            assert server.execute("SELECT row FROM far ORDER BY row") == [(1,), (2,)]
            (place,) = server.execute("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'far'")[0]
        assert place.startswith(f"{folder}-tablespaces/")  # never where production's are


def _windows(past: Past, work: Path) -> tuple[Window, ...]:
    opened = readable(work, *past.story.repositories)
    (cluster,) = read_clusters(opened, "postgres", opened.catalog())
    return reach_of(cluster.inventory, cluster.bases).windows


@on(18)
def test_nothing_of_the_recovery_is_left_and_nothing_was_archived_by_it(past: Past, server_folder: Path) -> None:
    archived = sorted((past.root / "archived").iterdir())
    folder, _ = recover(past.story, server_folder, AtTime(time=past.middle.time))
    names = {path.name for path in folder.iterdir()}
    assert not names & {SPOOL, RECOVERY_NOTE, "recovery.signal", "standby.signal", "postmaster.pid"}
    assert "recovery_target_time = '2001-01-01'" in (folder / "postgresql.auto.conf").read_text()  # theirs, as it was
    assert not list((folder / "pg_wal" / "archive_status").glob("*.ready"))
    assert sorted((past.root / "archived").iterdir()) == archived
    with booted(past.story, folder, archive_mode="off") as server:  # the file says on; what the tests start says off
        assert server.execute("SELECT setting FROM pg_file_settings WHERE name = 'archive_mode'") == [("on",)]
        assert server.execute("SELECT pg_is_in_recovery()") == [(False,)]


@on(15, 16, 17, 18)
@pytest.mark.parametrize("when", ["beyond", "too early", "inside the base backup"])
def test_what_cannot_be_reached_is_refused_before_anything_is_touched(
    past: Past, server_folder: Path, when: str
) -> None:
    far = timedelta(hours=1)
    target: Target = AtTime(time=past.last.time + far if when == "beyond" else commit_of(past, 1).time - far)
    if when == "inside the base backup":  # which is consistent at its end, and not before
        end = Lsn.parse(str(past.first.manifest.facts["end_lsn"]))
        assert Lsn.parse(str(past.first.manifest.facts["begin_lsn"])) < Lsn(end.value - 8)
        target = AtLsn(lsn=Lsn(end.value - 8))
    folder = server_folder / "never"
    with pytest.raises(RefusedError) as refused:
        recover(past.story, server_folder, target, to=folder)
    assert "on timeline 1" in str(refused.value.hint)
    assert not folder.exists()


@on(15)
def test_a_base_backup_that_is_younger_than_its_clock_says_gives_way_to_an_older_one(
    past: Past, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = wal_facts._base

    def an_hour_early(one: Found) -> Base:
        return replace(true(one), time=true(one).time - timedelta(hours=1))

    monkeypatch.setattr(wal_facts, "_base", an_hour_early)
    folder, report = recover(past.story, server_folder, AtTime(time=past.middle.time))
    assert overall(report.findings) is Verdict.OK, report
    assert past.first.manifest.id in report.notes[0]
    assert rows_in(past.story, folder) == list(range(1, past.middle.row + 1))


# -- damage, gaps, and second repositories -------------------------------------------------------------------------


def copied(past: Past, work: Path, name: str) -> Repository:
    shutil.copytree(past.root / "repository", work / name)
    return open_repository(name, LocalStore(work / name), KEY)


def segment_of(past: Past, repository: Repository, commit: Commit) -> WalSegment:
    archive = next(iter(replace_repositories(past.story, repository).archives))
    wanted = commit.before.segment(past.story.segment_bytes)
    return next(
        one for one in archive.entries()
        if isinstance(one, WalSegment) and one.number(past.story.segment_bytes) == wanted
    )  # fmt: skip


def replace_repositories(told: Story, *repositories: Repository) -> Story:
    return replace(told, repositories=repositories)


def spoil(work: Path, name: str, entry: WalSegment) -> None:
    path = work / name / entry.key
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@on(15)
def test_a_damaged_segment_is_an_error_and_comes_from_the_second_repository_when_that_has_it(
    past: Past, server_folder: Path
) -> None:
    bad, good = copied(past, server_folder, "bad"), copied(past, server_folder, "good")
    entry = segment_of(past, bad, past.last)
    spoil(server_folder, "bad", entry)
    folder = own(past.story, server_folder / "here")
    with pytest.raises(DamageError, match="is not authentic"):
        recover(past.story, server_folder, Latest(), to=folder, repositories=(bad,))
    _, report = recover(past.story, server_folder, Latest(), to=folder, repositories=(bad, good))
    assert overall(report.findings) is Verdict.OK
    assert any("read from another repository" in note and "is not authentic" in note for note in report.notes)
    assert rows_in(past.story, folder) == [one.row for one in past.story.commits]


@on(18)
def test_damage_behind_the_target_does_no_harm(past: Past, server_folder: Path) -> None:
    bad = copied(past, server_folder, "bad")
    entry = segment_of(past, bad, commit_of(past, 9))
    spoil(server_folder, "bad", entry)
    folder, report = recover(past.story, server_folder, AtTime(time=commit_of(past, 6).time), repositories=(bad,))
    assert overall(report.findings) is Verdict.OK
    assert rows_in(past.story, folder) == list(range(1, 7))


@on(15, 16, 17, 18)
def test_a_gap_is_named_with_its_range_and_what_lies_before_it_is_still_reached(
    past: Past, server_folder: Path
) -> None:
    holed = copied(past, server_folder, "holed")
    archive = replace_repositories(past.story, holed).archives[0]
    entry = segment_of(past, holed, commit_of(past, 9))
    archive.delete(entry)
    with pytest.raises(RefusedError, match=f"lies in a gap of timeline 1, from .* WAL segment {entry.name} is missing"):
        recover(past.story, server_folder, AtLsn(lsn=commit_of(past, 10).lsn), repositories=(holed,))
    folder, _ = recover(past.story, server_folder, AtTime(time=commit_of(past, 6).time), repositories=(holed,))
    assert rows_in(past.story, folder) == list(range(1, 7))


@on(15, 16, 17, 18)
def test_wal_of_another_cluster_under_a_name_of_this_one_is_not_replayed(past: Past, server_folder: Path) -> None:
    mixed = copied(past, server_folder, "mixed")
    archive = replace_repositories(past.story, mixed).archives[0]
    entry = segment_of(past, mixed, past.middle)
    data = bytearray(archive.read(entry))
    data[24:32] = (12345).to_bytes(8, "little")  # the system identifier in the first page's header
    archive.delete(entry)
    archive.put_segment(entry.name, data, entry.stamp)
    with pytest.raises(DamageError, match="is of another cluster"):
        recover(past.story, server_folder, AtTime(time=commit_of(past, 9).time), repositories=(mixed,))


# -- killed, and full disks ----------------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from recoup.assembly.protect import wal_facts
from recoup.assembly.access import Readable
from recoup.assembly.restore.postgres_moment import choose_postgres, restore_postgres
from recoup.assembly.restore.job import Wish
from recoup.engines.postgres import place_folder
from recoup.engines.postgres.recovery_target import Latest
from recoup.kernel.secret import Secret
from recoup.recovery.in_place import Consent
from recoup.repository.repository import open_repository
from recoup.repository.seal import Key
from recoup.storage.local import LocalStore
repository, folder, state, stop = sys.argv[1:]
key = Key.from_text(sys.stdin.readline().strip())
opened = Readable(repositories=(open_repository("local", LocalStore(Path(repository)), key),), failed={},
                  state_folder=Path(state), system=None)

def here(*_, **__):
    print("here", flush=True)
    time.sleep(600)

original = wal_facts.ClusterFacts.fetch
def fetch(self, file):
    if file.segment is not None and file.name.endswith(stop):
        here()
    return original(self, file)
if stop == "placing":
    place_folder.sync_file_systems = here
else:
    wal_facts.ClusterFacts.fetch = fetch
moment = choose_postgres(opened, "postgres", Latest())
restore_postgres(opened, moment, Wish(destination=folder), Consent(), lambda text: None, lambda progress: None)
"""


@on(15)
@pytest.mark.parametrize("stop", ["placing", "replaying"])
def test_a_killed_recovery_does_not_start_and_the_same_command_finishes_it(
    past: Past, server_folder: Path, stop: str
) -> None:
    told = past.story
    folder = own(told, server_folder / "restored")
    name = segment_of(past, told.repositories[0], past.last).name if stop == "replaying" else stop
    environment = {**os.environ, "PATH": f"{told.server.bin}{os.pathsep}{os.environ['PATH']}"}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(past.root / "repository"), str(folder), str(server_folder / "state"), name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
    )  # fmt: skip
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(KEY.text.reveal() + "\n")
        child.stdin.flush()
        assert select.select([child.stdout], [], [], 240)[0]
        assert child.stdout.readline() == "here\n"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(120)
    command = Command(
        argv=[told.server.program("postgres"), "-D", str(folder), "-c", f"unix_socket_directories={server_folder}"],
        user=told.server.owner, timeout_seconds=60,
    )  # fmt: skip
    if told.server.owner is not None:
        os.chown(server_folder, *told.server.owner)
    assert run(command, expect=None).exit_status != 0
    _, report = recover(told, server_folder, Latest(), to=folder)
    assert overall(report.findings) is Verdict.OK
    assert rows_in(told, folder) == [one.row for one in told.commits]


@on(15)
def test_a_disk_that_is_full_is_said_and_the_same_command_goes_on_when_there_is_room(
    past: Past, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root("mounting a small file system")
    told, disk = past.story, server_folder / "disk"
    disk.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=160m,mode=0755", "recoup-test", str(disk)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        not_run(f"this machine does not let root mount a tmpfs: {done.stderr.strip()}")
    fetch = ClusterFacts.fetch

    def fill(facts: ClusterFacts, file: WalFile) -> bytes:
        if file.segment is not None:
            with (disk / "ballast").open("ab", buffering=0) as handle, contextlib.suppress(OSError):
                while True:
                    handle.write(bytes(4096))
        return fetch(facts, file)

    try:
        folder = own(told, disk / "restored")
        monkeypatch.setattr(ClusterFacts, "fetch", fill)
        with pytest.raises(EngineError, match="No space left") as full:
            recover(told, server_folder, Latest(), to=folder)
        assert "room" in str(full.value.hint)
        monkeypatch.setattr(ClusterFacts, "fetch", fetch)
        (disk / "ballast").unlink()
        recover(told, server_folder, Latest(), to=folder)
        assert rows_in(told, folder) == [one.row for one in told.commits]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@on(18)
def test_a_folder_that_holds_something_is_not_touched(past: Past, server_folder: Path) -> None:
    folder = own(past.story, server_folder / "mine")
    (folder / "letter").write_text("dear")
    with pytest.raises(RefusedError, match="letter"):
        recover(past.story, server_folder, Latest(), to=folder)
    assert describe_folder(folder).names == ("letter",)
