"""``recoup init`` without Compose: plan, key, kit, and nothing that was there is lost."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import pytest

from recoup.kernel.errors import Exit
from recoup.plan.load import load
from tests.unit.cli.test_main import recoup

POSTGRES = "postgresql://recoup:s3cret@127.0.0.1:5432/shop"
REDIS = "redis://:t0psecret@127.0.0.1:6379/0"


def init(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return recoup("init", "--postgres", POSTGRES, "--redis", REDIS, *more, folder=folder)


def test_a_plan_is_written_from_addresses_with_their_passwords_as_references(tmp_path: Path) -> None:
    result = init(tmp_path)
    assert result.returncode == Exit.OK, result.stderr
    text = (tmp_path / "recoup.yaml").read_text()
    assert "s3cret" not in text + result.stdout + result.stderr
    assert "t0psecret" not in text + result.stdout + result.stderr
    plan = load(tmp_path / "recoup.yaml").plan
    assert list(plan.services) == ["postgres", "redis", "configuration"]
    assert str(plan.services["redis"].url) == "redis://:${REDIS_PASSWORD}@127.0.0.1:6379/0"  # type: ignore[union-attr]
    assert "set POSTGRES_PASSWORD to the password of postgres" in result.stdout
    assert "set REDIS_PASSWORD to the password of redis" in result.stdout
    assert recoup("plan", "check", folder=tmp_path).returncode == Exit.OK


def test_the_key_is_made_private_and_the_kit_names_it_with_the_commands_of_a_new_machine(tmp_path: Path) -> None:
    result = init(tmp_path, "--repository", "/mnt/x", "--repository", "s3://bucket/shop", "--system", "Shop")
    assert result.returncode == Exit.OK, result.stderr
    key = tmp_path / "recoup.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    fingerprint = recoup("key", "show-id", folder=tmp_path).stdout.strip()
    assert f"Key fingerprint:  {fingerprint}" in result.stdout
    assert "RECOVERY KIT of Shop" in result.stdout
    assert "local    /mnt/x" in result.stdout
    assert "offsite  s3://bucket/shop" in result.stdout
    assert (
        "recoup restore latest --service configuration --from s3://bucket/shop --key-file recoup.key "
        "--destination restored" in result.stdout
    )
    assert key.read_text().strip() not in result.stdout + result.stderr
    assert "off this machine" not in result.stdout


def test_a_kit_whose_backups_are_all_on_this_machine_says_so(tmp_path: Path) -> None:
    assert "No repository is off this machine" in init(tmp_path).stdout


def test_a_plan_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "recoup.yaml").write_text("mine\n")
    result = init(tmp_path)
    assert result.returncode == Exit.REFUSED
    assert "there is a plan already" in result.stderr
    assert (tmp_path / "recoup.yaml").read_text() == "mine\n"
    assert not (tmp_path / "recoup.key").exists()


def test_a_second_init_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    init(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert init(tmp_path).returncode == Exit.REFUSED
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_key_that_is_there_is_used_and_not_overwritten(tmp_path: Path) -> None:
    recoup("key", "generate", folder=tmp_path)
    before = (tmp_path / "recoup.key").read_bytes()
    result = init(tmp_path)
    assert result.returncode == Exit.OK
    assert f"kept {tmp_path / 'recoup.key'}" in result.stdout
    assert (tmp_path / "recoup.key").read_bytes() == before


def test_something_else_in_place_of_the_key_is_refused_before_a_plan_is_written(tmp_path: Path) -> None:
    (tmp_path / "recoup.key").write_bytes(b"\xff\x00")
    assert init(tmp_path).returncode == Exit.WRONG_KEY
    assert not (tmp_path / "recoup.yaml").exists()


def test_a_dry_run_shows_the_plan_and_changes_nothing(tmp_path: Path) -> None:
    result = init(tmp_path, "--plan")
    assert result.returncode == Exit.OK
    assert "engine: postgres" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_json_tells_the_same_in_one_document(tmp_path: Path) -> None:
    made = json.loads(init(tmp_path, "--json").stdout)
    assert made["schema"] == "recoup.init/1"
    assert made["changed"] is True
    assert [one["name"] for one in made["variables"]] == ["POSTGRES_PASSWORD", "REDIS_PASSWORD"]
    assert made["kit"]["key"] == made["key"]["id"][:16]
    assert len(made["kit"]["commands"]) == 3


def test_in_a_git_work_tree_the_key_and_the_local_repository_are_kept_out_of_git(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_text("*.log")
    folder = tmp_path / "deploy"
    folder.mkdir()
    assert init(tmp_path).returncode == Exit.OK
    assert (tmp_path / ".gitignore").read_text() == "*.log\n/recoup.key\n/backups/\n"
    assert init(folder, "--key-file", str(tmp_path / "other.key")).returncode == Exit.OK
    (folder / "backups").mkdir()
    (folder / "backups" / "x").touch()
    seen = subprocess.run(
        ["git", "status", "--short", "-uall"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert "recoup.key" not in seen
    assert "backups/" not in seen


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--postgres", "mysql://h/x"], "what --postgres was given is not an address"),
        (["--redis", "localhost"], "what --redis was given is not an address"),
        (["--postgres", POSTGRES, "--compose", "compose.yaml"], "from a Compose project or from addresses"),
        (["--postgres", POSTGRES, "-f", "none/recoup.yaml"], "there is no folder"),
        (["--postgres", POSTGRES, "--key-file", "recoup.yaml"], "cannot be one file"),
        (["--postgres", POSTGRES, "--repository", "s3://"], "not an address of a repository"),
    ],
)
def test_wrong_usage_is_refused_and_nothing_is_written(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = recoup("init", *arguments, folder=tmp_path)
    assert result.returncode == Exit.USAGE
    assert said in result.stderr
    assert "s3cret" not in result.stderr
    assert list(tmp_path.iterdir()) == []
