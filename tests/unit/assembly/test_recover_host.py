"""A recovery on another machine: where it is, and what is typed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.assembly.recover_host import Host, parse_host
from recoup.cli.recover_asked import Asked
from recoup.cli.recover_kit import words_there
from recoup.kernel.errors import UsageError


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
