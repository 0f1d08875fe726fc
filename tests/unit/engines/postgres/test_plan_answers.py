"""The answers to the plan's questions, judged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.engines.postgres.plan_answers import Expectation, judge
from recoup.engines.postgres.session import Row
from recoup.kernel.finding import Verdict

OK, FAILED, UNKNOWN = Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("expected", "rows", "verdict", "said"),
    [
        (Expectation(at_least=1000), [("1200",)], OK, "the answer is 1200, and at least 1000 was asked"),
        (Expectation(at_least=1000), [("999",)], FAILED, "the answer is 999, and at least 1000 was asked"),
        (
            Expectation(at_least=1, at_most=2),
            [("2.0",)],
            OK,
            "the answer is 2.0, and at least 1 and at most 2 was asked",
        ),
        (Expectation(at_most=0.1), [("0.1",)], OK, "the answer is 0.1, and at most 0.1 was asked"),
        (Expectation(at_most=0.1), [("0.1000000000000000001",)], FAILED, "at most 0.1"),
        (Expectation(at_least=1), [], FAILED, "the answer has no row, and at least 1 was asked"),
        (Expectation(at_least=1), [(None,)], FAILED, "the answer is NULL, and at least 1 was asked"),
        (Expectation(at_least=1), [()], UNKNOWN, "the answer has no column"),
        (Expectation(at_least=1), [("many",)], UNKNOWN, "it is not a number"),
        (Expectation(at_least=1), [("NaN",)], FAILED, "the answer is NaN"),
        (Expectation(equals="NaN"), [("NaN",)], OK, "exactly 'NaN'"),
        (Expectation(equals=5), [("5.00",)], OK, "exactly 5"),
        (Expectation(equals=5), [("five",)], FAILED, "the answer is five, and exactly 5 was asked"),
        (Expectation(equals="5"), [("5.00",)], FAILED, "exactly '5'"),
        (Expectation(equals=True), [("t",)], OK, "exactly true"),
        (Expectation(equals=True), [("1",)], FAILED, "exactly true"),
        (Expectation(equals=False), [("f",)], OK, "exactly false"),
        (Expectation(equals=1), [("t",)], FAILED, "exactly 1"),
        (Expectation(equals=""), [("",)], OK, "the answer is an empty text, and exactly '' was asked"),
        (Expectation(), [("1",)], UNKNOWN, "nothing is expected"),
    ],
)
def test_an_answer_is_judged_in_exact_words(
    expected: Expectation, rows: list[Row], verdict: Verdict, said: str
) -> None:
    found = judge(expected, rows)
    assert found[0] is verdict
    assert said in found[1]


@given(st.integers(), st.integers(), st.integers())
def test_bounds_hold_exactly_for_numbers_of_any_size(value: int, least: int, most: int) -> None:
    verdict, _ = judge(Expectation(at_least=least, at_most=most), [(str(value),)])
    assert (verdict is OK) is (least <= value <= most)


@given(st.text(), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text()))
def test_no_answer_and_no_expectation_is_ever_an_error(value: str, wanted: bool | float | str | None) -> None:
    judge(Expectation(equals=wanted), [(value,)])
    judge(Expectation(at_least=0, equals=wanted), [(value,)])
