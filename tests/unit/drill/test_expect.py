"""Whether an answer is what a flow expects: paths, kinds, numbers; and no answer can upset it or slip into a text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.drill.expect import MISSING, Expect, Unmet, check_response, find
from recoup.drill.reach import Response

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
ANSWER = {"orders": [{"id": 7, "total": 12.5}, {"id": 8}], "a.b": 1, "": {"x": 2}, "ok": True, "one": 1}


def check(answer: Any, **expect: Any) -> Any:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return check_response(Response(status=200, body=body), Expect(**expect), lambda text: text.replace("${x}", "7"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("orders[0].total", 12.5),
        ("$.orders[1].id", 8),
        ("orders.1.id", 8),
        ("a.b", 1),
        ("orders[2].id", MISSING),
        ("orders.x", MISSING),
        ("ok.x", MISSING),
        ("orders[", MISSING),
        ("orders[99999999999999]", MISSING),
        ("nothing", MISSING),
    ],
)
def test_a_path_leads_to_a_value_or_to_nothing(path: str, value: Any) -> None:
    found = find(ANSWER, path)
    assert found is value if value is MISSING else found == value


def test_each_key_that_is_expected_must_have_its_value_and_others_do_not_matter() -> None:
    check(ANSWER, json={"ok": True, "orders": [{"id": 7}, {}]})
    check({"id": "7"}, json={"id": "${x}"})
    for wrong, said in (
        ({"ok": 1}, "ok is true, and should be 1"),
        ({"one": True}, "one is 1, and should be true"),
        ({"orders": []}, "orders is a list of 2, and should be a list of 0"),
        ({"orders": [{"id": 7}, {"id": "8"}]}, 'orders[1].id is 8, and should be "8"'),
        ({"gone": None}, "there is no gone"),
    ):
        with pytest.raises(Unmet) as unmet:
            check(ANSWER, json=wrong)
        assert str(unmet.value) == said


def test_numbers_are_compared_as_numbers_also_when_they_are_texts() -> None:
    check({"total": "12.50"}, value="total", equals=12.5)
    check({"orders": [1, 2]}, value="orders", at_least=2, at_most=2)
    check(b"3", at_least=3)
    for answer, expect in (
        ({"total": "NaN"}, {"value": "total", "at_least": 0}),
        ({"total": True}, {"value": "total", "at_least": 0}),
        ({"total": None}, {"value": "total", "at_most": 9}),
        ({"total": "1e999999999"}, {"value": "total", "at_most": 9}),
        ({"total": {}}, {"value": "total", "equals": 0}),
        (b"<html>", {"at_least": 0}),
        (b"", {"json": {}}),
    ):
        with pytest.raises(Unmet):
            check(answer, **expect)


@given(JSON, JSON, st.text(max_size=12), st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.text()))
def test_no_answer_upsets_it_and_none_is_repeated_but_numbers(answer: Any, wanted: Any, path: str, equals: Any) -> None:
    secret = "Zq9" * 5
    holder = {"held": secret, "answer": answer}
    for expect in ({"json": wanted}, {"value": path or None, "equals": equals}, {"value": "held", "equals": equals}):
        said = ""
        try:
            check(holder, **expect)
        except Unmet as unmet:
            said = str(unmet)
        assert secret not in said


@given(JSON)
def test_an_answer_is_what_it_is(answer: Any) -> None:
    if answer is not None:
        check(answer, json=json.loads(json.dumps(answer)))
