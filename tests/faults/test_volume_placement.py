"""The scripts that put a base backup into a container's volume, killed at every command that changes something."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from recoup.engines.postgres import recovery_volume, volume_script
from recoup.engines.postgres.volume_script import SWAP, parse_status

ID = "20261123-020000-k7f3q2.abc123"
_ANOTHER = "20261123-020000-k7f3q2.xyz789"
_CHANGING = ("mv", "mkdir", "rmdir", "chown", "chmod", "rm", "tar")
_OLD = 7123456789012345678
_NEW = 7999999999999999999


def _control(identifier: int) -> bytes:
    return identifier.to_bytes(8, "little") + bytes(8184)


def _backup() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        files = {"PG_VERSION": b"15\n", "base/1/112": b"new row", ".hidden": b"", "global/pg_control": _control(_NEW)}
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with an old cluster in it."""
    folder = tmp_path / "data"
    (folder / "global").mkdir(parents=True)
    (folder / "base/1").mkdir(parents=True)
    (folder / "PG_VERSION").write_text("15\n")
    (folder / "global/pg_control").write_bytes(_control(_OLD))
    (folder / "base/1/112").write_bytes(b"old row")
    (folder / ".profile").write_bytes(b"old")
    folder.chmod(0o700)
    return folder


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    """A folder of programs that count their calls and kill the script that calls number ``$DEADLY``, before acting."""
    folder = tmp_path / "deadly"
    folder.mkdir()
    for name in _CHANGING:
        real = shutil.which(name)
        assert real is not None
        program = folder / name
        program.write_text(
            "#!/bin/sh\n"
            f"n=$(cat {tmp_path}/calls 2>/dev/null || echo 0); n=$((n + 1)); echo $n > {tmp_path}/calls\n"
            '[ "$n" -ne "$DEADLY" ] || kill -9 $PPID\n'
            f'[ "$n" -eq "$DEADLY" ] || exec {real} "$@"\n'
        )
        program.chmod(0o755)
    return folder


def _run(
    script: str, data: Path, *, stdin: bytes = b"", path: Sequence[Path] = (), deadly: int = 0, restore_id: str = ID
) -> int:
    environment = {"PATH": ":".join([*map(str, path), os.environ["PATH"]]), "DEADLY": str(deadly)}
    return run_script(script, data, restore_id, stdin=stdin, environment=environment).returncode


