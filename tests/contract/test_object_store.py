"""What every object store must do, whatever it is made of. Each is put through all of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from recoup.demo.servers import S3Server
from recoup.kernel.errors import MissingObjectError, StorageError, TransientStorageError
from recoup.kernel.secret import Secret
from recoup.storage.counting import CountingStore
from recoup.storage.decorator import StoreDecorator
from recoup.storage.faults import Fault, FaultyStore
from recoup.storage.local import LocalStore
from recoup.storage.memory import MemoryStore
from recoup.storage.object_store import ObjectExistsError, ObjectStore
from recoup.storage.retrying import RetryingStore
from recoup.storage.s3 import S3Store

MEBIBYTE = 1 << 20
BIG = 37 * MEBIBYTE + 12_345  # several parts of an upload, several segments of a download, and a rest


def s3_store(server: S3Server, bucket: str, prefix: str = "") -> S3Store:
    return S3Store(
        bucket,
        prefix,
        endpoint_url=server.endpoint,
        region=server.region,
        access_key=server.access_key,
        secret_key=Secret(server.secret_key),
    )


@pytest.fixture(scope="module")
def noise() -> bytes:
    return os.urandom(BIG)


@pytest.fixture(scope="module")
def bucket(s3: S3Server) -> str:
    """One for all: each bucket costs SeaweedFS volumes and time."""
    return s3.new_bucket()


@pytest.fixture(scope="module")
def in_bucket(s3: S3Server, bucket: str) -> dict[str, S3Store]:
    """The stores in it, by their prefix. They keep nothing but a client, which takes longer to make than most tests."""
    return {prefix: s3_store(s3, bucket, prefix) for prefix in ("", "stacks/one")}


def emptied(store: ObjectStore) -> ObjectStore:
    for info in store.list():
        store.delete(info.key)
    return store


def retried(inner: ObjectStore, fault: Fault) -> ObjectStore:
    """A store that fails at one operation in twenty, behind one that tries again. Writers are not tried again."""
    faulty = FaultyStore(
        inner,
        share=0.05,
        fault=fault,
        error=TransientStorageError,
        concerns=lambda operation, _key: operation not in ("write", "commit"),
    )
    return RetryingStore(faulty, attempts=100, pause=lambda _seconds: None)


DECORATED: dict[str, Callable[[ObjectStore], ObjectStore]] = {
    "memory": lambda inner: inner,
    "passed on": StoreDecorator,
    "counted": CountingStore,
    "faulty, without a fault": FaultyStore,
    "slow": lambda inner: FaultyStore(inner, share=0.5, fault=Fault.SLOW, delay_seconds=0.0001),
    "failing and retried": lambda inner: retried(inner, Fault.ERROR),
    "losing answers and retried": lambda inner: retried(inner, Fault.LOST_ANSWER),
}


@pytest.fixture(params=[*DECORATED, "local", "s3", "s3 with a prefix"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    match request.param:
        case name if name in DECORATED:
            return DECORATED[name](MemoryStore())
        case "local":
            return LocalStore(tmp_path / "store", create=True)
    stores = request.getfixturevalue("in_bucket")
    return emptied(stores["stacks/one" if "prefix" in request.param else ""])


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_what_was_put_is_what_comes_back(store: ObjectStore) -> None:
    info = store.put("manifests/a.json", b"hello")
    assert (info.key, info.size_bytes) == ("manifests/a.json", 5)
    assert store.get("manifests/a.json") == b"hello"
    assert b"".join(store.read("manifests/a.json")) == b"hello"
    assert store.stat("manifests/a.json") == info
    assert list(store.list()) == [info]


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    with store.writer("written-empty") as writer:
        assert writer.commit().size_bytes == 0
    for key in ("empty", "written-empty"):
        assert store.get(key) == b""
        assert list(store.read(key)) == []
        assert store.read_range(key, 0, 0) == b""
        assert store.stat(key).size_bytes == 0
        with pytest.raises(StorageError):
            store.read_range(key, 0, 1)
    assert keys(store) == ["empty", "written-empty"]


def test_a_second_put_replaces_the_first_and_changes_the_version(store: ObjectStore) -> None:
    first = store.put("key", b"one")
    second = store.put("key", b"two")
    assert store.get("key") == b"two"
    assert first.version != second.version
    assert store.stat("key") == second
    assert keys(store) == ["key"]


def test_a_taken_key_is_refused_when_a_fresh_one_was_asked_for(store: ObjectStore) -> None:
    info = store.put("lease", b"mine", if_absent=True)
    with pytest.raises(ObjectExistsError, match="lease"):
        store.put("lease", b"theirs", if_absent=True)
    assert store.get("lease") == b"mine"
    assert store.stat("lease") == info
    store.delete("lease")
    store.put("lease", b"theirs", if_absent=True)
    assert store.get("lease") == b"theirs"


def test_of_many_writers_of_a_fresh_key_exactly_one_wins(store: ObjectStore) -> None:
    barrier = threading.Barrier(8)

    def attempt(number: int) -> bytes | None:
        barrier.wait(120)
        try:
            store.put("folder/lease", b"writer %d" % number, if_absent=True)
        except ObjectExistsError:
            return None
        return b"writer %d" % number

    with ThreadPoolExecutor(8) as pool:
        winners = [each for each in pool.map(attempt, range(8)) if each is not None]
    assert [store.get("folder/lease")] == winners


def test_a_large_object_comes_back_whole(store: ObjectStore, noise: bytes) -> None:
    with store.writer("base/large.tar", expected_bytes=BIG) as writer:
        view = memoryview(noise)
        position = 0
        for size in (1, 15, 16, 8 * MEBIBYTE, 3, 700_000, 17 * MEBIBYTE, BIG):
            writer.write(view[position : position + size])
            position += size
        info = writer.commit()
    assert info.size_bytes == BIG
    assert store.stat("base/large.tar") == info
    pieces = list(store.read("base/large.tar"))
    assert b"".join(pieces) == noise
    assert max(map(len, pieces)) <= MEBIBYTE
    assert store.get("base/large.tar") == noise


RANGES: tuple[tuple[int, int | None], ...] = (
    (0, 1),
    (1, 0),
    (0, BIG),
    (5, 11 * MEBIBYTE),
    (8 * MEBIBYTE - 1, 2),
    (8 * MEBIBYTE, 8 * MEBIBYTE),
    (BIG - 1, 1),
    (BIG, 0),
    (17, None),
    (BIG - 3, None),
    (BIG, None),
)


def test_any_range_is_the_same_range_of_the_bytes(store: ObjectStore, noise: bytes) -> None:
    with store.writer("object") as writer:
        writer.write(noise)
        writer.commit()
    for start, length in RANGES:
        end = BIG if length is None else start + length
        assert b"".join(store.read("object", start, length)) == noise[start:end], (start, length)
        if length is not None:
            assert store.read_range("object", start, length) == noise[start:end], (start, length)


@pytest.mark.parametrize(("start", "length"), [(0, 11), (10, 1), (11, 0), (11, None), (5, 1 << 40), (1 << 40, 1)])
def test_a_range_beyond_the_end_is_an_error_and_not_a_short_answer(
    store: ObjectStore, start: int, length: int | None
) -> None:
    store.put("ten", b"0123456789")
    with pytest.raises(StorageError, match="ten has 10 bytes"):
        list(store.read("ten", start, length))


@pytest.mark.parametrize(("start", "length"), [(-1, 1), (0, -1), (-5, None)])
def test_a_range_that_cannot_be_meant_is_a_programming_error(
    store: ObjectStore, start: int, length: int | None
) -> None:
    store.put("ten", b"0123456789")
    with pytest.raises(ValueError, match="not a range"):
        store.read("ten", start, length)


def test_a_missing_object_is_missing_in_every_way(store: ObjectStore) -> None:
    store.put("other", b"x")
    for ask in (
        lambda: store.get("nothing/here"),
        lambda: list(store.read("nothing/here")),
        lambda: list(store.read("nothing/here", 0, 0)),
        lambda: store.read_range("nothing/here", 5, 5),
        lambda: store.stat("nothing/here"),
        lambda: store.stat("other/below-an-object"),
    ):
        with pytest.raises(MissingObjectError, match=r"nothing/here|below-an-object"):
            ask()


def test_a_folder_of_keys_is_not_an_object(store: ObjectStore) -> None:
    store.put("manifests/a", b"x")
    with pytest.raises(MissingObjectError):
        store.stat("manifests")
    with pytest.raises(MissingObjectError):
        store.get("manifests")


def test_deleting_removes_and_deleting_again_is_fine(store: ObjectStore) -> None:
    store.put("a/b/c", b"x")
    store.put("a/d", b"y")
    store.delete("a/b/c")
    store.delete("a/b/c")
    store.delete("never/was")
    with pytest.raises(MissingObjectError):
        store.get("a/b/c")
    assert keys(store) == ["a/d"]
    store.put("a/b/c", b"again")
    assert store.get("a/b/c") == b"again"


def test_a_listing_is_ordered_by_key_and_keeps_to_its_prefix(store: ObjectStore) -> None:
    names = ["a/B", "a/b", "a-b", "a.b", "ab", "A", "a_b", "b/1/2/3", "b/1-2", "b/10", "b-1/x", "Z/z", "_u", "-m"]
    for name in names:
        store.put(name, name.encode())
    assert keys(store) == sorted(names)
    for prefix in ("a", "a/", "a/b", "b/1", "b/1/", "b", "zzz", "a-b", "b/1/2/3", "b/1/2/3/4", "-", "a/b/"):
        assert keys(store, prefix) == sorted(name for name in names if name.startswith(prefix)), prefix
    assert [info.size_bytes for info in store.list()] == [len(name) for name in sorted(names)]


def test_a_listing_gives_the_same_versions_as_a_look_at_each(store: ObjectStore, noise: bytes) -> None:
    store.put("small", b"x")
    with store.writer("large") as writer:
        writer.write(noise)
        info = writer.commit()
    assert list(store.list()) == [info, store.stat("small")]


def test_nothing_shows_before_the_commit(store: ObjectStore, noise: bytes) -> None:
    with store.writer("late", expected_bytes=BIG) as writer:
        writer.write(noise)
        assert keys(store) == []
        with pytest.raises(MissingObjectError):
            store.stat("late")
        writer.commit()
    assert keys(store) == ["late"]


def test_an_older_object_stays_until_the_new_one_is_committed(store: ObjectStore, noise: bytes) -> None:
    store.put("key", b"old")
    with store.writer("key") as writer:
        writer.write(noise)
    assert store.get("key") == b"old"
    with store.writer("key") as writer:
        writer.write(noise)
        assert store.get("key") == b"old"
        writer.commit()
    assert store.read_range("key", 1000, 1000) == noise[1000:2000]


def test_an_aborted_object_leaves_nothing(store: ObjectStore, noise: bytes) -> None:
    writer = store.writer("given-up", expected_bytes=BIG)
    writer.write(noise)
    writer.abort()
    writer.abort()
    with pytest.raises(StorageError, match="already ended"):
        writer.write(b"more")
    with pytest.raises(StorageError, match="already ended"):
        writer.commit()
    assert keys(store) == []


def test_an_error_inside_the_block_aborts(store: ObjectStore, noise: bytes) -> None:
    def source_dies() -> None:
        with store.writer("given-up") as writer:
            writer.write(noise)
            raise KeyError("the source died")

    with pytest.raises(KeyError, match="the source died"):
        source_dies()
    assert keys(store) == []


def test_a_commit_ends_the_writer_and_an_abort_after_it_is_harmless(store: ObjectStore) -> None:
    with store.writer("key") as writer:
        writer.write(b"whole")
        writer.commit()
        writer.abort()
        with pytest.raises(StorageError, match="already ended"):
            writer.commit()
    assert store.get("key") == b"whole"


def test_the_callers_buffer_may_be_reused_after_a_write(store: ObjectStore) -> None:
    buffer = bytearray(b"first")
    with store.writer("key") as writer:
        writer.write(memoryview(buffer))
        buffer[:] = b"XXXXX"
        buffer += b"and the caller may also resize it"
        writer.commit()
    assert store.get("key") == b"first"


def test_a_get_above_its_limit_is_refused(store: ObjectStore) -> None:
    store.put("big", bytes(1000))
    assert len(store.get("big", limit_bytes=1000)) == 1000
    with pytest.raises(StorageError, match="1000 B"):
        store.get("big", limit_bytes=999)


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "a\n", "ä", "a\\b"]
)
def test_a_hostile_key_reaches_no_store(store: ObjectStore, key: str) -> None:
    for ask in (
        lambda: store.put(key, b"x"),
        lambda: store.writer(key),
        lambda: store.get(key),
        lambda: store.read(key),
        lambda: store.read_range(key, 0, 1),
        lambda: store.stat(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(ValueError, match="not an object key"):
            ask()


def test_a_reader_that_stops_early_leaves_nothing_open(store: ObjectStore, noise: bytes) -> None:
    with store.writer("object") as writer:
        writer.write(noise)
        writer.commit()
    before = threading.active_count()
    pieces = store.read("object")
    assert next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert threading.active_count() <= before


def test_many_threads_use_one_store_at_once(store: ObjectStore) -> None:
    def work(number: int) -> bool:
        key = f"threads/{number % 4}/{number}"
        store.put(key, bytes([number]) * 1000)
        with store.writer(key + "-written") as writer:
            writer.write(bytes([number]) * 1000)
            writer.commit()
        same = store.get(key) == store.get(key + "-written") == bytes([number]) * 1000
        store.delete(key)
        return same

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))
    assert len(keys(store, "threads/")) == 40


def test_the_address_names_the_place(store: ObjectStore) -> None:
    assert store.address
    store_name = store.address
    with pytest.raises(MissingObjectError) as caught:
        store.get("absent")
    assert store_name in caught.value.message


def test_discarding_what_is_unfinished_touches_no_committed_object(store: ObjectStore, noise: bytes) -> None:
    store.put("folder/whole", b"x")
    living = store.writer("elsewhere/living")
    living.write(noise)
    store.discard_unfinished("folder/")
    assert keys(store) == ["folder/whole"]
    living.commit()
    assert keys(store) == ["elsewhere/living", "folder/whole"]
    store.discard_unfinished("")
    assert keys(store) == ["elsewhere/living", "folder/whole"]


_MOVES_MUCH = """
import json, sys
from pathlib import Path
from recoup.kernel.secret import Secret
from recoup.storage.address import S3Options, open_store

