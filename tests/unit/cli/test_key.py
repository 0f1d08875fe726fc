"""Keys are made once, never overwritten, and named by their fingerprint."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

from recoup.kernel.errors import Exit
from tests.unit.cli.test_main import PLAN, recoup

AUTHENTICATION_SALT = "7265636f75704d31"


def test_a_new_key_is_private_random_and_read_by_openssl_with_the_same_id(tmp_path: Path) -> None:
    result = recoup("key", "generate", "recoup.key", "--json", folder=tmp_path)
    assert result.returncode == Exit.OK
    file = tmp_path / "recoup.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_text().strip()) == 64
    made = json.loads(result.stdout)
    more = ["-S", AUTHENTICATION_SALT, "-P", "-pass", f"file:{file}"]
    openssl = subprocess.run(
        ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-md", "sha256", "-iter", "10000", *more],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"iv ={made['id']}".lower() in openssl.stdout.lower()
    assert file.read_text().strip() not in result.stdout + result.stderr


def test_a_key_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "recoup.key").write_text("old\n")
    result = recoup("key", "generate", folder=tmp_path)
    assert result.returncode == Exit.REFUSED
    assert "recoup.key exists already" in result.stderr
    assert (tmp_path / "recoup.key").read_text() == "old\n"


def test_not_even_a_link_to_nowhere_is_followed(tmp_path: Path) -> None:
    (tmp_path / "recoup.key").symlink_to(tmp_path / "elsewhere")
    assert recoup("key", "generate", folder=tmp_path).returncode == Exit.REFUSED
    assert not (tmp_path / "elsewhere").exists()


def test_a_key_can_go_to_stdout_but_not_into_json(tmp_path: Path) -> None:
    result = recoup("key", "generate", "-", folder=tmp_path)
    assert len(result.stdout) == 65
    assert recoup("key", "generate", "-", "--json", folder=tmp_path).returncode == Exit.USAGE


def test_the_plans_key_is_named_and_checked(tmp_path: Path) -> None:
    (tmp_path / "recoup.yaml").write_text(PLAN)
    missing = recoup("key", "show-id", folder=tmp_path)
    assert missing.returncode == Exit.WRONG_KEY
    assert "cannot read the key file" in missing.stderr
    recoup("key", "generate", folder=tmp_path)
    shown = recoup("key", "show-id", folder=tmp_path).stdout.strip()
    assert len(shown) == 16
    assert recoup("key", "show-id", "--key-file", "recoup.key", folder=tmp_path).stdout.strip() == shown
    good = recoup("key", "check", folder=tmp_path)
    assert good.returncode == Exit.OK
    assert good.stdout == f"key {shown} from the file recoup.key: random key of 256 bits\n"


def test_a_passphrase_and_a_readable_file_are_warned_about(tmp_path: Path) -> None:
    (tmp_path / "recoup.yaml").write_text(PLAN)
    (tmp_path / "recoup.key").write_text("a passphrase\n")
    (tmp_path / "recoup.key").chmod(0o644)
    result = recoup("key", "check", "--json", folder=tmp_path)
    assert result.returncode == Exit.BAD
    warnings = json.loads(result.stdout)["warnings"]
    assert len(warnings) == 2
    assert "can be guessed" in warnings[0]
    assert "chmod 600" in warnings[1]


def test_a_folder_that_may_not_be_written_is_an_error_with_a_reason(tmp_path: Path) -> None:
    result = recoup("key", "generate", "none/recoup.key", folder=tmp_path)
    assert result.returncode == Exit.FAILED
    assert "cannot write the key file none/recoup.key: No such file or directory" in result.stderr
