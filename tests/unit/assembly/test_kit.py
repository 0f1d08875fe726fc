"""The recovery kit: the page, the file, and what is in them only when it was asked for."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from recoup.assembly.recover.kit import Kit, kit_file, make_kit, read_kit
from recoup.assembly.recover.kit_page import kit_html, kit_markdown
from recoup.assembly.recover.own_wheel import Wheel, own_wheel
from recoup.assembly.system import System
from recoup.cli.kit import kit as kit_command
from recoup.cli.recover_asked import Asked
from recoup.cli.recover_kit import with_kit
from recoup.kernel.errors import DamageError, Exit, UnknownFormatError, UsageError
from recoup.plan.load import load
from tests.unit.cli.test_main import recoup

KEY = "00c0ffee" * 8
PLAN = """
recoup: 1
system: shop
compose: {file: docker-compose.yml}
services:
  configuration: {engine: files, paths: [recoup.yaml]}
  postgres: {engine: postgres, compose: db}
repositories:
  local: {path: backups}
  offsite: {url: "s3://bucket/shop", endpoint: "http://s3.example", region: eu-west-1,
            credentials: {access_key: "${ACCESS}", secret_key: "${SECRET}"}}
key: {file: recoup.key}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recoup.yaml").write_text(PLAN)
    (tmp_path / "recoup.key").write_text(KEY + "\n")
    monkeypatch.setenv("ACCESS", "the-access-key")
    monkeypatch.setenv("SECRET", "it's secret")
    return tmp_path


def kit_of(folder: Path, *, with_key: bool) -> Kit:
    return make_kit(System(load(folder / "recoup.yaml")), with_key=with_key)


def test_secrets_are_in_page_and_file_only_when_they_were_asked_for(folder: Path) -> None:
    plain, full = kit_of(folder, with_key=False), kit_of(folder, with_key=True)
    for secret in (KEY, "it's secret", "the-access-key"):
        page = kit_markdown(plain, None)
        assert secret not in page + kit_html(plain, None) + kit_file(plain, page, None).decode(errors="replace")
    assert KEY not in repr(full)
    assert "it's secret" not in repr(full)
    assert KEY in kit_markdown(full, None)
    assert KEY in kit_html(full, None)


def test_the_commands_of_the_page_are_complete_and_in_order(folder: Path) -> None:
    page = kit_markdown(kit_of(folder, with_key=True), "recoup-1-py3-none-any.whl")
    commands = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    assert commands[0].startswith("recoup --version || pipx install ./recoup-1-py3-none-any.whl\n")
    assert KEY in commands[1]
    assert "export AWS_ENDPOINT_URL=http://s3.example\n" in commands[2]
    assert "export AWS_SECRET_ACCESS_KEY='it'\"'\"'s secret'\n" in commands[2]
    assert commands[3] == "recoup recover server-loss --from s3://bucket/shop --key-file recoup.key\n"
    assert "Type docker compose in another shell" in page, "the stack would take what was exported for its own"


def test_a_page_without_secrets_says_in_capitals_what_is_missing(folder: Path) -> None:
    page = kit_markdown(kit_of(folder, with_key=False), None)
    assert "THE KEY, 64 CHARACTERS" in page
    assert "'ITS SECRET KEY'" in page


def test_a_plan_that_no_copy_holds_and_backups_that_go_with_production_are_warned_of(folder: Path) -> None:
    plan = (folder / "recoup.yaml").read_text().replace("paths: [recoup.yaml]", "paths: [other]")
    (folder / "recoup.yaml").write_text(re.sub(r"  offsite:.*?}}\n", "", plan, flags=re.DOTALL))
    page = kit_markdown(kit_of(folder, with_key=False), None)
    assert "no repository is off the machine of production" in page
    assert "no copy of files holds the plan" in page


