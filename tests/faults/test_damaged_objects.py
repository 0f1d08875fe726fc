"""Objects in a repository that were changed, cut, swapped or lost: refused before decryption, with the place named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from recoup.engines.engine import Content
from recoup.kernel.errors import DamageError, Exit, RecoupError, StorageError, TransientStorageError, WrongKeyError
from recoup.repository import object_reader
from recoup.repository.index import Frame
from recoup.repository.object_reader import ObjectReader, scrub
from recoup.storage.memory import MemoryStore
from tests.fuzz.targets import TARGETS
from tests.unit.repository.sealed import (
    INDEX_KEY,
    KEY,
    OBJECT_KEY,
    OTHER_KEY,
    Sealed,
    each_frame_of,
    seal_bytes,
    tar_of,
)

PLAIN = tar_of([("base/1", bytes(range(256)) * 20), ("base/2", b"text " * 700), ("global/pg_control", b"c" * 8192)])


@pytest.fixture(params=["zstd", "gzip"])
def sealed(request: pytest.FixtureRequest) -> Sealed:
    return seal_bytes(PLAIN, content=Content.TAR, frame_bytes=1024, compression=request.param)


def ways_to_read(sealed: Sealed) -> Iterator[tuple[str, object]]:
    """Every way that reads all of an object, each as a call."""
    index = sealed.load_index()
    reader = ObjectReader(sealed.store, OBJECT_KEY, key=KEY, index=index, workers=2)
    yield "read", lambda: b"".join(reader.read())
    yield "each_frame", lambda: each_frame_of(reader)
    yield "scrub", lambda: scrub(sealed.store, OBJECT_KEY, index)


def regions(sealed: Sealed) -> dict[str, int]:
    """One byte of every kind of region in an object, by its offset."""
    rows = list(sealed.load_index().rows())
    middle = rows[len(rows) // 2]
    return {
        "magic": 3,
        "salt": 11,
        "first frame": 16 + 5,
        "IV block of a frame": middle.cipher_start + 7,
        "beginning of a frame": middle.cipher_start + 16,
        "end of a frame": middle.cipher_start + 16 + middle.cipher_bytes - 1,
        "last frame": rows[-1].cipher_start + 16,
        "padding": len(sealed.object_bytes) - 1,
    }


@pytest.fixture
def no_decryption(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """Whatever is decrypted during the test is noted here."""
    decrypted: list[tuple[int, ...]] = []
    really = ObjectReader._decrypt

    def noting(self: ObjectReader, run: object_reader.Run, span: memoryview, plain: bytearray) -> None:
        decrypted.append(tuple(frame.number for frame in run.frames))
        really(self, run, span, plain)

    monkeypatch.setattr(ObjectReader, "_decrypt", noting)
    return decrypted  # type: ignore[return-value]


def test_a_flipped_bit_in_any_region_is_refused_before_decryption(
    sealed: Sealed, no_decryption: list[tuple[int, ...]]
) -> None:
    rows = list(sealed.load_index().rows())
    for region, position in regions(sealed).items():
        changed = bytearray(sealed.object_bytes)
        changed[position] ^= 0x10
        sealed.store.put(OBJECT_KEY, bytes(changed))
        for name, act in ways_to_read(sealed):
            with pytest.raises(DamageError, match="changed") as refused:
                act()  # type: ignore[operator]
            named = re.search(r"frame (\d+) \(bytes (\d+) to (\d+)\)", refused.value.message)
            assert named, f"{region}, {name}: {refused.value.message}"
            frame = rows[int(named[1])]
            assert frame.cipher_start <= position < frame.cipher_start + 16 + frame.cipher_bytes, region
            assert int(named[3]) - int(named[2]) + 1 == frame.cipher_bytes
            assert refused.value.message.startswith(OBJECT_KEY)
            assert refused.value.exit_code is Exit.BAD
    assert no_decryption == []


@seed(20261123)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_no_flip_anywhere_yields_a_wrong_byte(data: st.DataObject) -> None:
    sealed = _SEALED
    changed = bytearray(sealed.object_bytes)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    store = MemoryStore()
    store.put(OBJECT_KEY, bytes(changed))
    store.put(INDEX_KEY, sealed.made.index)
    reader = sealed.reader(store)
    at = 0
    try:
        for piece in reader.read():
            assert piece == PLAIN[at : at + len(piece)]
            at += len(piece)
    except DamageError:
        return
    assert bytes(changed) == sealed.object_bytes, "damage went unnoticed"


def test_ranges_away_from_the_damage_still_read(sealed: Sealed) -> None:
    rows = list(sealed.load_index().rows())
    changed = bytearray(sealed.object_bytes)
    changed[rows[5].cipher_start + 20] ^= 1
    sealed.store.put(OBJECT_KEY, bytes(changed))
    reader = sealed.reader()
    for frame in rows:
        if frame.number == 5:
            with pytest.raises(DamageError, match="frame 5 "):
                _plain(reader, frame)
        else:
            assert _plain(reader, frame) == PLAIN[frame.plain_start :][: frame.plain_bytes]


def _plain(reader: ObjectReader, frame: Frame) -> bytes:
    return b"".join(reader.read(frame.plain_start, frame.plain_bytes))


def test_a_truncated_object_is_refused_and_the_first_incomplete_frame_named(
    sealed: Sealed, no_decryption: list[tuple[int, ...]]
) -> None:
    rows = list(sealed.load_index().rows())
    for length in (
        0,
        5,
        16,
        40,
        rows[3].cipher_start + 16,
        len(sealed.object_bytes) - 16,
        len(sealed.object_bytes) - 1,
    ):
        sealed.store.put(OBJECT_KEY, sealed.object_bytes[:length])
        cut = next(row for row in rows if row.cipher_start + 16 + row.cipher_bytes > length)
        for _, act in ways_to_read(sealed):
            with pytest.raises(
                DamageError, match=f"{OBJECT_KEY} is truncated: it has {length} bytes.*frame {cut.number} "
            ):
                act()  # type: ignore[operator]
    assert no_decryption == []


def test_a_lengthened_object_is_noticed_by_the_scrub_and_its_frames_still_read(sealed: Sealed) -> None:
    sealed.store.put(OBJECT_KEY, sealed.object_bytes + b"x")
    with pytest.raises(DamageError, match="was changed: it has"):
        scrub(sealed.store, OBJECT_KEY, sealed.load_index())
    assert b"".join(sealed.reader().read()) == PLAIN


def test_a_missing_object_is_named(sealed: Sealed) -> None:
    sealed.store.delete(OBJECT_KEY)
    for _, act in ways_to_read(sealed):
        with pytest.raises(DamageError, match=f"{OBJECT_KEY} is missing"):
            act()  # type: ignore[operator]


def test_two_swapped_frames_are_refused() -> None:
    plain = bytes(100_000)  # equal frames: only where they stand tells them apart
    sealed = seal_bytes(plain, frame_bytes=10_000)
    rows = list(sealed.load_index().rows())
    one, two = rows[3], rows[6]
    assert one.cipher_bytes == two.cipher_bytes
    swapped = bytearray(sealed.object_bytes)
    for put, take in ((one, two), (two, one)):
        piece = sealed.object_bytes[take.cipher_start + 16 :][: take.cipher_bytes]
        swapped[put.cipher_start + 16 : put.cipher_start + 16 + put.cipher_bytes] = piece
    sealed.store.put(OBJECT_KEY, bytes(swapped))
    with pytest.raises(DamageError, match="frame 3 "):
        list(sealed.reader().read())


def test_two_swapped_objects_are_refused() -> None:
    one, two = seal_bytes(PLAIN), seal_bytes(PLAIN[::-1])
    one.store.put(OBJECT_KEY, two.object_bytes)
    with pytest.raises(DamageError):
        list(one.reader().read())
    one.store.put(OBJECT_KEY, one.object_bytes)
    stolen = replace(one, made=two.made)
    one.store.put(INDEX_KEY, two.made.index)
    with pytest.raises(DamageError):
        list(stolen.reader().read())


def test_authentic_bytes_under_another_key_are_a_wrong_key_and_not_damage(sealed: Sealed) -> None:
    reader = ObjectReader(sealed.store, OBJECT_KEY, key=OTHER_KEY, index=sealed.load_index())
    with pytest.raises(WrongKeyError, match=OTHER_KEY.id[:16]) as refused:
        list(reader.read())
    assert refused.value.exit_code is Exit.WRONG_KEY
    assert refused.value.hint


class FailingStore(MemoryStore):
    """Fails every read from a given one on."""

    def __init__(self, sealed: Sealed, error: RecoupError, first: int) -> None:
        super().__init__("failing:")
        self._error, self._left = error, first
        self.put(OBJECT_KEY, sealed.object_bytes)
        self.put(INDEX_KEY, sealed.made.index)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        self._left -= 1
        if self._left <= 0:
            raise self._error
        return super().read_range(key, start, length)


@pytest.mark.parametrize("error", [StorageError("the server said no"), TransientStorageError("no answer")])
@pytest.mark.parametrize("first", [1, 2, 5])
def test_a_store_that_fails_is_not_called_damage_and_nothing_hangs(error: StorageError, first: int) -> None:
    sealed = seal_bytes(bytes(100 << 20), frame_bytes=1 << 20)
    reader = sealed.reader(FailingStore(sealed, error, first))
    for act in (lambda: list(reader.read()), lambda: each_frame_of(reader)):
        with pytest.raises(type(error), match=error.message):
            act()


class ShortStore(MemoryStore):
    """Breaks its promise: gives fewer bytes than asked for, and does not say so."""

    def read_range(self, key: str, start: int, length: int) -> bytes:
        return super().read_range(key, start, length)[:-1]


def test_a_store_that_gives_too_little_is_refused() -> None:
    sealed = seal_bytes(PLAIN)
    store = ShortStore("short:")
    store.put(OBJECT_KEY, sealed.object_bytes)
    with pytest.raises(StorageError, match="instead of"):
        list(sealed.reader(store).read())


def test_what_one_repository_lost_comes_from_the_other(sealed: Sealed) -> None:
    whole = MemoryStore("whole:")
    whole.put(OBJECT_KEY, sealed.object_bytes)
    changed = bytearray(sealed.object_bytes)
    changed[100] ^= 1
    for damaged in (bytes(changed), sealed.object_bytes[:300], None):
        store = MemoryStore("damaged:")
        if damaged is not None:
            store.put(OBJECT_KEY, damaged)
        reader = sealed.reader(store, whole)
        assert b"".join(reader.read()) == PLAIN
        assert each_frame_of(reader) == PLAIN
        assert reader.passed_over, "what was wrong is told"
        assert all(isinstance(failure, DamageError) for failure in reader.passed_over)


def test_two_damaged_repositories_together_still_give_every_byte(sealed: Sealed) -> None:
    rows = list(sealed.load_index().rows())
    stores = []
    for number in (2, 9):
        changed = bytearray(sealed.object_bytes)
        changed[rows[number].cipher_start + 24] ^= 1
        stores.append(MemoryStore(f"copy{number}:"))
        stores[-1].put(OBJECT_KEY, bytes(changed))
    assert b"".join(sealed.reader(*stores).read()) == PLAIN
    both = bytearray(sealed.object_bytes)
    both[rows[9].cipher_start + 25] ^= 1
    stores[0].put(OBJECT_KEY, bytes(both))
    with pytest.raises(DamageError, match=r"no repository has it right .*copy2:.*frame 9 .*copy9:.*frame 9 "):
        list(sealed.reader(*stores).read())


def test_an_index_comes_from_the_repository_that_has_it_right() -> None:
    sealed = seal_bytes(PLAIN)
    broken = MemoryStore()
    for stores in ([broken, sealed.store], [sealed.store, broken]):
        assert object_reader.load_index(stores, sealed, key=KEY).plain_bytes == len(PLAIN)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_no_input_of_a_reader_ends_in_anything_but_an_answer_or_a_clear_error(target: object) -> None:
    @seed(20261123)
    @settings(max_examples=100, deadline=None)
    @given(data=st.binary(max_size=2000))
    def feed(data: bytes) -> None:
        target(data)  # type: ignore[operator]

    feed()


_SEALED = seal_bytes(PLAIN, content=Content.TAR, frame_bytes=1024)
