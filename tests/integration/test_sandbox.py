"""Sandboxes, with a real server in them: closed, and gone at the end, however their owner ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.host import wait_until
from recoup.engines.sandbox import Sandbox, clean_leftovers, open_sandbox
from recoup.engines.sandbox_processes import processes_of
from recoup.engines.sandbox_walls import Walls
from recoup.kernel.errors import EngineError
from recoup.kernel.process import Command, open_child, run, spawn
from tests.real import not_run, require, require_root


@pytest.fixture
def root(server_folder: Path) -> Path:
    return server_folder / "sandboxes"


@contextlib.contextmanager
def held(root: Path, stop: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another process that has got as far as ``stop``, and the id of its sandbox. It is killed at the end."""
    argv = [sys.executable, "-m", "tests.integration.held_sandbox", str(root), "15", stop]
    owner = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout is not None
        for line in owner.stdout:
            moment, identifier = line.split()
            if moment == stop:
                yield owner, identifier
                return
        raise AssertionError(f"it ended before it was {stop}")
    finally:
        owner.kill()
        owner.wait(120)


def nothing_left(root: Path) -> bool:
    return [path.name for path in root.iterdir()] == ["door.lock"]


# -- the end -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["opened", "started", "busy", "removing"])
def test_what_a_killed_owner_leaves_is_removed_by_the_next_one_and_nothing_else_is(root: Path, stop: str) -> None:
    with open_sandbox(root, "one that lives") as mine, open_child(mine.command(Command(argv=["cat"])), stdin=True):
        (mine.folder / "file").write_text("stays")
        with held(root, stop) as (owner, identifier):
            assert clean_leftovers(root) == (), "its owner lives"
            alive = processes_of(identifier)
            assert bool(alive) is (stop in ("started", "busy"))
            owner.send_signal(signal.SIGKILL)
            owner.wait(120)
            assert clean_leftovers(root) == (identifier,)
        assert processes_of(identifier) == []
        assert not (root / identifier).exists()
        assert processes_of(mine.id)
        assert (mine.folder / "file").read_text() == "stays"
    assert nothing_left(root)


def test_a_sandbox_leaves_nothing_when_it_ends_by_itself_or_by_an_error(root: Path) -> None:
    with contextlib.suppress(KeyError), open_sandbox(root, "a test") as sandbox:
        # A process that has left its family, and does not want to go.
        stubborn = "trap '' QUIT TERM; setsid sh -c \"trap '' QUIT TERM HUP; sleep 600\" & echo on; wait"
        with open(sandbox.folder / "log", "a+b") as log:
            spawn(sandbox.command(Command(argv=["sh", "-c", stubborn])), log=log)
        assert wait_until(lambda: (sandbox.folder / "log").read_bytes() == b"on\n", limit_seconds=120)
        raise KeyError
    assert processes_of(sandbox.id) == []
    assert nothing_left(root)
    assert clean_leftovers(root) == ()


def test_a_note_that_says_something_else_removes_nothing(root: Path, tmp_path: Path) -> None:
    root.mkdir()
    (root / "0123456789abcdef.json").write_text(f'{{"folder": "{tmp_path}"}}')
    with pytest.raises(EngineError, match="not a note"):
        clean_leftovers(root)
    assert tmp_path.is_dir()


def test_a_note_without_words_is_all_that_its_owner_left(root: Path) -> None:
    root.mkdir()
    (root / "0123456789abcdef.json").touch()
    assert clean_leftovers(root) == ("0123456789abcdef",)
    assert nothing_left(root)


def test_leftovers_that_cannot_be_removed_are_told_and_tried_again(root: Path) -> None:
    with held(root, "opened") as (_, identifier):
        pass

    def refuses(_: str) -> None:
        raise EngineError("the container does not go")

    with pytest.raises(EngineError, match="does not go"):
        clean_leftovers(root, elsewhere=refuses)
    assert (root / identifier).is_dir()
    assert clean_leftovers(root) == (identifier,)


def test_a_place_where_no_sandbox_can_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="cannot be made"), open_sandbox(tmp_path / "file", "a test"):
        raise AssertionError("not reached")


