"""A recovery on another machine: where it is, and what is typed there."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recoup import __version__
from recoup.assembly.recover import blank
from recoup.assembly.recover import host as recover_host
from recoup.assembly.recover.host import Host, Remote, _script, parse_host, recover_there
from recoup.assembly.recover.provision import provision
from recoup.assembly.system import System
from recoup.cli import asking
from recoup.cli.output import Output
from recoup.cli.recover_asked import Asked
from recoup.cli.recover_kit import on_host, with_kit, words_there
from recoup.kernel.errors import EngineError, Exit, UsageError
from recoup.kernel.secret import Secret
from recoup.plan.load import load
from recoup.repository.seal import Key


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("ssh://root@new-server", Host(name="new-server", user="root")),
        ("ssh://new.example.org:2222", Host(name="new.example.org", port=2222)),
        ("ssh://a_b@192.0.2.7/", Host(name="192.0.2.7", user="a_b")),
    ],
)
def test_an_address_of_ssh_is_read(address: str, host: Host) -> None:
    assert parse_host(address) == host


@pytest.mark.parametrize(
    "address",
    [
        "root@new-server",
        "http://new-server",
        "ssh://",
        "ssh://-oProxyCommand=evil",
        "ssh://root:password@host",
        "ssh://host/folder",
        "ssh://host:port",
        "ssh://a b@host",
        "ssh://$(id)@host",
    ],
)
def test_what_could_be_an_option_or_a_command_is_no_address(address: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_host(address)
    assert raised.value.hint


def test_the_other_machine_gets_every_option_but_the_places_of_this_one() -> None:
    asked = Asked(
        what="server-loss",
        yes=True,
        install=True,
        skip=("flows",),
        because="no users yet",
        to_time="latest",
        destination=Path("/srv/shop"),
        source="s3://bucket/shop",
        key_file=Path("/home/me/recoup.key"),
        kit=Path("kit.tar"),
        host="ssh://root@new",
    )
    words = words_there(asked)
    assert words == (
        *("recover", "server-loss", "--yes", "--install", "--skip", "flows", "--because", "no users yet"),
        *("--to-time", "latest", "--destination", "/srv/shop", "--from", "s3://bucket/shop"),
    )


def _system(folder: Path, provision: str) -> System:
    (folder / "recoup.yaml").write_text(
        "recoup: 1\nsystem: shop\nservices: {logs: {engine: files, paths: [logs]}}\n"
        f"repositories: {{local: {{path: backups}}}}\nkey: {{file: recoup.key}}\n{provision}"
    )
    return System(load(folder / "recoup.yaml"))


def test_the_plans_own_command_makes_the_server_and_says_where_it_is(tmp_path: Path) -> None:
    script = 'echo made; echo ssh://root@192.0.2.7; echo "$RECOUP_SYSTEM $RECOUP_SITUATION $RECOUP_HOST"'
    system = _system(tmp_path, f"provision: [sh, -c, '{script}']\n")
    said: list[str] = []
    address = provision(system, situation="server-loss", host="ssh://root@tbd", say=said.append)
    assert address == "ssh://root@192.0.2.7"
    assert said[0].startswith("provision: sh -c ")


def test_a_command_that_names_no_server_leaves_the_one_that_was_given_and_one_that_fails_says_how(
    tmp_path: Path,
) -> None:
    quiet = _system(tmp_path, "provision: 'echo done'\n")
    assert provision(quiet, situation="server-loss", host="ssh://a@b", say=lambda _: None) == "ssh://a@b"
    bad = _system(tmp_path, "provision: [sh, -c, 'echo no quota >&2; exit 3']\n")
    with pytest.raises(EngineError, match="no quota") as raised:
        provision(bad, situation="server-loss", host="ssh://a@b", say=lambda _: None)
    assert "--no-provision" in str(raised.value.hint)
    assert (
        provision(_system(tmp_path, ""), situation="server-loss", host="ssh://a@b", say=lambda _: None) == "ssh://a@b"
    )


def test_what_the_laptop_prints_reaches_the_other_machine_as_it_was_asked_for() -> None:
    assert words_there(Asked(show=True, form="json"), as_json=True) == ("recover", "--show", "--json")
    assert words_there(Asked(resume=True), quiet=True) == ("recover", "--resume", "--quiet")
    assert words_there(Asked(what="server-loss", dry_run=True, form="md")) == (
        *("recover", "server-loss", "--plan", "--format", "md"),
    )


@dataclass
class There:
    """A server behind a pretended ``ssh``: it keeps the scripts, and the last command ends with ``code``."""

    folder: Path
    code: int = 0

    def recover(self, *, looks: bool = False, terminal: bool = False) -> Exit:
        remote = Remote(
            host=Host(name="new"), words=("recover", "--show"), key=Secret("k"), key_id="f" * 64,
            looks=looks, terminal=terminal, from_here="recoup recover --resume --kit k.tar --host ssh://new",
        )  # fmt: skip
        (self.folder / "code").write_text(str(self.code))
        return recover_there(remote, self.said.append)

    @property
    def scripts(self) -> list[str]:
        return (self.folder / "log").read_text().splitlines()

    said: list[str] = field(default_factory=list)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> There:
    (tmp_path / "ssh").write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/log\ncat > /dev/null\n'
        f"case \"$*\" in *--version*) echo 'recoup {__version__}';; *mktemp*) echo /dev/shm/recoup-look-a1;; "
        f"*'recoup recover'*) exit $(cat {tmp_path}/code);; esac\n"
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return There(tmp_path)


@pytest.mark.parametrize("code", [0, 4])
def test_a_look_brings_its_own_key_and_leaves_that_of_a_recovery_alone(there: There, code: int) -> None:
    there.code = code
    assert there.recover(looks=True) == code
    typed = "\n".join(there.scripts)
    assert f"/dev/shm/recoup-{'f' * 16}" not in typed
    assert "--key-file /dev/shm/recoup-look-a1/recoup.key" in typed
    assert there.scripts[-1].endswith("rm -rf /dev/shm/recoup-look-a1"), "nothing of it is left there"
    assert not any("stays" in one for one in there.said)


def test_the_key_of_a_recovery_stays_until_it_ended_well_and_the_next_command_is_said_as_it_is_typed_here(
    there: There,
) -> None:
    there.code = 1
    assert there.recover(terminal=True) == Exit.FAILED
    assert not any("rm -rf" in one for one in there.scripts)
    assert any("stays in /dev/shm/recoup-ffff" in one for one in there.said)
    assert "from here they are typed like this: recoup recover --resume --kit k.tar --host ssh://new" in there.said[-1]
    there.code = 0
    assert there.recover(terminal=True) == Exit.OK
    assert there.scripts[-1].endswith(f"rm -rf /dev/shm/recoup-{'f' * 16}")


def test_a_server_may_greet_in_any_encoding(there: There) -> None:
    ssh = there.folder / "ssh"
    ssh.write_text(ssh.read_text().replace("echo 'recoup", "printf 'Gr\\374\\337e\\n'; echo 'recoup"))
    assert there.recover() == Exit.OK
    assert any("recoup recover" in one for one in there.scripts)


def test_a_terminal_is_asked_for_there_when_there_is_one_here(there: There) -> None:
    there.recover(terminal=True)
    there.recover()
    typed = [one for one in there.scripts if "recoup recover" in one]
    assert ["-t" in one.split() for one in typed] == [True, False]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """A laptop whose folder has a plan of another system, with a command. What was sent where is kept."""
    _system(tmp_path, f"provision: 'touch {tmp_path}/made'\n")
    (tmp_path / "recoup.key").write_text("ab" * 32 + "\n")
    (tmp_path / "recoup.key").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    found: list[Any] = []

    def keep(remote: Remote, _: object) -> Exit:
        found.append(remote)
        return Exit.OK

    monkeypatch.setattr(recover_host, "recover_there", keep)
    monkeypatch.setattr(asking, "somebody_is_here", lambda: True)
    return found


@pytest.mark.parametrize(
    "mode",
    [
        {"what": "server-loss", "dry_run": True},
        {"resume": True},
        {"show": True},
        {"close": True},
        {"rollback": True},
        {"abandon": True, "because": "no"},
        {"what": "application-loss"},
    ],
)
def test_only_a_recovery_that_begins_on_a_new_server_makes_one(
    mode: dict[str, Any], sent: list[Any], tmp_path: Path
) -> None:
    asked = Asked(host="ssh://root@new", source="s3://nowhere/shop", key_file=Path("recoup.key"), yes=True, **mode)
    assert on_host(Output(), asked) == Exit.OK
    assert not (tmp_path / "made").exists()
    [remote] = sent
    assert remote.host == Host(name="new", user="root")
    assert remote.looks == bool(mode.get("show") or mode.get("dry_run"))
    assert remote.from_here.endswith("--from s3://nowhere/shop --key-file recoup.key --host ssh://root@new")
    assert not remote.terminal, "what it prints goes into no terminal"


@pytest.mark.parametrize(("code", "kept"), [(0, False), (3, True)])
def test_what_runs_there_goes_on_without_a_reader_and_removes_its_key_when_all_is_well(
    tmp_path: Path, code: int, kept: bool
) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "environment").write_text("export SECRET=here\n")
    work = f"sh -c 'echo begun >&2; sleep 0.5; echo more >&2; echo $SECRET; echo > {tmp_path}/done; exit {code}'"
    script = _script(work, str(place), goes_on=True)
    heard = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (heard.returncode, heard.stdout, heard.stderr) == (code, "here\n", "begun\nmore\n")
    assert place.exists() == kept
    (tmp_path / "done").unlink()
    place.mkdir(exist_ok=True)
    (place / "environment").write_text("")
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        assert deaf.stderr is not None
        deaf.stdout.close()
        deaf.stderr.close()
    assert deaf.returncode == code
    assert (tmp_path / "done").exists()
    assert place.exists() == kept


def test_the_command_that_makes_the_server_gets_no_credentials_of_the_kit(
    sent: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("AWS_ENDPOINT_URL", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for name in names:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")  # it is the operator's own
    bucket = {"name": "far", "address": "s3://far/shop", "remote": True, "endpoint": "http://far.example"}
    bucket |= {"region": "eu-west-1", "access_key": "of the bucket", "secret_key": "its secret"}
    key = {"id": Key.from_text("ab" * 32).id[:16], "text": "ab" * 32}
    kit = {"schema": "recoup.kit/1", "system": "shop", "made": "2026-01-01T00:00:00Z", "recoup": __version__}
    kit |= {"repositories": [bucket], "key": key, "folder": "/srv", "compose": True, "holds_plan": True}
    (tmp_path / "kit.json").write_text(json.dumps(kit))
    made = _system(tmp_path, f"provision: [sh, -c, 'env > {tmp_path}/env; echo ssh://root@192.0.2.7']\n")
    monkeypatch.setattr(blank, "open_to_look", lambda _wish: (None, made))
    asked = with_kit(Asked(what="server-loss", host="ssh://root@tbd", kit=tmp_path / "kit.json", yes=True))
    assert on_host(Output(), asked) == Exit.OK
    given = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert {name: given[name] for name in names if name in given} == {"AWS_DEFAULT_REGION": "eu-north-1"}
    [remote] = sent
    there = {name: value.reveal() for name, value in remote.environment.items()}
    assert there["AWS_SECRET_ACCESS_KEY"] == "its secret", "the new server reads the bucket"
    assert remote.host.name == "192.0.2.7"
