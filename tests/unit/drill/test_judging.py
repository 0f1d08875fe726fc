"""What proves data, how numbers are judged, when a plan is proven, what becomes of an issue: pure decisions."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.drill.expect import Expect
from recoup.drill.flows import FlowSpec, StepSpec
from recoup.drill.issues import Closing, ClosingProof, find_issues, track
from recoup.drill.measure import (
    Promised,
    comparable,
    forecast,
    forecast_whole,
    measure_rpo,
    measure_rto,
    regressions,
    tiers,
)
from recoup.drill.model import DrillRecord, FlowResult, FlowStepResult, Step
from recoup.drill.proving import (
    Proof,
    Question,
    planned_proofs,
    query_proves,
    reads_a_table,
    require_proof,
    shown_proofs,
)
from recoup.drill.state import UNSEEN, State, changes, identify, missed, next_situation, plan_state
from recoup.kernel.errors import Exit, RefusedError
from recoup.kernel.finding import Verdict
from recoup.objectives.objective import Objective
from tests.drills import DECLARED, MINUTE, SECOND, a_drill, finding, issue

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MONTH = timedelta(days=30)


# What proves data


@pytest.mark.parametrize(
    ("sql", "reads"),
    [
        ("select count(*) from orders", True),
        ('select max("at") from "public"."Orders" o join lines l using (id)', True),
        ("select 1", False),
        ("select count(*) from pg_class", False),
        ("select count(*) from information_schema.tables", False),
        ("select count(*) from generate_series(1, 5)", False),
        ("select 'from orders' -- from orders", False),
        ("select 1 /* from orders */", False),
        ("with x as (select * from orders) select count(*) from x", True),
        ("with recursive x (n) as (select 1 union all select n + 1 from x where n < 9) select count(*) from x", False),
        ("with x as (select 1 as n), y as materialized (select n from x) select n from y join x using (n)", False),
        ("select extract(epoch from current_timestamp)", False),
        ("select extract(epoch from now() - interval '1 day')", False),
        ("select substring('abc' from 2)", False),
        ("select 1 where 1 is distinct from 2", False),
        ("select extract(year from placed) from orders", True),
        ("select count(*) from orders where state is not distinct from 'paid'", True),
        ("select count(*) from lateral generate_series(1, 5) as n", False),
    ],
)
def test_a_query_reads_data_when_it_reads_a_table_of_the_users(sql: str, reads: bool) -> None:
    assert reads_a_table(sql) is reads


def test_an_expectation_that_an_empty_table_meets_proves_nothing() -> None:
    sql = "select count(*) from orders"
    assert query_proves(sql, at_least=1)
    assert query_proves(sql, equals=42)
    assert query_proves(sql, equals="42")
    for harmless in ({"at_least": 0}, {"equals": 0}, {"equals": False}, {"equals": ""}, {}):
        assert not query_proves(sql, **harmless)
    # As psql prints nothing: a count, a sum, a truth, an empty list.
    for text in ("0", "0.00", "-0", "f", "false", "FALSE", "[]", "{}", "null", " "):
        assert not query_proves(sql, equals=text)


def flow(*, reads: bool) -> FlowSpec:
    step = StepSpec(act="get", target="http://api/", shown="GET /", expect=Expect(), reads_data=reads)
    return FlowSpec(name="the API answers", steps=(step,))


def test_a_drill_in_which_nothing_proves_data_is_refused_and_shows_how_to_write_a_check() -> None:
    weak = Question(service="postgres", name="not too many", sql="select count(*) from orders", at_most=10)
    planned = planned_proofs([weak], [flow(reads=False)], {"postgres": 0})
    assert planned == ()
    with pytest.raises(RefusedError) as refused:
        require_proof(planned)
    assert refused.value.exit_code == Exit.REFUSED
    assert "at_least: 1" in (refused.value.hint or "")


def test_a_check_a_flow_and_a_fingerprint_of_rows_prove_data_when_they_passed() -> None:
    strong = Question(service="postgres", name="orders", sql="select count(*) from orders", at_least=1)
    keys = Question(service="redis", name="GET basket:7", sql=None, equals="three apples")
    assert planned_proofs((keys, replace(keys, equals=None, at_most=9)), (), {}) == (
        Proof(kind="check", name="GET basket:7", service="redis"),
    )
    assert planned_proofs((replace(keys, equals="false"),), (), {}), "a value, and nothing where there is no key"
    planned = planned_proofs([strong], [flow(reads=True)], {"postgres": 12, "redis": 0})
    require_proof(planned)
    assert [str(one) for one in planned] == [
        "check of postgres: orders",
        "flow: the API answers",
        "fingerprint: postgres",
    ]
    step = FlowStepResult(what="GET /", act="get", verdict=Verdict.FAILED, reads_data=True)
    passed = {Proof(kind="fingerprint", name="postgres", service="postgres")}
    failed = FlowResult(name="the API answers", steps=(step,))
    good = FlowResult(name="the API answers", steps=(replace(step, verdict=Verdict.OK),))
    assert shown_proofs(planned, [failed], passed) == ("fingerprint: postgres",)
    assert shown_proofs(planned, [good], passed) == ("flow: the API answers", "fingerprint: postgres")
    assert shown_proofs(planned, [], ()) == ()


# Numbers


def test_the_strictest_promise_counts_and_each_tier_is_judged_by_its_own() -> None:
    promised = {
        "postgres": Promised(objective=Objective(rto=HOUR, rpo=5 * MINUTE), tier="critical"),
        "logs": Promised(objective=Objective(rto=24 * HOUR, rpo=24 * HOUR), tier="low"),
        "cache": Promised(objective=Objective()),
    }
    rto = measure_rto(DECLARED, DECLARED + 2 * HOUR, promised)
    rpo = (
        measure_rpo("postgres", DECLARED, DECLARED - MINUTE, promised["postgres"], how="heartbeat row"),
        measure_rpo("logs", DECLARED, DECLARED - 25 * HOUR, promised["logs"], how="newest file"),
        measure_rpo("cache", DECLARED, None, promised["cache"], how="the sandbox has no key"),
    )
    record = a_drill(rto=rto, rpo=rpo)
    critical, low = tiers(record)
    assert rto.objective == HOUR
    assert (critical.rto_verdict, critical.rpo_verdict) == (Verdict.FAILED, Verdict.OK)
    assert (low.rto_verdict, low.rpo_verdict, low.rpo) == (Verdict.OK, Verdict.FAILED, 25 * HOUR)
    assert [one.verdict for one in rpo] == [Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN]
    assert record.lost is None, "what one service lost is not known, so the worst is not"


def a_month_of_drills(*minutes: int, lost: timedelta = 40 * SECOND) -> list[DrillRecord]:
    return [
        a_drill(
            name=f"2026{month:02}01-090000-aaaaaa", declared=DECLARED + MONTH * month, takes=took * MINUTE, lost=lost
        )
        for month, took in enumerate(minutes, start=1)
    ]


def test_a_drill_that_takes_longer_than_a_quarter_more_and_a_minute_is_a_regression() -> None:
    earlier = a_month_of_drills(20, 22, 19)
    for took, numbers in ((25, []), (26, ["RTO", "machine time"]), (10, [])):
        drill = a_drill(declared=DECLARED + 4 * MONTH, takes=took * MINUTE)
        assert [one.number for one in regressions(drill, [*earlier, drill])] == numbers, took
    worse = regressions(a_drill(declared=DECLARED + 4 * MONTH, takes=40 * MINUTE), earlier)
    assert str(worse[0]) == "RTO is 40 min; it was 20 min (median of 3 earlier drills)"


def test_a_few_seconds_more_of_a_short_drill_are_no_regression() -> None:
    earlier = [a_drill(declared=DECLARED, takes=10 * SECOND)]
    assert regressions(a_drill(declared=DECLARED + MONTH, takes=40 * SECOND), earlier) == ()


def test_more_lost_data_is_a_regression_and_waiting_people_are_told_from_slow_machines() -> None:
    earlier = a_month_of_drills(20, 20)
    lost = a_drill(declared=DECLARED + 4 * MONTH, lost=5 * MINUTE)
    assert [one.number for one in regressions(lost, earlier)] == ["RPO"]
    slow = replace(a_drill(declared=DECLARED + 4 * MONTH, takes=60 * MINUTE))
    waited = replace(slow, rto=replace(slow.rto, waiting=47 * MINUTE))
    assert [one.number for one in regressions(waited, earlier)] == ["RTO"]


def test_only_earlier_drills_of_the_same_situation_are_compared() -> None:
    drill = a_drill(declared=DECLARED + 3 * MONTH)
    others = [
        replace(one, situation="data-loss") for one in a_month_of_drills(1)
    ] + [replace(a_drill(), system="other"), a_drill(declared=DECLARED + 5 * MONTH)]  # fmt: skip
    assert comparable(drill, [*others, drill]) == ()
    assert regressions(drill, others) == ()


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=40))
def test_a_forecast_is_made_of_times_that_were_measured(seconds: list[int]) -> None:
    step = Step(key="k", title="t", kind="machine", verdict=Verdict.OK)
    drills = [
        a_drill(steps=(replace(step, started=DECLARED, ended=DECLARED + one * SECOND),)) for one in seconds
    ]  # fmt: skip
    found = forecast(drills)["k"]
    assert found.p50.total_seconds() in seconds
    assert found.p50 <= found.p95 <= max(seconds) * SECOND
    assert sum(one * SECOND <= found.p95 for one in seconds) >= 0.95 * len(seconds)
    assert found.times == len(seconds)


def test_steps_that_went_wrong_or_met_a_clock_that_jumped_are_not_forecast_from() -> None:
    step = Step(key="k", title="t", kind="machine", verdict=Verdict.FAILED, started=DECLARED, ended=DECLARED + HOUR)
    back = replace(step, verdict=Verdict.OK, ended=DECLARED - HOUR)
    assert forecast([a_drill(steps=(step, back))]) == {}
    whole, missing = forecast_whole(["restore:postgres", "new"], forecast([a_drill()]))
    assert whole is not None
    assert missing == ("new",)
    assert forecast_whole(["new"], {}) == (None, ("new",))


# The state of the plan

PARTS = {"plan file": "a", "compose.yaml": "b", "image of api": "c"}


def proven(**parts: str) -> DrillRecord:
    return a_drill(plan=identify("1", {**PARTS, **parts}))


def test_a_plan_that_was_never_rehearsed_is_unverified_and_one_that_passed_is_verified_until_it_expires() -> None:
    now_is = identify("1", PARTS)
    assert plan_state(now_is, [], DECLARED, expires=MONTH).state is State.UNVERIFIED
    assert plan_state(now_is, [proven()], DECLARED + MONTH, expires=MONTH).state is State.VERIFIED
    expired = plan_state(now_is, [proven()], DECLARED + MONTH + SECOND, expires=MONTH)
    assert (expired.state, expired.reasons) == (State.STALE, ("the proof expired",))


def test_any_change_makes_the_plan_stale_and_is_named() -> None:
    for parts, said in (
        ({**PARTS, "plan file": "x"}, "plan file changed"),
        ({**PARTS, "image of web": "d"}, "image of web was not part of the drill"),
        ({"plan file": "a", "compose.yaml": "b"}, "image of api is gone"),
        ({**PARTS, "compose.yaml": UNSEEN}, "compose.yaml could not be looked at now"),
    ):
        state = plan_state(identify("1", parts), [proven()], DECLARED + DAY, expires=MONTH)
        assert (state.state, state.reasons) == (State.STALE, (said,))
        assert state.verdict is Verdict.UNKNOWN
    unseen = proven(**{"compose.yaml": UNSEEN})
    assert changes(unseen.plan, unseen.plan) == ("compose.yaml could not be looked at now",)
    assert changes(unseen.plan, proven().plan) == ("compose.yaml was not looked at in the drill",)


def test_the_last_drill_counts_and_one_that_could_not_establish_everything_is_a_failure() -> None:
    now_is = identify("1", PARTS)
    later = replace(proven(), id="20261103-090000-bbbbbb", declared=DECLARED + DAY)
    for changed, said in (
        ({"stopped": "killed"}, "it came to its end: unknown"),
        ({"isolation": ()}, "isolation: unknown"),
    ):
        bad = replace(later, **changed)
        state = plan_state(now_is, [bad, proven()], DECLARED + 2 * DAY, expires=MONTH)
        assert (state.state, state.reasons, state.drill) == (State.FAILED, (said,), later.id)
    assert (
        plan_state(now_is, [later, replace(proven(), isolation=())], later.declared, expires=MONTH).state
        is State.VERIFIED
    )


def test_a_drill_of_the_future_proves_nothing() -> None:
    state = plan_state(identify("1", PARTS), [proven()], DECLARED - HOUR, expires=MONTH)
    assert state.state is State.STALE
    assert "clock" in state.reasons[0]


@given(
    st.dictionaries(st.text(min_size=1), st.text(min_size=1)), st.dictionaries(st.text(min_size=1), st.text(min_size=1))
)
def test_two_plans_have_the_same_hash_exactly_when_nothing_changed(one: dict[str, str], two: dict[str, str]) -> None:
    first, second = identify(None, one), identify(None, two)
    assert (first.hash == second.hash) == (one == two)
    assert (changes(first, second) == ()) == (one == two)


def test_the_situation_that_was_not_rehearsed_for_the_longest_time_comes_next() -> None:
    wanted = ("server-loss", "data-loss", "database-corruption")
    held = [replace(a_drill(), situation=name, declared=DECLARED + at * MINUTE) for name, at in
            (("data-loss", 3), ("server-loss", 1), ("data-loss", 0))]  # fmt: skip
    assert next_situation(wanted, []) == "server-loss", "the one that the plan names first"
    assert next_situation(wanted, held) == "database-corruption", "one that never was"
    assert next_situation(wanted[:2], held) == "server-loss"
    assert next_situation(wanted[:2], held[2:]) == "server-loss"
    assert next_situation((), held) is None


def test_a_drill_that_was_due_and_not_held_is_missed() -> None:
    due, grace = DECLARED, DAY
    assert not missed(None, [], due, grace=grace)
    assert not missed(due, [], due + grace, grace=grace)
    assert missed(due, [], due + grace + SECOND, grace=grace)
    assert missed(due, [a_drill(declared=due - 2 * DAY)], due + 2 * DAY, grace=grace)
    assert not missed(due, [a_drill(declared=due - HOUR)], due + 2 * DAY, grace=grace)
    assert not missed(due, [a_drill(declared=due + HOUR, stopped="killed")], due + 2 * DAY, grace=grace)


# Issues


def test_every_fault_of_a_drill_becomes_one_issue_with_an_owner_and_a_day() -> None:
    bad = finding("indexes are whole", "postgres", Verdict.FAILED, "orders_pkey lacks 3 entries")
    step = FlowStepResult(what="GET /orders", act="get", verdict=Verdict.FAILED, detail="status 500, 200 is expected")
    flows = (FlowResult(name="a customer sees the orders", steps=(step,)),)
    drill = a_drill(takes=2 * HOUR, checks=(bad, bad), flows=flows, lost=None)
    found = find_issues(drill, [], [], owner="operations", due=14 * DAY)
    assert [one.text for one in found] == [
        "indexes are whole: postgres is failed: orders_pkey lacks 3 entries",
        "a customer sees the orders: GET /orders is failed: status 500, 200 is expected",
        "recovery took 2 h, 1 h is promised",
        "the lost data of postgres could not be measured (heartbeat row)",
    ]
    assert [one.id for one in found] == [f"{drill.id}.{number}" for number in (1, 2, 3, 4)]
    assert {(one.owner, one.due) for one in found} == {("operations", date(2026, 11, 16))}
    assert find_issues(a_drill(), [], [], owner="x", due=DAY) == ()


def test_an_issue_that_is_open_is_not_found_again_and_one_that_was_closed_is() -> None:
    slow = a_drill(takes=2 * HOUR)
    first = replace(slow, issues=find_issues(slow, [], [], owner="x", due=DAY))
    again = replace(slow, id="20261202-090000-bbbbbb", declared=DECLARED + MONTH)
    known = track([first], [])
    assert find_issues(again, [], known, owner="x", due=DAY) == ()
    proof = ClosingProof(kind="drill", name="d", sha256="0" * 64)
    closing = Closing(
        id="c", issue=first.issues[0].id, closed=DECLARED + DAY, by="Ada", because="more disks", proof=proof
    )
    known = track([first], [closing])
    assert [one.is_open for one in known] == [False]
    assert len(find_issues(again, [], known, owner="x", due=DAY)) == 1


def test_of_two_closings_the_first_counts_and_an_open_issue_is_overdue_after_its_day() -> None:
    drill = a_drill(issues=(issue(1), issue(2)))
    proof = ClosingProof(kind="file", name="photo.png", sha256="0" * 64, size_bytes=1)
    closings = [
        Closing(id=name, issue=issue(1).id, closed=DECLARED + days * DAY, by="Ada", because="done", proof=proof)
        for name, days in (("b", 2), ("a", 1))
    ]
    closed, still_open = track([drill], closings)
    assert closed.closing is not None
    assert closed.closing.id == "a"
    assert not closed.overdue(date(2030, 1, 1))
    assert not still_open.overdue(date(2026, 11, 30))
    assert still_open.overdue(date(2026, 12, 1))


def test_a_regression_becomes_an_issue() -> None:
    drill = a_drill(declared=DECLARED + 4 * MONTH, takes=40 * MINUTE)
    found = find_issues(drill, a_month_of_drills(20), [], owner="x", due=DAY)
    assert [one.about for one in found] == ["worse:RTO"]
