"""The keeper of a command stream: in order, in every repository that answers, joined when that is safe."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from recoup.backup import stream_keeper
from recoup.backup.stream_keeper import Item, StreamKeeper, bring_up, newest_segment
from recoup.demo.host import wait_until
from recoup.kernel.errors import DamageError, StorageError
from recoup.repository.repository import Repository, open_or_create
from recoup.repository.seal import Key
from recoup.repository.stream_archive import StreamArchive, StreamSegment, seal_stream, segment_name
from recoup.storage.memory import MemoryStore

KEY = Key.from_text("0" * 64)
LINE = "a" * 40
T0 = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


def _repository(name: str) -> Repository:
    return open_or_create(name, MemoryStore(), KEY)


def _item(start: int, end: int, plain: bytes = b"x") -> Item:
    stamp = T0 + timedelta(seconds=end)
    return Item(replication_id=LINE, name=segment_name(start, end), start=start, end=end, stamp=stamp, plain=plain)


@pytest.fixture
def two() -> tuple[StreamArchive, StreamArchive]:
    return StreamArchive(_repository("one"), "redis"), StreamArchive(_repository("two"), "redis")


def _spans(archive: StreamArchive) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in archive.entries() if isinstance(one, StreamSegment)]


def test_small_segments_are_joined_and_go_when_the_large_one_is_stored(
    two: tuple[StreamArchive, StreamArchive],
) -> None:
    keeper = StreamKeeper(two, KEY, "redis", joined_bytes=30, joined_age=timedelta.max)
    keeper.start()
    for start in range(0, 50, 10):
        keeper.offer(_item(start, start + 10, b"%010d" % start))
    assert keeper.close(120)
    for archive in two:
        assert _spans(archive) == [(0, 30), (30, 40), (40, 50)]
        whole = next(iter(archive.entries()))
        assert archive.read(whole) == b"".join(b"%010d" % start for start in (0, 10, 20))
    assert keeper.stored is not None
    assert keeper.stored.end == 50
    assert keeper.queued_bytes == 0


def test_what_does_not_follow_is_not_joined(two: tuple[StreamArchive, StreamArchive]) -> None:
    keeper = StreamKeeper(two, KEY, "redis", joined_bytes=30, joined_age=timedelta.max)
    keeper.start()
    for start in (0, 10, 70, 80):
        keeper.offer(_item(start, start + 10, b"0123456789"))
    assert keeper.close(120)
    assert _spans(two[0]) == [(0, 20), (70, 80), (80, 90)]


def test_a_repository_that_fails_is_behind_and_is_brought_up(
    two: tuple[StreamArchive, StreamArchive], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_keeper, "_CATCH_UP_SECONDS", 0.01)
    put, failing = StreamArchive.put, [True]

    def fails(archive: StreamArchive, sealed: object) -> None:
        if failing[0] and archive is two[1]:
            raise StorageError("away")
        put(archive, sealed)  # type: ignore[arg-type]

    monkeypatch.setattr(StreamArchive, "put", fails)
    keeper = StreamKeeper(two, KEY, "redis", joined_age=timedelta.max)
    keeper.start()
    keeper.offer(_item(0, 10))
    assert wait_until(lambda: keeper.behind == {"two": "away"}, limit_seconds=120)
    keeper.offer(_item(10, 20))
    assert wait_until(lambda: keeper.drained, limit_seconds=120)
    assert keeper.error is None
    failing[0] = False
    assert wait_until(lambda: not keeper.behind, limit_seconds=120)
    keeper.close(120)
    assert _spans(two[1]) == [(0, 10), (10, 20)]


def test_a_damaged_object_is_not_passed_on_and_not_decrypted(two: tuple[StreamArchive, StreamArchive]) -> None:
    sealed = seal_stream(KEY, service="redis", replication_id=LINE, name=segment_name(0, 5), stamp=T0, plain=b"abc")
    two[0].put(sealed)
    two[0].put(sealed)  # the same again is a success
    entry = newest_segment(list(two[0].entries()))
    assert entry is not None
    assert two[0].read(entry) == b"abc"
    two[0].repository.store.put(entry.key, sealed.data[:-1] + bytes([sealed.data[-1] ^ 1]))
    with pytest.raises(DamageError, match="not authentic"):
        bring_up(two[1], [two[0]])
    other = sealed.key.replace(segment_name(0, 5), segment_name(5, 9))
    two[0].repository.store.put(other, sealed.data)
    renamed = next(one for one in two[0].entries() if one.key == other)
    with pytest.raises(DamageError, match="renamed"):
        two[0].read(renamed)