def test_where_the_servers_user_cannot_go_the_sandbox_is_as_near_as_it_can(root: Path) -> None:
    require_root("only root starts servers as somebody else")
    root.mkdir()
    root.chmod(0o700)
    os.chown(root, 0, 0)
    with open_sandbox(root, "a test") as sandbox:
        assert sandbox.folder.parent == root.parent
        run(sandbox.command(Command(argv=["touch", str(sandbox.folder / "made")])))
        assert (sandbox.folder / "made").exists()
    assert nothing_left(root)
    assert not sandbox.folder.exists()


# -- closed ------------------------------------------------------------------------------------------------------


def said(sandbox: Sandbox, script: str) -> str:
    return run(sandbox.command(Command(argv=["sh", "-c", script]))).stdout.decode()


def test_a_process_of_a_sandbox_is_nobody_and_knows_no_secret_of_ours(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("unshare")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    with open_sandbox(root, "a test") as sandbox:
        assert "planted" not in said(sandbox, "env; cat /proc/self/environ")
        assert said(sandbox, "id -u").strip() != "0"
        assert "CapEff:\t0000000000000000" in said(sandbox, "cat /proc/self/status")
        assert sandbox.open_ways == ""


def test_no_process_of_a_sandbox_reaches_a_socket_of_this_machine(root: Path, server_folder: Path) -> None:
    require("unshare")
    there = server_folder / "services"
    there.mkdir(mode=0o755)
    script = (
        "import socket, sys\n"
        "for family, address in ((socket.AF_INET, ('127.0.0.1', int(sys.argv[1]))), (socket.AF_UNIX, sys.argv[2]),\n"
        "                        (socket.AF_UNIX, chr(0) + sys.argv[3])):\n"
        "    with socket.socket(family) as one:\n"
        "        print(one.connect_ex(address))\n"
    )
    listeners = [socket.create_server(("127.0.0.1", 0))]
    abstract = f"recoup-test-{os.getpid()}"
    for address in (str(there / "socket"), f"\0{abstract}"):
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(address)
        listeners[-1].listen()
    (there / "socket").chmod(0o777)
    port = listeners[0].getsockname()[1]
    with contextlib.ExitStack() as closed, open_sandbox(root, "a test") as sandbox:
        for one in listeners:
            closed.callback(one.close)
        argv = [*("/usr/bin/python3", "-c", script), str(port), str(there / "socket"), abstract]
        outside = run(Command(argv=argv, user=sandbox.user, folder=Path("/"))).stdout.split()
        assert outside == [b"0", b"0", b"0"], "they would be reached without walls"
        inside = run(sandbox.command(Command(argv=argv))).stdout.split()
        assert len(inside) == 3
        assert b"0" not in inside


def test_an_ordinary_user_closes_a_sandbox_by_user_namespaces(tmp_path: Path) -> None:
    as_user = Walls(unshare=("--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"))
    with open_sandbox(tmp_path, "a test") as sandbox:
        script = "cat /proc/self/uid_map; grep CapEff /proc/self/status; ls -A /run; cat /proc/net/dev"
        try:
            inside = run(as_user.around(Command(argv=["sh", "-c", script]), sandbox.folder)).stdout.decode().split()
        except EngineError:
            not_run("user namespaces are not allowed here", "sysctl kernel.unprivileged_userns_clone=1")
    assert inside[:3] == [str(os.getuid()), "0", "1"], "itself, mapped twice"
    assert inside[3:5] == ["CapEff:", "0000000000000000"] or os.getuid() == 0
    assert [word for word in inside if word.endswith(":") and word != "CapEff:"] == ["lo:"]


def test_without_namespaces_a_sandbox_says_what_was_open(root: Path) -> None:
    with open_sandbox(root, "a test") as sandbox:
        bare = Sandbox(id=sandbox.id, folder=sandbox.folder, user=sandbox.user, walls=Walls(unshare=()))
        assert not bare.network_closed
        assert "network was open" in bare.open_ways
        assert said(bare, "id -u").strip() != "0"
        with open_child(bare.command(Command(argv=["sleep", "600"])), stdout=False):
            assert wait_until(lambda: bool(processes_of(sandbox.id)), limit_seconds=120)
