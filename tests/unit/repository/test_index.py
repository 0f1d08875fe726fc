"""The index: what is written parses to the same, and nothing else parses."""

from __future__ import annotations

import contextlib
import json
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.engine import Content, Member
from recoup.kernel.errors import DamageError, RecoupError, UnknownFormatError, WrongKeyError
from recoup.repository.frames import zstd
from recoup.repository.index import MAGIC, ROW, Index, IndexWriter
from recoup.repository.seal import unseal
from tests.unit.repository.sealed import INDEX_KEY, KEY, OTHER_KEY, seal_bytes, tar_of

TEXT = st.text(st.characters(), max_size=40)
NUMBER = st.integers(0, 1 << 40)
MEMBERS = st.builds(
    Member,
    path=TEXT,
    kind=st.sampled_from(["file", "directory", "symlink", "hardlink", "other"]),
    size_bytes=st.integers(0, 500),
    mode=st.integers(0, 0o7777),
    uid=NUMBER,
    gid=NUMBER,
    mtime=st.floats(-1e12, 1e12),
    offset=st.integers(0, 100),
    link=TEXT,
)


def written(frames: list[int], members: list[Member] | None = None, **changes: Any) -> bytes:
    """An index of frames with these plain lengths."""
    writer = IndexWriter()
    for number, plain_bytes in enumerate(frames):
        writer.add_frame(plain_bytes, 32, bytes([number % 256]) * 32)
    for member in members or []:
        writer.add_member(member)
    facts: dict[str, Any] = {
        "frame_bytes": 4096,
        "plain_bytes": sum(frames),
        "cipher_bytes": 32 * len(frames),
        "compression": "zstd",
        "content": Content.TAR,
        "salt": b"8 bytes.",
    }
    return writer.finish(**{**facts, **changes})[1]


def packed(header: object, rows: bytes = b"", lines: bytes = b"", magic: bytes = MAGIC) -> bytes:
    """An index made by hand."""
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    return bytes(zstd.compress(magic + struct.pack(">I", len(text)) + text + rows + lines))


GOOD_ROW = ROW.pack(100, 112, b"d" * 32)
GOOD_HEADER = {
    "frames": 1,
    "members": 0,
    "frame_bytes": 4096,
    "plain_bytes": 100,
    "cipher_bytes": 112,
    "compression": "zstd",
    "content": "tar",
    "salt": "00" * 8,
}
GOOD_LINE = b'["a","file",1,420,0,0,1.5,0,""]\n'


@settings(deadline=None)
@given(members=st.lists(MEMBERS, max_size=20))
def test_members_come_back_as_they_were(members: list[Member]) -> None:
    index = Index.parse(written([1000], members))
    assert list(index.members()) == members
    assert list(index.members()) == members, "a second time as well"
    assert index.member_count == len(members)


@settings(deadline=None, max_examples=50)
@given(frames=st.lists(st.integers(1, 4096), min_size=1, max_size=60))
def test_every_byte_is_found_in_its_frame(frames: list[int]) -> None:
    index = Index.parse(written(frames))
    rows = list(index.rows())
    assert [row.plain_bytes for row in rows] == frames
    for row in rows:
        assert index.frame_at(row.plain_start) == row.number
        assert index.frame_at(row.plain_start + row.plain_bytes - 1) == row.number
    for outside in (-1, index.plain_bytes):
        with pytest.raises(ValueError, match="of"):
            index.frame_at(outside)


def test_the_offsets_of_thousands_of_frames_are_right_from_any_start() -> None:
    frames = [1 + number % 4096 for number in range(5000)]
    index = Index.parse(written(frames))
    for start in (0, 1, 1023, 1024, 1025, 3071, 4999):
        row = next(index.rows(start))
        assert (row.number, row.plain_start, row.cipher_start) == (start, sum(frames[:start]), 32 * start)
        assert row.digest == bytes([start % 256]) * 32
    assert [row.number for row in index.rows(1020, 1030)] == list(range(1020, 1030))
    assert list(index.rows(5000)) == list(index.rows(7, 7)) == []


