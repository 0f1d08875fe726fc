from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.postgres.tar_walk import TarWalk
from recoup.kernel.errors import DamageError


def tar_of(members: list[tuple[str, bytes]], *, closed: bool = True) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data in members:
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o600
            if path.endswith("/"):
                info.type = tarfile.DIRTYPE
            tar.addfile(info, io.BytesIO(data))
    whole = buffer.getvalue()
    end = sum(512 + (len(data) + 511) // 512 * 512 for _, data in members)
    return whole if closed else whole[:end]


def read(data: bytes, piece: int = 1000) -> list[tuple[str, str, bytes, int]]:
    walk = TarWalk([data[at : at + piece] for at in range(0, len(data), piece)], "a.tar")
    return [(entry.path, entry.kind, b"".join(walk.data()), entry.offset) for entry in walk]


MEMBERS = [("base", b""), ("base/1", b"x" * 8192), ("empty", b""), ("odd", b"y" * 513)]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=1600), max_size=6), st.integers(1, 2000))
def test_what_went_in_comes_out_however_it_is_cut(contents: list[bytes], piece: int) -> None:
    members = [(f"file-{number}", data) for number, data in enumerate(contents)]
    data = tar_of(members)
    seen = read(data, piece)
    assert [(path, body) for path, _, body, _ in seen] == members
    assert all(data[offset : offset + len(body)] == body for _, _, body, offset in seen)


def test_data_that_nobody_asked_for_are_passed_over() -> None:
    data = tar_of(MEMBERS)
    assert [entry.path for entry in TarWalk([data], "a.tar")] == [path for path, _ in MEMBERS]


def test_folders_links_and_long_paths_are_understood() -> None:
    buffer = io.BytesIO()
    long = "a" * 90 + "/" + "b" * 80
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for kind, name, link in ((tarfile.DIRTYPE, "pg_tblspc", ""), (tarfile.SYMTYPE, "pg_tblspc/7", "/srv/x"),
                                 (tarfile.REGTYPE, long, ""), (tarfile.CHRTYPE, "dev", "")):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
    kinds = [(entry.path.rstrip("/"), entry.kind, entry.link) for entry in TarWalk([buffer.getvalue()], "a.tar")]
    assert kinds == [
        ("pg_tblspc", "directory", ""), ("pg_tblspc/7", "symlink", "/srv/x"), (long, "file", ""), ("dev", "other", ""),
    ]  # fmt: skip


def test_a_size_above_8_gib_is_understood() -> None:
    info = tarfile.TarInfo("base/1")
    info.size = 9 << 30
    walk = TarWalk([info.tobuf(tarfile.GNU_FORMAT)], "a.tar")
    assert next(iter(walk)).size_bytes == 9 << 30


@pytest.mark.parametrize("length", [0, 100, 512, 1536, 5000, 10240])
def test_a_tar_cut_off_is_damage(length: int) -> None:
    with pytest.raises(DamageError, match="cut off"):
        read(tar_of(MEMBERS, closed=False)[:length])


def test_a_damaged_header_is_damage() -> None:
    data = bytearray(tar_of(MEMBERS))
    data[512 + 3] ^= 0x20
    with pytest.raises(DamageError, match="damaged tar header at 512"):
        read(bytes(data))


def test_bytes_after_the_end_are_damage() -> None:
    with pytest.raises(DamageError, match="goes on after the end"):
        read(tar_of(MEMBERS) + b"more")
