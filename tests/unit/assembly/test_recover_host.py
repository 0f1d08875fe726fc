"""A recovery on another machine: where it is, and what is typed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.assembly.provision import provision
from recoup.assembly.recover_host import Host, parse_host
from recoup.assembly.system import System
from recoup.cli.recover_asked import Asked
from recoup.cli.recover_kit import words_there
from recoup.kernel.errors import EngineError, UsageError
from recoup.plan.load import load


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
