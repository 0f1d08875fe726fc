"""How long a proof holds, and what is proven of a copy: decided from notes alone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.finding import Verdict
from recoup.verification.expiry import NOTHING, KnownCopy, Rhythm, expires, held, renewals
from recoup.verification.grade import Grade

_NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Noted:
    """What is known of a grade."""

    grade: str
    verdict: str
    held: datetime | None


def ok(grade: Grade, days: float = 0) -> Noted:
    return Noted(grade, "ok", _NOW - days * _DAY)


def up_to(grade: Grade, days: float = 0) -> list[Noted]:
    return [ok(one, days) for one in grade.up_to()]


def test_a_proof_expires_half_a_rhythm_after_the_next_one_should_have_come() -> None:
    rhythm = Rhythm(grades={"daily": Grade.INTACT, "weekly": Grade.BOOTS})
    assert rhythm.life(Grade.INTACT) == 1.5 * _DAY
    assert rhythm.life(Grade.BOOTS) == 10.5 * _DAY
    assert Rhythm(grades=rhythm.grades, grace=timedelta(0)).life(Grade.BOOTS) == 7 * _DAY


def test_a_grade_is_renewed_by_whatever_asks_for_it_or_for_more() -> None:
    rhythm = Rhythm(grades={"daily": Grade.SAME, "monthly": Grade.INTACT})
    assert {rhythm.life(grade) for grade in (Grade.STORED, Grade.INTACT, Grade.SAME)} == {1.5 * _DAY}
    assert rhythm.life(Grade.WORKS) == 46.5 * _DAY, "nothing renews it: as if it were renewed monthly"
    assert Rhythm(grades={}).life(Grade.STORED) == 46.5 * _DAY


def test_the_highest_grade_counts_with_all_that_it_includes() -> None:
    proof = held(up_to(Grade.SOUND, 3))
    assert (proof.grade, proof.since, proof.verdict) == (Grade.SOUND, _NOW - 3 * _DAY, Verdict.OK)
    assert expires(proof, Rhythm(grades={"weekly": Grade.SOUND})) == _NOW + 7.5 * _DAY
    lacking = held([ok(Grade.STORED), ok(Grade.BOOTS)])
    assert lacking.grade is Grade.STORED, "nobody has shown that it is intact"


def test_what_failed_makes_the_copy_bad_whatever_was_proven_before() -> None:
    proof = held([*up_to(Grade.BOOTS), Noted("sound", "failed", None), ok(Grade.SAME, 9)])
    assert (proof.failed, proof.verdict, proof.grade) == (Grade.SOUND, Verdict.FAILED, Grade.BOOTS)
    assert not any(proof.holds(grade) for grade in Grade)


def test_what_could_not_be_checked_takes_nothing_from_what_was_proven_and_gives_nothing() -> None:
    earlier = held([*up_to(Grade.INTACT), Noted("boots", "unknown", _NOW - _DAY)])
    assert (earlier.grade, earlier.since) == (Grade.BOOTS, _NOW - _DAY)
    never = held([*up_to(Grade.INTACT), Noted("boots", "unknown", None)])
    assert (never.grade, never.tried, never.verdict) == (Grade.INTACT, Grade.BOOTS, Verdict.OK)
    assert held([Noted("stored", "unknown", None)]).verdict is Verdict.UNKNOWN
    assert held([]) == NOTHING


def test_of_two_repositories_the_better_one_counts() -> None:
    proof = held([*up_to(Grade.INTACT, 5), ok(Grade.STORED), Noted("intact", "failed", None)])
    assert (proof.grade, proof.since, proof.failed) == (Grade.INTACT, _NOW - 5 * _DAY, None)


def test_a_proof_is_overdue_when_no_copy_of_the_kind_has_reached_the_grade_in_time() -> None:
    rhythm = Rhythm(grades={"daily": Grade.INTACT, "weekly": Grade.BOOTS})
    old = KnownCopy(
        ended=_NOW - 9 * _DAY,
        proof=held(up_to(Grade.BOOTS, 8)),
        proven=dict.fromkeys(Grade.BOOTS.up_to(), _NOW - 8 * _DAY),
    )
    new = KnownCopy(
        ended=_NOW - _DAY, proof=held(up_to(Grade.INTACT, 1)), proven=dict.fromkeys(Grade.INTACT.up_to(), _NOW - _DAY)
    )
    due = {one.grade: one for one in renewals("base", [old, new], rhythm, Grade.WORKS)}
    assert due[Grade.INTACT].due == _NOW + 0.5 * _DAY
    assert (due[Grade.BOOTS].last, due[Grade.BOOTS].due) == (_NOW - 8 * _DAY, _NOW + 2.5 * _DAY)
    never = renewals("base", [KnownCopy(ended=_NOW, proof=NOTHING, proven={})], rhythm, Grade.WORKS)
    assert [(one.last, one.due) for one in never] == [(None, _NOW + 1.5 * _DAY), (None, _NOW + 10.5 * _DAY)]
    assert renewals("base", [], rhythm, Grade.WORKS) == []


def test_nothing_is_asked_of_a_kind_that_it_cannot_be_proven_to() -> None:
    known = [KnownCopy(ended=_NOW, proof=NOTHING, proven={})]
    (only,) = renewals("stack", known, Rhythm(grades={"weekly": Grade.WORKS}), Grade.INTACT)
    assert (only.grade, only.due) == (Grade.INTACT, _NOW + 10.5 * _DAY)


_NOTES = st.lists(
    st.builds(
        Noted,
        st.sampled_from([grade.value for grade in Grade]),
        st.sampled_from(["ok", "failed", "unknown"]),
        st.one_of(st.none(), st.integers(0, 50).map(lambda days: _NOW - days * _DAY)),
    ),
    max_size=12,
)


@given(_NOTES)
def test_nothing_is_ever_held_that_was_not_noted_as_held(notes: list[Noted]) -> None:
    proof = held(notes)
    there = {one.grade for one in notes if one.held is not None and one.verdict != "failed"}
    assert proof.grade is None or {grade.value for grade in proof.grade.up_to()} <= there
    assert (proof.grade is None) == (proof.since is None)
    failing = {one.grade for one in notes if one.verdict == "failed"}
    assert (proof.verdict is Verdict.FAILED) == bool(failing - there)
