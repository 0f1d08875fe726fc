"""The record of a drill: exact in JSON and back, and green only when everything in it is and nothing is missing."""

from __future__ import annotations

import contextlib
import json
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.drill.codec import decode, encode
from recoup.drill.model import DrillRecord, FlowResult, FlowStepResult, Issue, Production, Rpo, Rto, Step, verdicts
from recoup.kernel.finding import Finding, Verdict
from tests.drills import DECLARED, a_drill, finding, issue

TEXT = st.text(max_size=30)
INSTANT = st.datetimes(timezones=st.just(UTC), min_value=datetime(1990, 1, 1), max_value=datetime(2090, 1, 1))
DURATION = st.timedeltas(min_value=timedelta(days=-400), max_value=timedelta(days=4000))
VERDICT = st.sampled_from(Verdict)
STEPS = st.builds(
    Step, key=TEXT, title=TEXT, kind=st.sampled_from(["machine", "person"]), verdict=VERDICT,
    started=st.none() | INSTANT, ended=st.none() | INSTANT, waiting=DURATION, service=TEXT, detail=TEXT,
    hint=st.none() | TEXT,
)  # fmt: skip
FINDINGS = st.builds(
    Finding, check=TEXT, subject=TEXT, verdict=VERDICT, detail=TEXT, hint=st.none() | TEXT, not_checked=TEXT
)
FLOW_STEPS = st.builds(
    FlowStepResult, what=TEXT, act=st.sampled_from(["get", "sql", "command"]), verdict=VERDICT, detail=TEXT,
    hint=st.none() | TEXT, took=DURATION, reads_data=st.booleans(),
)  # fmt: skip
RECORDS = st.builds(
    lambda **changes: replace(a_drill(), **changes),
    steps=st.lists(STEPS, max_size=3).map(tuple),
    checks=st.lists(FINDINGS, max_size=3).map(tuple),
    flows=st.lists(
        st.builds(FlowResult, name=TEXT, steps=st.lists(FLOW_STEPS, max_size=2).map(tuple), attempts=st.integers(0, 9)),
        max_size=2,
    ).map(tuple),
    rto=st.builds(Rto, declared=INSTANT, healthy=st.none() | INSTANT, objective=st.none() | DURATION, waiting=DURATION),
    rpo=st.lists(
        st.builds(Rpo, service=TEXT, measured=st.none() | DURATION, objective=st.none() | DURATION, how=TEXT),
        max_size=2,
    ).map(tuple),
    issues=st.lists(
        st.builds(Issue, id=TEXT, text=TEXT, owner=TEXT, due=st.dates(max_value=date(2090, 1, 1)), about=TEXT),
        max_size=2,
    ).map(tuple),
    not_tested=st.lists(TEXT, max_size=2).map(tuple),
    stopped=st.none() | TEXT,
    tool=st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
)


@given(RECORDS)
def test_a_record_is_the_same_after_json_and_back(record: DrillRecord) -> None:
    assert decode(DrillRecord, json.loads(json.dumps(encode(record)))) == record


@given(RECORDS)
def test_a_drill_is_green_only_when_each_part_is_and_never_when_something_in_it_is_not(record: DrillRecord) -> None:
    everything = [
        *(one.verdict for one in (*record.steps, *record.checks, *record.isolation, *record.teardown)),
        *(step.verdict for flow in record.flows for step in flow.steps),
        *(one.verdict for one in (record.rto, *record.rpo, *record.production)),
    ]
    if record.verdict is Verdict.OK:
        assert set(everything) == {Verdict.OK}
        assert record.stopped is None
    if Verdict.FAILED in everything:
        assert record.verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("steps", {"steps": ()}),
        ("RPO", {"rpo": ()}),
        ("production untouched", {"production": ()}),
        ("isolation", {"isolation": ()}),
        ("teardown", {"teardown": ()}),
        ("proof of the data", {"proves_data": ()}),
        ("it came to its end", {"stopped": "killed at step 2"}),
        ("RTO", {"rto": Rto(declared=DECLARED, healthy=None, objective=None)}),
        ("flows", {"flows": (FlowResult(name="empty", steps=()),)}),
    ],
)
def test_a_part_that_is_missing_makes_the_drill_unknown_and_names_itself(part: str, changes: dict[str, Any]) -> None:
    record = a_drill(**changes)
    assert record.verdict is Verdict.UNKNOWN
    assert [name for name, verdict in verdicts(record) if verdict is Verdict.UNKNOWN] == [part]


def test_a_good_drill_is_ok_and_a_broken_promise_or_a_touched_production_is_not() -> None:
    assert a_drill().verdict is Verdict.OK
    assert a_drill(takes=timedelta(hours=2)).verdict is Verdict.FAILED
    assert a_drill(lost=timedelta(hours=2)).verdict is Verdict.FAILED
    touched = Production(service="postgres", identity="7", before="a", after="b", verdict=Verdict.FAILED)
    assert a_drill(production=(touched,)).verdict is Verdict.FAILED
    assert a_drill(checks=(finding("x", "y", Verdict.UNKNOWN),)).verdict is Verdict.UNKNOWN


def test_a_clock_that_went_backwards_measures_nothing() -> None:
    rto = Rto(declared=DECLARED, healthy=DECLARED - timedelta(seconds=1), objective=timedelta(hours=1))
    assert rto.measured is None
    assert rto.verdict is Verdict.UNKNOWN
    assert a_drill(lost=timedelta(seconds=-1)).verdict is Verdict.UNKNOWN


def test_a_field_that_is_missing_or_of_another_kind_is_named() -> None:
    whole = encode(a_drill(issues=(issue(),)))
    for name in ("id", "declared", "steps", "rto"):
        with pytest.raises(ValueError, match=name):
            decode(DrillRecord, {key: value for key, value in whole.items() if key != name})
    for name, wrong in {"declared": 5, "steps": "x", "rto": [], "absent": [1], "kind": "secret", "id": None}.items():
        with pytest.raises(ValueError, match=name):
            decode(DrillRecord, {**whole, name: wrong})
    assert decode(DrillRecord, {**whole, "of_a_later_version": 1}) == a_drill(issues=(issue(),))


def test_the_verdict_cannot_be_set() -> None:
    assert "verdict" not in {field.name for field in fields(DrillRecord)}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from([field.name for field in fields(DrillRecord)])


@given(st.dictionaries(NAMES, JSON, min_size=1, max_size=3))
def test_whatever_stands_in_a_record_it_is_read_or_refused_and_nothing_else(changes: dict[str, Any]) -> None:
    with contextlib.suppress(ValueError):
        record = decode(DrillRecord, {**encode(a_drill()), **changes})
        assert record.verdict in Verdict
        encode(record)
