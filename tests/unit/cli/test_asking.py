"""Questions to the person at the terminal are seen before they are answered, whatever is drawn there."""

from __future__ import annotations

import os
import sys

import pytest

from tests.at_terminal import at_terminal

_AT_WORK = """
from recoup.cli.asking import asking_person, typed, yes_or_no
from recoup.cli.output import Output
from recoup.engines.engine import Progress
from types import SimpleNamespace

output = Output()
with output.progress() as listener:
    listener(Progress(what="base.tar", done_bytes=5, total_bytes=10))
    step = SimpleNamespace(title="point the users to it", meaning="Change nothing.")
    answer = {question}
    listener(Progress(what="base.tar", done_bytes=7, total_bytes=10))
    output.note("after the question")
output.line(f"answered: {{answer}}")
"""


@pytest.mark.parametrize(
    ("question", "seen", "typed", "answer"),
    [
        ("asking_person(output)(step)", "done, no, or skip [skip]: ", "done", "True"),
        ("yes_or_no('closing run 7. Close it')", "Close it [y/N]: ", "y", "True"),
        ("typed('type shop to do it', 'shop')", "type shop to do it: ", "shop", "True"),
    ],
)
def test_a_question_is_seen_while_bars_are_drawn(question: str, seen: str, typed: str, answer: str) -> None:
    there = at_terminal([sys.executable, "-c", _AT_WORK.format(question=question)], environment=dict(os.environ))
    there.until(seen)
    there.type(typed)
    assert there.ended() == 0, there.shown
    assert "after the question" in there.shown
    assert f"answered: {answer}" in there.shown
