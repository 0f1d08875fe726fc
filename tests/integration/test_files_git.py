"""The Git state in a copy of files: with the real git, and with repositories that would like to run something."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from recoup.engines.files.check import check_files_copy
from recoup.engines.files.git import git_state, without_credentials
from recoup.engines.files.restore import restore_files
from recoup.kernel.errors import EngineError, RefusedError
from recoup.kernel.finding import Verdict, overall
from tests.integration.held_files import contents, copied
from tests.real import require


def git(folder: Path, *argv: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main", *argv],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A repository with two branches, a tag, uncommitted, staged, untracked and ignored files."""
    require("git")
    base = tmp_path / "work"
    (base / "src").mkdir(parents=True)
    git(base, "init", "-q")
    (base / "docker-compose.prod.yml").write_text("services: {}\n")
    (base / "src" / "app.py").write_text("print(1)\n")
    (base / "src" / "picture").write_bytes(bytes(range(256)) * 20)
    (base / "removed").write_text("was here\n")
    (base / "script").write_text("#!/bin/sh\n")
    (base / ".gitignore").write_text(".env.production\nnode_modules\n")
    git(base, "add", "-A")
    git(base, "commit", "-q", "-m", "first")
    git(base, "tag", "v1")
    git(base, "checkout", "-q", "-b", "release")
    (base / "src" / "app.py").write_text("print(2)\n")
    git(base, "commit", "-q", "-am", "second")
    git(base, "remote", "add", "origin", "https://user:pa55word@git.example.org/shop.git?token=t0ken")
    (base / "src" / "app.py").write_text("print(3)\n")
    (base / "src" / "picture").write_bytes(bytes(range(255, -1, -1)) * 20)
    (base / "staged").write_text("new and staged\n")
    git(base, "add", "staged")
    git(base, "rm", "-q", "removed")
    (base / "script").chmod(0o755)
    (base / "notes ü.txt").write_text("untracked")
    (base / ".env.production").write_text("SECRET=1\n")
    (base / "node_modules").mkdir()
    (base / "node_modules" / "huge").write_text("ignored")
    return base


def test_a_working_tree_comes_back_with_its_history_and_its_uncommitted_state(work: Path, tmp_path: Path) -> None:
    copy = copied([".env.production"], work, git=".")
    assert overall(check_files_copy(copy)) is Verdict.OK
    new = tmp_path / "new"
    restore_files(copy, new)
    expected = contents(work)
    del expected["node_modules/huge"]
    assert contents(new) == expected
    assert os.access(new / "script", os.X_OK)
    assert git(new, "rev-parse", "HEAD", "v1", "main") == git(work, "rev-parse", "HEAD", "v1", "main")
    assert git(new, "symbolic-ref", "--short", "HEAD") == "release"
    assert git(new, "diff", "HEAD", "--", "src") == git(work, "diff", "HEAD", "--", "src")
    git(new, "fsck", "--strict")
    again = restore_files(copy, new)  # the same once more: nothing to do
    assert again.placed == 0


def test_the_bundle_and_the_patch_are_enough_without_recoup(work: Path, tmp_path: Path) -> None:
    copy = copied([".env.production"], work, git=".")
    (tmp_path / "repository.bundle").write_bytes(copy.data["repository.bundle"])
    subprocess.run(["git", "bundle", "verify", "-q", tmp_path / "repository.bundle"], cwd=work, check=True)
    git(tmp_path, "clone", "-q", "repository.bundle", "clone")
    clone = tmp_path / "clone"
    git(clone, "checkout", "-q", copy.facts["git"]["commit"])
    subprocess.run(["git", "apply"], input=copy.data["uncommitted.patch"], cwd=clone, check=True)
    subprocess.run(["tar", "-x"], input=copy.data["untracked.tar"], cwd=clone, check=True)
    subprocess.run(["tar", "-x"], input=copy.data["files.tar"], cwd=clone, check=True)
    expected = contents(work)
    del expected["node_modules/huge"]
    assert contents(clone) == expected