def test_memory_of_many_members_stays_small() -> None:
    writer = IndexWriter()
    writer.add_frame(1000, 32, bytes(32))
    tracemalloc.start()
    for number in range(100_000):
        writer.add_member(
            Member(path=f"base/16384/{number}", kind="file", size_bytes=8192 * (number % 7), mode=0o600, uid=70, gid=70,
                   mtime=1_700_000_000.0 + number, offset=0)
        )  # fmt: skip
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 3 << 20, "about 30 bytes a member at most"


def test_the_form_is_the_documented_one() -> None:
    assert Index.parse(packed(GOOD_HEADER, GOOD_ROW)).object_bytes == 128
    assert len(list(Index.parse(packed({**GOOD_HEADER, "members": 2}, GOOD_ROW, GOOD_LINE * 2)).members())) == 2


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"frames": 2}, "shorter than its header"),
        ({"frames": 0}, "middle of a line"),
        ({"frames": -1}, "frames"),
        ({"frames": 1 << 60}, "frames"),
        ({"frames": True}, "frames"),
        ({"frames": 1.0}, "frames"),
        ({"frames": "1"}, "frames"),
        ({"members": 1}, "members"),
        ({"members": None}, "members"),
        ({"plain_bytes": 99}, "add up"),
        ({"cipher_bytes": 128}, "add up"),
        ({"frame_bytes": 99}, "row 0"),
        ({"frame_bytes": 1 << 30}, "frame_bytes"),
        ({"salt": "00"}, "salt"),
        ({"salt": 7}, "salt"),
        ({"salt": None}, "salt"),
        ({"salt": "zz" * 8}, "salt"),
    ],
)
def test_a_header_that_does_not_fit_is_damage(changes: dict[str, object], what: str) -> None:
    with pytest.raises(DamageError, match=what):
        Index.parse(packed({**GOOD_HEADER, **changes}, GOOD_ROW))


@pytest.mark.parametrize(
    "changes", [{"compression": "lz4"}, {"compression": []}, {"content": "zip"}, {"content": None}]
)
def test_an_unknown_compression_or_content_is_an_unknown_format(changes: dict[str, object]) -> None:
    with pytest.raises(UnknownFormatError):
        Index.parse(packed({**GOOD_HEADER, **changes}, GOOD_ROW))


def test_another_version_is_an_unknown_format() -> None:
    with pytest.raises(UnknownFormatError, match="version"):
        Index.parse(packed(GOOD_HEADER, GOOD_ROW, magic=b"RCPINDX2"))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not zstd",
        zstd.compress(b""),
        zstd.compress(b"short"),
        zstd.compress(MAGIC),
        zstd.compress(MAGIC + b"\xff\xff\xff\xff"),
        packed(b"[" * 4000, GOOD_ROW),
        packed(b"[]", GOOD_ROW),
        packed({**GOOD_HEADER, "plain_bytes": 10**3000}, GOOD_ROW),
        packed(GOOD_HEADER, GOOD_ROW, b"\n"),
        packed(GOOD_HEADER, GOOD_ROW, b"more"),
        packed(GOOD_HEADER, GOOD_ROW)[:-1],
        packed(GOOD_HEADER, GOOD_ROW) + b"more",
        packed(GOOD_HEADER, GOOD_ROW) + zstd.compress(b"") * 50,
        packed({**GOOD_HEADER, "members": 1}, GOOD_ROW, b"x" * (3 << 20) + b"\n"),
        packed({**GOOD_HEADER, "members": 1}, GOOD_ROW, GOOD_LINE.rstrip()),
        packed({**GOOD_HEADER, "frames": 2, "cipher_bytes": 144}, GOOD_ROW + ROW.pack(0, 32, bytes(32))),
        packed({**GOOD_HEADER, "cipher_bytes": 113}, ROW.pack(100, 113, bytes(32))),
        packed({**GOOD_HEADER, "cipher_bytes": 0}, ROW.pack(100, 0, bytes(32))),
        packed({**GOOD_HEADER, "cipher_bytes": 1 << 20}, ROW.pack(100, 1 << 20, bytes(32))),
    ],
)  # fmt: skip
def test_bytes_that_are_not_an_index_are_damage(data: bytes) -> None:
    with pytest.raises(DamageError):
        Index.parse(data)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[]",
        b"null",
        b"[" * 3000,
        b'["a","file",1,420,0,0,1.5,0]',
        b'["a","file",1,420,0,0,1.5,0,"",""]',
        b'["a","disk",1,420,0,0,1.5,0,""]',
        b'[7,"file",1,420,0,0,1.5,0,""]',
        b'["a",["file"],1,420,0,0,1.5,0,""]',
        b'["a","file",-1,420,0,0,1.5,0,""]',
        b'["a","file",1.0,420,0,0,1.5,0,""]',
        b'["a","file",true,420,0,0,1.5,0,""]',
        b'["a","file",1,420,0,0,"1.5",0,""]',
        b'["a","file",1,420,0,0,NaN,0,""]',
        b'["a","file",1,420,0,0,' + b"9" * 400 + b',0,""]',
        b'["a","file",1,420,0,0,1.5,100,""]',
        b'["a","file",101,420,0,0,1.5,0,""]',
        b'["a","file",1,420,0,0,1.5,0,null]',
    ],
)
def test_a_line_that_is_no_member_is_damage(line: bytes) -> None:
    index = Index.parse(packed({**GOOD_HEADER, "members": 2}, GOOD_ROW, GOOD_LINE + line + b"\n"))
    members = index.members()
    assert next(members).path == "a"
    with pytest.raises(DamageError, match="member 1 of the index"):
        next(members)


