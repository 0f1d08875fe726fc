"""Lines of a journal in a repository: what is read is what the holder of the newest lease wrote, or it is refused."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recoup.kernel.errors import DamageError, WrongKeyError
from recoup.repository import layout
from recoup.repository.repository import Repository, create_repository
from recoup.repository.run_journals import put_lines, read_journal, runs_in
from recoup.repository.seal import Key
from recoup.storage.decorator import StoreDecorator
from recoup.storage.memory import MemoryStore

KEY = Key.from_text("4" * 64)
RUN = "20261123-020000-abcdef"
FOLDER = layout.run_journal("shop", RUN)


def empty() -> Repository:
    return create_repository("local", MemoryStore(), KEY)


def lines(text: str, first: int, number: int) -> bytes:
    return b"".join(f"{text} {at}\n".encode() for at in range(first, first + number))


#: Writers one after the other: each puts the whole journal that it has, then more in pieces; some pieces twice.
WRITERS = st.lists(
    st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=4), min_size=1, max_size=4
)


@settings(max_examples=12)
@given(WRITERS, st.data())
def test_what_is_read_is_what_the_last_writer_had(writers: list[list[tuple[int, bool]]], data: st.DataObject) -> None:
    repository, have = empty(), b""
    for generation, pieces in enumerate(writers, start=1):
        kept = data.draw(st.integers(0, have.count(b"\n")), label="lines that this writer knows")
        have = b"".join(have.splitlines(keepends=True)[:kept])
        first = 1
        for number, twice in pieces:
            have += lines(f"writer {generation}", have.count(b"\n") + 1, number)
            piece = b"".join(have.splitlines(keepends=True)[first - 1 :])
            for _ in range(1 + twice):
                put_lines(repository, FOLDER, generation, first, piece)
            first = have.count(b"\n") + 1
    assert read_journal(repository, FOLDER) == have
    assert dict(runs_in(repository, "shop")) == {RUN: FOLDER}
    assert dict(runs_in(repository, None)) == {RUN: FOLDER}
    assert dict(runs_in(repository, "another")) == {}


class AtOnce(StoreDecorator):
    """Answers when so many have asked, as a store far away that one waits for."""

    def __init__(self, inner: MemoryStore, together: int) -> None:
        super().__init__(inner)
        self.arrived = threading.Barrier(together, timeout=120)

    def get(self, key: str, *, limit_bytes: int = 64 << 20) -> bytes:
        self.arrived.wait()
        return self.inner.get(key, limit_bytes=limit_bytes)


def test_the_pieces_of_a_journal_are_asked_for_together_because_people_wait_for_it() -> None:
    store = MemoryStore()
    repository = create_repository("local", store, KEY)
    for number in range(1, 17):
        put_lines(repository, FOLDER, 1, number, lines("line", number, 1))
    far = replace(repository, store=AtOnce(store, 8))
    assert read_journal(far, FOLDER) == lines("line", 1, 16)


def test_what_who_lost_the_lease_still_writes_does_not_count() -> None:
    repository = empty()
    put_lines(repository, FOLDER, 1, 1, lines("old", 1, 3))
    put_lines(repository, FOLDER, 2, 1, lines("old", 1, 3) + lines("new", 4, 1))
    put_lines(repository, FOLDER, 1, 4, lines("late", 4, 2))
    assert read_journal(repository, FOLDER) == lines("old", 1, 3) + lines("new", 4, 1)


def keys(repository: Repository) -> list[str]:
    return [info.key for info in repository.store.list(FOLDER)]


def test_a_changed_renamed_or_missing_object_is_named() -> None:
    repository = empty()
    put_lines(repository, FOLDER, 1, 1, lines("a", 1, 2))
    put_lines(repository, FOLDER, 1, 3, lines("a", 3, 2))
    first, second = keys(repository)
    data = repository.store.get(first)
    for changed in (data[:-1] + bytes([data[-1] ^ 1]), data[:-16], data + b"x"):
        repository.store.put(first, changed)
        with pytest.raises(DamageError, match="not authentic"):
            read_journal(repository, FOLDER)
    repository.store.put(first, data)
    moved = first.replace("00000001-000001-000002", "00000002-000001-000002")
    repository.store.put(moved, data)
    with pytest.raises(DamageError, match="not authentic"):
        read_journal(repository, FOLDER)
    repository.store.delete(moved)
    repository.store.delete(first)
    with pytest.raises(DamageError, match="line 1 of the journal"):
        read_journal(repository, FOLDER)
    repository.store.put(first, data)
    assert read_journal(repository, FOLDER) == lines("a", 1, 4)
    repository.store.delete(second)
    assert read_journal(repository, FOLDER) == lines("a", 1, 2), "lines at the end can be missing, and others cannot"


def test_another_key_reads_nothing() -> None:
    repository = empty()
    put_lines(repository, FOLDER, 1, 1, lines("a", 1, 2))
    other = Repository(
        name="local", identity=repository.identity, created=repository.created, store=repository.store,
        key=Key.from_text("5" * 64),
    )  # fmt: skip
    with pytest.raises((DamageError, WrongKeyError)):
        read_journal(other, FOLDER)


@pytest.mark.parametrize("key", ["runs/x/lease/00000001.json", "runs/x/y", "drills/x/y/z", f"runs/x/{RUN}/a/b"])
def test_what_is_no_part_of_a_journal_is_no_run(key: str) -> None:
    assert layout.run_of(key) is None
    assert layout.run_of(f"{FOLDER}x") == RUN
