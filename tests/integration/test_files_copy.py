"""Copying file sets: what is in a copy, what is not, and what stock tools make of it."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recoup.engines.engine import StreamSink
from recoup.engines.files.check import check_files_copy
from recoup.engines.files.copy import take_files
from recoup.engines.files.restore import differences, restore_files
from recoup.kernel.errors import DamageError, EngineError
from recoup.kernel.finding import Verdict, overall
from tests.integration.held_files import HeldFiles, contents, copied, tree_of
from tests.real import require_root


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with everything a file set can hold."""
    base = tmp_path / "site"
    (base / "docker" / "nginx").mkdir(parents=True, mode=0o750)
    (base / "docker" / "nginx" / "default.conf").write_text("server {}\n")
    (base / ".env.production").write_text("A=1\n")
    (base / ".env.production").chmod(0o600)
    logs = base / "logs"
    logs.mkdir()
    (logs / "empty").touch()
    (logs / "big.log").write_bytes(os.urandom(3_000_001))
    (logs / "one").write_text("linked")
    os.link(logs / "one", logs / "two")
    (logs / "latest").symlink_to("big.log")
    (logs / "nowhere").symlink_to("/does/not/exist")
    (logs / "a name with spaces and ü").write_text("x")
    (logs / "line\nfeed and \\ backslash").write_text("y")
    (logs / ("long" * 60)).write_text("z")
    with open(os.fsencode(logs) + b"/not-utf8-\xff\xfe", "wb") as file:
        file.write(b"bytes")
    (logs / "closed").mkdir(mode=0o500)
    for name in ("empty", "big.log"):
        os.utime(logs / name, ns=(1_700_000_000_123_456_789, 1_700_000_000_123_456_789))
    os.utime(logs, ns=(1_600_000_000_000_000_001, 1_600_000_000_000_000_001))
    return base


def test_a_restored_file_set_is_the_one_that_was_copied(site: Path, tmp_path: Path) -> None:
    copy = copied(["logs", "docker", ".env.production"], site)
    result = restore_files(copy, tmp_path / "new")
    assert tree_of(tmp_path / "new") == tree_of(site)
    assert (result.same, result.replaced, result.aside) == (0, (), None)
    assert differences(copy, tmp_path / "new") == []
    assert overall(check_files_copy(copy)) is Verdict.OK


