"""``kill -9`` at every step of a restore into a data folder: the server finds the old data, or the new, and whole."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recoup.engines.redis.crc64 import crc64
from recoup.engines.redis.restore_folder import FolderLayout, restore_rdb_to_folder
from recoup.engines.redis.restore_script import PUT_BACK, restore_argv
from tests.integration.redis_copies import MemoryCopy

_LAYOUTS = {
    "rdb": FolderLayout(appendonly=False, server_version="7.0"),
    "log": FolderLayout(appendonly=True, server_version="6.2"),
    "multi-part": FolderLayout(appendonly=True, server_version="7.0"),
}
_MOST_STEPS = 150
_ID = "20261123-020000-k7f3q2.abc123"

# For N = 1, 2, 3 ...: a child that restores into folder number N and kills itself just before its N-th act on the file
# system. Ends when one came through; says how each ended.
_DRIVER = """
import os, signal, sys
from pathlib import Path
from recoup.engines.redis.restore_folder import FolderLayout, restore_rdb_to_folder
from tests.integration.redis_copies import MemoryCopy
root, mode, version = Path(sys.argv[1]), *sys.argv[2:]
data, layout = (root / "new.rdb").read_bytes(), FolderLayout(appendonly=mode != "rdb", server_version=version)
ACTS = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.chown", "os.listdir", "os.scandir"}

def restore(folder, last):
    seen = 0
    def watch(event, arguments):
        nonlocal seen
        if event in ACTS or event == "open" and str(arguments[0]).startswith(str(folder)):
            seen += 1
            if seen == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    restore_rdb_to_folder(MemoryCopy(data), folder, layout, force=True)

for last in range(1, 1000):
    child = os.fork()
    if not child:
        restore(root / f"data-{last}", last)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status)
    if status != -signal.SIGKILL:
        break
