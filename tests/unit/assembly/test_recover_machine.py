"""The step that looks at a blank machine: nothing is installed silently, and ports and room are really looked at."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.assembly.recover import machine as recover_machine
from recoup.assembly.recover.machine import _cannot, _install, _why_taken
from recoup.engines.compose.project import Port
from recoup.kernel.errors import EngineError
from recoup.recovery.blank_machine import Lack, MachineFacts

DOCKER = Lack(what="Docker is not installed", hint="install it", part="docker")
DISK = Lack(what="/srv has 1 GiB free", hint="Free space.")
NOTHING = MachineFacts(engine=None, compose=None)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Ubuntu whose package program and service manager write down what they are asked for."""
    (tmp_path / "os-release").write_text("ID=ubuntu\nVERSION_ID=24.04\n")
    monkeypatch.setattr(recover_machine, "_OS_RELEASE", (tmp_path / "os-release",))
    for name in ("apt-get", "systemctl"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {tmp_path}/log\n')
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def recovery(said: list[str]) -> Any:
    return cast("Any", SimpleNamespace(voice=SimpleNamespace(say=said.append)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_every_command_is_said_before_the_first_is_run(machine: Path) -> None:
    said: list[str] = []
    done = _install(recovery(said), [DOCKER, DISK])
    ran = (machine / "log").read_text().splitlines()
    assert ran == list(done)
    assert said == [f"installing: {one}" for one in ran]
    assert ran[1].endswith("docker.io")
    assert ran[-1] == "systemctl enable --now docker"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_an_installation_that_fails_ends_in_the_words_of_the_program(machine: Path) -> None:
    (machine / "apt-get").write_text("#!/bin/sh\necho 'no network' >&2\nexit 100\n")
    with pytest.raises(EngineError, match="no network"):
        _install(recovery([]), [DOCKER])


def test_without_install_the_commands_are_shown_and_not_run(machine: Path) -> None:
    error = _cannot(NOTHING, [DOCKER, DISK])
    assert "Docker is not installed; /srv has 1 GiB free" in error.message
    assert "add --install, or type: apt-get update && apt-get install" in str(error.hint)
    assert "Free space." in str(error.hint)
    assert not (machine / "log").exists()


def test_a_system_that_is_not_known_is_sent_to_docker_and_nothing_is_guessed(machine: Path) -> None:
    (machine / "os-release").write_text("ID=plan9\n")
    with pytest.raises(EngineError) as raised:
        _install(recovery([]), [DOCKER])
    assert "docs.docker.com" in str(raised.value.hint)


def test_a_port_is_taken_when_somebody_listens_and_free_when_nobody_does(free_port: int) -> None:
    number = free_port
    with socket.create_server(("127.0.0.1", number)):
        assert _why_taken(Port(target=80, published=number, host="127.0.0.1")) == "address already in use"
        assert _why_taken(Port(target=80, published=number)) == "address already in use"
    assert _why_taken(Port(target=80, published=number, host="127.0.0.1")) is None
    assert _why_taken(Port(target=80, published=None)) is None
    assert _why_taken(Port(target=80, published=number, host="203.0.113.9")) == "cannot assign requested address"


def test_a_port_that_only_root_may_bind_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class OfAUser(socket.socket):
        def bind(self, address: Any) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "socket", OfAUser)
    assert _why_taken(Port(target=80, published=443)) is None, "the engine binds it, and it is root"
