"""Climbing the grades of a copy in a sandbox: what stops it, what does not, and that nothing unchecked is ok."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import pytest

from recoup.kernel import clock
from recoup.kernel.errors import DamageError, EngineError, UncheckedError, WrongKeyError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.limits import Watch
from recoup.verification.grade import Grade, Rung
from recoup.verification.live import LiveCopy, OpenLive, climb
from recoup.verification.verify import Verification

_PATIENCE_SECONDS = 300.0


def found(verdict: Verdict = Verdict.OK) -> list[Finding]:
    return [Finding(check="it holds", subject="shop", verdict=verdict)]


class Copy:
    """A copy of which each grade does what it is told to."""

    def __init__(self, **acts: Callable[[], Sequence[Finding]]) -> None:
        self.acts, self.asked, self.removed = acts, list[str](), 0

    def _do(self, name: str) -> Sequence[Finding]:
        self.asked.append(name)
        return self.acts.get(name, found)()

    def boots(self) -> Sequence[Finding]:
        return self._do("boots")

    def sound(self) -> Sequence[Finding]:
        return self._do("sound")

    def same(self) -> Sequence[Finding]:
        return self._do("same")

    def works(self) -> Sequence[Finding]:
        return self._do("works")

    def open(self) -> OpenLive:
        @contextlib.contextmanager
        def opened() -> Iterator[LiveCopy]:
            try:
                yield self
            finally:
                self.removed += 1

        return opened


def stored(verdict: Verdict = Verdict.OK) -> Verification:
    rungs = tuple(Rung(grade=grade, findings=tuple(found(verdict))) for grade in (Grade.STORED, Grade.INTACT))
    return Verification(artefact_id="a", asked=Grade.INTACT, rungs=rungs)


def raising(error: BaseException) -> Callable[[], Sequence[Finding]]:
    def act() -> Sequence[Finding]:
        raise error

    return act


def verdicts(verification: Verification) -> dict[str, str]:
    return {rung.grade.value: rung.verdict.value for rung in verification.rungs}


def test_every_grade_up_to_the_one_that_is_asked_for_is_looked_at_once_and_all_is_removed() -> None:
    copy = Copy()
    proven = climb(stored(), Grade.SAME, copy.open())
    assert (copy.asked, copy.removed) == (["boots", "sound", "same"], 1)
    assert (proven.reached, proven.verdict, proven.asked) == (Grade.SAME, Verdict.OK, Grade.SAME)


def test_damaged_bytes_are_not_restored() -> None:
    copy = Copy()
    proven = climb(stored(Verdict.FAILED), Grade.WORKS, copy.open())
    assert (copy.asked, proven.reached, proven.verdict) == ([], None, Verdict.FAILED)


def test_what_does_not_start_ends_there_and_what_is_unsound_does_not() -> None:
    dead = Copy(boots=lambda: found(Verdict.FAILED))
    assert list(verdicts(climb(stored(), Grade.WORKS, dead.open()))) == ["stored", "intact", "boots"]
    ill = Copy(sound=lambda: found(Verdict.FAILED))
    proven = climb(stored(), Grade.WORKS, ill.open())
    assert (proven.reached, proven.verdict, ill.asked[-1]) == (Grade.BOOTS, Verdict.FAILED, "works")


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(DamageError("torn"), "failed"), (EngineError("no program"), "unknown"), (UncheckedError("?"), "unknown")],
)
def test_an_error_is_a_finding_and_never_ok(error: Exception, verdict: str) -> None:
    proven = climb(stored(), Grade.SAME, Copy(sound=raising(error)).open())
    assert verdicts(proven) == {"stored": "ok", "intact": "ok", "boots": "ok", "sound": verdict, "same": "ok"}
    assert proven.reached is Grade.BOOTS
    unopened = climb(stored(), Grade.SAME, lambda: _failing(error))
    assert verdicts(unopened) == {"stored": "ok", "intact": "ok", "boots": verdict}


@contextlib.contextmanager
def _failing(error: Exception, *, at_the_end: bool = False) -> Iterator[LiveCopy]:
    if not at_the_end:
        raise error
    yield Copy()
    raise error


def test_a_sandbox_that_cannot_be_removed_is_not_hidden_behind_good_findings() -> None:
    proven = climb(stored(), Grade.BOOTS, lambda: _failing(EngineError("a process stays"), at_the_end=True))
    assert (verdicts(proven)["boots"], proven.verdict) == ("unknown", Verdict.UNKNOWN)
    assert "a process stays" in proven.findings[-1].detail


def test_a_wrong_key_is_no_finding() -> None:
    with pytest.raises(WrongKeyError):
        climb(stored(), Grade.BOOTS, lambda: _failing(WrongKeyError("another")))


def test_when_the_time_is_over_before_it_begins_every_grade_is_unknown_and_nothing_is_restored() -> None:
    copy = Copy()
    watch = Watch(deadline=clock.monotonic(), time_over="the time is over")
    proven = climb(stored(), Grade.SOUND, copy.open(), watch)
    assert copy.asked == []
    assert verdicts(proven) == {"stored": "ok", "intact": "ok", "boots": "unknown", "sound": "unknown"}
    assert all("the time is over" in one.detail for one in proven.findings[2:])


def test_work_that_takes_too_long_is_ended_also_inside_a_handler_of_errors_and_all_is_removed() -> None:
    def endless() -> Sequence[Finding]:
        watch._deadline = clock.monotonic() + 0.2  # counted from here, so that what comes before has its time
        until = clock.monotonic() + _PATIENCE_SECONDS
        while clock.monotonic() < until:
            with contextlib.suppress(EngineError, OSError, Exception):
                clock.pause(_PATIENCE_SECONDS)
        return found()

    copy, begun = Copy(sound=endless), clock.monotonic()
    watch = Watch(deadline=begun + _PATIENCE_SECONDS, time_over="the time that was allowed is over")
    proven = climb(stored(), Grade.WORKS, copy.open(), watch)
    assert clock.monotonic() - begun < _PATIENCE_SECONDS
    assert (copy.asked, copy.removed) == (["boots", "sound"], 1)
    assert verdicts(proven)["boots"] == "ok"
    assert [verdicts(proven)[name] for name in ("sound", "same", "works")] == ["unknown"] * 3
    assert proven.reached is Grade.BOOTS


def test_the_removal_of_a_sandbox_is_not_cut_short_by_the_limit() -> None:
    ended = []

    @contextlib.contextmanager
    def slow_to_go() -> Iterator[LiveCopy]:
        yield Copy()
        watch._deadline = clock.monotonic()  # its time is over while it is removed
        clock.pause(1.5)
        ended.append("removed")

    watch = Watch(deadline=clock.monotonic() + _PATIENCE_SECONDS, time_over="over")
    assert climb(stored(), Grade.BOOTS, slow_to_go, watch).verdict is Verdict.OK
    assert ended == ["removed"]
    assert climb(stored(), Grade.BOOTS, slow_to_go, watch).verdict is Verdict.UNKNOWN
