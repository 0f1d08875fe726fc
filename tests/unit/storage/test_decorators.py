"""Stores around stores: what they add, beyond passing the conformance suite."""

from __future__ import annotations

import random

import pytest

from recoup.kernel.errors import MissingObjectError, RefusedError, StorageError, TransientStorageError
from recoup.storage.counting import CountingStore
from recoup.storage.faults import Fault, FaultyStore
from recoup.storage.memory import MemoryStore
from recoup.storage.object_store import ObjectExistsError, ObjectStore
from recoup.storage.read_only import ReadOnlyStore
from recoup.storage.retrying import RetryingStore

DATA = random.Random(1).randbytes((3 << 20) + 5)


def scenario(store: ObjectStore) -> None:
    """Everything a store can do, once."""
    with store.writer("large", expected_bytes=len(DATA)) as writer:
        writer.write(DATA[:1000])
        writer.write(DATA[1000:])
        writer.commit()
    store.put("small", b"small", if_absent=True)
    assert b"".join(store.read("large")) == DATA
    assert store.read_range("large", 10, 10) == DATA[10:20]
    assert [info.key for info in store.list()] == ["large", "small"]
    store.stat("small")
    assert store.get("small") == b"small"
    store.delete("small")
    store.discard_unfinished("")


def outcome(store: ObjectStore) -> StorageError | None:
    try:
        scenario(store)
    except StorageError as failure:
        return failure
    return None


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.LOST_ANSWER])
def test_each_single_operation_can_be_made_to_fail(fault: Fault) -> None:
    struck: list[str] = []
    for number in range(1, 100):
        store = FaultyStore(MemoryStore(), fail_call=number, fault=fault)
        failure = outcome(store)
        if failure is None:
            assert (store.struck, store.calls) == ([], number - 1)
            break
        assert failure.message.startswith("fault on purpose")
        assert len(store.struck) == 1
        struck += store.struck
    operations = [line.split()[1] for line in struck]
    assert operations == [
        *("writer", "write", "write", "commit", "put", "read", "piece", "piece", "piece", "piece", "read_range"),
        *("list", "entry", "entry", "stat", "get", "delete", "discard_unfinished"),
    ]


def test_after_a_failed_write_nothing_is_committed() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, fail_call=2)
    with store.writer("key") as writer:
        with pytest.raises(StorageError, match="fault on purpose: write key"):
            writer.write(b"x")
        with pytest.raises(StorageError, match="already ended"):
            writer.commit()
    assert list(inner.list()) == []


def test_a_lost_answer_of_a_commit_leaves_the_object() -> None:
    inner = MemoryStore()
    with FaultyStore(inner, fail_call=3, fault=Fault.LOST_ANSWER).writer("key") as writer:
        writer.write(b"x")
        with pytest.raises(StorageError, match="fault on purpose"):
            writer.commit()
    assert inner.get("key") == b"x"


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_cut_read_ends_early_and_says_nothing(number: int) -> None:
    inner = MemoryStore()
    inner.put("key", DATA)
    received = b"".join(FaultyStore(inner, fail_call=number, fault=Fault.CUT, seed=number).read("key"))
    assert DATA.startswith(received)
    assert len(received) < len(DATA)


def test_a_flipped_bit_is_one_bit_and_the_seed_repeats_it() -> None:
    inner = MemoryStore()
    inner.put("key", DATA)

    def flipped(seed: int) -> bytes:
        return FaultyStore(inner, fail_call=1, fault=Fault.FLIP, seed=seed).get("key")

    assert flipped(1) == flipped(1) != flipped(2)
    difference = int.from_bytes(flipped(3), "big") ^ int.from_bytes(DATA, "big")
    assert difference.bit_count() == 1
    FaultyStore(inner, fail_call=1, fault=Fault.FLIP).put("other", b"\0")
    assert inner.get("other")[0].bit_count() == 1


def test_a_slow_operation_waits_as_told() -> None:
    waits: list[float] = []
    store = FaultyStore(MemoryStore(), fail_call=2, fault=Fault.SLOW, delay_seconds=7, pause=waits.append)
    store.put("key", b"x")
    assert waits == []
    assert store.get("key") == b"x"
    assert waits == [7]


