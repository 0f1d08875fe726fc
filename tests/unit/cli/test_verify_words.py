"""What ``recoup verify`` says was not checked: all of it, and nothing that a later grade of the same run looked at."""

from __future__ import annotations

from recoup.cli.verify_words import gaps
from recoup.kernel.finding import Finding, Verdict
from recoup.verification.grade import Grade, Rung


def rung(grade: Grade, *said: tuple[str, str], verdict: Verdict = Verdict.OK) -> Rung:
    findings = (
        Finding(check="c", subject="s", verdict=verdict, not_checked=gap, left_to=left_to) for gap, left_to in said
    )
    return Rung(grade=grade, findings=tuple(findings))


STORED = rung(Grade.STORED, ("the bytes themselves", "intact"), ("the bytes themselves", "intact"))
INTACT = rung(Grade.INTACT, ("whether a server accepts it", "sound"), ("links", ""))
BOOTS = rung(Grade.BOOTS, ("its configuration", ""))


def test_what_a_later_grade_looked_at_is_not_said_and_the_rest_is_said_once() -> None:
    sound = rung(Grade.SOUND, ("hash indexes", ""), ("hash indexes", ""))
    assert gaps((STORED,)) == ["the bytes themselves"]
    assert gaps((STORED, INTACT, BOOTS)) == ["whether a server accepts it", "links", "its configuration"]
    assert gaps((STORED, INTACT, BOOTS, sound)) == ["links", "its configuration", "hash indexes"]


def test_a_grade_that_was_not_come_to_covers_nothing() -> None:
    boots = rung(Grade.BOOTS, ("its configuration", ""), verdict=Verdict.FAILED)
    assert "whether a server accepts it" in gaps((STORED, INTACT, boots))
