"""The clock of a recovery: what its journal proves of RTO and RPO, and never more than that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from recoup.kernel.finding import Verdict
from recoup.objectives.objective import Objective
from recoup.recovery import progress as written
from recoup.recovery.attained import Attained, Moment, attained, clock_facts, runbook_of
from recoup.recovery.journal import Line
from recoup.recovery.step import Act, Phase, Step
from recoup.recovery.step_document import step_document, step_of_document

THREE = datetime(2026, 11, 23, 3, tzinfo=UTC)


def _step(name: str, act: Act, phase: Phase = Phase.RECOVER, subject: str = "") -> Step:
    return Step(id=name, title=f"do {name}", meaning="", act=act, phase=phase, subject=subject)


STEPS = (
    _step("choose-db", Act.CHOOSE, subject="db"),
    _step("swap-db", Act.SWAP, subject="db"),
    _step("start-db", Act.START, subject="db"),
    _step("flows", Act.FLOWS, Phase.PROVE),
    _step("protect-db", Act.PROTECT, Phase.AFTER, "db"),
)


@dataclass
class Tape:
    """Writes lines, at instants that a test chooses."""

    lines: list[Line] = field(default_factory=list)
    at: datetime = THREE
    clock: float = 1000.0
    boot: str = "a"

    def begin(
        self, *, rto: float | None = 3600, rpo: float | None = 300, steps: Sequence[Step] = STEPS, **facts: Any
    ) -> Tape:
        promised = Objective(
            rto=None if rto is None else timedelta(seconds=rto), rpo=None if rpo is None else timedelta(seconds=rpo)
        )
        said = clock_facts(stack=promised, services={"db": promised}, sizes={"db": 5}, **facts)
        return self.line(
            written.RUN_BEGUN, run="r", situation="database-corruption", order=1, facts=said,
            steps=[one.id for one in steps], runbook=[step_document(one) for one in steps],
        )  # fmt: skip

    def line(self, event: str, **data: Any) -> Tape:
        number = len(self.lines) + 1
        self.lines.append(
            Line(
                number=number,
                id=str(number),
                at=self.at,
                clock=self.clock,
                boot=self.boot,
                host="h",
                who="ops",
                event=event,
                data=data,
                digest="",
            )
        )
        return self

    def wait(self, seconds: float, *, wall: float | None = None) -> Tape:
        self.clock += seconds
        self.at += timedelta(seconds=seconds if wall is None else wall)
        return self

    def restart(self, wall: float) -> Tape:
        self.boot += "x"
        self.clock = 7.0
        self.at += timedelta(seconds=wall)
        return self

    def step(self, name: str, seconds: float, *, waited: float = 0, verdict: str = "ok", **data: Any) -> Tape:
        self.line(written.STEP_BEGUN, step=name, attempt=1).wait(seconds)
        return self.line(
            written.STEP_DONE, step=name, detail="", verdict=verdict, seconds_waited=waited, data=data
        )  # fmt: skip

    def read(self, now: Moment | None = None) -> Attained:
        found = attained(self.lines, now)
        assert found is not None
        return found


def _whole(tape: Tape, seconds: float = 60, verdict: str = "ok") -> Tape:
    newest = (THREE - timedelta(seconds=12)).isoformat()
    tape.step("choose-db", seconds).step("swap-db", seconds)
    tape.step("start-db", seconds, newest=newest, how="the last commit that was replayed")
    return tape.step("flows", seconds, verdict=verdict).step("protect-db", 10_000)


def _seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def test_users_are_healthy_when_the_last_proof_ended_and_not_when_protection_is_back() -> None:
    found = _whole(Tape().begin()).read()
    assert (found.restored, found.healthy) == (_seconds(180), _seconds(240))
    assert (found.rto_verdict, found.recovery_time) == (Verdict.OK, _seconds(240))
    assert found.so_far == _seconds(10_240)
    assert [one.machine for one in found.steps[:2]] == [_seconds(60)] * 2


def test_the_lost_data_are_the_age_of_the_newest_record_that_came_back() -> None:
    [lost] = _whole(Tape().begin()).read().lost
    assert (lost.measured, lost.verdict, lost.how) == (_seconds(12), Verdict.OK, "the last commit that was replayed")
    [late] = _whole(Tape().begin(rpo=10)).read().lost
    assert late.verdict is Verdict.FAILED
    [unknown] = Tape().begin().step("choose-db", 1).read().lost
    assert (unknown.measured, unknown.verdict) == (None, Verdict.UNKNOWN)
    [back] = _whole(Tape().begin(back_to=THREE - _seconds(10))).read().lost
    assert back.measured == _seconds(2)


def test_a_database_whose_data_were_left_as_they_are_kept_no_promise() -> None:
    newest = (THREE - timedelta(seconds=12)).isoformat()
    for left in ("swap-db", "choose-db"):
        tape = Tape().begin()
        for name in ("choose-db", "swap-db"):
            if name == left:
                tape.line(written.STEP_SKIPPED, step=name, because="it is well")
            else:
                tape.step(name, 1, newest=newest, how="the last commit")
        [lost] = tape.step("start-db", 1, newest=newest, how="the last commit").read().lost
        assert (lost.measured, lost.verdict) == (None, Verdict.UNKNOWN)
        assert lost.how == "its data were left as they are"


def test_the_time_of_the_present_is_that_of_the_step_that_goes_on_whatever_was_written_last() -> None:
    tape = (
        Tape()
        .begin()
        .line(written.STEP_BEGUN, step="choose-db", attempt=1)
        .wait(10)
        .line("point-seen", step="choose-db")
    )
    found = tape.read(Moment(at=tape.at + _seconds(50), clock=tape.clock + 50, boot=tape.boot))
    assert found.spent == {"machine": _seconds(60), "people": timedelta(0), "still": timedelta(0)}
    tape.line(written.STEP_DONE, step="choose-db", verdict="ok", seconds_waited=0)
    found = tape.read(Moment(at=tape.at + _seconds(50), clock=tape.clock + 50, boot=tape.boot))
    assert found.spent["people"] == _seconds(50), "somebody is asked for the swap"


def test_where_nothing_asks_whether_users_can_work_no_promise_is_called_kept() -> None:
    unasked = [one for one in STEPS if one.id != "flows"]
    tape = Tape().begin(steps=unasked)
    for one in unasked:
        tape.step(one.id, 60)
    found = tape.read()
    assert found.healthy is not None
    assert found.rto_verdict is Verdict.UNKNOWN
    late = Tape().begin(steps=unasked, rto=10)
    for one in unasked:
        late.step(one.id, 60)
    assert late.read().rto_verdict is Verdict.FAILED, "what is sure to be missed is missed"


def test_who_saw_it_first_starts_the_clock() -> None:
    found = _whole(Tape().begin(detected=THREE - timedelta(minutes=58))).read()
    assert (found.before, found.recovery_time) == (timedelta(minutes=58), timedelta(minutes=62))
    assert found.rto_verdict is Verdict.FAILED
    assert found.lost[0].measured == timedelta(0), "nothing was lost that was written before it was seen"


def test_time_of_people_and_time_in_which_nobody_carried_it_out_are_told_apart() -> None:
    tape = Tape().begin().step("choose-db", 60).wait(300).line(written.APPROVED, step="swap-db", by="ann", how="typed")
    tape.step("swap-db", 60).line(written.STEP_BEGUN, step="start-db", attempt=1).wait(5)
    tape.restart(900).line(written.RUN_RESUMED)
    found = tape.step("start-db", 60).step("flows", 100, waited=40).step("protect-db", 1).read()
    assert found.spent == {"machine": _seconds(240), "people": _seconds(340), "still": _seconds(905)}
    assert found.healthy == sum(found.spent.values(), timedelta(0))
    assert found.steps[1].people == _seconds(300)


def test_a_run_that_is_only_given_up_later_stood_still_until_then() -> None:
    tape = Tape().begin().line(written.LEASED).step("choose-db", 60).wait(3600)
    found = tape.line(written.LEASED).wait(2).line(written.RUN_ENDED, outcome=written.ABANDONED).read()
    assert found.spent == {"machine": _seconds(62), "people": _seconds(0), "still": _seconds(3600)}
    assert (found.healthy, found.closed) == (None, False)
    assert tape.line(written.RUN_CLOSED, removed=[], kept=False).read().closed


def test_what_was_left_out_or_not_proven_keeps_no_promise() -> None:
    assert _whole(Tape().begin(), verdict="unknown").read().rto_verdict is Verdict.UNKNOWN
    tape = Tape().begin().step("choose-db", 1).step("swap-db", 1).step("start-db", 1)
    found = tape.line(written.STEP_SKIPPED, step="flows", because="no time").read()
    assert (found.healthy, found.rto_verdict) == (_seconds(3), Verdict.UNKNOWN)


def test_a_promise_that_is_missed_already_is_said_to_be_before_the_end() -> None:
    found = Tape().begin().step("choose-db", 4000).read()
    assert (found.healthy, found.rto_verdict) == (None, Verdict.FAILED)
    assert Tape().begin().step("choose-db", 60).read().rto_verdict is Verdict.UNKNOWN
    assert Tape().begin(rto=None).step("choose-db", 4000).read().rto_verdict is Verdict.UNKNOWN


def test_a_wall_clock_that_is_set_changes_no_time_and_is_named() -> None:
    tape = Tape().begin().step("choose-db", 60).wait(1, wall=3601)
    found = tape.step("swap-db", 60).wait(1, wall=-7199).step("start-db", 60).step("flows", 60).read()
    assert found.healthy == _seconds(242)
    assert [round(one.seconds) for one in found.jumps] == [3600, -7200]
    assert "forward" in str(found.jumps[0])
    # The machine may have slept for that hour, so nobody can say that an hour was kept.
    assert found.rto_verdict is Verdict.UNKNOWN
    back = Tape().begin().wait(1, wall=-3600)
    assert _whole(back).read().rto_verdict is Verdict.OK, "sleeping does not set a clock back"


def test_a_clock_that_went_backwards_over_a_restart_leaves_the_time_unknown() -> None:
    found = _whole(Tape().begin().restart(-500).line(written.RUN_RESUMED)).read()
    assert found.jumps[0].restarted
    assert found.rto_verdict is Verdict.UNKNOWN


def test_the_present_counts_for_a_run_that_goes_on() -> None:
    tape = Tape().begin().step("choose-db", 60).line(written.STEP_BEGUN, step="swap-db", attempt=1)
    now = Moment(at=tape.at + _seconds(5), clock=tape.clock + 5, boot="a")
    found = tape.read(now)
    assert (found.so_far, found.spent["machine"]) == (_seconds(65), _seconds(65))


def test_a_line_that_is_there_twice_counts_once() -> None:
    tape = _whole(Tape().begin())
    once = tape.read()
    doubled = [one for line in tape.lines for one in (line, replace(line, number=line.number + 1))]
    found = attained(doubled)
    assert found is not None
    assert (found.healthy, found.spent) == (once.healthy, once.spent)


def test_a_journal_in_which_nothing_was_begun_has_no_clock() -> None:
    assert attained([]) is None
    assert runbook_of([]) == ()


def test_the_runbook_is_read_from_the_journal_alone() -> None:
    assert runbook_of(Tape().begin().lines) == STEPS
    for one in STEPS:
        assert step_of_document(step_document(one)) == one


_EVENTS = st.sampled_from(["begin", "done", "unknown", "failed", "skip", "agree", "resume", "wait", "jump", "restart"])


def _play(events: Sequence[tuple[str, float]]) -> Tape:
    """Any story a journal can tell, in the order in which an executor would write it."""
    tape, names = Tape().begin(), [one.id for one in STEPS]
    at = 0
    for event, seconds in events:
        if at == len(names):
            break
        match event:
            case "begin":
                tape.line(written.STEP_BEGUN, step=names[at], attempt=1)
            case "done" | "unknown":
                verdict = "ok" if event == "done" else event
                tape.line(written.STEP_DONE, step=names[at], verdict=verdict, seconds_waited=seconds / 2, data={})
                at += 1
            case "failed":
                tape.line(written.STEP_FAILED, step=names[at], detail="no")
            case "skip":
                tape.line(written.STEP_SKIPPED, step=names[at], because="so")
                at += 1
            case "agree":
                tape.line(written.APPROVED, step=names[at])
            case "resume":
                tape.line(written.RUN_RESUMED)
            case "wait":
                tape.wait(seconds)
            case "jump":
                tape.wait(1, wall=seconds - 500)
            case "restart":
                tape.restart(seconds - 100)
    return tape


@example([*[("done", 0.0)] * 4, ("wait", 1.0), ("begin", 0.0)])  # users are back at once
@given(st.lists(st.tuples(_EVENTS, st.floats(0, 2000)), max_size=30))
def test_no_story_makes_a_kept_promise_of_what_was_not_proven(events: list[tuple[str, float]]) -> None:
    tape = _play(events)
    found = tape.read()
    assert found.so_far >= timedelta(0)
    assert all(time >= timedelta(0) for time in found.spent.values())
    spent = sum(found.spent.values(), timedelta(0))
    until = found.so_far if found.healthy is None else found.healthy
    assert abs(spent - until) < timedelta(milliseconds=1)
    if found.rto_verdict is Verdict.OK:
        needed = [one for one in found.steps if one.step.phase is not Phase.AFTER]
        assert all(one.progress.verdict is Verdict.OK for one in needed)
        assert found.recovery_time is not None
        assert found.recovery_time <= timedelta(hours=1)
    if found.restored is not None and found.healthy is not None:
        assert found.restored <= found.healthy <= found.so_far
