"""The recovery kit's own words, on a machine that has nothing but the repository and the key."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from recoup.kernel.errors import Exit
from tests.real import require
from tests.unit.cli.test_main import recoup


def _git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run([require("git"), *identity, *arguments], cwd=folder, check=True, capture_output=True)


def test_the_first_command_of_the_kit_brings_plan_and_git_state_into_a_folder_named_relatively(tmp_path: Path) -> None:
    production, machine = tmp_path / "production", tmp_path / "machine"
    production.mkdir()
    machine.mkdir()
    (production / "app.conf").write_text("listen 80\n")
    (production / ".gitignore").write_text("/recoup.key\n/backups/\n")
    _git(production, "init", "-q", ".")
    _git(production, "add", "app.conf", ".gitignore")
    _git(production, "commit", "-q", "-m", "first")
    (production / "recoup.yaml").write_text(
        "recoup: 1\nsystem: shop\nservices:\n  configuration:\n    engine: files\n    paths: [recoup.yaml]\n"
        "    git: .\nrepositories:\n  local: {path: ./backups}\nkey: {file: recoup.key}\n"
    )
    assert recoup("key", "generate", folder=production).returncode == Exit.OK
    taken = recoup("backup", folder=production)
    assert taken.returncode == Exit.OK, taken.stdout + taken.stderr
    shutil.copy(production / "recoup.key", machine / "recoup.key")
    options = ("--from", str(production / "backups"), "--key-file", "recoup.key", "--destination", "restored")
    restored = recoup("restore", "latest", "--service", "configuration", *options, folder=machine)
    assert restored.returncode == Exit.OK, restored.stdout + restored.stderr
    assert (machine / "restored" / "recoup.yaml").read_bytes() == (production / "recoup.yaml").read_bytes()
    assert (machine / "restored" / "app.conf").read_text() == "listen 80\n"


def test_the_kit_says_which_kind_of_copy_comes_back(tmp_path: Path) -> None:
    made = recoup("init", "--postgres", "postgresql://recoup@127.0.0.1:5432/shop", folder=tmp_path)
    assert made.returncode == Exit.OK, made.stderr
    assert "recoup restore latest --service postgres --kind dump" in made.stdout