@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=300), wrap=st.sampled_from(["raw", "zstd", "magic", "rows"]))
def test_hostile_bytes_are_refused_with_a_clear_error(data: bytes, wrap: str) -> None:
    wrapped = {
        "raw": data,
        "zstd": zstd.compress(data),
        "magic": zstd.compress(MAGIC + data),
        "rows": packed({**GOOD_HEADER, "members": 3}, GOOD_ROW, data),
    }[wrap]
    with contextlib.suppress(RecoupError):
        list(Index.parse(wrapped).members())


def test_every_flipped_bit_of_a_stored_index_is_refused_before_decryption(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = seal_bytes(tar_of([("a", b"x" * 100)]), content=Content.TAR)
    monkeypatch.setattr("recoup.repository.object_reader.unseal", _never)
    for position in range(len(sealed.made.index)):
        changed = bytearray(sealed.made.index)
        changed[position] ^= 1 << position % 8
        sealed.store.put(INDEX_KEY, bytes(changed))
        with pytest.raises(DamageError, match=f"{INDEX_KEY} was changed"):
            sealed.load_index()
    for length in (0, 1, len(sealed.made.index) - 1):
        sealed.store.put(INDEX_KEY, sealed.made.index[:length])
        with pytest.raises(DamageError, match=f"{INDEX_KEY} is truncated"):
            sealed.load_index()
    sealed.store.delete(INDEX_KEY)
    with pytest.raises(DamageError, match=f"{INDEX_KEY} is missing"):
        sealed.load_index()


def _never(*args: object, **kwargs: object) -> bytes:
    raise AssertionError("decrypted before the digest matched")


def test_an_index_under_another_key_is_a_wrong_key_and_not_damage() -> None:
    for _ in range(40):  # one padding in 256 is right by chance
        sealed = seal_bytes(b"plain", key=OTHER_KEY)
        with pytest.raises(WrongKeyError, match=INDEX_KEY):
            sealed.load_index(KEY)


def test_the_index_of_another_object_is_refused() -> None:
    one, two = seal_bytes(b"one" * 1000), seal_bytes(b"another" * 1000)
    one.store.put(INDEX_KEY, two.made.index)
    with pytest.raises(DamageError, match=r"does not match its digest|bytes instead of"):
        one.load_index()


def test_an_index_is_smaller_than_one_percent_of_its_object() -> None:
    data = b"".join(struct.pack(">QQ", number, number * number) for number in range(1 << 18))  # 4 MiB
    sealed = seal_bytes(data, frame_bytes=256 << 10)
    assert len(sealed.made.index) < sealed.made.stored_bytes / 100
    assert unseal(KEY, sealed.made.index, what="index")
