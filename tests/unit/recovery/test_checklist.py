"""The post-recovery checklist: what a machine saw cannot be ticked off, and what only people know is asked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.finding import Finding, Verdict, worst
from recoup.objectives.standing import Stream
from recoup.recovery.checklist import (
    CONFIRMED,
    Container,
    Database,
    Facts,
    Item,
    NewCopy,
    Ping,
    Said,
    answers,
    checklist,
    left_to_people,
    open_items,
    urgent,
)
from recoup.recovery.journal import Line

BACK = datetime(2026, 11, 23, 3, 10, tzinfo=UTC)
LATER = BACK + timedelta(minutes=5)
BEFORE = BACK - timedelta(hours=1)

STREAM = Stream(kind="wal", state="running", as_of=LATER, slot="reserved")
COPY = NewCopy(id="20261123-031100-aaaaaa", kind="base", grade="intact")
POSTGRES = Database(
    service="postgres",
    kind="base",
    answers=True,
    looks={"choose-postgres": Verdict.OK, "start-postgres": Verdict.OK, "checks-postgres": Verdict.OK},
    since=BACK,
    copy=COPY,
    timeline=2,
    stream=STREAM,
    streamed_timeline=2,
)
FACTS = Facts(
    situation="database-corruption",
    since=BACK,
    containers=(Container(service="api", well=True, words="running healthy"),),
    databases=(POSTGRES,),
    users={"health-api": Verdict.OK, "flows": Verdict.OK},
    daemon="running",
    pings=(Ping(name="backup", taken=LATER),),
    key_file=Finding(check="the key is private", subject="recoup.key", verdict=Verdict.OK),
)
YES = Said(yes=True, who="anna", at=LATER)
ALL_SAID = {"outside": YES, "cause": YES, "access": YES}


def points(facts: Facts, said: dict[str, Said] | None = None) -> dict[str, Item]:
    return {one.id: one for one in checklist(facts, said or {})}


def with_postgres(**changes: Any) -> Facts:
    return replace(FACTS, databases=(replace(POSTGRES, **changes),))


def test_a_stack_that_is_well_leaves_only_what_people_know() -> None:
    found = checklist(FACTS, {})
    assert [one.id for one in found] == [
        *("services", "integrity-postgres", "users", "ping-backup", "copy-postgres", "stream-postgres", "key-file"),
        *("outside", "cause", "access"),
    ]
    assert [one.id for one in open_items(found)] == ["outside", "cause", "access"]
    assert left_to_people(found) == open_items(found)
    assert open_items(checklist(FACTS, ALL_SAID)) == ()
    assert "confirmed by anna" in points(FACTS, ALL_SAID)["cause"].finding.detail


def test_what_can_wait_does_not_fail_the_run_and_keeps_it_from_being_closed() -> None:
    waits = {"ping-backup", "key-file", "outside", "cause", "access"}
    assert {one.id for one in checklist(FACTS, {})} - {one.id for one in urgent(checklist(FACTS, {}))} == waits
    assert not waits & {one.id for one in urgent(checklist(FACTS, ALL_SAID))}


def test_what_could_not_be_told_of_data_can_be_looked_at_by_a_person_and_what_is_wrong_cannot_be_talked_away() -> None:
    yes = {"integrity-postgres": YES}
    open_ = with_postgres(looks={"start-postgres": Verdict.UNKNOWN})
    assert points(open_)["integrity-postgres"].verdict is Verdict.UNKNOWN
    assert points(open_, yes)["integrity-postgres"].verdict is Verdict.OK
    bad = with_postgres(looks={"start-postgres": Verdict.UNKNOWN}, wrong=("1 checksum failure",))
    assert points(bad, yes)["integrity-postgres"].verdict is Verdict.FAILED


STOPPED = Container(service="worker", well=False, words="exited")
#: Each planted problem, the point that shows it, its verdict, and words of it.
PROBLEMS = [
    (replace(FACTS, containers=(STOPPED,)), "services", "failed", "worker: exited"),
    (replace(FACTS, trouble="the engine is not there", containers=()), "services", "unknown", "not there"),
    (with_postgres(answers=False, detail="connection refused"), "integrity-postgres", "failed", "refused"),
    (with_postgres(answers=None, detail="no way there"), "integrity-postgres", "unknown", "no way there"),
    (with_postgres(wrong=("3 checksum failures in shop",)), "integrity-postgres", "failed", "3 checksum failures"),
    (with_postgres(unasked=("orders: time-out",)), "integrity-postgres", "unknown", "orders: time-out"),
    (
        with_postgres(looks={"checks-postgres": Verdict.UNKNOWN}),
        *("integrity-postgres", "unknown", "step checks-postgres: unknown"),
    ),
    (with_postgres(copy=None), "copy-postgres", "failed", "no copy was begun since its data came back"),
    (replace(with_postgres(copy=None), silent=("offsite",)), "copy-postgres", "unknown", "offsite did not answer"),
    (with_postgres(copy=replace(COPY, grade=None)), "copy-postgres", "unknown", "not proven"),
    (with_postgres(copy=replace(COPY, grade="stored")), "copy-postgres", "unknown", "not proven"),
    (with_postgres(copy=replace(COPY, missing_in=("offsite",))), "copy-postgres", "unknown", "not in offsite"),
    (replace(FACTS, daemon="never"), "stream-postgres", "failed", "no daemon has run here"),
    (replace(FACTS, daemon="silent"), "stream-postgres", "failed", "says nothing"),
    (with_postgres(stream=replace(STREAM, state="waiting")), "stream-postgres", "failed", "waiting"),
    (with_postgres(stream=replace(STREAM, error="refused")), "stream-postgres", "failed", "refused"),
    (with_postgres(stream=replace(STREAM, slot="lost")), "stream-postgres", "failed", "slot is lost"),
    (with_postgres(stream=replace(STREAM, gap="removed")), "stream-postgres", "failed", "a part is missing"),
    (with_postgres(stream=replace(STREAM, as_of=BEFORE)), "stream-postgres", "failed", "nothing of the data"),
    (with_postgres(stream=replace(STREAM, as_of=None)), "stream-postgres", "failed", "nothing of the data"),
    (with_postgres(streamed_timeline=1), "stream-postgres", "failed", "timeline 1"),
    (replace(FACTS, pings=(Ping(name="backup", taken=BEFORE),)), "ping-backup", "unknown", "nothing was sent"),
    (replace(FACTS, pings=(Ping(name="backup", taken=LATER, error="404"),)), "ping-backup", "failed", "404"),
    (replace(FACTS, users={"flows": Verdict.UNKNOWN}, undone=("sign in",)), "users", "unknown", "sign in"),
    (replace(FACTS, users={"flows": Verdict.FAILED}), "users", "failed", "flows: failed"),
    (replace(FACTS, users={}), "users", "unknown", "neither flows nor health"),
]


@pytest.mark.parametrize(("facts", "point", "verdict", "words"), PROBLEMS)
def test_each_planted_problem_is_named_by_its_point(facts: Facts, point: str, verdict: str, words: str) -> None:
    found = points(facts, dict(ALL_SAID))
    assert found[point].verdict == Verdict(verdict)
    assert words in found[point].finding.detail
    assert found[point] in open_items(tuple(found.values()))


def test_a_daemon_on_another_machine_keeps_the_stream_as_well() -> None:
    found = points(replace(with_postgres(elsewhere=LATER), daemon="never"))
    assert found["stream-postgres"].verdict is Verdict.OK
    found = points(replace(with_postgres(elsewhere=BEFORE), daemon="never"))
    assert found["stream-postgres"].verdict is Verdict.FAILED, "what it streamed is of before the recovery"


def test_flows_that_are_not_done_in_production_are_done_by_a_person() -> None:
    facts = replace(FACTS, users={"flows": Verdict.UNKNOWN}, undone=("a customer signs in",))
    asked = points(facts)["users"]
    assert "a customer signs in" in asked.asks
    assert points(facts, {"users": YES})["users"].verdict is Verdict.OK
    assert points(facts, {"users": replace(YES, yes=False)})["users"].verdict is Verdict.FAILED


def test_after_the_loss_of_a_server_its_secrets_are_asked_for() -> None:
    assert "lost server" in points(replace(FACTS, situation="server-loss"))["access"].asks
    assert "set aside" in points(FACTS)["access"].asks


def test_without_compose_the_databases_are_the_services() -> None:
    found = points(replace(FACTS, containers=None))
    assert found["services"].verdict is Verdict.OK
    assert "applications" in found["services"].finding.not_checked


def line(number: int, event: str, **data: Any) -> Line:
    return Line(
        number=number, id=str(number), at=LATER, clock=0.0, boot="b", host="h", who="anna", event=event, data=data,
        digest="",
    )  # fmt: skip


def test_the_last_answer_counts_and_other_lines_do_not() -> None:
    lines = [
        line(1, CONFIRMED, item="cause", yes=False),
        line(2, "step-done", item="outside", yes=True),
        line(3, CONFIRMED, item="cause", yes=True),
        line(4, CONFIRMED, item="access", yes="yes"),
    ]
    assert {name: one.yes for name, one in answers(lines).items()} == {"cause": True, "access": False}


@given(
    facts=st.sampled_from([one[0] for one in PROBLEMS]),
    yes=st.lists(st.sampled_from(["services", "integrity-postgres", "copy-postgres", "stream-postgres", "users"])),
)
def test_nobody_can_tick_off_what_a_machine_saw_to_be_wrong(facts: Facts, yes: list[str]) -> None:
    before, after = points(facts), points(facts, dict.fromkeys(yes, YES))
    for name, one in before.items():
        if not one.asks:
            assert after[name] == one
    assert worst(one.verdict for one in before.values()) is not Verdict.OK
