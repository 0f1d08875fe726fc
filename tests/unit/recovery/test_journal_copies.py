"""Which copy of a journal counts: the longest, as long as all others are beginnings of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.errors import DamageError, RefusedError
from recoup.recovery.journal import Journal
from recoup.recovery.journal_copies import HERE, Copy, chosen, in_common, longest, read_copy, trouble

RUN = "20261123-020000-abcdef"


def journal(*events: str, after: bytes = b"") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(after)
        with Journal(path, who="alice", host="alpha", boot="b") as open_one:
            for event in events:
                open_one.append(event)
        return path.read_bytes()


WHOLE = journal(*(f"event {number}" for number in range(8)))
OTHER = journal("elsewhere", "and on", after=b"".join(WHOLE.splitlines(keepends=True)[:5]))


def beginning(lines: int, of: bytes = WHOLE) -> bytes:
    return b"".join(of.splitlines(keepends=True)[:lines])


@given(st.lists(st.integers(0, 8), min_size=1, max_size=5), st.booleans())
def test_of_copies_that_agree_the_longest_is_gone_on_with(lengths: list[int], take_over: bool) -> None:
    places = [HERE, "one", "two", "three", "four"]
    copies = [read_copy(where, beginning(number)) for where, number in zip(places, lengths, strict=False)]
    assert trouble(RUN, copies) is None
    assert longest(copies).data == beginning(max(lengths))
    assert chosen(copies, take_over=False).data == beginning(max(lengths))
    assert chosen(copies, take_over=take_over).data in {beginning(number) for number in (max(lengths), *lengths)}


@given(st.integers(0, 8), st.integers(0, 7))
def test_copies_that_went_apart_are_told_from_those_that_are_behind(one: int, other: int) -> None:
    copies = [read_copy(HERE, beginning(one)), read_copy("local", beginning(other, OTHER))]
    wrong = trouble(RUN, copies)
    assert in_common(*copies) == min(one, other, 5)
    assert (wrong is not None) == (one > 5 and other > 5)
    if wrong is None:
        return
    assert isinstance(wrong, RefusedError)
    assert "after line 5" in wrong.message
    assert chosen(copies, take_over=True).where == "local", "what went on elsewhere counts"


def test_a_damaged_copy_is_no_trouble_unless_it_is_this_machines_own() -> None:
    damaged = bytearray(WHOLE)
    damaged[100] ^= 1
    bad, good = read_copy("local", bytes(damaged)), read_copy(HERE, beginning(3))
    assert bad.damage is not None
    assert trouble(RUN, [good, bad]) is None
    here = read_copy(HERE, bytes(damaged))
    wrong = trouble(RUN, [here, read_copy("s3", beginning(6))])
    assert isinstance(wrong, DamageError)
    assert "s3 has a whole copy of 6 lines" in str(wrong.hint)
    assert chosen([here, read_copy("s3", beginning(6))], take_over=True).where == "s3"
    alone = trouble(RUN, [here])
    assert isinstance(alone, DamageError)
    assert f"--abandon {RUN}" in str(alone.hint)
    assert isinstance(trouble(RUN, [bad]), DamageError)


@pytest.mark.parametrize("cut", [1, 30])
def test_a_line_that_was_not_finished_is_no_damage(cut: int) -> None:
    assert len(read_copy(HERE, WHOLE[:-cut]).lines) == 7


def test_without_any_copy_nothing_was_begun() -> None:
    assert longest([]) == Copy(where=HERE)
