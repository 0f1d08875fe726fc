"""Taking a copy through the server's own redis-cli, and restoring into a folder by the shell script."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.engines.redis.check_copy import check_rdb_copy
from recoup.engines.redis.fingerprint import compare
from recoup.engines.redis.program import RedisProgram, take_rdb_by_program
from recoup.engines.redis.restore_folder import FolderLayout
from recoup.engines.redis.restore_script import (
    EXIT_DAMAGED,
    EXIT_REFUSED,
    FORGET,
    PUT_BACK,
    kept_folder,
    restore_argv,
)
from recoup.kernel.errors import DamageError, EngineError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.process import Command, Completed, LocalRunner, run
from recoup.kernel.secret import Secret
from tests.integration.redis_copies import MemoryCopy, fill, fingerprint_now, ignore, take
from tests.real import require, require_found

pytestmark = pytest.mark.redis

_ID = "20261123-020000-k7f3q2.abc123"


def _cli(major: int) -> str:
    """The redis-cli of that server's own package; Debian's for 7 and 8."""
    return str(find_redis(6).path.with_name("redis-cli")) if major == 6 else str(require("redis-cli"))


def _program(server: RedisServer, cli: str, password: str | None = None) -> RedisProgram:
    secret = Secret(server.password if password is None else password)
    return RedisProgram(runner=LocalRunner(), password=secret, program=cli, arguments=("-p", str(server.port)))


@pytest.mark.parametrize("major", [6, 7, 8])
@pytest.mark.parametrize("diskless", ["yes", "no"])
def test_a_copy_by_program_equals_one_by_handshake(major: int, diskless: str, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(f"redis{major}")
    fill(server)
    reference = take(server)
    assert reference.fingerprint is not None
    with contextlib.closing(server.client()) as client:
        before = client.config_get("repl-diskless-sync")["repl-diskless-sync"]
        client.config_set("repl-diskless-sync", diskless)
    copy = MemoryCopy()
    try:
        copy.taken = take_rdb_by_program(_program(server, _cli(major)), copy, on_progress=ignore)
    finally:
        with contextlib.closing(server.client()) as client:
            client.config_set("repl-diskless-sync", before)
    assert copy.facts["diskless"] is (diskless == "yes")
    assert copy.facts["settings"] == reference.facts["settings"]
    assert copy.facts["keys"] == reference.facts["keys"]
    assert overall(check_rdb_copy(copy)) is Verdict.OK
    assert copy.fingerprint is not None
    assert overall(compare(reference.fingerprint, fingerprint_now(server, reference.fingerprint))) is Verdict.OK
    assert copy.fingerprint["databases"]["0"]["list"] == reference.fingerprint["databases"]["0"]["list"]


def test_a_program_too_old_for_standard_output_uses_a_file_and_leaves_none(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(redis7)
    old = tmp_path / "redis-cli"
    old.write_text(
        f'#!/bin/sh\nif [ "$*" = --version ] || [ "$3" = --version ]; then echo "redis-cli 5.0.14"; exit; fi\n'
        f'exec {_cli(7)} "$@"\n'
    )
    old.chmod(0o755)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    copy = MemoryCopy()
    copy.taken = take_rdb_by_program(_program(redis7, str(old)), copy, on_progress=ignore)
    assert overall(check_rdb_copy(copy)) is Verdict.OK
    assert not list((tmp_path / "tmp").iterdir())


def test_a_wrong_password_is_refused_with_a_hint_and_not_shown(redis7: RedisServer) -> None:
    with pytest.raises(EngineError) as caught:
        take_rdb_by_program(_program(redis7, _cli(7), "not the password"), MemoryCopy(), on_progress=ignore)
    assert "not the password" not in str(caught.value) + str(caught.value.hint)
    assert caught.value.hint is not None


@pytest.mark.parametrize("major", [6, 7])
def test_a_password_the_server_does_not_ask_for_is_refused_with_a_hint(major: int) -> None:
    server = RedisServer(require_found(lambda: find_redis(major)), password="")
    with server, pytest.raises(EngineError) as caught:
        take_rdb_by_program(_program(server, _cli(major), "not asked for"), MemoryCopy(), on_progress=ignore)
    assert "no password" in (caught.value.hint or "")


@pytest.mark.parametrize("how", ["ends early and well", "ends badly"])
def test_a_program_that_does_not_send_the_whole_rdb_fails(how: str, redis7: RedisServer, tmp_path: Path) -> None:
    fill(redis7)
    broken = tmp_path / "redis-cli"
    end = "exit 0" if how == "ends early and well" else "exit 1"
    broken.write_text(
        f'#!/bin/sh\ncase "$*" in *--rdb*) {_cli(7)} "$@" 2>/dev/null | head -c 100000; {end};; esac\n'
        f'exec {_cli(7)} "$@"\n'
    )
    broken.chmod(0o755)
    copy = MemoryCopy()
    with pytest.raises(DamageError if end == "exit 0" else EngineError):
        take_rdb_by_program(_program(redis7, str(broken)), copy, on_progress=ignore)
    assert copy.discarded


# The script. What is said of it here is said of restore_folder in test_redis_copies.


@pytest.fixture(params=["sh", "busybox sh"])
def shell(request: pytest.FixtureRequest) -> list[str]:
    """The shells of the images: Debian's, and busybox's of Alpine, with its own small programs."""
    words = str(request.param).split()
    require(words[0])
    return words


def _run_script(shell: list[str], argv: list[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
    assert argv[0] == "sh"
    return subprocess.run([*shell, *argv[1:]], input=data, capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize("appendonly", [False, True], ids=["rdb", "aof"])
@pytest.mark.parametrize("major", [6, 7, 8])
def test_the_script_restores_and_keeps_what_it_replaces(
    major: int, appendonly: bool, shell: list[str], redis6: RedisServer
) -> None:
    fill(redis6)
    copy = take(redis6)
    assert copy.fingerprint is not None
    with RedisServer(require_found(lambda: find_redis(major)), appendonly=appendonly) as server:
        with contextlib.closing(server.client()) as client:
            client.set("old", "data")
            client.bgrewriteaof() if appendonly else client.save()
        server.stop()
        layout = FolderLayout(appendonly=appendonly, server_version=str(major))

        def argv(*, force: bool) -> list[str]:
            size = len(copy.data)
            return restore_argv(str(server.folder), layout, expected_bytes=size, restore_id=_ID, force=force)

        before = _tree(server.folder)
        refused = _run_script(shell, argv(force=False), copy.data)
        assert refused.returncode == EXIT_REFUSED
        assert b"holds data already" in refused.stderr
        assert _run_script(shell, argv(force=True), copy.data[:-1]).returncode == EXIT_DAMAGED
        assert _tree(server.folder) == before
        completed = run(Command(argv=[*shell, *argv(force=True)[1:]]), stdin=copy.data)
        kept = kept_folder(completed)
        assert kept == f"recoup-replaced-{_ID}"
        assert {f"{kept}/{name}" for name in before} <= set(_tree(server.folder))
        assert all(path.stat().st_uid == server.folder.stat().st_uid for path in server.folder.rglob("*"))
        server.start()
        assert overall(compare(copy.fingerprint, fingerprint_now(server, copy.fingerprint))) is Verdict.OK
        with contextlib.closing(server.client()) as client:
            client.set("written", 1)
        if appendonly:
            server.stop()
            server.start()
            with contextlib.closing(server.client()) as client:
                assert client.get("written") == b"1"


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _states(folder: Path) -> Iterator[str]:
    yield from (name for name in os.listdir(folder) if not name.startswith("recoup-replaced-"))


def test_each_scripted_restore_keeps_what_it_replaces_once_and_is_done_once(shell: list[str], tmp_path: Path) -> None:
    data = b"REDIS0009\xff" + bytes(8)
    layout = FolderLayout(appendonly=True, server_version="7")
    for name, expected in (
        ("a", None),
        ("b", "recoup-replaced-b"),
        ("b", "recoup-replaced-b"),
        ("c", "recoup-replaced-c"),
    ):
        argv = restore_argv(str(tmp_path), layout, expected_bytes=len(data), restore_id=name, force=True)
        completed = run(Command(argv=[*shell, *argv[1:]]), stdin=data)
        assert kept_folder(completed) == expected
        assert sorted(_states(tmp_path)) == [".recoup-placed", "appendonlydir"]
    assert sorted(os.listdir(tmp_path / "appendonlydir")) == ["appendonly.aof.3.base.rdb", "appendonly.aof.manifest"]


def test_a_scripted_restore_is_undone_and_what_was_kept_is_forgotten(shell: list[str], tmp_path: Path) -> None:
    data = b"REDIS0009\xff" + bytes(8)
    layout = FolderLayout(appendonly=True, server_version="7")
    (tmp_path / "dump.rdb").write_bytes(b"old")

    def script(text: str, *arguments: str, expect: int = 0) -> Completed:
        argv = [*shell, "-c", text, "recoup", str(tmp_path), *arguments]
        return run(Command(argv=argv), stdin=b"", expect=(expect,))

    script(PUT_BACK, "a", *layout.names, expect=1)
    assert (tmp_path / "dump.rdb").read_bytes() == b"old", "nothing was replaced, so nothing is put back"
    argv = restore_argv(str(tmp_path), layout, expected_bytes=len(data), restore_id="a", force=True)
    run(Command(argv=[*shell, *argv[1:]]), stdin=data)
    assert "are not those that b put" in script(PUT_BACK, "b", *layout.names, expect=1).stderr
    for _ in range(2):
        assert kept_folder(script(PUT_BACK, "a", *layout.names)) == "recoup-replaced-a.back"
        assert (tmp_path / "dump.rdb").read_bytes() == b"old"
        assert sorted(_states(tmp_path)) == [".recoup-placed", "dump.rdb"]
    assert (tmp_path / "recoup-replaced-a.back/appendonlydir/appendonly.aof.1.base.rdb").read_bytes() == data
    assert script(FORGET, "a").stdout == b"removed recoup-replaced-a.back\n"
    assert script(FORGET, "a").stdout == b""
    assert sorted(os.listdir(tmp_path)) == [".recoup-placed", "dump.rdb"]
    for name in ("first.run", "second.run", "second.another"):  # as a kill leaves them while the copy comes in
        (tmp_path / f".recoup-restore-{name}").mkdir()
        (tmp_path / f".recoup-restore-{name}/copy.rdb").write_bytes(data[:5])
    removed = [f"removed .recoup-restore-{name}" for name in ("first.run", "second.run")]
    assert script(FORGET, "second.run").stdout.decode().splitlines() == removed, "the first was chosen before"
    assert sorted(os.listdir(tmp_path)) == [".recoup-placed", ".recoup-restore-second.another", "dump.rdb"]
