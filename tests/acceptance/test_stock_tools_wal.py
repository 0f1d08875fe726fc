"""``restore.sh wal``: archived WAL on a machine that has never heard of Recoup."""

from __future__ import annotations

import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recoup.repository.repository import create_repository
from recoup.repository.seal import Key
from recoup.repository.wal_archive import WalArchive
from recoup.storage.local import LocalStore
from tests.acceptance.workplace import KEY, OTHER_KEY
from tests.real import require

_SYSTEM = "7412345678901234567"
_STAMP = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
_SIZE = 1 << 20
_NAMES = [f"0000000100000000000000{number:02X}" for number in (0xA3, 0xA4, 0xA5)]


def segment(filler: bytes) -> bytes:
    """A segment of 1 MiB that begins as PostgreSQL's do (XLogLongPageHeaderData)."""
    header = struct.pack("<HHIQI4xQII", 0xD116, 2, 1, 0, 0, int(_SYSTEM), _SIZE, 8192)
    return header + filler * ((_SIZE - len(header)) // len(filler)) + bytes((_SIZE - len(header)) % len(filler))


@pytest.fixture
def archived(tmp_path: Path) -> tuple[Path, WalArchive]:
    for program in ("openssl", "zstd", "awk", "od"):
        require(program)
    repository = create_repository("local", LocalStore(tmp_path / "repository", create=True), Key.from_text(KEY))
    archive = WalArchive(repository, "postgres", _SYSTEM)
    archive.put_segment(_NAMES[0], segment(b"first "), _STAMP)
    archive.put_segment(_NAMES[1], segment(b"second "), _STAMP)
    archive.put_piece(_NAMES[1], 0, segment(b"second ")[:5000], _STAMP)  # of a segment that is whole by now
    whole = segment(b"third ")
    for start, end in ((0, 40_000), (30_000, 70_001), (35_000, 60_000), (70_001, 70_002), (80_000, 90_000)):
        archive.put_piece(_NAMES[2], start, whole[start:end], _STAMP)
    archive.put_history(2, b"1\t0/A5000000\tno recovery target specified\n", _STAMP)
    archive.put_gap(1, 0x10, 0x20, "the server removed it", _STAMP)
    return tmp_path / "repository", archive


def run(repository: Path, *arguments: str, key: str = KEY, shell: str = "sh", expect: int = 0) -> tuple[str, str]:
    key_file = repository.parent / "key"
    key_file.write_text(key + "\n")
    program = [shell, "sh"] if shell == "busybox" else [shell]
    done = subprocess.run(
        [*program, str(repository / "restore.sh"), "--key-file", str(key_file), *arguments],
        env={"PATH": "/usr/bin:/bin"},
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == expect, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    assert KEY not in done.stdout + done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox"])
def test_every_shell_restores_segments_and_joins_pieces_up_to_a_hole(
    archived: tuple[Path, WalArchive], shell: str, tmp_path: Path
) -> None:
    require(shell)
    repository, _ = archived
    folder = tmp_path / "wal"
    said, _ = run(repository, "wal", "postgres", str(folder), shell=shell)
    assert {path.name for path in folder.iterdir()} == {*_NAMES[:2], f"{_NAMES[2]}.partial", "00000002.history"}
    assert (folder / _NAMES[0]).read_bytes() == segment(b"first ")
    assert (folder / _NAMES[1]).read_bytes() == segment(b"second ")
    assert (folder / f"{_NAMES[2]}.partial").read_bytes() == segment(b"third ")[:70_002].ljust(_SIZE, b"\0")
    assert (folder / "00000002.history").read_bytes().startswith(b"1\t0/A5000000")
    assert "the first 70002 bytes" in said
    assert "the server removed it" in said
    run(repository, "wal", "postgres", str(folder), expect=5, shell=shell)


def test_what_was_changed_is_left_out_and_said(archived: tuple[Path, WalArchive], tmp_path: Path) -> None:
    repository, archive = archived
    first = next(iter(archive.entries(_NAMES[0])))
    path = repository / first.key
    changed = bytearray(path.read_bytes())
    changed[100] ^= 1
    path.write_bytes(changed)
    _, said = run(repository, "wal", "postgres", str(tmp_path / "wal"), expect=3)
    assert f"{first.key} is not authentic" in said
    assert "1 damaged objects" in said
    assert not (tmp_path / "wal" / _NAMES[0]).exists()
    assert (tmp_path / "wal" / _NAMES[1]).read_bytes() == segment(b"second ")


def test_another_key_opens_nothing(archived: tuple[Path, WalArchive], tmp_path: Path) -> None:
    _, said = run(archived[0], "wal", "postgres", str(tmp_path / "wal"), key=OTHER_KEY, expect=3)
    assert "not authentic" in said
    assert list((tmp_path / "wal").iterdir()) == []


def test_with_wal_of_two_clusters_one_must_be_named(archived: tuple[Path, WalArchive], tmp_path: Path) -> None:
    repository, archive = archived
    WalArchive(archive.repository, "postgres", "99").put_segment(_NAMES[0], segment(b"other "), _STAMP)
    _, said = run(repository, "wal", "postgres", str(tmp_path / "wal"), expect=2)
    assert f"{_SYSTEM} 99" in said
    run(repository, "wal", "postgres", str(tmp_path / "wal"), "99")
    assert (tmp_path / "wal" / _NAMES[0]).read_bytes() == segment(b"other ")
    run(repository, "wal", "nothing", str(tmp_path / "other"), expect=10)