def test_only_what_is_concerned_is_counted() -> None:
    store = FaultyStore(MemoryStore(), fail_call=1, concerns=lambda operation, key: operation == "put" and key == "b")
    store.put("a", b"x")
    with pytest.raises(StorageError, match="put b"):
        store.put("b", b"x")


def test_a_read_only_store_refuses_every_change_and_reads() -> None:
    inner = MemoryStore()
    inner.put("key", b"x")
    store = ReadOnlyStore(inner)
    for change in (
        lambda: store.put("key", b"y"),
        lambda: store.writer("key"),
        lambda: store.delete("key"),
        lambda: store.discard_unfinished("key"),
    ):
        with pytest.raises(RefusedError, match="for reading only"):
            change()
    assert store.get("key") == b"x"
    assert [info.key for info in store.list()] == ["key"]
    assert b"".join(store.read("key")) == store.read_range("key", 0, 1) == b"x"
    assert store.stat("key") == inner.stat("key")


def test_a_counting_store_counts() -> None:
    store = CountingStore(MemoryStore())
    scenario(store)
    assert store.bytes_written == len(DATA) + 5
    assert store.bytes_read == len(DATA) + 10 + 5
    assert store.operations == {
        "writer": 1,
        "write": 2,
        "commit": 1,
        "put": 1,
        "read": 1,
        "read_range": 1,
        "list": 1,
        "stat": 1,
        "get": 1,
        "delete": 1,
        "discard_unfinished": 1,
    }


def test_an_error_that_cannot_pass_is_raised_at_once() -> None:
    waits: list[float] = []
    faulty = FaultyStore(MemoryStore(), share=1)
    with pytest.raises(StorageError, match="fault on purpose"):
        RetryingStore(faulty, pause=waits.append).get("key")
    assert faulty.calls == 1
    assert waits == []
    with pytest.raises(MissingObjectError):
        RetryingStore(MemoryStore(), pause=waits.append).get("key")
    assert waits == []


def test_attempts_and_pauses_are_bounded_and_spread() -> None:
    waits: list[float] = []
    faulty = FaultyStore(MemoryStore(), share=1, error=TransientStorageError)
    store = RetryingStore(
        faulty, attempts=6, first_pause_seconds=1, longest_pause_seconds=5, pause=waits.append, chance=random.Random(1)
    )
    with pytest.raises(TransientStorageError) as caught:
        store.stat("key")
    assert faulty.calls == 6
    assert caught.value.__notes__ == ["tried 6 times"]
    for wait, longest in zip(waits, [1, 2, 4, 5, 5], strict=True):
        assert longest / 2 <= wait <= longest
    assert len(set(waits)) == 5


def test_a_read_goes_on_where_it_was_broken_off() -> None:
    inner = CountingStore(MemoryStore())
    inner.put("key", DATA)
    faulty = FaultyStore(inner, fail_call=3, error=TransientStorageError)
    store = RetryingStore(faulty, pause=lambda _seconds: None)
    assert b"".join(store.read("key", 7, len(DATA) - 9)) == DATA[7:-2]
    assert inner.bytes_read == len(DATA) - 9 + (1 << 20)  # the piece that was lost came twice


def test_a_fresh_key_that_another_took_is_not_mistaken_for_ours() -> None:
    inner = MemoryStore()
    inner.put("lease", b"theirs")
    faulty = FaultyStore(inner, fail_call=1, error=TransientStorageError)
    store = RetryingStore(faulty, pause=lambda _seconds: None)
    with pytest.raises(ObjectExistsError):
        store.put("lease", b"ours", if_absent=True)
    assert inner.get("lease") == b"theirs"


def test_a_fresh_key_won_with_a_lost_answer_is_ours() -> None:
    inner = MemoryStore()
    faulty = FaultyStore(inner, fail_call=1, fault=Fault.LOST_ANSWER, error=TransientStorageError)
    store = RetryingStore(faulty, pause=lambda _seconds: None)
    assert store.put("lease", b"ours", if_absent=True) == inner.stat("lease")