def test_stock_tools_unpack_and_verify_a_copy(site: Path, tmp_path: Path) -> None:
    copy = copied(["logs", "docker", ".env.production"], site)
    new = tmp_path / "new"
    new.mkdir()
    subprocess.run(["tar", "-x", "--numeric-owner", "-p", "-C", new], input=copy.data["files.tar"], check=True)
    checked = subprocess.run(
        ["sha256sum", "-c", "--strict"], input=copy.data["files.sha256"], cwd=new, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    assert contents(new) == contents(site)
    (new / "logs" / "one").write_text("changed")
    again = subprocess.run(
        ["sha256sum", "-c"], input=copy.data["files.sha256"], cwd=new, capture_output=True, check=False
    )
    assert again.returncode != 0


def test_two_copies_of_the_same_files_have_the_same_fingerprint_and_a_changed_one_has_not(site: Path) -> None:
    first, second = copied(["logs", "docker"], site), copied(["docker", "logs", "logs/empty"], site)
    assert first.fingerprint == second.fingerprint
    (site / "logs" / "one").write_text("LINKED")
    changed = copied(["logs", "docker"], site).fingerprint
    assert changed is not None
    assert first.fingerprint is not None
    assert changed["digest"] != first.fingerprint["digest"]
    (site / "logs" / "latest").unlink()
    (site / "logs" / "latest").symlink_to("one")
    relinked = copied(["logs", "docker"], site).fingerprint
    assert relinked is not None
    assert relinked["digest"] == changed["digest"]
    assert relinked["structure"] != changed["structure"]


def test_what_has_no_content_is_left_out_with_the_reason(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(site / "logs" / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    try:
        monkeypatch.chdir(site / "logs")
        listener.bind("socket")  # the path of a socket ends at 107 bytes
        copy = copied(["logs"], site)
    finally:
        listener.close()
    assert dict(copy.left_out) == {
        "logs/pipe": "a named pipe: it has no content",
        "logs/socket": "a socket: it has no content",
    }


@pytest.mark.parametrize(
    ("pattern", "gone"),
    [
        ("*.log", {"logs/big.log", "logs/old/a.log"}),
        ("logs/*.log", {"logs/big.log"}),
        ("**/*.log", {"logs/big.log", "logs/old/a.log"}),
        ("old", {"logs/old/a.log", "logs/old/b"}),
        ("logs/old/", {"logs/old/a.log", "logs/old/b"}),
        ("logs/[!b]ld", {"logs/old/a.log", "logs/old/b"}),
        ("{base}/logs/old", {"logs/old/a.log", "logs/old/b"}),
        ("ogs/big.log", set()),
    ],
)
def test_exclusions_leave_out_what_they_name(tmp_path: Path, pattern: str, gone: set[str]) -> None:
    everything = {"logs/big.log", "logs/old/a.log", "logs/old/b", "logs/keep"}
    for name in everything:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    text = pattern.format(base=tmp_path)
    copy = copied(["logs"], tmp_path, exclude=[text])
    with tarfile.open(fileobj=io.BytesIO(copy.data["files.tar"])) as tar:
        assert {entry.name for entry in tar if entry.isreg()} == everything - gone
    assert (text in dict(copy.left_out)) == bool(gone)


def test_a_missing_path_stops_the_copy_unless_it_is_optional(site: Path) -> None:
    with pytest.raises(EngineError, match=r"no such file or folder: .*/site/uploads"):
        copied(["logs", "uploads"], site)
    copy = copied(["logs", "uploads"], site, optional=["uploads"])
    assert ("uploads", "not there, and declared optional") in copy.left_out


def test_a_file_that_may_not_be_read_stops_the_copy_and_is_named(site: Path) -> None:
    require_root("to become another user")
    (site / "logs" / "secret").write_text("x")
    (site / "logs" / "secret").chmod(0o000)
    # As another user, in a child: this process must stay root.
    os.chmod(site.parent, 0o755)
    for parent in site.parents:
        if parent.is_relative_to(tempfile.gettempdir()) and str(parent) != tempfile.gettempdir():
            os.chmod(parent, 0o755)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setgid(65534)
            os.setuid(65534)
            for optional, expected in (([], "cannot read logs/"), (["logs"], None)):
                try:
                    copied(["logs"], site, optional=optional)
                    status = 0 if expected is None else 2
                except EngineError as refused:
                    status = 0 if expected is not None and expected in refused.message else 3
                if status:
                    break
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_path_outside_the_base_folder_stands_below_outside(site: Path, tmp_path: Path) -> None:
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "tls.key").write_text("key")
    copy = copied([str(tmp_path / "certificates")], site)
    restore_files(copy, tmp_path / "new")
    assert (tmp_path / "new" / f"_outside{tmp_path}" / "certificates" / "tls.key").read_text() == "key"


def test_a_declared_link_brings_what_it_points_to(site: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "app.log").write_text("line")
    (site / "var").symlink_to(tmp_path / "elsewhere")
    copy = copied(["var"], site)
    assert copy.fingerprint is not None
    assert (copy.fingerprint["files"], copy.fingerprint["links"]) == (1, 1)


class Meddler(HeldFiles):
    """Something that happens to the files while they are read: called at the first bytes of the tar."""

    def __init__(self, act: Any, after_bytes: int) -> None:
        super().__init__()
        self.act, self.after_bytes = act, after_bytes

    def stream(self, name: str, **options: Any) -> Any:
        outer = super().stream(name, **options)
        if name != "files.tar":
            return outer
        meddler = self

        class Watched:
            def __enter__(self) -> StreamSink:
                self.inner = outer.__enter__()
                self.seen = 0
                return self

            def write(self, data: bytes | memoryview) -> None:
                self.inner.write(data)
                before, self.seen = self.seen, self.seen + len(data)
                if before < meddler.after_bytes <= self.seen:
                    meddler.act()

            def __exit__(self, *error: Any) -> Any:
                return outer.__exit__(*error)

        return Watched()


@pytest.fixture
def big(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a").write_bytes(b"a" * 5_000_000)
    (tmp_path / "set" / "b").write_bytes(b"b" * 1000)
    return tmp_path


def meddled(base: Path, act: Any) -> HeldFiles:
    held = Meddler(act, 1_500_000)
    return held.complete(take_files(["set"], base, held))


def test_a_file_cut_short_while_it_is_read_leaves_a_valid_tar_and_an_unknown_verdict(big: Path) -> None:
    copy = meddled(big, lambda: os.truncate(big / "set" / "a", 100))
    assert copy.facts["changed"]
    assert set(copy.facts["changed"]) == {"set/a"}
    with tarfile.open(fileobj=io.BytesIO(copy.data["files.tar"])) as tar:
        assert [(entry.name, entry.size) for entry in tar if entry.isreg()] == [("set/a", 5_000_000), ("set/b", 1000)]
    findings = check_files_copy(copy)
    assert overall(findings) is Verdict.UNKNOWN
    assert any("changed meanwhile: set/a" in finding.detail for finding in findings)


def test_a_log_that_grows_while_it_is_read_is_copied_as_long_as_it_was(big: Path) -> None:
    def grow() -> None:
        with open(big / "set" / "a", "ab") as file:
            file.write(b"more")

    copy = meddled(big, grow)
    assert (copy.facts["changed"], copy.facts["grew"]) == ([], ["set/a"])
    assert overall(check_files_copy(copy)) is Verdict.OK


def test_a_file_rewritten_in_place_while_it_is_read_is_noticed(big: Path) -> None:
    def rewrite() -> None:
        with open(big / "set" / "a", "r+b") as file:
            file.write(b"X")
        os.utime(big / "set" / "a", (1, 1))

    assert meddled(big, rewrite).facts["changed"] == ["set/a"]


def test_a_file_that_vanishes_is_left_out_and_the_copy_goes_on(big: Path) -> None:
    copy = meddled(big, (big / "set" / "b").unlink)
    assert copy.left_out == (("set/b", "vanished while the copy was made"),)
    assert copy.fingerprint is not None
    assert copy.fingerprint["files"] == 1


def test_a_folder_replaced_by_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "set" / "z").mkdir(parents=True)
    (tmp_path / "set" / "a").write_bytes(b"a" * 5_000_000)
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("secret")

    def swap() -> None:
        (tmp_path / "set" / "z").rmdir()
        (tmp_path / "set" / "z").symlink_to(tmp_path / "private")

    assert b"secret" not in meddled(tmp_path, swap).data["files.tar"]


def test_a_tree_deeper_than_the_recursion_limit_is_copied(tmp_path: Path) -> None:
    depth, handle = 1200, os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < depth + 100:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, depth + 100), hard))
    try:
        fingerprint = copied(["d"], tmp_path).fingerprint
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", "d"], cwd=tmp_path, check=True)
    assert fingerprint is not None
    assert fingerprint["folders"] == depth


