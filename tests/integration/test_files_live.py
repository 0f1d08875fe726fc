"""Copies of files in a sandbox: restored, read again, cloned by Git; and planted damage caught at its grade."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from recoup.engines.engine import CopyReader
from recoup.engines.files.live import FilesCheck, FilesLive, open_files_live
from recoup.engines.sandbox import open_sandbox
from recoup.kernel.finding import Verdict
from recoup.verification.grade import Grade
from recoup.verification.verify import Verification
from tests.integration.held_files import HeldFiles, copied
from tests.integration.live_redis import bad, climbed, verdicts
from tests.real import require, require_root

OK, FAILED, UNKNOWN = Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN
UPLOADS = FilesCheck(file="uploads/*.jpg", at_least=3)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    (folder / "uploads" / "deep").mkdir(parents=True)
    for number in range(5):
        (folder / "uploads" / "deep" / f"{number}.jpg").write_text(f"picture {number}")
    (folder / "uploads" / "current").symlink_to("deep/1.jpg")
    (folder / "uploads" / "hosts").symlink_to("/etc/hosts")
    os.link(folder / "uploads" / "deep" / "2.jpg", folder / "uploads" / "twin.jpg")
    return folder


@contextlib.contextmanager
def live(copy: CopyReader, root: Path, checks: Sequence[FilesCheck]) -> Iterator[FilesLive]:
    with open_sandbox(root, "a test") as sandbox, open_files_live(sandbox, copy, checks=checks) as opened:
        yield opened


def proven(copy: HeldFiles, root: Path, *checks: FilesCheck) -> Verification:
    return climbed(lambda: live(copy, root, checks))


def test_a_good_copy_reaches_the_highest_grade_and_says_where_its_links_lead(base: Path, tmp_path: Path) -> None:
    root = tmp_path / "sandboxes"
    done = proven(copied(["uploads"], base), root, UPLOADS)
    assert done.reached is Grade.WORKS, done
    assert any("uploads/hosts → /etc/hosts" in one.not_checked for one in done.findings)
    assert "extended attributes" in " ".join(one.not_checked for one in done.findings)
    assert sorted(path.name for path in root.iterdir()) == ["door.lock"]


def test_a_changed_file_is_not_restored(base: Path, tmp_path: Path) -> None:
    copy = copied(["uploads"], base)
    copy.data["files.tar"] = copy.data["files.tar"].replace(b"picture 3", b"pictura 3")
    done = proven(copy, tmp_path / "sandboxes", UPLOADS)
    assert verdicts(done)[Grade.BOOTS] is FAILED
    assert "uploads/deep/3.jpg" in bad(done, Grade.BOOTS)[0].detail


def test_a_copy_that_agrees_with_itself_and_not_with_what_was_recorded_is_not_the_same(
    base: Path, tmp_path: Path
) -> None:
    copy = copied(["uploads"], base)
    recorded = copy.fingerprint
    (base / "uploads" / "deep" / "4.jpg").write_text("another 4")
    (base / "uploads" / "current").unlink()
    (base / "uploads" / "current").symlink_to("deep/2.jpg")
    swapped = copied(["uploads"], base)
    swapped.fingerprint = recorded
    done = proven(swapped, tmp_path / "sandboxes", UPLOADS)
    assert verdicts(done) == {Grade.BOOTS: OK, Grade.SOUND: OK, Grade.SAME: FAILED, Grade.WORKS: OK}
    (finding,) = bad(done, Grade.SAME)
    assert "digest:" in finding.detail
    assert "structure:" in finding.detail
    swapped.fingerprint = None
    assert verdicts(proven(swapped, tmp_path / "sandboxes", UPLOADS))[Grade.SAME] is UNKNOWN


def test_what_a_restore_got_wrong_is_read_from_the_disk(base: Path, tmp_path: Path) -> None:
    require_root("owners are compared")
    copy = copied(["uploads"], base)
    with live(copy, tmp_path / "sandboxes", ()) as opened:
        opened.boots()
        place = opened._folder / "uploads"
        (place / "deep" / "0.jpg").chmod(0o600)
        os.chown(place / "deep" / "1.jpg", 12, 13)
        os.utime(place / "deep" / "3.jpg", (1, 1))
        (place / "deep" / "4.jpg").unlink()
        assert [one.verdict for one in opened.sound()] == [FAILED]
        said = " ".join(one.detail for one in opened.same() if one.verdict is FAILED)
    for wrong in ("0.jpg: mode 600 instead of 644", "1.jpg: owner 12:13", "3.jpg: another time", "missing: uploads"):
        assert wrong in said


def test_a_check_counts_files_and_looks_into_them(base: Path, tmp_path: Path) -> None:
    done = proven(
        copied(["uploads"], base),
        tmp_path / "sandboxes",
        UPLOADS,
        FilesCheck(file="./uploads/deep/1.jpg", contains="picture"),
        FilesCheck(file="uploads/*.jpg", at_least=100, name="all pictures"),
        FilesCheck(file="uploads/deep/*", contains="picture 1"),
        FilesCheck(file="uploads/hosts", contains="localhost"),  # a link: what it leads to is not in the copy
    )
    (works,) = [rung for rung in done.rungs if rung.grade is Grade.WORKS]
    assert [one.verdict for one in works.findings] == [OK, OK, FAILED, FAILED, FAILED]
    assert works.findings[2].subject == "all pictures"
    done = proven(copied(["uploads"], base), tmp_path / "sandboxes")
    assert verdicts(done)[Grade.WORKS] is UNKNOWN


@pytest.fixture
def checkout(base: Path) -> Path:
    require("git")
    (base / ".gitignore").write_text("uploads\n")
    (base / "code.py").write_text("one = 1\n")

    def git(*argv: str) -> None:
        identity = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        subprocess.run(["git", "-C", str(base), *argv], check=True, capture_output=True, env={**os.environ, **identity})

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    (base / "code.py").write_text("one = 2\n")
    (base / "note.txt").write_text("not added")
    return base


def test_a_git_state_is_cloned_checked_and_stands_where_it_stood(checkout: Path, tmp_path: Path) -> None:
    done = proven(copied(["uploads"], checkout, git="."), tmp_path / "sandboxes", UPLOADS)
    assert done.reached is Grade.WORKS, done
    assert any("every object sound" in one.detail for one in done.findings)


def test_a_bundle_that_git_does_not_take_is_caught(checkout: Path, tmp_path: Path) -> None:
    good = copied(["uploads"], checkout, git=".")
    root = tmp_path / "sandboxes"
    with live(good, root, ()) as opened:  # restored from the good one, then looked at with a bad one
        opened.boots()
        bundle = good.data["repository.bundle"]
        for damaged in (bundle[:-30], bundle[:200] + bytes([bundle[200] ^ 8]) + bundle[201:]):
            good.data["repository.bundle"] = damaged
            found = list(opened._bundle(str(good.facts["git"]["commit"])))
            assert found[-1].verdict is FAILED
            opened._sandbox.folder.joinpath("git").rename(opened._sandbox.folder / f"git-{len(damaged)}")
    broken = copied(["uploads"], checkout, git=".")
    broken.data["repository.bundle"] = bundle[:-30]
    assert verdicts(proven(broken, root))[Grade.BOOTS] is not OK
