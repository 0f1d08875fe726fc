"""The comparison of two fingerprints: what may differ, and what is said about it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from recoup.engines.postgres.comparison import CopyMode, compare
from recoup.engines.postgres.definitions import digest_of
from recoup.kernel.finding import Verdict, overall


def fingerprint(**more: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "database": "shop",
        "server_major": 17,
        "encoding": "UTF8",
        "collate": "C",
        "ctype": "C",
        "tables": {'"public"."t"': {"kind": "table", "rows": 3, "lanes": ["1", "2"], "method": "text"}},
        "sequences": {'"public"."s"': {"last": 10, "called": True, "step": 1, "cache": 1, "cycles": False}},
        "large_objects": {"count": 0, "lanes": ["0", "0"], "method": "pages"},
        "extensions": {"plpgsql": "1.0"},
        "roles": ["postgres"],
        "collations": {},
        "definitions": {"table public.t": "abc"},
        **more,
    }


def verdicts(after: dict[str, Any], before: dict[str, Any] | None = None, mode: CopyMode = CopyMode.LOGICAL) -> Any:
    return [(f.subject, f.verdict) for f in compare(before or fingerprint(), after, mode=mode)]


def sequence(**values: Any) -> dict[str, Any]:
    entry = {"last": 10, "called": True, "step": 1, "cache": 1, "cycles": False, **values}
    return fingerprint(sequences={'"public"."s"': entry})


def test_equal_fingerprints_are_ok_and_say_how_much_was_compared() -> None:
    (finding,) = compare(fingerprint(), fingerprint(), mode=CopyMode.LOGICAL)
    assert finding.verdict is Verdict.OK
    assert finding.detail == "1 tables with 3 rows, 1 sequences, 0 large objects, 1 definitions"


@pytest.mark.parametrize(
    ("values", "mode", "verdict"),
    [
        ({"last": 9}, CopyMode.LOGICAL, Verdict.FAILED),
        ({"last": 9}, CopyMode.PHYSICAL, Verdict.FAILED),
        ({"last": 11}, CopyMode.LOGICAL, Verdict.FAILED),
        ({"last": 11}, CopyMode.PHYSICAL, Verdict.OK),
        ({"last": 10 + 33}, CopyMode.PHYSICAL, Verdict.OK),
        ({"last": 10 + 34}, CopyMode.PHYSICAL, Verdict.FAILED),
        ({"last": 10, "called": False}, CopyMode.LOGICAL, Verdict.FAILED),
        ({"last": 11, "called": False}, CopyMode.LOGICAL, Verdict.OK),
    ],
)
def test_a_sequence_may_be_ahead_as_far_as_the_wal_runs_and_never_behind(
    values: dict[str, Any], mode: CopyMode, verdict: Verdict
) -> None:
    assert overall(compare(fingerprint(), sequence(**values), mode=mode)) is verdict


def test_a_sequence_in_a_dump_lies_between_the_two_readings_around_it() -> None:
    before = sequence(latest=15)
    for last, verdict in ((9, Verdict.FAILED), (10, Verdict.OK), (15, Verdict.OK), (16, Verdict.FAILED)):
        assert overall(compare(before, sequence(last=last), mode=CopyMode.LOGICAL)) is verdict, last


def test_a_sequence_that_counts_down_is_ahead_when_it_is_lower() -> None:
    before = sequence(step=-5)
    assert overall(compare(before, sequence(step=-5, last=15), mode=CopyMode.PHYSICAL)) is Verdict.FAILED
    assert overall(compare(before, sequence(step=-5, last=-20), mode=CopyMode.PHYSICAL)) is Verdict.OK


def test_a_sequence_that_cycles_is_unknown_when_it_differs() -> None:
    before = sequence(cycles=True)
    assert overall(compare(before, sequence(cycles=True, last=2), mode=CopyMode.PHYSICAL)) is Verdict.UNKNOWN


def test_other_hashes_on_another_major_are_unknown_and_other_counts_are_not() -> None:
    after = fingerprint(server_major=18)
    after["tables"]['"public"."t"']["lanes"] = ["1", "3"]
    assert verdicts(after) == [('"public"."t"', Verdict.UNKNOWN)]
    after["tables"]['"public"."t"']["rows"] = 4
    assert verdicts(after) == [('"public"."t"', Verdict.FAILED)]


def test_a_table_unknown_on_either_side_is_unknown() -> None:
    blind = fingerprint(tables={'"public"."t"': {"kind": "table", "unknown": "permission denied"}})
    assert verdicts(blind) == [('"public"."t"', Verdict.UNKNOWN)]
    assert verdicts(fingerprint(), blind) == [('"public"."t"', Verdict.UNKNOWN)]


def test_tables_swapped_by_name_are_both_found() -> None:
    one = {"kind": "table", "rows": 1, "lanes": ["5", "5"], "method": "text"}
    two = {"kind": "table", "rows": 1, "lanes": ["6", "6"], "method": "text"}
    before = fingerprint(tables={"a": one, "b": two})
    assert verdicts(fingerprint(tables={"a": two, "b": one}), before) == [
        ("a", Verdict.FAILED),
        ("b", Verdict.FAILED),
    ]


def test_a_collation_that_sorts_in_another_way_is_unknown_after_a_physical_restore_only() -> None:
    after = fingerprint(collations={"the database": ["2.31", "2.36"]})
    assert overall(compare(fingerprint(), after, mode=CopyMode.LOGICAL)) is Verdict.OK
    (finding,) = compare(fingerprint(), after, mode=CopyMode.PHYSICAL)
    assert finding.verdict is Verdict.UNKNOWN
    assert "REINDEX" in str(finding.hint)


def test_fingerprints_of_different_versions_are_not_compared() -> None:
    assert overall(compare(fingerprint(), fingerprint(version=2), mode=CopyMode.LOGICAL)) is Verdict.UNKNOWN


def test_the_input_is_left_as_it_was() -> None:
    before, after = fingerprint(), fingerprint(extensions={})
    saved = copy.deepcopy((before, after))
    compare(before, after, mode=CopyMode.PHYSICAL)
    assert (before, after) == saved


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "CHECK (((s)::text = ANY ((ARRAY['a'::character varying, 'b'::character varying])::text[])))",
            "CHECK (((s)::text = ANY (ARRAY[('a'::character varying)::text, ('b'::character varying)::text])))",
        ),
        (" SELECT a\n   FROM t;", "SELECT a FROM t;"),
    ],
)
def test_texts_that_a_restore_prints_in_another_way_have_one_digest(one: str, other: str) -> None:
    assert digest_of(one) == digest_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("CHECK ((q > 1))", "CHECK ((q > 2))"),
        ("CHECK ((s = 'a'::text))", "CHECK ((s = 'b'::text))"),
        ("f\x01RETURN 1", "f\x01RETURN  1"),
        ("f\x01x::int", "f\x01x::text"),
    ],
)
def test_texts_that_mean_something_else_have_another_digest(one: str, other: str) -> None:
    assert digest_of(one) != digest_of(other)
