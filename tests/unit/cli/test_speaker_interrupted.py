"""Ctrl-C may come at any instant, also while something is being said."""

from __future__ import annotations

import sys
import threading
from types import FrameType
from typing import Any

import pytest

from recoup.cli.speaker import Speaker


class _Interrupting:
    """A trace function that interrupts what runs after so many events of any function."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __call__(self, _frame: FrameType, _event: str, _argument: Any) -> _Interrupting:
        self.left -= 1
        if self.left == 0:
            sys.settrace(None)
            raise KeyboardInterrupt
        return self


def test_after_an_interrupt_at_any_instant_of_saying_something_more_can_be_said() -> None:
    interrupted = after = 0
    while interrupted == after:
        after += 1
        speaker = Speaker()
        before = sys.gettrace()
        sys.settrace(_Interrupting(after))
        try:
            speaker.say(lambda: None)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(before)
        said = threading.Event()
        threading.Thread(target=lambda: speaker.say(said.set), daemon=True).start()  # noqa: B023 - before the next turn
        if not said.wait(10):
            pytest.fail(f"nothing can be said any more after an interrupt at event {after}")
        speaker.close(seconds=10)
    assert interrupted > 3
