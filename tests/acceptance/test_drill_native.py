"""Drills without Compose: databases come back as servers of the sandbox's own, and production is only looked at."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recoup.demo.servers import PostgresServer, RedisServer
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.heartbeat import CREATE, beat, newest_beat
from recoup.kernel import clock
from recoup.kernel.secret import Secret
from recoup.repository.repository import open_or_create
from recoup.repository.seal import Key
from recoup.storage.local import LocalStore
from tests.acceptance.workplace import KEY, Workplace, kill
from tests.integration.wal_story import story
from tests.receiver import receiver

_DRILL = """
drill:
  flows:
    - name: the newest orders are there
      within: 0s
      steps: [{{sql: "select count(*) from {table}", expect: {{{expect}}}}}]
"""
_TEAM = """
team: {{lead: {{name: Anna, deputy: second}}, second: {{name: Ben}}}}
channels: {{ops: ["json://{address}/hook"]}}
communication: {{critical: {{notify: [ops]}}}}
"""


def _plan(work: Workplace, table: str, expect: str) -> None:
    work.extra = _DRILL.format(table=table, expect=expect)
    work.write_plan()


def _answering(work: Workplace, answers: str, *arguments: str) -> dict[str, Any]:
    """Call ``recoup`` with somebody at a terminal who types ``answers``; the document that it prints."""
    ours, theirs = os.openpty()
    try:
        os.write(ours, answers.encode())
        process = work.start(*arguments, terminal=theirs)
        try:
            return work.finish(process).json
        finally:
            kill(process)
    finally:
        os.close(ours)
        os.close(theirs)


def _nothing_left(work: Workplace) -> bool:
    (state,) = work.state.iterdir()
    left = [one for one in (state / "sandboxes").glob("*") if one.name != "door.lock"]
    return not left and not list(Path("/var/tmp").glob("recoup-sandbox-*/native-*"))


def test_databases_come_back_natively_and_production_does_not_move(
    work: Workplace, postgres17: PostgresServer, redis7: RedisServer
) -> None:
    database = postgres17.new_database()
    postgres17.execute("create table orders as select generate_series(1, 500) id", database)
    redis7.client().set("basket:7", "three apples")
    work.add_postgres(
        postgres17, database, more=', checks: [{name: orders, sql: "select count(*) from orders", at_least: 1}]'
    )
    work.add_redis(redis7)
    asked_for = 'engine: redis, heartbeat: true, checks: [{redis: "GET basket:7", equals: three apples}], '
    work.services["redis"] = work.services["redis"].replace("engine: redis, ", asked_for)
    with receiver() as phone:
        work.extra = _DRILL.format(table="orders", expect="at_least: 500") + _TEAM.format(address=phone.address)
        work.write_plan()
        work.recoup("backup")
        asked = ("--situation", "server-loss", "--announce", "--absent", "lead", "--json")
        document = _answering(work, "done\nyes\n", "drill", *asked)
    first, last = (json.loads(one.body) for one in phone.received)
    assert "THIS IS A DRILL. Nothing is wrong with Shop." in first["message"]
    assert "lead may not help" in first["message"]
    assert "Result: ok" in last["message"]
    record = document["record"]
    assert document["verdict"] == "ok", record
    assert [one["key"] for one in record["steps"]] == [
        *("new-server", "restore-postgres", "start-postgres", "restore-redis", "start-redis"),
        *("checks-postgres", "checks-redis", "flows", "let-users-in"),
    ]
    people = [one for one in record["steps"] if one["kind"] == "person"]
    assert [(one["verdict"], one["waiting"] > 0) for one in people] == [("ok", True), ("ok", True)]
    assert {one["role"]: one["part"] for one in record["participants"]}["second"] == "asked to do what people do"
    how = {one["service"]: one["how"] for one in record["rpo"]}
    assert how["postgres"] == "end of the copy"
    assert how["redis"].startswith("heartbeat key; end of the copy: ")
    assert record["place"]["kind"] == "native"
    assert record["absent"] == ["lead"]
    assert {one["role"]: one["part"] for one in record["participants"]}["lead"] == "absent; second takes over"
    assert [one["verdict"] for one in record["production"]] == ["ok", "ok"]
    assert set(record["proves_data"]) == {
        "flow: the newest orders are there", "check of postgres: orders", "check of redis: GET basket:7",
    }  # fmt: skip
    assert _nothing_left(work)

    shown = work.json("drill", "--plan")
    assert [one["id"] for one in shown["steps"]][-1] == "flows"


def test_a_drill_goes_back_to_an_instant_and_no_further(work: Workplace) -> None:
    local = open_or_create("local", LocalStore(work.local, create=True), Key.from_text(KEY))
    with story(17, [local]) as told:
        work.add_postgres(told.server, more=", heartbeat: true")
        for statement in CREATE:
            told.server.execute(statement)
        told.commit()
        told.base()
        with DirectAccess(Secret(told.server.url())).session("postgres") as session:
            beat(session, row=True)
            before = newest_beat(session)
            middle = told.commit(2)
            told.archive()
            told.commit()
            beat(session, row=True)
        told.archive()
        found = told.server.execute("select relname from pg_stat_user_tables where schemaname = 'public'")
        (table,) = [str(row[0]) for row in found]
        _plan(work, table, "equals: 3")
        document = work.json("drill", "--at", middle.time.isoformat())
        record = document["record"]
        assert document["verdict"] == "ok", record
        (rpo,) = record["rpo"]
        assert rpo["how"].startswith("heartbeat row; last commit")
        assert before is not None
        assert (rpo["newest"], rpo["measured"]) == (clock.to_text(before), (middle.time - before).total_seconds())
        (not_past,) = [one for one in record["checks"] if one["check"] == "nothing from after the instant came back"]
        assert not_past["verdict"] == "ok"
        assert _nothing_left(work)


def test_nothing_that_could_pass_on_an_empty_database_is_a_drill(work: Workplace, postgres17: PostgresServer) -> None:
    work.add_postgres(postgres17, postgres17.new_database())
    work.extra = "\ndrill: {flows: [{name: it answers, steps: [{sql: select 1, expect: {equals: 1}}]}]}\n"
    work.write_plan()
    work.recoup("backup")
    refused = work.recoup("drill", expect=5)
    assert "nothing in this drill would prove that the data came back" in refused.err
    assert _nothing_left(work)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--situation", "security-breach"), "cannot be rehearsed"),
        (("--absent", "nobody"), "has no role 'nobody'"),
        (("--surprise", "--situation", "data-loss"), "chooses the situation"),
    ],
)
def test_a_drill_that_makes_no_sense_is_refused(
    work: Workplace, postgres17: PostgresServer, arguments: tuple[str, ...], why: str
) -> None:
    work.add_postgres(postgres17, "postgres")
    _plan(work, "orders", "at_least: 1")
    work.recoup("backup")
    assert why in work.recoup("drill", *arguments, expect=2).err