def test_the_file_comes_back_as_it_was_made_and_holds_recoup_and_the_way_without_it(folder: Path) -> None:
    kit = kit_of(folder, with_key=True)
    made = folder / "kit.tar"
    made.write_bytes(kit_file(kit, "the page", own_wheel()))
    assert read_kit(made) == kit
    with tarfile.open(made) as tar:
        names = tar.getnames()
        document = tar.extractfile("kit.json")
        assert document is not None
        (folder / "kit.json").write_bytes(document.read())
    assert read_kit(folder / "kit.json") == kit
    assert {"kit.json", "KIT.md", "RESTORE.md", "restore.sh"} < set(names)
    assert any(name.endswith(".whl") for name in names)


def test_the_best_repository_is_one_that_does_not_go_with_production(folder: Path) -> None:
    kit = kit_of(folder, with_key=True)
    assert kit.best.name == "offsite"
    assert set(kit.best.environment()) == {
        *("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    }


@pytest.fixture
def with_two_remotes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a kit that has another repository away from production, with an endpoint and a key of its own."""
    far = '  far: {url: "s3://elsewhere/shop", endpoint: "http://far.example", credentials: '
    far += '{access_key: "${FAR}", secret_key: "${SECRET}"}}\n'
    (folder / "recoup.yaml").write_text(PLAN.replace("key: {file", far + "key: {file"))
    monkeypatch.setenv("FAR", "the-far-key")
    for name in ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    made = folder / "kit.tar"
    made.write_bytes(kit_file(kit_of(folder, with_key=True), "the page", None))
    return made


@pytest.mark.parametrize(
    ("source", "address", "endpoint", "access"),
    [
        (None, "s3://bucket/shop", "http://s3.example", "the-access-key"),
        ("s3://elsewhere/shop", "s3://elsewhere/shop", "http://far.example", "the-far-key"),
        ("s3://elsewhere/shop/", "s3://elsewhere/shop/", "http://far.example", "the-far-key"),
    ],
)
def test_a_repository_of_the_kit_that_is_named_is_signed_in_at_with_its_own_keys(
    with_two_remotes: Path, source: str | None, address: str, endpoint: str, access: str
) -> None:
    asked = with_kit(Asked(what="server-loss", kit=with_two_remotes, source=source))
    assert asked.source == address
    assert os.environ["AWS_ENDPOINT_URL"] == endpoint
    assert os.environ["AWS_ACCESS_KEY_ID"] == access


def test_the_page_says_how_each_other_repository_is_signed_in_at(with_two_remotes: Path) -> None:
    page = kit_markdown(read_kit(with_two_remotes), None)
    shown = page[page.index("When s3://bucket/shop does not answer, take s3://elsewhere/shop") :]
    block = shown[shown.index("```text") :].split("```")[1]
    assert "unset AWS_ENDPOINT_URL" in block, "what was typed for the first one is in the way"
    assert "export AWS_ENDPOINT_URL=http://far.example\n" in block
    assert "export AWS_ACCESS_KEY_ID=the-far-key\n" in block
    assert "/backups" in page, "the folder needs nothing to sign in with"
    plain = kit_markdown(kit_of(with_two_remotes.parent, with_key=False), None)
    assert "the-far-key" not in plain


def test_credentials_that_end_within_hours_are_not_put_into_a_kit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = (folder / "recoup.yaml").read_text()
    (folder / "recoup.yaml").write_text(re.sub(r",\s+credentials: .*}}", "}", plan))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIA-of-today")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of today")
    assert "ASIA-of-today" in kit_markdown(kit_of(folder, with_key=True), None)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "until tonight")
    page = kit_markdown(kit_of(folder, with_key=True), None)
    assert "ASIA-of-today" not in page
    assert "AN ACCESS KEY THAT MAY READ AND WRITE THE BUCKET" in page


def test_what_was_typed_beside_a_kit_is_typed_again_in_the_next_command_and_nothing_else(
    with_two_remotes: Path,
) -> None:
    key = with_two_remotes.parent / "recoup.key"
    key.chmod(0o600)
    alone = with_kit(Asked(kit=with_two_remotes))
    assert alone.command("--resume") == f"recoup recover --resume --kit {with_two_remotes}"
    asked = with_kit(Asked(kit=with_two_remotes, source="s3://elsewhere/shop", key_file=key))
    assert asked.command("--resume") == (
        f"recoup recover --resume --kit {with_two_remotes} --from s3://elsewhere/shop --key-file {key}"
    )


def test_a_kit_that_names_no_repository_is_no_kit(folder: Path) -> None:
    document = {**kit_of(folder, with_key=True).document(), "repositories": []}
    (folder / "kit.json").write_text(json.dumps(document))
    with pytest.raises(DamageError, match="it names no repository"):
        read_kit(folder / "kit.json")


def test_what_is_no_kit_is_refused_with_what_to_do(folder: Path) -> None:
    odd = folder / "odd"
    for data in (b"", b"x" * 2000, b"{}", b"[1]", b'{"schema": "recoup.kit/1"}'):
        odd.write_bytes(data)
        with pytest.raises(DamageError) as raised:
            read_kit(odd)
        assert raised.value.hint
    odd.write_text(json.dumps({"schema": "recoup.kit/2"}))
    with pytest.raises(UnknownFormatError):
        read_kit(odd)
    with pytest.raises(UsageError):
        read_kit(folder / "absent")


def test_the_wheel_is_one_that_pip_would_take(folder: Path) -> None:
    wheel = own_wheel()
    assert wheel is not None
    with zipfile.ZipFile(io.BytesIO(wheel.data)) as archive:
        names = archive.namelist()
        record = next(name for name in names if name.endswith(".dist-info/RECORD"))
        listed = [line.partition(",")[0] for line in archive.read(record).decode().splitlines()]
        entry_points = archive.read(record.replace("RECORD", "entry_points.txt")).decode()
    assert sorted(listed) == sorted(names)
    assert "recoup/cli/main.py" in names
    assert "recoup/repository/stock/restore.sh" in names
    assert not any("__pycache__" in name for name in names)
    assert "recoup = recoup.cli.main:main" in entry_points
    assert own_wheel() == wheel


def test_the_wheel_is_whole_wherever_recoup_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / ".pycharm_helpers" / "__pycache__" / "recoup"
    (package / "__pycache__").mkdir(parents=True)
    for name in ("__init__.py", "__init__.pyc", "__pycache__/__init__.cpython-311.pyc"):
        (package / name).touch()
    monkeypatch.setattr("recoup.__file__", str(package / "__init__.py"))
    wheel = own_wheel()
    assert wheel is not None
    with zipfile.ZipFile(io.BytesIO(wheel.data)) as archive:
        assert [name for name in archive.namelist() if name.startswith("recoup/")] == ["recoup/__init__.py"]


def test_the_command_writes_for_its_owner_only_and_shows_no_key_on_a_screen(folder: Path) -> None:
    shown = recoup("kit", "--with-key", folder=folder)
    assert shown.returncode == Exit.USAGE
    assert KEY not in shown.stdout + shown.stderr
    made = recoup("kit", "--with-key", "--output", "kit", folder=folder)
    assert made.returncode == Exit.OK, made.stderr
    assert KEY not in made.stdout + made.stderr
    for name in ("recovery-kit.md", "recovery-kit.html", "recovery-kit.tar"):
        assert stat.S_IMODE((folder / "kit" / name).stat().st_mode) == 0o600


def test_a_kit_without_the_key_or_with_another_ends_with_12(folder: Path) -> None:
    assert recoup("kit", "--output", "kit", folder=folder).returncode == Exit.OK
    (folder / "other.key").write_text("0badc0de" * 8 + "\n")
    asked = ("recover", "server-loss", "--kit", "kit/recovery-kit.tar", "--plan")
    without = recoup(*asked, folder=folder)
    assert without.returncode == Exit.WRONG_KEY
    assert "was made without the key" in without.stderr
    other = recoup(*asked, "--key-file", "other.key", folder=folder)
    assert other.returncode == Exit.WRONG_KEY
    assert "not the key of the kit" in other.stderr


def test_page_and_file_name_the_same_wheel_which_is_made_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel, made = own_wheel(), list[Wheel | None]()
    assert wheel is not None

    def make() -> Wheel | None:
        made.append(wheel)
        return wheel

    monkeypatch.setattr("recoup.assembly.recover.own_wheel.own_wheel", make)
    assert kit_command(output_folder=folder / "kit", file=folder / "recoup.yaml") == Exit.OK
    assert made == [wheel]
    assert wheel.name in (folder / "kit" / "recovery-kit.md").read_text()
    with tarfile.open(folder / "kit" / "recovery-kit.tar") as tar:
        assert wheel.name in tar.getnames()


def split_key(folder: Path) -> tuple[Path, list[Path]]:
    """The note beside the shares of the plan's key, and the shares."""
    names = ("Ana", "Ben", "the safe in the office")
    holders = [word for name in names for word in ("--holder", name)]
    assert recoup("key", "split", *holders, "--output", "shares", folder=folder).returncode == Exit.OK
    *shares, note = sorted((folder / "shares").iterdir())
    return note, shares


def test_with_shares_the_page_says_who_comes_together_and_holds_the_credentials_but_no_key(folder: Path) -> None:
    note, shares = split_key(folder)
    made = recoup("kit", "--shares", str(note), "--output", "kit", folder=folder)
    assert made.returncode == Exit.OK, made.stderr
    for name in ("recovery-kit.md", "recovery-kit.html", "recovery-kit.tar"):
        data = (folder / "kit" / name).read_bytes()
        assert KEY.encode() not in data
        assert b"secret" in data
        for share in shares:
            line = next(line for line in share.read_bytes().splitlines() if line.startswith(b"  11 "))
            assert line not in data
    page = (folder / "kit" / "recovery-kit.md").read_text()
    assert "3 shares, of which any 2 give it back; share 1: Ana; share 2: Ben; share 3: the safe in the office" in page
    assert "THE KEY" not in page
    assert "--kit recovery-kit.tar --key-file recoup.key --host" in page
    kit = read_kit(folder / "kit" / "recovery-kit.tar")
    assert kit.shares is not None
    assert (kit.shares.needed, kit.shares.holders[2]) == (2, "the safe in the office")
    assert kit.key_text is None


def test_the_commands_of_a_page_with_shares_typed_as_they_stand_give_the_very_key_file(folder: Path) -> None:
    note, shares = split_key(folder)
    assert recoup("kit", "--shares", str(note), "--output", "kit", folder=folder).returncode == Exit.OK
    page = (folder / "kit" / "recovery-kit.md").read_text()
    commands = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    home = folder / "stranger"
    home.mkdir()
    typed = "".join(re.sub(r"(?m)^(?! +\d+ [a-z]).*\n", "", one.read_text()) for one in (shares[2], shares[0]))
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for _ in range(2):  # the whole page is typed again when something interrupts it
        done = subprocess.run(
            ["bash", "-ec", commands[1]], cwd=home, env=environment, input=typed, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == read_kit(folder / "kit" / "recovery-kit.tar").key
        assert (home / "recoup.key").read_bytes() == (folder / "recoup.key").read_bytes()
    assert "--key-file recoup.key" in commands[3], "the one command takes the file that was just made"


def test_shares_of_another_key_a_kit_on_a_screen_and_one_with_the_key_too_are_refused(folder: Path) -> None:
    note, shares = split_key(folder)
    both = recoup("kit", "--shares", str(note), "--with-key", "--output", "kit", folder=folder)
    assert both.returncode == Exit.USAGE
    shown = recoup("kit", "--shares", str(note), folder=folder)
    assert shown.returncode == Exit.USAGE
    assert "it's secret" not in shown.stdout + shown.stderr
    (folder / "recoup.key").write_text("0badc0de" * 8 + "\n")
    other = recoup("kit", "--shares", str(note), "--output", "kit", folder=folder)
    assert other.returncode == Exit.WRONG_KEY
    assert "these are the shares of key" in other.stderr
    assert not (folder / "kit").exists()
    (folder / "recoup.key").write_text(KEY + "\n")
    assert recoup("kit", "--shares", str(shares[0]), "--output", "kit", folder=folder).returncode == Exit.OK
    asked = recoup("recover", "server-loss", "--kit", "kit/recovery-kit.tar", "--plan", folder=folder)
    assert asked.returncode == Exit.WRONG_KEY
    assert "Bring 2 of its 3 shares together: `recoup key combine --key-id" in asked.stderr
