from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.engine import Member
from recoup.engines.postgres.place_files import FilePlacer, write_sparse, writing_in
from recoup.engines.postgres.placement import lay_out
from recoup.kernel.errors import DamageError, EngineError

KIB = 1 << 10
RUNS = st.lists(st.tuples(st.sampled_from([b"\0", b"x"]), st.integers(1, 150 * KIB)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(RUNS, st.integers(0, 100))
def test_a_file_with_holes_reads_as_it_was(tmp_path_factory: pytest.TempPathFactory, runs: object, skip: int) -> None:
    data = b"".join(byte * count for byte, count in runs)  # type: ignore[attr-defined]
    path = tmp_path_factory.mktemp("holes") / "file"
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.ftruncate(handle, len(data))
        write_sparse(handle, b"?" * skip + data + b"?", skip, skip + len(data), 0)
    finally:
        os.close(handle)
    assert path.read_bytes() == data


def test_long_runs_of_zeros_take_no_room(tmp_path: Path) -> None:
    handle = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    data = b"x" * 64 * KIB + bytes(4096 * KIB) + b"y" * 64 * KIB
    os.ftruncate(handle, len(data))
    write_sparse(handle, data, 0, len(data), 0)
    assert os.fstat(handle).st_blocks * 512 < 1024 * KIB
    os.close(handle)


def member(path: str, offset: int, size: int, kind: str = "file") -> Member:
    return Member(path=path, kind=kind, size_bytes=size, mode=0o640, uid=0, gid=0, mtime=0.0, offset=offset)


def test_files_are_written_piece_by_piece_from_several_threads(tmp_path: Path) -> None:
    count, size = 450, 1024
    archive = lay_out("base.tar", [member(f"d/{n}", n * 2048 + 512, size) for n in range(count)])
    placer = FilePlacer(archive, tmp_path, owner=None, rename=lambda path: path)
    placer.make_folders()
    pieces = []
    for half in (0, 1):
        pieces += [(n * 2048 + 512 + half * 512, bytes([n % 251]) * 512) for n in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda piece: placer.write(*piece), pieces))
    placer.require_whole()
    assert all((tmp_path / f"d/{n}").read_bytes() == bytes([n % 251]) * size for n in range(count))
    assert (tmp_path / "d/7").stat().st_mode & 0o777 == 0o640


def test_pieces_that_do_not_cover_every_file_are_damage(tmp_path: Path) -> None:
    archive = lay_out("base.tar", [member("whole", 512, 10), member("half", 2048, 10)])
    placer = FilePlacer(archive, tmp_path, owner=None, rename=lambda path: path)
    placer.make_folders()
    placer.write(0, bytes(2050))
    with pytest.raises(DamageError, match="does not hold all of half"):
        placer.require_whole()


def test_a_full_disk_is_said_with_what_to_do() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(EngineError, match="No space left") as failure, writing_in("/somewhere"):
        os.write(full, b"x")
    os.close(full)
    assert "Free some space" in str(failure.value.hint)