address, size, options = sys.argv[1], int(sys.argv[2]) << 20, json.loads(sys.stdin.read())
if options:
    options["secret_key"] = Secret(options["secret_key"])
store = open_store(address, S3Options(**options), create=True)

def peak():
    return next(int(line.split()[1]) >> 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

store.put("small", b"x")  # loads whatever is loaded lazily
before = peak()
piece = bytes(range(256)) * 4096
with store.writer("large", expected_bytes=size) as writer:
    for _ in range(size >> 20):
        writer.write(piece)
    writer.commit()
assert sum(map(len, store.read("large"))) == size
store.delete("large")
print(peak() - before)
"""


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_memory_does_not_grow_with_the_object(request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    address, options = str(tmp_path / "store"), {}
    if kind == "s3":
        server = request.getfixturevalue("s3")
        address = f"s3://{request.getfixturevalue('bucket')}/memory"
        options = {"endpoint_url": server.endpoint, "access_key": server.access_key, "secret_key": server.secret_key}
    done = subprocess.run(
        [sys.executable, "-c", _MOVES_MUCH, address, "256"],
        input=json.dumps(options),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # S3: two parts of 8 MiB being sent and one filling; then four segments of 8 MiB.
    assert int(done.stdout) <= (64 if kind == "s3" else 8)


def test_a_bucket_with_object_lock_takes_and_gives_like_any_other(s3: S3Server, noise: bytes) -> None:
    store = s3_store(s3, s3.new_bucket(lock=True))
    store.put("small", b"x", if_absent=True)
    with store.writer("large", expected_bytes=BIG) as writer:
        writer.write(noise)
        writer.commit()
    assert b"".join(store.read("large")) == noise
    store.delete("small")
    assert keys(store) == ["large"]
