"""The history band: what a copy lost since the copies before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.finding import Verdict, overall
from recoup.verification.history import Counts, EarlierCopy, history_findings


def findings_of(now: Counts | None, *before: Counts) -> list[tuple[str, Verdict, str]]:
    earlier = [EarlierCopy(id=f"copy-{number}", counts=counts) for number, counts in enumerate(before)]
    return [(one.subject, one.verdict, one.detail) for one in history_findings(now, earlier, subject="shop")]


def test_a_table_that_had_rows_and_has_none_is_named() -> None:
    ((name, verdict, said),) = findings_of({"a": 0, "b": 5}, {"a": 3, "b": 5})
    assert (name, verdict, said) == ("a", Verdict.UNKNOWN, "3 rows were in copy-0, none are there")


def test_a_table_that_is_gone_is_named_whether_it_had_rows_or_could_not_be_counted() -> None:
    found = findings_of({}, {"a": 3, "b": None})
    assert found == [
        ("a", Verdict.UNKNOWN, "it was in copy-0 with 3 rows, and is gone"),
        ("b", Verdict.UNKNOWN, "it was in copy-0, and is gone"),
    ]


def test_a_large_table_that_lost_more_than_half_is_named_and_a_small_one_is_not() -> None:
    ((name, verdict, said),) = findings_of(
        {"big": 499, "small": 1, "half": 500}, {"big": 1000, "small": 99, "half": 1000}
    )
    assert (name, verdict) == ("big", Verdict.UNKNOWN)
    assert said == "1000 rows were in copy-0, 499 are there, less than 50% of the least in the copies before (1000)"


def test_the_copy_after_is_measured_against_the_one_that_had_lost_its_rows() -> None:
    ((_, verdict, _),) = findings_of({"a": 0}, {"a": 0}, {"a": 3})
    assert verdict is Verdict.OK


def test_a_queue_that_was_empty_before_may_be_empty_again() -> None:
    ((_, verdict, _),) = findings_of({"queue": 0}, {"queue": 12}, {"queue": 0}, {"queue": 4})
    assert verdict is Verdict.OK


def test_partitions_that_rotate_are_told_and_no_fault() -> None:
    before: Counts = {"log_2026_9": 5, "log_2026_10": 5, "log_2026_11": 5}
    now: Counts = {"log_2026_10": 5, "log_2026_11": 5, "log_2026_12": 0}
    ((_, verdict, said),) = findings_of(now, before)
    assert verdict is Verdict.OK
    assert "gone by rotation: log_2026_9" in said


@pytest.mark.parametrize(
    ("now", "why"),
    [
        ({"log_9": 5, "log_11": 5, "log_12": 0}, "one from the middle"),
        ({"log_10": 5, "log_11": 5}, "no new one came"),
        ({"log_12": 5}, "all of them went"),
        ({"log_8": 0, "log_10": 5, "log_11": 5}, "the one that came is older"),
    ],
)
def test_what_is_gone_in_another_way_than_by_rotation_is_named(now: Counts, why: str) -> None:
    found = findings_of(now, {"log_9": 5, "log_10": 5, "log_11": 5})
    assert {verdict for _, verdict, _ in found} == {Verdict.UNKNOWN}, why
    assert all("is gone" in said for _, _, said in found), why


def test_an_emptied_partition_is_named() -> None:
    ((name, verdict, _),) = findings_of({"log_9": 5, "log_10": 0}, {"log_9": 5, "log_10": 5})
    assert (name, verdict) == ("log_10", Verdict.UNKNOWN)


def test_the_first_copy_says_that_there_was_nothing_to_compare_with() -> None:
    (first,) = history_findings({"a": 0}, [], subject="shop")
    assert first.verdict is Verdict.OK
    assert "no earlier one" in first.not_checked


def test_without_fingerprints_nothing_is_known() -> None:
    (own,) = history_findings(None, [], subject="shop")
    (others,) = history_findings({"a": 1}, [], subject="shop", unread=["copy-0 has no fingerprint"])
    assert (own.verdict, others.verdict) == (Verdict.UNKNOWN, Verdict.UNKNOWN)
    assert own.hint is not None
    assert "copy-0" in others.detail


_COUNTS = st.dictionaries(st.sampled_from("abcd"), st.none() | st.integers(0, 300), max_size=4)


@given(_COUNTS, st.lists(_COUNTS, min_size=1, max_size=4))
def test_it_never_says_ok_while_a_table_of_the_last_copy_is_gone_or_newly_empty(
    now: dict[str, int | None], before: list[dict[str, int | None]]
) -> None:
    earlier = [EarlierCopy(id=f"copy-{number}", counts=counts) for number, counts in enumerate(before)]
    found = history_findings(now, earlier, subject="shop")
    assert overall(found) in (Verdict.OK, Verdict.UNKNOWN)
    named = {one.subject for one in found if one.verdict is not Verdict.OK}
    for name, had in before[0].items():
        newly_empty = now.get(name) == 0 and had is not None and all(one.get(name) != 0 for one in before)
        if name not in now or newly_empty:
            assert name in named