def test_no_credential_of_a_remote_is_in_the_copy(work: Path) -> None:
    copy = copied([".env.production"], work, git=".")
    assert copy.facts["git"]["remotes"] == [["origin", "https://git.example.org/shop.git"]]
    everything = b"".join(copy.data.values()) + repr((copy.facts, copy.fingerprint, copy.left_out)).encode()
    assert b"pa55word" not in everything
    assert b"t0ken" not in everything


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("https://user:pw@host/x.git", "https://host/x.git"),
        ("https://token@host:8443/x", "https://host:8443/x"),
        ("https://x-access-token:ghp_A@host/x?a=b#c", "https://host/x"),
        ("ssh://git@host/x", "ssh://git@host/x"),
        ("ssh://git:pw@host/x", "ssh://git@host/x"),
        ("git@host:team/x.git", "git@host:team/x.git"),
        ("/srv/git/x", "/srv/git/x"),
        ("fatal: unable to access 'https://u:p@host/x/': no", "fatal: unable to access 'https://host/x/': no"),
    ],
)
def test_addresses_lose_their_credentials_and_stay_usable(url: str, clean: str) -> None:
    assert without_credentials(url) == clean


def test_nothing_that_a_repository_configures_is_run(work: Path, tmp_path: Path) -> None:
    trap = f"touch {tmp_path}/sprung; cat"
    for name in ("core.fsmonitor", "diff.external", "filter.evil=1.clean", "filter.bad.process", "core.pager"):
        subprocess.run(
            ["git", "config", "--file", ".git/config", name.replace("evil=1", "evil"), trap], cwd=work, check=True
        )
    for name in ("filter.bad.clean", "filter.bad.smudge", "diff.bad.textconv", "diff.bad.command", "core.sshCommand"):
        git(work, "config", name, trap)
    git(work, "config", "filter.bad.required", "true")
    hooks = work / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "pre-commit", "post-index-change", "reference-transaction", "fsmonitor-watchman"):
        (hooks / name).write_text(f"#!/bin/sh\n{trap}\n")
        (hooks / name).chmod(0o755)
    (work / ".gitattributes").write_text("*.py filter=bad diff=bad\nstaged filter=evil\n")
    (tmp_path / "sprung").unlink(missing_ok=True)
    copy = copied([".env.production"], work, git=".")
    assert not (tmp_path / "sprung").exists()
    restore_files(copy, tmp_path / "new")
    assert not (tmp_path / "sprung").exists()
    assert (tmp_path / "new" / "src" / "app.py").read_text() == "print(3)\n"


def test_the_repository_is_not_written_to(work: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in sorted(work.rglob("*"))}

    before = state()
    copied([".env.production"], work, git=".")
    assert state() == before


def test_a_repository_without_a_commit_is_copied_as_files(tmp_path: Path) -> None:
    base = tmp_path / "young"
    base.mkdir()
    git(base, "init", "-q")
    (base / "a").write_text("a")
    git(base, "add", "a")
    (base / "b").write_text("b")
    copy = copied([], base, git=".")
    assert any("there is no commit yet" in why for _, why in copy.left_out)
    restore_files(copy, tmp_path / "new")
    assert contents(tmp_path / "new") == {"a": b"a", "b": b"b"}


