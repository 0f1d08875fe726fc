"""The heartbeat as a row and as a key: only where the plan asks for it, never in the way, never taken for data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from recoup.assembly.protect.heartbeats import RedisBeats, heartbeat_findings, newest_of
from recoup.assembly.protect.prepare import preparations
from recoup.assembly.redis import redis_place
from recoup.assembly.system import System
from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer, RedisServer
from recoup.engines.postgres.access import DirectAccess
from recoup.engines.postgres.emptied import emptied
from recoup.engines.postgres.fingerprint import fingerprint_database
from recoup.engines.postgres.heartbeat import CREATE, beat, newest_beat
from recoup.engines.postgres.prepare import plan_heartbeat
from recoup.engines.redis import heartbeat as redis_heartbeat
from recoup.engines.redis.connection import connect
from recoup.engines.redis.program import RedisProgram
from recoup.kernel import clock
from recoup.kernel.finding import Verdict
from recoup.kernel.process import LocalRunner
from recoup.kernel.secret import Secret
from tests.integration.wal_place import wal_place
from tests.real import require, require_found

_TABLES = "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"


@pytest.fixture
def own() -> Iterator[PostgresServer]:
    with PostgresServer(require_found(lambda: find_postgres(16))) as server:
        yield server


def access_to(server: PostgresServer, role: str | None = None) -> DirectAccess:
    return DirectAccess(Secret(server.url() if role is None else server.url(user=role)))


def test_the_row_is_made_by_prepare_written_beside_the_stream_and_taken_back(own: PostgresServer) -> None:
    with wal_place(own, more="heartbeat: true, wal_every: 200ms, wal_heartbeat: 300ms") as place:
        place.start()
        assert wait_until(lambda: place.facts.get("beats", 0) >= 2, limit_seconds=120)
        assert "there is no table recoup.heartbeat" in place.facts["no_heartbeat_row"]
        (finding,) = heartbeat_findings(place.system, "pg", clock.now())
        assert (finding.verdict, "--prepare" in (finding.hint or "")) == (Verdict.FAILED, True)

        (needed,) = preparations(place.system, undo=False)
        (step,) = [one for one in needed.steps if one.kind == "heartbeat"]
        before = clock.now()
        needed.do(step)
        with access_to(own).session("postgres") as session:
            assert wait_until(lambda: newest_beat(session) is not None, limit_seconds=120)
            first = newest_beat(session)
            assert first is not None
            assert wait_until(lambda: (newest_beat(session) or first) > first, limit_seconds=120)
        assert before - timedelta(seconds=1) <= first <= clock.now()
        assert wait_until(lambda: place.facts["no_heartbeat_row"] is None, limit_seconds=120)
        (finding,) = heartbeat_findings(place.system, "pg", clock.now())
        assert finding.verdict is Verdict.OK
        (late,) = heartbeat_findings(place.system, "pg", clock.now() + timedelta(minutes=10))
        assert late.verdict is Verdict.UNKNOWN
        user = own.new_database("shop")
        assert not [one for (one,) in own.execute(_TABLES, user) if str(one).startswith("recoup")]
        place.stop()

        (back,) = preparations(place.system, undo=True)
        for one in back.steps:
            back.do(one)
        assert not [one for (one,) in own.execute(_TABLES) if str(one).startswith("recoup")]
        assert place.errors == []


def test_a_locked_table_costs_a_second_and_the_commit_is_made_all_the_same(own: PostgresServer) -> None:
    for statement in CREATE:
        own.execute(statement)
    with own.connect() as other, access_to(own).session("postgres") as session:
        assert beat(session, row=True) is None
        before = newest_beat(session)
        other.execute("BEGIN")
        other.execute("LOCK TABLE recoup.heartbeat IN ACCESS EXCLUSIVE MODE")
        position = own.execute("SELECT pg_current_wal_insert_lsn()")[0][0]
        assert "lock timeout" in str(beat(session, row=True)), "it ended, though the lock is held on"
        assert own.execute(f"SELECT pg_current_wal_insert_lsn() > '{position}'::pg_lsn")[0][0] is True
        other.execute("ROLLBACK")
        assert beat(session, row=True) is None
        assert newest_beat(session) != before
    with access_to(own).session("template1") as wrong:
        assert "there is no table" in str(beat(wrong, row=True)), "it is in no database but postgres"


def test_the_row_is_no_data_neither_for_fingerprints_nor_for_checks(own: PostgresServer) -> None:
    for statement in CREATE:
        own.execute(statement)
    with access_to(own).session("postgres") as session:
        beat(session, row=True)
        first = fingerprint_database(session)
        beat(session, row=True)
        assert fingerprint_database(session) == first
        assert "recoup.heartbeat" not in first["tables"]
        with emptied(session):
            assert session.query("SELECT count(*) FROM recoup.heartbeat") == [("1",)]


def test_a_role_without_rights_and_a_publication_of_all_tables_are_left_to_a_person(own: PostgresServer) -> None:
    own.execute("CREATE ROLE plain LOGIN")
    (step,) = plan_heartbeat(access_to(own, "plain"))
    assert "have a superuser do it" in (step.by_hand or "")
    for statement in step.text.split(";"):
        if statement.strip():
            own.execute(statement)
    assert plan_heartbeat(access_to(own, "plain")) == ()
    with access_to(own, "plain").session("postgres") as session:
        assert beat(session, row=True) is None
    own.execute("DROP SCHEMA recoup CASCADE")
    own.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    (step,) = plan_heartbeat(access_to(own))
    assert "subscribers" in (step.by_hand or "")


def test_the_key_is_never_the_only_one_whichever_way_it_is_written(any_redis: RedisServer) -> None:
    url, client = Secret(any_redis.url()), any_redis.client()
    program = RedisProgram(
        runner=LocalRunner(), password=Secret(any_redis.password) if any_redis.password else None,
        program=str(require("redis-cli")), arguments=("-p", str(any_redis.port)),
    )  # fmt: skip

    def by_connection() -> bool:
        with connect(url, database=0) as connection:
            return redis_heartbeat.beat(connection)

    for write in (by_connection, lambda: redis_heartbeat.beat_by_program(program)):
        client.flushall()
        assert not write()
        assert client.dbsize() == 0, "an empty Redis stays empty"
        client.set("basket:7", "three apples")
        before = clock.now()
        assert write()
        with connect(url, database=0) as connection:
            at = redis_heartbeat.newest_beat(connection)
        assert at is not None
        assert before - timedelta(seconds=1) <= at <= clock.now()
        assert redis_heartbeat.newest_beat_by_program(program) == at
        client.delete("basket:7")
        assert not write()
        assert client.dbsize() == 0, "what lost all else looks empty"
        client.set("recoup:heartbeat", "not a time")
        assert redis_heartbeat.newest_beat_by_program(program) is None


def a_system(folder: Path, server: RedisServer, more: str = "", *, user: str = "") -> System:
    url = f"redis://{user}:${{HEART_WORD}}@127.0.0.1:{server.port}/0"
    (folder / "recoup.key").write_text("00c0ffee" * 8 + "\n")
    (folder / "recoup.key").chmod(0o600)
    plan = folder / "recoup.yaml"
    plan.write_text(
        f"recoup: 1\nsystem: x\nkey: {{file: recoup.key}}\nservices:\n"
        f"  redis: {{engine: redis, url: '{url}', heartbeat: true{more}}}\nrepositories: {{local: {{path: b}}}}\n"
    )
    return System.from_file(plan)


def test_the_key_is_written_beside_the_stream_and_a_refusal_is_noted(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis7.client().set("basket:7", "three apples")
    monkeypatch.setenv("HEART_WORD", redis7.password or "")
    system = a_system(tmp_path, redis7, ", stream: continuous")
    place = redis_place(system, "redis")
    assert [one.verdict for one in heartbeat_findings(system, "redis", clock.now())] == [Verdict.UNKNOWN]
    with RedisBeats.running(system, "redis") as beats:
        assert beats is not None
        assert wait_until(lambda: newest_of(place) is not None, limit_seconds=120)
        assert beats.problem is None
    assert not any(one.name == "heartbeat-redis" for one in threading.enumerate())
    assert [one.verdict for one in heartbeat_findings(system, "redis", clock.now())] == [Verdict.OK]

    redis7.client().execute_command(
        "ACL", "SETUSER", "reader", "on", ">word", "~*", "+@read", "+info", "+ping", "+time"
    )
    try:
        monkeypatch.setenv("HEART_WORD", "word")
        refused = a_system(tmp_path, redis7, user="reader")
        with RedisBeats.running(refused, "redis") as beats:
            assert beats is not None
            assert wait_until(lambda: beats.problem is not None, limit_seconds=120)
            assert "NOPERM" in str(beats.problem) or "permission" in str(beats.problem)
    finally:
        redis7.client().execute_command("ACL", "DELUSER", "reader")


def test_a_plan_that_does_not_ask_gets_none(
    redis7: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEART_WORD", redis7.password or "")
    a_system(tmp_path, redis7)
    plan = tmp_path / "recoup.yaml"
    plan.write_text(plan.read_text().replace(", heartbeat: true", ""))
    system = System.from_file(plan)
    with RedisBeats.running(system, "redis") as beats:
        assert beats is None
    assert list(heartbeat_findings(system, "redis", clock.now())) == []
