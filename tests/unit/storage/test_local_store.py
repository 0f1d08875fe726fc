"""What is special to objects in a folder: durability, privacy, disk full, leftovers, and links that lead outside."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recoup.kernel.errors import MissingObjectError, StorageError
from recoup.storage.local import INCOMING, LocalStore
from recoup.storage.object_store import ObjectExistsError
from tests.real import not_run, require, require_root

MEBIBYTE = 1 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(folder: Path) -> LocalStore:
    return LocalStore(folder, create=True)


def left_in(folder: Path) -> list[str]:
    """The unfinished files, without the lock that stays."""
    incoming = folder / INCOMING
    return sorted(set(os.listdir(incoming)) - {"lock"}) if incoming.exists() else []


def test_a_missing_folder_is_refused_and_not_made(folder: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder") as caught:
        LocalStore(folder)
    assert "mount the disk" in (caught.value.hint or "")
    assert not folder.exists()


def test_a_file_is_no_store(folder: Path) -> None:
    folder.write_text("x")
    with pytest.raises(StorageError, match="is not a folder"):
        LocalStore(folder)
    with pytest.raises(StorageError, match="is not a folder"):
        LocalStore(folder, create=True)
    with pytest.raises(StorageError, match="cannot create"):
        LocalStore(folder / "below", create=True)


def test_folders_and_files_are_private_whatever_the_umask(folder: Path) -> None:
    before = os.umask(0)
    try:
        store = LocalStore(folder / "deep", create=True)
        store.put("a/b/c", b"x")
        with store.writer("a/d") as writer:
            writer.write(b"y")
            writer.commit()
    finally:
        os.umask(before)
    for path in (folder, folder / "deep", *(folder / "deep").rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_the_folder_itself_may_be_a_link(folder: Path, tmp_path: Path) -> None:
    LocalStore(folder, create=True).put("key", b"x")
    (tmp_path / "link").symlink_to(folder)
    linked = LocalStore(tmp_path / "link")
    linked.put("other", b"y")
    assert [info.key for info in linked.list()] == ["key", "other"]


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"private")
    return outside


def test_a_planted_link_leads_nowhere(store: LocalStore, folder: Path, outside: Path) -> None:
    (folder / "door").symlink_to(outside)
    (folder / "file").symlink_to(outside / "file")
    for key in ("door/file", "file"):
        for ask in (
            lambda key=key: store.get(key),
            lambda key=key: list(store.read(key)),
            lambda key=key: store.stat(key),
        ):
            with pytest.raises(StorageError, match=r"link|not an ordinary file") as caught:
                ask()
            assert not isinstance(caught.value, MissingObjectError)
            assert caught.value.hint
    for ask in (lambda: store.put("door/new", b"x"), lambda: store.delete("door/file")):
        with pytest.raises(StorageError, match="symbolic link"):
            ask()
    assert list(store.list()) == []
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_bytes() == b"private"


def test_writing_or_deleting_where_a_link_stands_touches_the_link_only(
    store: LocalStore, folder: Path, outside: Path
) -> None:
    (folder / "file").symlink_to(outside / "file")
    with pytest.raises(ObjectExistsError):
        store.put("file", b"mine", if_absent=True)
    store.put("file", b"mine")
    assert (outside / "file").read_bytes() == b"private"
    assert store.get("file") == b"mine"
    (folder / "other").symlink_to(outside / "file")
    store.delete("other")
    assert (outside / "file").read_bytes() == b"private"


def test_a_planted_pipe_does_not_hang_a_reader(store: LocalStore, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    with pytest.raises(StorageError, match="not an ordinary file"):
        store.get("pipe")
    assert list(store.list()) == []


def test_foreign_files_do_not_show(store: LocalStore, folder: Path) -> None:
    store.put("a/b", b"x")
    for name in (".hidden", "with space", "a/ümlaut", "a/.b.tmp"):
        (folder / name).write_text("foreign")
    (folder / "empty" / "folder").mkdir(parents=True)
    assert [info.key for info in store.list()] == ["a/b"]


def test_a_key_below_an_object_is_refused_and_harms_nothing(store: LocalStore, folder: Path) -> None:
    store.put("a", b"x")
    with pytest.raises(StorageError, match="cannot write to"):
        store.put("a/b", b"y")
    store.put("c/d", b"x")
    with pytest.raises(StorageError, match="cannot write to"):
        store.put("c", b"y")
    assert [info.key for info in store.list()] == ["a", "c/d"]
    assert left_in(folder) == []


def test_a_vanished_folder_is_not_a_missing_object(store: LocalStore, folder: Path, tmp_path: Path) -> None:
    store.put("key", b"x")
    folder.rename(tmp_path / "elsewhere")
    for ask in (
        lambda: store.get("key"),
        lambda: store.stat("key"),
        lambda: list(store.list()),
        lambda: store.put("key", b"x"),
        lambda: store.delete("key"),
    ):
        with pytest.raises(StorageError, match="store") as caught:
            ask()
        assert not isinstance(caught.value, MissingObjectError)


def test_deleting_removes_the_folders_it_leaves_empty(store: LocalStore, folder: Path) -> None:
    store.put("a/b/c/d", b"x")
    store.put("a/e", b"y")
    store.delete("a/b/c/d")
    assert not (folder / "a" / "b").exists()
    assert (folder / "a" / "e").exists()


def test_writers_and_deleters_of_one_folder_do_not_trip_over_each_other(store: LocalStore) -> None:
    def work(number: int) -> None:
        for _ in range(50):
            store.put(f"shared/folder/{number}", b"x")
            store.delete(f"shared/folder/{number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert list(store.list()) == []


def test_a_changed_byte_changes_the_version(store: LocalStore, folder: Path) -> None:
    before = store.put("key", b"0123456789")
    times = (folder / "key").stat()
    with open(folder / "key", "r+b") as handle:
        handle.write(b"X")
    os.utime(folder / "key", ns=(times.st_atime_ns, times.st_mtime_ns))  # whoever hides it sets the time back
    assert store.stat("key").version != before.version


_DYING_WRITER = """
import os, signal, sys
from pathlib import Path
from recoup.storage.local import LocalStore
writer = LocalStore(Path(sys.argv[1])).writer("never/finished")
writer.write(b"x" * 100000)
print("written", flush=True)
if sys.argv[2] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
sys.stdin.read()
"""


def writing_process(folder: Path, then: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _DYING_WRITER, str(folder), then], stdin=-1, stdout=-1, text=True, encoding="utf-8"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    return process


def test_what_a_killed_writer_left_is_removed_by_the_next_and_never_shows(store: LocalStore, folder: Path) -> None:
    with writing_process(folder, "die") as process:
        assert process.wait(120) == -signal.SIGKILL
    assert len(left_in(folder)) == 1
    assert list(store.list()) == []
    LocalStore(folder).put("key", b"x")
    assert left_in(folder) == []
    assert [info.key for info in store.list()] == ["key"]


def test_what_a_living_writer_has_written_stays(store: LocalStore, folder: Path) -> None:
    with writing_process(folder, "live") as process:
        mine = store.writer("mine")
        mine.write(b"x")
        assert store.clean_unfinished() == 0
        assert len(left_in(folder)) == 2
        process.kill()
        process.wait(120)
        assert store.clean_unfinished() == 1
        mine.commit()
    assert left_in(folder) == []
    assert [info.key for info in store.list()] == ["mine"]


def test_cleaning_and_beginning_at_once_lose_no_writer(store: LocalStore) -> None:
    stop = threading.Event()

    def clean() -> None:
        while not stop.is_set():
            store.clean_unfinished()

    with ThreadPoolExecutor(3) as pool:
        cleaners = [pool.submit(clean) for _ in range(2)]
        try:
            for number in range(100):
                store.put("key", b"%d" % number)
                assert store.get("key") == b"%d" % number
        finally:
            stop.set()
        for cleaner in cleaners:
            cleaner.result()


def test_a_file_system_without_hard_links_still_lets_exactly_one_writer_win(
    store: LocalStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    barrier = threading.Barrier(6)

    def attempt(number: int) -> bool:
        barrier.wait(120)
        try:
            store.put("lease", b"%d" % number, if_absent=True)
        except ObjectExistsError:
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(6))) == 1
    store.clean_unfinished()
    assert left_in(folder) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 3 MiB."""
    require_root("a small file system is mounted")
    require("mount")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        not_run(f"a tmpfs cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_a_full_disk_is_said_so_and_leaves_nothing(small_disk: Path) -> None:
    store = LocalStore(small_disk)
    store.put("older", b"kept")
    writer = store.writer("base/large")
    writer.write(bytes(MEBIBYTE))
    with pytest.raises(StorageError, match=r"no space left for .*base/large") as caught:
        writer.write(bytes(8 * MEBIBYTE))
    assert str(small_disk) in (caught.value.hint or "")
    assert "are free now" in (caught.value.hint or "")
    with pytest.raises(StorageError, match="already ended"):
        writer.commit()
    with pytest.raises(StorageError, match="no space left"):
        store.put("large", bytes(4 * MEBIBYTE))
    assert left_in(small_disk) == []
    assert [(info.key, info.size_bytes) for info in store.list()] == [("older", 4)]
    store.put("small", b"fits again")
    assert store.get("older") == b"kept"


def test_a_folder_without_permission_is_said_so(folder: Path, server_folder: Path) -> None:
    """As another user, because root may do anything."""
    require_root("the test becomes another user")
    target = server_folder / "closed"
    LocalStore(target, create=True).put("key", b"x")
    script = (
        "import os, sys; from pathlib import Path\n"
        "from recoup.storage.local import LocalStore\nfrom recoup.kernel.errors import StorageError\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: LocalStore(Path(sys.argv[1])).get('key')\n"
        "except StorageError as error: print(error.message, '|', error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, target], capture_output=True, text=True, check=True)
    assert "Permission denied" in done.stdout
    assert "Give the user 65534 access" in done.stdout
