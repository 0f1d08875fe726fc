"""What a terminal shows of a recovery: which decision comes next."""

from __future__ import annotations

from recoup.cli.recover_view import State
from recoup.kernel import clock
from recoup.recovery import progress as written
from recoup.recovery.journal import Line
from recoup.recovery.runbook_steps import LET_USERS_IN, OTHERS
from recoup.recovery.step_document import step_document

_STEPS = (OTHERS, LET_USERS_IN)


def _line(number: int, event: str, **data: object) -> Line:
    return Line(
        number=number, id=str(number), at=clock.now(), clock=float(number), boot="a", who="ana", host="here",
        event=event, data=data, digest="",
    )  # fmt: skip


def _next(*lines: Line) -> str | None:
    begun = _line(
        1, written.RUN_BEGUN, run="r", situation="server-loss", order=1, facts={},
        steps=[one.id for one in _STEPS], runbook=[step_document(one) for one in _STEPS],
    )  # fmt: skip
    state = State(run="r", situation="server-loss", steps=_STEPS, lines=lambda: (begun, *lines))
    found = state.attained()
    assert found is not None
    step = state.next_decision(found)
    return None if step is None else step.id


def test_the_question_that_is_asked_now_is_the_next_decision() -> None:
    asked = _line(2, written.STEP_BEGUN, step="let-users-in", attempt=1)
    answered = _line(3, written.STEP_DONE, step="let-users-in", verdict="ok")
    assert _next() == "let-users-in"
    assert _next(asked) == "let-users-in"
    assert _next(asked, answered) is None
