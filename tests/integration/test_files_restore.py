"""Restoring file sets: nothing outside is touched, nothing inside is lost, and it goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.engines.engine import CopyFacts
from recoup.engines.files.restore import differences, restore_files
from recoup.engines.files.sums import sum_line
from recoup.kernel.errors import DamageError, EngineError, RefusedError
from tests.integration.held_files import HeldFiles, contents, copied, tree_of
from tests.real import require_root
from tests.testhost.machine import eventually


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    (folder / "conf" / "inner").mkdir(parents=True)
    for number in range(5):
        (folder / "conf" / f"file{number}").write_text(f"content {number}")
    (folder / "conf" / "inner" / "deep").write_text("deep")
    (folder / "conf" / "link").symlink_to("file1")
    return folder


def test_a_file_that_differs_is_not_replaced_and_nothing_is_changed(base: Path, tmp_path: Path) -> None:
    copy, target = copied(["conf"], base), tmp_path / "target"
    restore_files(copy, target)
    (target / "conf" / "file3").write_text("mine")
    (target / "conf" / "file4").unlink()
    before = tree_of(target)
    with pytest.raises(RefusedError, match="conf/file3 is there and differs") as refused:
        restore_files(copy, target)
    assert tree_of(target) == before
    assert "--force" in (refused.value.hint or "")


def test_with_force_what_is_replaced_is_kept_beside(base: Path, tmp_path: Path) -> None:
    copy, target = copied(["conf"], base), tmp_path / "target"
    restore_files(copy, target)
    (target / "conf" / "file3").write_text("mine")
    (target / "conf" / "link").unlink()
    (target / "conf" / "link").symlink_to("elsewhere")
    (target / "conf" / "unrelated").write_text("stays")
    result = restore_files(copy, target, force=True, run_id="run-1")
    assert sorted(result.replaced) == ["conf/file3", "conf/link"]
    assert result.aside == target / ".recoup-replaced-run-1"
    assert (result.aside / "conf" / "file3").read_text() == "mine"
    assert os.readlink(result.aside / "conf" / "link") == "elsewhere"
    assert differences(copy, target) == []
    assert (target / "conf" / "unrelated").read_text() == "stays"
    # Once more the same way, with the same name: the first one kept is not lost.
    (target / "conf" / "file3").write_text("mine again")
    restore_files(copy, target, force=True, run_id="run-1")
    assert (result.aside / "conf" / "file3").read_text() == "mine"
    assert (result.aside / "conf" / "file3~1").read_text() == "mine again"


def test_an_empty_folder_in_the_place_of_a_file_makes_way_and_leaves_no_trace(base: Path, tmp_path: Path) -> None:
    """A container engine makes one where a file that it is to mount is gone."""
    copy, target, clean = copied(["conf"], base), tmp_path / "target", tmp_path / "clean"
    restore_files(copy, clean)
    (target / "conf" / "file3").mkdir(parents=True)
    (target / "conf" / "link").mkdir()
    restored = restore_files(copy, target)
    assert tree_of(target) == tree_of(clean)
    assert (restored.replaced, restored.aside) == ((), None)
    (target / "conf" / "file4").unlink()
    (target / "conf" / "file4").mkdir()
    (target / "conf" / "file4" / "mine").touch()
    with pytest.raises(RefusedError, match="conf/file4 is there and differs"):
        restore_files(copy, target)
    forced = restore_files(copy, target, force=True)
    assert forced.aside is not None
    assert (forced.aside / "conf" / "file4" / "mine").exists(), "a folder that holds something is kept beside"


def test_a_second_restore_finds_everything_in_place(base: Path, tmp_path: Path) -> None:
    copy, target = copied(["conf"], base), tmp_path / "target"
    restore_files(copy, target)
    inode = (target / "conf" / "file1").stat().st_ino
    again = restore_files(copy, target)
    assert (again.placed, again.same) == (0, 7)
    assert (target / "conf" / "file1").stat().st_ino == inode


def test_a_link_in_the_target_is_never_written_through(base: Path, tmp_path: Path) -> None:
    copy, target, outside = copied(["conf"], base), tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.mkdir()
    (target / "conf").symlink_to(outside)
    with pytest.raises(RefusedError, match="conf is no folder"):
        restore_files(copy, target)
    result = restore_files(copy, target, force=True)
    assert list(outside.iterdir()) == []
    assert result.aside is not None
    assert os.readlink(result.aside / "conf") == str(outside)
    assert contents(target / "conf") == contents(base / "conf")


def hostile(*entries: tuple[str, bytes, str]) -> HeldFiles:
    """A copy whose tar was made by somebody else: (path, type, link or content)."""
    held, buffer, sums = HeldFiles(), io.BytesIO(), b""
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, kind, text in entries:
            entry = tarfile.TarInfo(path)
            entry.type = kind
            entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            if kind == tarfile.REGTYPE:
                entry.size = len(text)
                sums += sum_line(path, hashlib.sha256(text.encode()).hexdigest())
                tar.addfile(entry, io.BytesIO(text.encode()))
            else:
                entry.linkname = text
                tar.addfile(entry)
    held.data = {"files.tar": buffer.getvalue(), "files.sha256": sums}
    return held.complete(CopyFacts(facts={"changed": [], "grew": []}))


@pytest.mark.parametrize("path", ["/etc/recoup-test", "../escaped", "a/../../escaped", "a/./b", "a//b"])
def test_a_copy_that_names_a_path_outside_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "x" / "target").mkdir(parents=True)
    with pytest.raises(DamageError, match="leads out of its folder"):
        restore_files(hostile((path, tarfile.REGTYPE, "evil")), tmp_path / "x" / "target")
    assert contents(tmp_path) == {}


def test_a_link_in_the_copy_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    copy = hostile(
        ("way", tarfile.SYMTYPE, str(tmp_path / "outside")),
        ("way/file", tarfile.REGTYPE, "evil"),
    )
    with pytest.raises(EngineError):
        restore_files(copy, tmp_path / "target")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_hard_link_to_a_file_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s")
    copy = hostile(("x", tarfile.LNKTYPE, "../secret"))
    copy.data["files.sha256"] = sum_line("x", "0" * 64)
    with pytest.raises(DamageError):
        restore_files(copy, tmp_path / "target")
    assert not (tmp_path / "target" / "x").exists()


def test_a_device_in_a_copy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamageError, match="neither file, folder nor link"):
        restore_files(hostile(("dev", tarfile.CHRTYPE, "")), tmp_path / "target")


def test_setuid_bits_come_back_only_when_asked_for(base: Path, tmp_path: Path) -> None:
    (base / "conf" / "file0").chmod(0o4755)
    copy = copied(["conf"], base)
    result = restore_files(copy, tmp_path / "plain")
    assert stat.S_IMODE((tmp_path / "plain" / "conf" / "file0").stat().st_mode) == 0o755
    assert result.notes == ("setuid or setgid dropped: conf/file0",)
    restore_files(copy, tmp_path / "special", special_modes=True)
    assert stat.S_IMODE((tmp_path / "special" / "conf" / "file0").stat().st_mode) == 0o4755


def test_owners_are_kept_by_number_when_root_restores(base: Path, tmp_path: Path) -> None:
    require_root("to give files away")
    os.chown(base / "conf" / "inner", 12345, 54321)
    os.chown(base / "conf" / "inner" / "deep", 999, 998)
    os.chown(base / "conf" / "link", 777, 776, follow_symlinks=False)
    restore_files(copied(["conf"], base), tmp_path / "target")
    assert tree_of(tmp_path / "target") == tree_of(base)


class Slow(HeldFiles):
    """Yields its tar slowly, so that a restore can be killed in the middle."""

    slow = False

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        for piece in super().read(name, start, length):
            if self.slow and name == "files.tar":
                signal.sigtimedwait([], 0.01)
            yield piece


def test_a_restore_killed_anywhere_goes_on_and_leaves_no_half_file(tmp_path: Path) -> None:
    base, target = tmp_path / "base", tmp_path / "target"
    (base / "set").mkdir(parents=True)
    for number in range(40):
        (base / "set" / f"{number:02}").write_bytes(os.urandom(200_000))
    held = Slow()
    from recoup.engines.files.copy import take_files

    held.complete(take_files(["set"], base, held))
    held.slow = True
    for wanted in (3, 15, 30):
        child = os.fork()
        if child == 0:
            restore_files(held, target)
            os._exit(0)
        eventually(
            lambda wanted=wanted: (target / "set").is_dir() and len(os.listdir(target / "set")) >= wanted,  # type: ignore[misc]
            what="progress",
        )
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for path in (target / "set").glob("[0-9]*"):
            assert path.read_bytes() == (base / "set" / path.name).read_bytes()
    held.slow = False
    result = restore_files(held, target)
    assert result.same >= 29
    assert tree_of(target) == tree_of(base)


def test_a_full_disk_ends_with_a_clear_error_and_the_restore_goes_on_later(tmp_path: Path) -> None:
    require_root("to mount a small disk")
    import subprocess

    base, small = tmp_path / "base", tmp_path / "small"
    (base / "set").mkdir(parents=True)
    small.mkdir()
    for number in range(8):
        (base / "set" / str(number)).write_bytes(os.urandom(1 << 20))
    copy = copied(["set"], base)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", small], check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        with pytest.raises(EngineError, match="No space left on device") as full:
            restore_files(copy, small / "target")
        assert "it goes on where it stopped" in (full.value.hint or "")
        assert not [name for name in os.listdir(small / "target" / "set") if name.startswith(".")]
        subprocess.run(["mount", "-o", "remount,size=32m", small], check=True)
        assert restore_files(copy, small / "target").same >= 2
        assert contents(small / "target") == contents(base)
    finally:
        subprocess.run(["umount", small], check=True)