def run_script(
    script: str, data: Path, restore_id: str, *, stdin: bytes = b"", environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a script as it runs in a container."""
    argv = ["sh", "-c", script, "recoup", str(data), restore_id]
    return subprocess.run(argv, input=stdin, env=environment, capture_output=True, check=False, timeout=120)


def _status(data: Path) -> volume_script.VolumeStatus:
    said = subprocess.run(
        ["sh", "-c", volume_script.STATUS, "recoup", str(data), "look"], capture_output=True, check=True, timeout=60
    )
    return parse_status(said.stdout)


def _kept(data: Path) -> Path:
    return data / f"{volume_script.REPLACED}{ID}"


def _require_placed(data: Path) -> None:
    status = _status(data)
    assert status.cluster is not None
    assert status.cluster[0] == str(_NEW)
    assert status.placing is None
    assert (data / "base/1/112").read_bytes() == b"new row"
    assert (data / ".hidden").exists()
    assert not (data / ".profile").exists()
    assert (_kept(data) / "base/1/112").read_bytes() == b"old row"
    assert (_kept(data) / ".profile").read_bytes() == b"old"
    assert (_kept(data) / "global/pg_control").read_bytes() == _control(_OLD)
    assert not (data / volume_script.INCOMING).exists()


def test_a_placement_sets_the_old_aside_and_leaves_only_names_that_base_backups_skip(data: Path) -> None:
    assert _run(volume_script.STAGE, data, stdin=_backup()) == 0
    before = _status(data)
    assert before.cluster is not None
    assert before.cluster[0] == str(_OLD), "until the swap the old data are untouched"
    assert _run(SWAP, data) == 0
    _require_placed(data)
    left = {entry.name for entry in data.iterdir() if "recoup" in entry.name}
    assert left == {_kept(data).name, volume_script.PLACED}
    assert all(name.startswith("pgsql_tmp") for name in left)


def test_the_old_cluster_survives_a_staging_that_is_killed_at_any_command(
    data: Path, deadly: Path, tmp_path: Path
) -> None:
    number = 1
    while True:
        (tmp_path / "calls").unlink(missing_ok=True)
        status = _run(volume_script.STAGE, data, stdin=_backup(), path=[deadly], deadly=number)
        found = _status(data)
        assert found.cluster is not None
        assert found.cluster[0] == str(_OLD)
        assert found.placing is None
        if status == 0:
            break
        assert status == -9
        number += 1
    assert number > 4
    assert _run(SWAP, data) == 0
    _require_placed(data)


@pytest.mark.parametrize("interrupted", [volume_script.STAGE, recovery_volume.DISCARD])
def test_what_a_kill_left_unpacked_is_removed_by_forgetting_that_restore_and_by_no_other(
    data: Path, deadly: Path, tmp_path: Path, interrupted: str
) -> None:
    original = _names(data)
    number, status = 0, -9
    while status != 0:
        number += 1
        assert _run(volume_script.STAGE, data, stdin=_backup()) == 0
        (tmp_path / "calls").unlink(missing_ok=True)
        status = _run(interrupted, data, stdin=_backup(), path=[deadly], deadly=number)
        assert status in (0, -9)
        left = _names(data)
        assert _run(volume_script.FORGET, data, restore_id=_ANOTHER) == 0
        assert _names(data) == left, f"killed at command {number}: what is of another restore is left alone"
        assert _run(volume_script.FORGET, data) == 0
        assert _names(data) == original, f"killed at command {number}: something stays"
    assert number > 2


def test_a_restore_that_clears_another_one_s_copy_away_never_takes_it_for_its_own_nor_leaves_it_to_nobody(
    data: Path, deadly: Path, tmp_path: Path
) -> None:
    original = _names(data)
    number, status = 0, -9
    while status != 0:
        number += 1
        assert _run(volume_script.STAGE, data, stdin=_backup(), restore_id=_ANOTHER) == 0
        (data / volume_script.INCOMING / "of-another").touch()
        (tmp_path / "calls").unlink(missing_ok=True)
        status = _run(volume_script.STAGE, data, stdin=_backup(), path=[deadly], deadly=number)
        theirs = (data / volume_script.INCOMING / "of-another").exists()
        assert _run(volume_script.FORGET, data) == 0
        assert (data / volume_script.INCOMING / "of-another").exists() is theirs
        assert _run(volume_script.FORGET, data, restore_id=_ANOTHER) == 0
        assert _names(data) == original, f"killed at command {number}: something stays"
    assert number > 2


def test_what_a_recovery_has_unpacked_is_forgotten_also_when_it_chose_another_copy_since(data: Path) -> None:
    original = _names(data)
    assert _run(volume_script.STAGE, data, stdin=_backup(), restore_id="20261124-020000-zzzzzz.abc123") == 0
    assert _run(volume_script.FORGET, data) == 0
    assert _names(data) == original, "the end of the id is that of the run"


def test_what_another_restore_has_unpacked_is_not_put_in_place(data: Path) -> None:
    assert _run(volume_script.STAGE, data, stdin=_backup(), restore_id=_ANOTHER) == 0
    before = _names(data)
    refused = run_script(SWAP, data, ID)
    assert refused.returncode == 1
    assert f"is of {_ANOTHER}, not of {ID}".encode() in refused.stderr
    assert _names(data) == before
    assert _run(SWAP, data, restore_id=_ANOTHER) == 0


def test_what_a_recoup_that_left_no_mark_has_unpacked_is_put_in_place_and_never_removed_as_ours(data: Path) -> None:
    assert _run(volume_script.STAGE, data, stdin=_backup()) == 0
    (data / volume_script.STAGED_BY).unlink()
    assert _run(volume_script.FORGET, data) == 0
    assert (data / volume_script.INCOMING).is_dir()
    assert _run(SWAP, data) == 0
    _require_placed(data)


def _names(data: Path) -> set[str]:
    return {entry.name for entry in data.iterdir()}


def test_a_swap_killed_at_any_command_cannot_start_and_the_same_swap_finishes_it(
    data: Path, deadly: Path, tmp_path: Path
) -> None:
    number, original = 1, tmp_path / "original"
    assert _run(volume_script.STAGE, data, stdin=_backup()) == 0
    shutil.copytree(data, original, symlinks=True)
    while True:
        (tmp_path / "calls").unlink(missing_ok=True)
        status = _run(SWAP, data, path=[deadly], deadly=number)
        if status == 0:
            break
        assert status == -9
        found = _status(data)
        if found.placing is not None and found.cluster is not None:
            # Between the two ends of the swap no control file is in place, except a whole cluster's.
            whole = (data / "base/1/112").exists() and (data / "PG_VERSION").exists()
            assert whole, f"killed at command {number}: a control file without its cluster"
        content = {path.read_bytes() for path in data.rglob("112")}
        assert {b"old row", b"new row"} <= content, f"killed at command {number}: something is lost"
        assert _run(SWAP, data) == 0, f"killed at command {number}: the same swap does not finish it"
        _require_placed(data)
        shutil.rmtree(data)
        shutil.copytree(original, data, symlinks=True)
        number += 1
    assert number > 10
    _require_placed(data)


def test_a_swap_that_is_done_is_not_done_again(data: Path) -> None:
    assert _run(volume_script.STAGE, data, stdin=_backup()) == 0
    assert _run(SWAP, data) == 0
    assert _status(data).placed == ID
    assert _run(SWAP, data) == 0
    _require_placed(data)
    (data / "base/1/112").write_bytes(b"written since")
    assert _run(SWAP, data) == 0
    assert (data / "base/1/112").read_bytes() == b"written since"


def _require_old(data: Path) -> None:
    assert (data / "base/1/112").read_bytes() == b"old row"
    assert (data / ".profile").read_bytes() == b"old"
    back = Path(f"{_kept(data)}{volume_script.BACK}")
    assert (back / "base/1/112").read_bytes() == b"new row"
    assert (back / "global/pg_control").read_bytes() == _control(_NEW)
    assert not _kept(data).exists()
    assert not (data / volume_script.INCOMING).exists()
    assert _status(data).placing is None


@pytest.mark.parametrize("damaged", [(), ("global/pg_control",), ("global/pg_control", "PG_VERSION")])
def test_a_swap_is_undone_whenever_that_is_killed_and_whatever_the_old_data_were(
    data: Path, deadly: Path, tmp_path: Path, damaged: Sequence[str]
) -> None:
    for name in damaged:
        (data / name).unlink()
    assert _run(volume_script.STAGE, data, stdin=_backup()) == 0
    assert _run(SWAP, data) == 0
    number, original = 1, tmp_path / "original"
    shutil.copytree(data, original, symlinks=True)
    while True:
        (tmp_path / "calls").unlink(missing_ok=True)
        status = _run(volume_script.PUT_BACK, data, path=[deadly], deadly=number)
        content = {path.read_bytes() for path in data.rglob("112")}
        assert {b"old row", b"new row"} <= content, f"killed at command {number}: something is lost"
        assert _run(volume_script.PUT_BACK, data) == 0, f"killed at command {number}: it does not finish"
        _require_old(data)
        assert (data / "global/pg_control").exists() is ("global/pg_control" not in damaged)
        if status == 0:
            break
        assert status == -9
        shutil.rmtree(data)
        shutil.copytree(original, data, symlinks=True)
        number += 1
    assert number > 10


def test_only_what_that_very_swap_has_replaced_is_put_back_and_forgetting_is_final(data: Path) -> None:
    assert _run(volume_script.PUT_BACK, data) == 1, "nothing was placed"
    assert _run(volume_script.STAGE, data, stdin=_backup()) == 0
    assert _run(SWAP, data) == 0
    (data / volume_script.PLACED).write_text("somebody-else\n")
    assert _run(volume_script.PUT_BACK, data) == 1, "another restore came after it"
    (data / volume_script.PLACED).write_text(f"{ID}\n")
    assert _run(volume_script.FORGET, data) == 0
    assert not _kept(data).exists()
    assert _run(volume_script.FORGET, data) == 0
    assert _run(volume_script.PUT_BACK, data) == 0, "there is nothing to put back any more"
    assert (data / "base/1/112").read_bytes() == b"new row"


def test_another_placement_does_not_meddle_with_an_unfinished_one(data: Path) -> None:
    assert _run(volume_script.STAGE, data, stdin=_backup()) == 0
    (data / volume_script.MARKER).write_text("place somebody-else\n")
    assert _run(SWAP, data) == 1
    assert _run(volume_script.STAGE, data, stdin=_backup()) == 1
    placing = _status(data).placing
    assert placing == ("place", "somebody-else")


def test_a_truncated_copy_is_not_staged(data: Path) -> None:
    assert _run(volume_script.STAGE, data, stdin=_backup()[:2000]) != 0
    assert not [name for name in _names(data) if "recoup" in name], "what was unpacked does not stay to fill the disk"
    assert _run(SWAP, data) == 1, "there is nothing to swap in"
    found = _status(data)
    assert found.cluster is not None
    assert found.cluster[0] == str(_OLD)


def test_an_empty_volume_is_free_and_anything_else_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert _status(empty).cluster is None
    assert _status(empty).something is None
    (empty / "lost+found").mkdir()
    assert _status(empty).something == "lost+found"


def test_a_cluster_whose_identifier_cannot_be_read_is_still_a_cluster() -> None:
    found = parse_status(b"cluster 0x 15\nfolder /data\n")
    assert found.cluster == ("?", "15")