def test_a_shallow_clone_is_copied_as_files_because_its_bundle_could_not_be_cloned(work: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{work}", "shallow")
    copy = copied([], tmp_path / "shallow", git=".")
    assert any("shallow" in why for _, why in copy.left_out)
    restore_files(copy, tmp_path / "new")
    assert contents(tmp_path / "new") == contents(tmp_path / "shallow")


def test_a_detached_head_and_a_folder_below_the_top_are_copied(work: Path, tmp_path: Path) -> None:
    git(work, "stash", "-q", "-u")
    git(work, "checkout", "-q", "v1")
    copy = copied([], work, git="src")
    assert copy.facts["git"]["branch"] is None
    restore_files(copy, tmp_path / "new")
    assert git(tmp_path / "new", "rev-parse", "HEAD") == git(work, "rev-parse", "v1")
    assert git(tmp_path / "new", "stash", "list").count("stash@") <= 1
    assert git(tmp_path / "new", "rev-parse", "refs/stash") == git(work, "rev-parse", "refs/stash")


def test_a_tracked_file_among_the_declared_paths_comes_back_as_it_was_on_the_disk(work: Path, tmp_path: Path) -> None:
    copy = copied(["docker-compose.prod.yml", "notes ü.txt"], work, git=".")
    copy_of_other = copied(["docker-compose.prod.yml"], work)
    assert copy_of_other.fingerprint is not None
    restore_files(copy, tmp_path / "new")
    assert (tmp_path / "new" / "docker-compose.prod.yml").read_bytes() == b"services: {}\n"
    assert restore_files(copy, tmp_path / "new").placed == 0


def test_a_repository_that_stands_elsewhere_is_not_replaced_without_force(work: Path, tmp_path: Path) -> None:
    copy, new = copied([".env.production"], work, git="."), tmp_path / "new"
    restore_files(copy, new)
    git(new, "commit", "-q", "--allow-empty", "-m", "later work")
    later = git(new, "rev-parse", "HEAD")
    with pytest.raises(RefusedError, match="does not stand at the copy's commit"):
        restore_files(copy, new)
    assert git(new, "rev-parse", "HEAD") == later
    result = restore_files(copy, new, force=True)
    assert git(new, "rev-parse", "HEAD") == git(work, "rev-parse", "HEAD")
    assert result.aside is not None
    assert git(new, f"--git-dir={result.aside}/.git", "rev-parse", "HEAD") == later


def test_submodules_and_repositories_inside_are_said_to_be_left_out(work: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(work), "other")
    git(work, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "other"), "vendor/module")
    (work / "inner").mkdir()
    git(work / "inner", "init", "-q")
    (work / "inner" / "file").write_text("x")
    git(work / "inner", "add", "file")
    git(work / "inner", "commit", "-q", "-m", "inner")
    left_out = dict(copied([], work, git=".").left_out)
    assert left_out["vendor/module"] == "a submodule: only its commit is in the copy"
    assert left_out["inner/"] == "a Git repository of its own"


def test_what_the_plan_excludes_is_excluded_from_the_untracked_files_too(work: Path) -> None:
    (work / "backups" / "deep").mkdir(parents=True)
    (work / "backups" / "deep" / "object").write_text("a backup inside the folder that is backed up")
    copy = copied([], work, git=".", exclude=[str(work / "backups")])
    assert b"a backup inside" not in copy.data["untracked.tar"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:-30], "does not match the digest at its end"),
        (lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:], "does not match the digest at its end"),
        (lambda data: b"garbage" + data, "does not begin as a Git bundle does"),
        (lambda data: data[:40], "cut off"),
        (lambda data: data.replace(b"bundle\n", b"bundle\n-" + b"0" * 40 + b" needed\n", 1), "does not hold"),
    ],
)
def test_a_damaged_bundle_is_found_without_git(work: Path, change, why: str) -> None:  # type: ignore[no-untyped-def]
    copy = copied([], work, git=".")
    copy.data["repository.bundle"] = change(copy.data["repository.bundle"])
    findings = check_files_copy(copy)
    assert overall(findings) is Verdict.FAILED
    assert any(why in finding.detail for finding in findings), findings


def test_a_folder_without_git_and_an_environment_that_names_another_repository_are_handled(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(EngineError, match="is not in a Git working tree"):
        git_state(tmp_path / "plain")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))  # as in a hook
    assert git_state(work).branch == "release"
