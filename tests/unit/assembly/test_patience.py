"""A repository that does not answer at first is waited for; what waiting cannot mend is said at once."""

from __future__ import annotations

import pytest

from recoup.assembly.recover.patience import patiently
from recoup.kernel import clock
from recoup.kernel.errors import NoRepositoryError, TransientStorageError, WrongKeyError


class Repository:
    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.asked = 0

    def open(self) -> str:
        self.asked += 1
        if self.failures:
            raise self.failures.pop(0)
        return "open"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes by only while somebody waits."""
    at = 0.0

    def pause(seconds: float) -> None:
        nonlocal at
        at += seconds

    monkeypatch.setattr(clock, "monotonic", lambda: at)
    monkeypatch.setattr(clock, "pause", pause)


def test_it_is_tried_again_and_said_once() -> None:
    said: list[str] = []
    slow = Repository(TransientStorageError("no answer"))
    assert patiently(slow.open, said.append, seconds=30) == "open"
    assert slow.asked == 2
    assert len(said) == 1
    assert "no answer; trying again for up to" in said[0]


@pytest.mark.parametrize("failure", [NoRepositoryError("not there"), WrongKeyError("another key")])
def test_what_waiting_cannot_mend_is_raised_at_once(failure: Exception) -> None:
    said: list[str] = []
    with pytest.raises(type(failure)):
        patiently(Repository(failure).open, said.append)
    assert said == []


def test_waiting_ends_with_the_last_error() -> None:
    away = Repository(TransientStorageError("first"), TransientStorageError("last"))
    with pytest.raises(TransientStorageError, match="last"):
        patiently(away.open, lambda _text: None, seconds=2.5)  # for the first pause and not for the second
    assert away.asked == 2