def damaged(copy: HeldFiles, stream: str, change: Any) -> HeldFiles:
    copy.data[stream] = change(copy.data[stream])
    return copy


@pytest.mark.parametrize(
    ("stream", "change"),
    [
        ("files.tar", lambda data: data.replace(b"server {}", b"server []")),
        ("files.tar", lambda data: data[:600]),
        ("files.tar", lambda data: data[:1536]),
        ("files.tar", lambda data: b""),
        ("files.sha256", lambda data: data[:-3]),
        ("files.sha256", lambda data: data[: data.index(b"\n") + 1]),
        ("files.sha256", lambda data: data.replace(b"a", b"b")),
        ("files.sha256", lambda data: data + data.splitlines(keepends=True)[0]),
        ("files.sha256", lambda data: b"nonsense\n" + data),
    ],
)
def test_a_damaged_copy_fails_the_check_and_is_not_restored_in_silence(
    site: Path, tmp_path: Path, stream: str, change: Any
) -> None:
    copy = damaged(copied(["docker", ".env.production"], site), stream, change)
    assert overall(check_files_copy(copy)) is Verdict.FAILED
    with pytest.raises(DamageError):
        restore_files(copy, tmp_path / "new")


def test_several_copies_at_once_do_not_disturb_each_other(site: Path) -> None:
    prints: list[Any] = []
    threads = [threading.Thread(target=lambda: prints.append(copied(["logs"], site).fingerprint)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(prints) == 4
    assert all(fingerprint == prints[0] for fingerprint in prints)


@pytest.fixture(autouse=True)
def _open_again(tmp_path: Path) -> Iterator[None]:
    """pytest removes its folders as an ordinary user would: closed ones must be opened."""
    yield
    for folder in tmp_path.rglob("closed"):
        folder.chmod(0o700)
