"""Objects: what is sealed reads back, by Recoup in any way and by stock tools."""

from __future__ import annotations

import hashlib
import subprocess
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.engines.engine import Content
from recoup.kernel.errors import StorageError
from recoup.repository.object_reader import scrub
from recoup.repository.object_writer import ObjectSealer, default_frame_bytes
from recoup.repository.seal import Key
from tests.real import require
from tests.unit.repository.sealed import KEY, OBJECT_KEY, each_frame_of, read_as_stock_tools_do, seal_bytes, tar_of

COMPRESSION = st.sampled_from(["zstd", "gzip"])
SIZES = st.lists(st.integers(0, 3000), max_size=20)
# Bytes of every kind: random, repeated, and long enough for several frames.
DATA = st.one_of(
    st.binary(max_size=3000),
    st.tuples(st.binary(min_size=1, max_size=50), st.integers(1, 300)).map(lambda pair: pair[0] * pair[1]),
)


@settings(max_examples=80, deadline=None)
@given(data=DATA, compression=COMPRESSION, frame_bytes=st.integers(512, 5000), sizes=SIZES)
def test_any_bytes_in_any_frames_and_pieces_read_back(
    data: bytes, compression: str, frame_bytes: int, sizes: list[int]
) -> None:
    sealed = seal_bytes(data, compression=compression, frame_bytes=frame_bytes, sizes=sizes)
    assert read_as_stock_tools_do(sealed.object_bytes, compression) == data
    reader = sealed.reader()
    assert b"".join(reader.read()) == data
    assert each_frame_of(reader) == data
    index = sealed.load_index()
    assert scrub(sealed.store, OBJECT_KEY, index) == len(sealed.object_bytes)
    assert (sealed.made.plain_bytes, index.plain_bytes) == (len(data), len(data))
    assert [frame.plain_bytes for frame in index.rows()] == [
        min(frame_bytes, len(data) - start) for start in range(0, len(data), frame_bytes)
    ] or data == b""


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_range_equals_the_slice(data: st.DataObject) -> None:
    plain = data.draw(DATA)
    sealed = seal_bytes(plain, compression=data.draw(COMPRESSION), frame_bytes=data.draw(st.integers(512, 2000)))
    reader = sealed.reader()
    for _ in range(20):
        start = data.draw(st.integers(0, len(plain)))
        stop = data.draw(st.integers(start, len(plain)))
        assert b"".join(reader.read(start, stop - start)) == plain[start:stop]
    for start, length in ((-1, 1), (0, len(plain) + 1), (len(plain) + 1, 0), (1, -1)):
        with pytest.raises(ValueError, match="of a stream of"):
            list(reader.read(start, length))


@pytest.mark.parametrize("compression", ["zstd", "gzip"])
@pytest.mark.parametrize("text", ["a1" * 32, "a passphrase with spaces"])
def test_stock_openssl_and_zstd_or_gunzip_give_the_plain_bytes(compression: str, text: str, tmp_path: Path) -> None:
    key = Key.from_text(text)
    openssl, expander = require("openssl"), require("zstd" if compression == "zstd" else "gunzip")
    (tmp_path / "key").write_text(text + "\n")
    for number, plain in enumerate((b"", b"x", bytes(range(256)) * 400, hashlib.sha512(b"").digest() * 16)):
        sealed = seal_bytes(plain, compression=compression, frame_bytes=1024 * 3 + 16 * number, key=key)
        (tmp_path / "object").write_bytes(sealed.object_bytes)
        options = ["-pbkdf2", "-md", "sha256", "-iter", str(key.iterations), "-pass", f"file:{tmp_path / 'key'}"]
        decrypted = subprocess.run(
            [openssl, "enc", "-d", "-aes-256-cbc", *options, "-in", tmp_path / "object"],
            capture_output=True,
            check=True,
        )
        assert decrypted.stderr == b""
        expanded = subprocess.run([expander, "-dc"], input=decrypted.stdout, capture_output=True, check=True)
        assert expanded.stdout == plain


def test_an_object_of_many_requests_reads_back_in_order_and_out_of_order() -> None:
    part = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(1 << 15))  # 1 MiB
    data = b"".join(bytes([number]) * 7 + part for number in range(24))
    sealed = seal_bytes(data, frame_bytes=64 << 10, sizes=[1_000_000] * 20)
    reader = sealed.reader(workers=3)
    assert b"".join(reader.read()) == data
    assert b"".join(reader.read(5_000_001, 15_000_000)) == data[5_000_001:20_000_001]
    assert each_frame_of(reader, workers=4) == data


def test_two_readings_at_once_in_one_thread_do_not_disturb_each_other() -> None:
    data = b"".join(number.to_bytes(4, "big") for number in range(50_000))
    reader = seal_bytes(data, frame_bytes=8192).reader()
    one, two = reader.read(0, 100_000), reader.read(100_000, 100_000)
    parts = list(zip(one, two, strict=False))
    assert b"".join(part for part, _ in parts) == data[: sum(len(part) for part, _ in parts)]
    assert b"".join(part for _, part in parts) == data[100_000:][: sum(len(part) for _, part in parts)]


def test_leaving_a_reading_early_stops_its_threads() -> None:
    data = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(1 << 19))  # 16 MiB
    reader = seal_bytes(data, frame_bytes=64 << 10).reader()
    before = threading.active_count()
    read = reader.read()
    next(read)
    read.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_an_error_of_what_is_done_with_a_frame_ends_the_reading_and_is_raised() -> None:
    sealed = seal_bytes(bytes(64 << 20), frame_bytes=64 << 10)
    before = threading.active_count()
    acts: list[int] = []

    def act(start: int, _: bytes) -> None:
        acts.append(start)
        if len(acts) == 5:
            raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="the disk is full"):
        sealed.reader().each_frame(act, workers=3)
    assert len(acts) <= 5 + 2, "the other threads end with the frame they have"
    assert threading.active_count() == before