"""


def _rdb(word: bytes) -> bytes:
    data = b"REDIS0009" + b"\x00\x03key" + bytes([len(word)]) + word + b"\xff"
    return data + crc64(data).to_bytes(8, "little")


_OLD, _NEW = _rdb(b"old"), _rdb(b"new")


def _before(folder: Path, mode: str) -> None:
    """A data folder as a server leaves it, with every kind of file in it."""
    folder.mkdir()
    (folder / "dump.rdb").write_bytes(_OLD)
    if mode == "log":
        (folder / "appendonly.aof").write_bytes(_OLD)
    if mode == "multi-part":
        log = folder / "appendonlydir"
        log.mkdir()
        (log / "appendonly.aof.4.base.rdb").write_bytes(_OLD)
        (log / "appendonly.aof.4.incr.aof").write_bytes(b"")
        (log / "appendonly.aof.manifest").write_text(
            "file appendonly.aof.4.base.rdb seq 4 type b\nfile appendonly.aof.4.incr.aof seq 4 type i\n"
        )


def _loaded(folder: Path, mode: str) -> bytes:
    """What a server with that configuration would load from the folder."""
    if mode == "rdb":
        return (folder / "dump.rdb").read_bytes()
    if mode == "log":
        return (folder / "appendonly.aof").read_bytes()
    log = folder / "appendonlydir"
    names = [line.split()[1] for line in (log / "appendonly.aof.manifest").read_text().splitlines()]
    return b"".join((log / name).read_bytes() for name in names)


def _old_is_kept(folder: Path) -> bool:
    return any(path.read_bytes() == _OLD for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("mode", list(_LAYOUTS))
def test_a_restore_killed_at_any_step_leaves_the_old_or_the_new_and_can_be_repeated(mode: str, tmp_path: Path) -> None:
    layout = _LAYOUTS[mode]
    (tmp_path / "new.rdb").write_bytes(_NEW)
    for last in range(1, _MOST_STEPS):
        _before(tmp_path / f"data-{last}", mode)
    said = subprocess.run(
        [sys.executable, "-c", _DRIVER, str(tmp_path), mode, layout.server_version],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        timeout=120,
        check=True,
    ).stdout
    endings = [int(line) for line in said.split()]
    assert endings[-1] == 0
    assert set(endings[:-1]) == {-signal.SIGKILL}
    assert len(endings) > 10
    loaded = [_loaded(tmp_path / f"data-{last}", mode) for last in range(1, len(endings) + 1)]
    assert loaded == sorted(loaded, reverse=True)  # first the old, from one step on the new, never anything else
    assert set(loaded) == {_OLD, _NEW}
    assert loaded[-1] == _NEW
    for last in range(1, len(endings)):
        folder = tmp_path / f"data-{last}"
        assert _old_is_kept(folder)
        restore_rdb_to_folder(MemoryCopy(_NEW), folder, layout, force=True)
        assert _loaded(folder, mode) == _NEW
        assert not list(folder.glob(".recoup-restore-*"))
        assert _old_is_kept(folder)


@pytest.mark.parametrize("mode", list(_LAYOUTS))
def test_a_scripted_restore_killed_at_any_step_leaves_the_old_or_the_new(mode: str, tmp_path: Path) -> None:
    programs, seen = _deadly(tmp_path), set()
    for last in range(1, _MOST_STEPS):
        folder = tmp_path / f"data-{last}"
        _before(folder, mode)
        argv = restore_argv(str(folder), _LAYOUTS[mode], expected_bytes=len(_NEW), restore_id=_ID, force=True)
        ended = _killed_at(last, argv, programs)
        loaded = _loaded(folder, mode)
        assert loaded in (_OLD, _NEW)
        assert _old_is_kept(folder)
        seen.add(loaded)
        if ended == 0:
            assert loaded == _NEW
            break
        assert ended == -signal.SIGKILL
        again = subprocess.run(argv, input=_NEW, timeout=120, check=False)
        assert again.returncode == 0
        assert _loaded(folder, mode) == _NEW
        assert not list(folder.glob(".recoup-restore-*"))
        assert _old_is_kept(folder)
        assert len(list(folder.glob("recoup-replaced-*"))) == 1, "repeating it keeps the old data once"
    else:
        pytest.fail(f"not done after {_MOST_STEPS} steps")
    assert last > 10
    assert seen == {_OLD, _NEW}


@pytest.mark.parametrize("mode", list(_LAYOUTS))
def test_a_restore_that_is_undone_keeps_both_whenever_it_is_killed(mode: str, tmp_path: Path) -> None:
    programs, layout = _deadly(tmp_path), _LAYOUTS[mode]
    for last in range(1, _MOST_STEPS):
        folder = tmp_path / f"data-{last}"
        _before(folder, mode)
        argv = restore_argv(str(folder), layout, expected_bytes=len(_NEW), restore_id=_ID, force=True)
        subprocess.run(argv, input=_NEW, timeout=120, check=True, capture_output=True)
        argv = ["sh", "-c", PUT_BACK, "recoup", str(folder), _ID, *layout.names]
        ended = _killed_at(last, argv, programs)
        content = {path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert {_OLD, _NEW} <= content, f"killed at {last}: something is lost"
        assert subprocess.run(argv, timeout=120, check=False, capture_output=True).returncode == 0
        assert _loaded(folder, mode) == _OLD
        assert (folder / "dump.rdb").read_bytes() == _OLD
        assert [one.name for one in folder.glob("recoup-replaced-*")] == [f"recoup-replaced-{_ID}.back"]
        assert not (folder / ".recoup-placing").exists()
        if ended == 0:
            break
    else:
        pytest.fail(f"not done after {_MOST_STEPS} steps")
    assert last > 10


def _deadly(folder: Path) -> Path:
    """Every program that a script calls, wrapped: the wrapper counts, and kills the script instead of the N-th call."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("mkdir", "cat", "wc", "head", "sync", "ln", "mv", "rm", "rmdir", "chown", "stat", "id"):
        wrapper = programs / name
        wrapper.write_text(
            f'#!/bin/sh\nread n <"$COUNT"; n=$((n + 1)); echo $n >"$COUNT"\n'
            f'if [ $n -eq "$LAST" ]; then kill -9 "$SCRIPT"; exit 1; fi\nPATH=$REAL exec {name} "$@"\n'
        )
        wrapper.chmod(0o755)
    return programs


def _killed_at(last: int, argv: list[str], programs: Path) -> int:
    """Run a script, killed at its call number ``last``; how it ended."""
    count, path = programs.parent / "count", os.environ["PATH"]
    count.write_text("0\n")
    marked = [*argv[:2], "SCRIPT=$$; export SCRIPT\n" + argv[2], *argv[3:]]
    environment = {"PATH": f"{programs}:{path}", "REAL": path, "COUNT": str(count), "LAST": str(last)}
    done = subprocess.run(marked, input=_NEW, env=environment, capture_output=True, timeout=120, check=False)
    return done.returncode
