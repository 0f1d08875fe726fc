from __future__ import annotations

from pathlib import Path

import pytest

from recoup.engines.engine import Member
from recoup.engines.postgres.placement import choose_destinations, lay_out, tablespace_map_text, tablespace_oid
from recoup.kernel.errors import DamageError, RefusedError


def member(path: str, kind: str = "file", *, size: int = 10, offset: int = 512, link: str = "") -> Member:
    return Member(path=path, kind=kind, size_bytes=size, mode=0o600, uid=0, gid=0, mtime=0.0, offset=offset, link=link)


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../x", "base/../../x", "base/..", "", ".", "./", "base//1", "base/./1", "a\0b", "x" * 5000,
     "recoup-restore.json", "./postmaster.pid", "pg_tblspc/16384/PG_17_202406281/5/1"],
)  # fmt: skip
def test_a_member_that_could_leave_the_folder_or_pretend_is_refused(path: str) -> None:
    with pytest.raises(RefusedError, match="refused") as refusal:
        lay_out("base.tar", [member(path)])
    assert "broken into" in str(refusal.value.hint)


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "other"])
def test_links_and_devices_are_refused(kind: str) -> None:
    with pytest.raises(RefusedError, match=f"it is a {kind}"):
        lay_out("base.tar", [member("base/1", kind, link="/etc")])


def test_a_member_below_a_file_or_a_link_is_refused() -> None:
    with pytest.raises(RefusedError, match="not a folder"):
        lay_out("base.tar", [member("base"), member("base/1", offset=2048)])
    with pytest.raises(RefusedError, match="refused"):
        lay_out("base.tar", [member("pg_tblspc/1", "symlink", link="/etc"), member("pg_tblspc/1/passwd", offset=2048)])


def test_two_members_of_one_name_or_one_place_are_refused() -> None:
    with pytest.raises(RefusedError, match="twice"):
        lay_out("base.tar", [member("base/1"), member("./base/1", offset=2048)])
    with pytest.raises(RefusedError, match="overlap"):
        lay_out("base.tar", [member("base/1", size=600), member("base/2", offset=1000)])


def test_the_files_of_a_range_are_found() -> None:
    sizes = {"a": (512, 100), "b": (1536, 0), "c": (2048, 9000), "d": (12288, 1)}
    archive = lay_out("base.tar", [member(path, size=size, offset=at) for path, (at, size) in sizes.items()])
    found = {
        (start, end): [archive.paths[number] for number in archive.overlapping(start, end)]
        for start, end in [(0, 512), (0, 513), (611, 612), (612, 2048), (5000, 5001), (0, 99999), (11048, 12288)]
    }
    assert found == {
        (0, 512): [], (0, 513): ["a"], (611, 612): ["a"], (612, 2048): [], (5000, 5001): ["c"],
        (0, 99999): ["a", "c", "d"], (11048, 12288): [],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["0.tar", "x.tar", "16384.tar.gz", "../16384.tar", "99999999999.tar"])
def test_a_tar_stream_of_another_name_is_not_of_a_base_backup(name: str) -> None:
    with pytest.raises(DamageError):
        tablespace_oid(name)


def test_tablespaces_never_go_where_they_were_unless_one_says_so() -> None:
    where = choose_destinations(
        Path("/restore/pg"), ["base.tar", "7.tar", "8.tar"], {7: "/srv/live", 8: "/srv/b"}, None
    )
    assert where.tablespaces == {7: Path("/restore/pg-tablespaces/7"), 8: Path("/restore/pg-tablespaces/8")}
    assert tablespace_map_text(where) == "7 /restore/pg-tablespaces/7\n8 /restore/pg-tablespaces/8\n"
    chosen = choose_destinations(Path("/restore/pg"), ["base.tar", "7.tar"], {7: "/srv/live"}, {7: Path("/mnt/a\\b")})
    assert tablespace_map_text(chosen) == "7 /mnt/a\\\\b\n"


def test_a_tablespace_inside_the_data_folder_stays_inside() -> None:
    where = choose_destinations(Path("/restore/pg"), ["base.tar", "7.tar"], {7: "pg_tblspc/7"}, None)
    assert where.of("7.tar") == Path("/restore/pg/pg_tblspc/7")
    assert tablespace_map_text(where) == ""


@pytest.mark.parametrize("place", ["/restore/pg", "/restore/pg/inside", "/restore", "/mnt/a\nb"])
def test_folders_that_lie_in_each_other_are_refused(place: str) -> None:
    with pytest.raises(RefusedError, match="cannot go to"):
        choose_destinations(Path("/restore/pg"), ["base.tar", "7.tar"], {7: "/srv"}, {7: Path(place)})


def test_a_tablespace_the_copy_does_not_have_cannot_be_placed() -> None:
    with pytest.raises(RefusedError, match="no tablespace 9"):
        choose_destinations(Path("/restore/pg"), ["base.tar", "7.tar"], {7: "/srv"}, {9: Path("/x")})