def test_frames_are_acted_upon_by_several_threads_at_once() -> None:
    both = threading.Barrier(2, timeout=120)
    met = threading.Event()

    def act(_: int, __: bytes) -> None:
        if not met.is_set():
            both.wait()  # raises BrokenBarrierError unless a second thread comes while the first is still in here
            met.set()

    seal_bytes(bytes(64 << 20), frame_bytes=1 << 20).reader().each_frame(act, workers=2)
    assert met.is_set()


def test_the_buffer_given_to_write_may_be_reused_at_once() -> None:
    blocks: list[bytes] = []
    buffer = bytearray(700)
    with ObjectSealer(KEY, blocks.append, frame_bytes=1024) as sealer:
        for number in range(50):
            buffer[:] = bytes([number]) * 700
            sealer.write(memoryview(buffer))
        sealer.finish()
    expected = b"".join(bytes([number]) * 700 for number in range(50))
    assert read_as_stock_tools_do(b"".join(blocks), "zstd") == expected


def test_the_same_bytes_twice_give_objects_that_share_nothing() -> None:
    one, two = seal_bytes(b"the same" * 1000), seal_bytes(b"the same" * 1000)
    assert one.object_bytes[8:16] != two.object_bytes[8:16]
    assert not set(_blocks(one.object_bytes)) & set(_blocks(two.object_bytes))


def _blocks(data: bytes) -> list[bytes]:
    return [data[at : at + 16] for at in range(0, len(data), 16)]


# 1 MiB in frames of 4 KiB is emitted as one header, 256 frames and one block of padding.
@pytest.mark.parametrize("fails_at", [1, 2, 30, 257, 258])
def test_an_error_while_emitting_reaches_the_writer_and_never_hangs(fails_at: int) -> None:
    emitted = 0

    def emit(block: bytes) -> None:
        nonlocal emitted
        emitted += 1
        if emitted == fails_at:
            raise StorageError("the disk is full")

    with ObjectSealer(KEY, emit, frame_bytes=4096) as sealer:
        with pytest.raises(StorageError, match="the disk is full"):
            _write_all(sealer, bytes(1 << 20))
        for again in (lambda: sealer.write(b"more"), sealer.finish):
            with pytest.raises(StorageError, match="the disk is full"):
                again()
        assert emitted == fails_at, "nothing is emitted after an error"


def test_an_endless_writer_hears_of_an_error_while_it_writes() -> None:
    with ObjectSealer(KEY, _refuse, frame_bytes=4096) as sealer, pytest.raises(StorageError, match="the disk is full"):
        _write_all(sealer, bytes(1 << 30))


def _write_all(sealer: ObjectSealer, data: bytes) -> None:
    for at in range(0, len(data), 1 << 16):
        sealer.write(memoryview(data)[at : at + (1 << 16)])
    sealer.finish()


def _refuse(block: bytes) -> None:
    raise StorageError("the disk is full")


def test_after_abort_nothing_is_emitted_and_writing_is_refused() -> None:
    blocks: list[bytes] = []
    sealer = ObjectSealer(KEY, blocks.append, frame_bytes=1024)
    sealer.write(bytes(100_000))
    sealer.abort()
    count = len(blocks)
    sealer.abort()
    with pytest.raises(ValueError, match="aborted"):
        sealer.write(b"x")
    with pytest.raises(ValueError, match="aborted"):
        sealer.finish()
    assert len(blocks) == count


def test_a_slow_emit_holds_the_writer_back() -> None:
    gate = threading.Event()
    written = threading.Event()
    sealer = ObjectSealer(KEY, lambda block: gate.wait(120) and None, frame_bytes=1 << 20)

    def write() -> None:
        for _ in range(60):
            sealer.write(bytes(1 << 20))
        written.set()

    thread = threading.Thread(target=write)
    thread.start()
    assert not written.wait(0.5), "60 MiB were taken although nothing could be emitted"
    gate.set()
    assert written.wait(120)
    thread.join()
    assert sealer.finish().plain_bytes == 60 << 20


def test_frame_sizes_outside_the_format_are_refused() -> None:
    for frame_bytes in (1, 511, (16 << 20) + 1):
        with pytest.raises(ValueError, match="frames of"):
            ObjectSealer(KEY, lambda block: None, frame_bytes=frame_bytes)
    with pytest.raises(ValueError, match="lz4"):
        ObjectSealer(KEY, lambda block: None, compression="lz4")
    for content in Content:
        assert 64 << 10 <= default_frame_bytes(content) <= 1 << 20


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 6000), max_size=8), frame_bytes=st.sampled_from([512, 1024, 2048]), sizes=SIZES)
def test_a_tar_is_cut_at_large_members_and_its_members_read_from_their_offsets(
    lengths: list[int], frame_bytes: int, sizes: list[int]
) -> None:
    files = [(f"base/{number}", bytes([number + 1]) * length) for number, length in enumerate(lengths)]
    data = tar_of(files)
    sealed = seal_bytes(data, content=Content.TAR, frame_bytes=frame_bytes, sizes=sizes)
    assert read_as_stock_tools_do(sealed.object_bytes, "zstd") == data
    reader = sealed.reader()
    members = list(reader.members())
    assert [member.path for member in members] == [path for path, _ in files]
    starts = {frame.plain_start for frame in sealed.load_index().rows()}
    for member, (_, content) in zip(members, files, strict=True):
        assert b"".join(reader.read(member.offset, member.size_bytes)) == content
        if member.size_bytes >= frame_bytes:
            assert set(range(member.offset, member.offset + member.size_bytes, frame_bytes)) <= starts
