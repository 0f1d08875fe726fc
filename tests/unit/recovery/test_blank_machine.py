"""What a blank machine lacks, and what would install it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.recovery.blank_machine import (
    Lack,
    MachineFacts,
    Room,
    TakenPort,
    installing,
    lacks_of,
    read_distribution,
)

GOOD = MachineFacts(
    engine="28.1.1",
    compose="v2.40.3",
    needs_git=True,
    rooms=(Room(place="/var/lib/docker", needed_bytes=10, free_bytes=10),),
    ahead=timedelta(seconds=3),
    newest=timedelta(hours=-1),
)
DEBIAN_12 = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'
DEBIAN_13 = 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n'
UBUNTU = "ID=ubuntu\nID_LIKE=debian\nVERSION_ID='24.04'\n"
MINT = "ID=linuxmint\nID_LIKE='ubuntu debian'\n"
DOCKER = Lack(what="Docker is not installed", hint="", part="docker")
COMPOSE = Lack(what="docker has no Compose plugin", hint="", part="compose")


def said(facts: MachineFacts) -> list[str]:
    return [one.what for one in lacks_of(facts)]


def test_a_machine_that_has_everything_lacks_nothing() -> None:
    assert lacks_of(GOOD) == ()


def test_everything_that_is_missing_is_named_at_once_and_each_says_what_to_do() -> None:
    facts = replace(
        GOOD,
        engine=None,
        compose=None,
        git=False,
        rooms=(Room(place="/srv", needed_bytes=2 << 30, free_bytes=1 << 30),),
        ports=(TakenPort(port=443, protocol="tcp", service="proxy", why="address already in use"),),
        ahead=timedelta(minutes=-20),
    )
    assert said(facts) == [
        "Docker is not installed",
        "docker has no Compose plugin",
        "git is not installed, and the stack's source is kept by it",
        "/srv has 1.0 GiB free, and 2.0 GiB come there",
        "port 443/tcp, which proxy publishes, is not free: address already in use",
        "the clock is 20 min behind the repository's",
    ]
    assert all(one.hint for one in lacks_of(facts))


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        (replace(GOOD, engine="19.03.15"), "the Docker engine is 19.03.15, and 20.10 is the oldest that will do"),
        (replace(GOOD, compose="2.18.1"), "Docker Compose is 2.18.1, and 2.19 is the oldest that will do"),
        (replace(GOOD, ahead=timedelta(minutes=6)), "the clock is 6 min ahead of the repository's"),
        (
            replace(GOOD, ahead=None, newest=timedelta(minutes=30)),
            "the clock is behind: the newest copy is 30 min in its future",
        ),
    ],
)
def test_what_is_too_old_or_off_is_told_with_its_numbers(facts: MachineFacts, what: str) -> None:
    assert said(facts) == [what]


@pytest.mark.parametrize("version", ["20.10.24+dfsg1", "28.1.1", "v20.10", "unknown"])
def test_a_version_that_will_do_or_cannot_be_read_is_no_hindrance(version: str) -> None:
    assert said(replace(GOOD, engine=version)) == []
    assert said(replace(GOOD, compose="2.19" if version == "v20.10" else version)) == []


def test_without_a_stack_docker_is_not_asked_for() -> None:
    assert said(replace(GOOD, needs_docker=False, engine=None, compose=None)) == []


def test_a_distribution_installs_with_its_own_program_only_what_is_missing() -> None:
    found = installing(read_distribution(UBUNTU), [DOCKER, COMPOSE])
    assert found.commands[0] == ("apt-get", "update")
    assert found.commands[1][-2:] == ("docker.io", "docker-compose-v2")
    assert found.commands[-1] == ("systemctl", "enable", "--now", "docker")
    git = installing(read_distribution(DEBIAN_12), [Lack(what="git", hint="", part="git")])
    assert git.commands[-1][-1] == "git"
    assert installing(read_distribution(MINT), [DOCKER]).commands[1][-1] == "docker.io"


def test_where_no_package_has_it_the_way_to_docker_is_said_and_nothing_is_run() -> None:
    old = installing(read_distribution(DEBIAN_12), [DOCKER, COMPOSE])
    assert old.commands == ()
    assert "docs.docker.com/engine/install/debian" in old.why_not
    assert installing(read_distribution(DEBIAN_13), [DOCKER, COMPOSE]).commands
    odd = installing(read_distribution("ID=plan9\nPRETTY_NAME='Plan 9'"), [DOCKER])
    assert odd.commands == ()
    assert "Plan 9" in odd.why_not


@given(st.text())
def test_any_text_can_be_read_as_os_release_and_never_installs_what_is_not_asked_for(text: str) -> None:
    found = read_distribution(text)
    assert installing(found, []).commands == ()
    assert installing(found, [Lack(what="port", hint="")]).commands == ()
