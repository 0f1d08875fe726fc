"""Following a tar stream: every member at its place, whatever the format and the pieces; malformed streams refused."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.engine import Content, Member
from recoup.kernel.errors import EngineError
from recoup.repository.tar_layout import TarScanner
from tests.real import require
from tests.unit.repository.sealed import seal_bytes, tar_of


def scan(data: bytes) -> list[Member]:
    """Every member of a whole tar, found as the writer finds them."""
    scanner, members, at = TarScanner(), [], 0
    while True:
        at += scanner.passing
        if not scanner.needed or at >= len(data):
            break
        piece = data[at : at + scanner.needed]
        at += len(piece)
        if len(piece) < scanner.needed:
            break
        member = scanner.see(piece)
        if member is not None:
            members.append(member)
    scanner.check_end(len(data) if at <= len(data) or not scanner.needed else at + 1)
    return members


def tar_with(*entries: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, errors="surrogateescape", encoding="utf-8") as archive:
        for entry in entries:
            archive.addfile(entry, io.BytesIO(bytes(entry.size)) if entry.isreg() else None)
    return buffer.getvalue()


def entry(path: str, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(path)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).map(
    lambda text: text.strip("/") or "x"
)


@settings(max_examples=80, deadline=None)
@given(
    paths=st.lists(PATHS, max_size=5),
    sizes=st.lists(st.integers(0, 2000), min_size=5, max_size=5),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
    pieces=st.lists(st.integers(0, 700), max_size=30),
)
def test_members_are_found_as_tarfile_finds_them_in_any_pieces(
    paths: list[str], sizes: list[int], form: int, pieces: list[int]
) -> None:
    data = tar_of([(path, bytes(size)) for path, size in zip(paths, sizes, strict=False)], form=form)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = archive.getmembers()
    sealed = seal_bytes(data, content=Content.TAR, frame_bytes=1024, sizes=pieces)
    found = list(sealed.reader().members())
    assert [(m.path, m.size_bytes, m.offset, m.mode, m.uid, m.gid, m.mtime) for m in found] == [
        (m.name, m.size, m.offset_data, m.mode, m.uid, m.gid, m.mtime) for m in expected
    ]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_member_is_recognised(form: int) -> None:
    data = tar_with(
        entry("base", type=tarfile.DIRTYPE, mode=0o700),
        entry("base/1", size=600),
        entry("pg_tblspc/16400", type=tarfile.SYMTYPE, linkname="/srv/space"),
        entry("again", type=tarfile.LNKTYPE, linkname="base/1"),
        entry("pipe", type=tarfile.FIFOTYPE),
        form=form,
    )
    assert [(m.path, m.kind, m.link) for m in scan(data)] == [
        ("base", "directory", ""),
        ("base/1", "file", ""),
        ("pg_tblspc/16400", "symlink", "/srv/space"),
        ("again", "hardlink", "base/1"),
        ("pipe", "other", ""),
    ]


def test_names_beyond_the_header_and_outside_utf8_come_back_exactly() -> None:
    long = "d" * 90 + "/" + "f" * 200
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar_with(entry(long), entry("caf\udce9"), entry("l", type=tarfile.SYMTYPE, linkname=long), form=form)
        sealed = seal_bytes(data, content=Content.TAR)
        found = list(sealed.reader().members())
        assert [m.path for m in found] == [long, "caf\udce9", "l"]
        assert found[2].link == long
    prefixed = "p" * 100 + "/" + "n" * 90  # only the prefix field of ustar holds this
    assert [m.path for m in scan(tar_with(entry(prefixed), form=tarfile.USTAR_FORMAT))] == [prefixed]


def test_extended_headers_overrule_plain_ones_and_global_ones_stay() -> None:
    data = tar_with(
        entry("short", size=3, pax_headers={"mtime": "1700000000.25", "uid": "4000000"}), form=tarfile.PAX_FORMAT
    )
    (member,) = scan(data)
    assert (member.mtime, member.uid) == (1_700_000_000.25, 4_000_000)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"gid": "77"}) as archive:
        for name in ("one", "two"):
            archive.addfile(tarfile.TarInfo(name))
    assert [member.gid for member in scan(buffer.getvalue())] == [77, 77]


def test_an_extended_size_moves_the_next_header() -> None:
    header = bytearray(tar_with(entry("big", size=10), form=tarfile.USTAR_FORMAT)[:512])
    header[124:136] = b"00000000000\0"
    record = b"12 size=700\n"
    extended = bytearray(tar_with(entry("x", size=len(record)), form=tarfile.USTAR_FORMAT)[:512])
    extended[156:157] = b"x"
    data = _sign(extended) + record.ljust(512, b"\0") + _sign(header) + bytes(1024)
    (member, after) = scan(data + tar_with(entry("after")))
    assert (member.size_bytes, member.offset) == (700, 1536)
    assert (after.path, after.offset) == ("after", 1536 + 1024 + 512)


def test_sizes_above_8_gib_in_base_256_are_read() -> None:
    scanner = TarScanner()
    member = scanner.see(entry("huge", size=20 << 30).tobuf(tarfile.GNU_FORMAT))
    assert member is not None
    assert member.size_bytes == scanner.passing == 20 << 30


def test_stock_tar_agrees_about_every_member(tmp_path: Path) -> None:
    tar = require("tar")
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / ("n" * 90)).write_bytes(b"long")
    (tmp_path / "in" / "file").write_bytes(b"x" * 1500)
    (tmp_path / "in" / "second").hardlink_to(tmp_path / "in" / "file")
    (tmp_path / "in" / "link").symlink_to("file")
    for form in ("ustar", "gnu", "posix"):
        data = subprocess.run(
            [tar, "-c", "-f", "-", f"--format={form}", "-C", tmp_path, "in"], capture_output=True, check=True
        ).stdout
        listed = subprocess.run([tar, "-t", "-f", "-"], input=data, capture_output=True, check=True).stdout.decode()
        assert [m.path.rstrip("/") for m in scan(data)] == [line.rstrip("/") for line in listed.splitlines()]


def _sign(header: bytes | bytearray) -> bytes:
    signed = bytearray(header)
    signed[148:156] = b" " * 8
    signed[148:156] = b"%06o\0 " % sum(signed)
    return bytes(signed)


def _header(**fields: bytes) -> bytes:
    places = {"name": 0, "mode": 100, "size": 124, "mtime": 136, "type": 156, "link": 157, "prefix": 345}
    header = bytearray(tar_with(entry("x"), form=tarfile.USTAR_FORMAT)[:512])
    for name, value in fields.items():
        header[places[name] : places[name] + len(value)] = value
    return _sign(header)


@pytest.mark.parametrize(
    ("header", "what"),
    [
        (b"x" * 512, "checksum"),
        (_header(size=b"12345678z12\0"), "size is not a number"),
        (_header(size=b"\xff" * 12), "size is negative"),
        (_header(size=b"\x80\0\0\0" + b"\xff" * 8), "a member of"),
        (_header(size=b"00000000010\0", type=b"5"), "type 5 with 8 bytes"),
        (_header(size=b"00000000010\0", type=b"2"), "type 2 with 8 bytes"),
        (_header(type=b"S"), "sparse"),
        (_header(type=b"M"), "another volume"),
        (_header(type=b"x", size=b"00010000000\0"), "an extended header of 2097152 bytes"),
        (_header(name=b"\0" * 100), "a name of 0 bytes"),
    ],
)
def test_a_malformed_header_is_refused_with_its_offset(header: bytes, what: str) -> None:
    before = tar_with(entry("fine", size=700), form=tarfile.USTAR_FORMAT)[:1536]
    with pytest.raises(EngineError, match="at byte 1536") as refused:
        scan(before + header + bytes(1024))
    assert what in refused.value.message


@pytest.mark.parametrize(
    "record", [b"5 a=b\n", b"x a=b\n", b"99999999 a=b\n", b"6 ab=\n"[:5] + b"x", b"7 abcd\n", b" a=b\n", b"-6 a=b\n"]
)
def test_a_malformed_extended_record_is_refused(record: bytes) -> None:
    data = _header(type=b"x", size=b"%011o\0" % len(record)) + record.ljust(512, b"\0")
    with pytest.raises(EngineError, match="at byte 5"):
        scan(data + tar_with(entry("x")))


def test_gnu_sparse_members_of_the_pax_kind_are_refused() -> None:
    data = tar_with(entry("x", pax_headers={"GNU.sparse.major": "1"}), form=tarfile.PAX_FORMAT)
    with pytest.raises(EngineError, match="sparse") as refused:
        scan(data)
    assert refused.value.hint


def test_a_stream_cut_in_the_middle_is_refused_and_one_without_its_zero_blocks_is_not() -> None:
    whole = tar_with(entry("one", size=600), form=tarfile.PAX_FORMAT)[:1536]
    assert len(scan(whole)) == 1
    for length in (1, 511, 513, 1100, 1535):
        with pytest.raises(EngineError, match="malformed tar stream"):
            seal_bytes(whole[:length], content=Content.TAR)
    assert seal_bytes(whole, content=Content.TAR).load_index().member_count == 1
    assert seal_bytes(b"", content=Content.TAR).load_index().member_count == 0


def test_an_extended_header_with_nothing_after_it_is_refused() -> None:
    data = tar_with(entry("n" * 200), form=tarfile.GNU_FORMAT)[:1024]
    for rest in (b"", bytes(1024)):
        with pytest.raises(EngineError, match="malformed"):
            seal_bytes(data + rest, content=Content.TAR)


def test_what_follows_the_end_of_the_archive_is_kept() -> None:
    data = tar_with(entry("one", size=5)) + b"trailing bytes that are no header"
    sealed = seal_bytes(data, content=Content.TAR)
    assert b"".join(sealed.reader().read()) == data


@settings(max_examples=300, deadline=None)
@given(
    fields=st.dictionaries(
        st.sampled_from(["name", "mode", "size", "mtime", "type", "link", "prefix"]), st.binary(max_size=12), max_size=4
    ),
    rest=st.binary(max_size=1500),
)
def test_any_bytes_are_followed_or_refused_clearly(fields: dict[str, bytes], rest: bytes) -> None:
    with contextlib.suppress(EngineError):
        scan(_header(**fields) + rest)
