"""After the data are back: health, questions, flows, a new copy, and the list of what must be well again."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from recoup.assembly import stack
from recoup.assembly.recover import after as after
from recoup.assembly.recover.checklist import go_through
from recoup.assembly.recover.protect import protect
from recoup.assembly.system import Opened, System
from recoup.backup.run_records import DaemonRecord, read_workers, record_daemon
from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer, RedisServer
from recoup.engines.compose.docker import ComposeSource
from recoup.engines.compose.project import Project
from recoup.engines.postgres.lsn import Lsn
from recoup.kernel import clock
from recoup.kernel.errors import BusyError, EngineError
from recoup.kernel.finding import Verdict
from recoup.recovery.checklist import Item, open_items
from recoup.recovery.runbook import Database
from recoup.repository import layout
from recoup.repository.lease import hold_lease
from recoup.storage.local import LocalStore
from recoup.storage.object_store import ObjectInfo
from tests.acceptance.after_place import after_restore
from tests.acceptance.daemon_place import daemon, state_of
from tests.acceptance.workplace import Workplace, wait_for
from tests.real import require_found
from tests.receiver import Receiver, receiver

POSTGRES = Database(service="postgres", engine="postgres", what="as of now", by_hand=True)
REDIS = Database(service="redis", engine="redis", what="as of now", at_once=True)

_FLOWS = """
drill:
  secrets: {{TOKEN: "${{DRILL_TOKEN}}"}}
  flows:
    - name: the orders are shown
      within: 0s
      steps:
        - {{get: "http://127.0.0.1:{port}/orders", expect: {{value: orders, at_least: 1}}}}
        - {{sql: select count(*) from orders, expect: {{at_least: 1}}}}
    - name: a query cannot write
      within: 0s
      steps: [{{sql: "insert into orders values (99) returning id", expect: {{equals: 99}}}}]
    - name: somebody orders
      within: 0s
      steps: [{{post: "http://127.0.0.1:{port}/order", json: {{item: 7}}}}]
    - name: somebody signs in
      within: 0s
      production: true
      steps: [{{post: "http://127.0.0.1:{port}/login", headers: {{Token: "${{TOKEN}}"}}}}]
    - name: the account of the drill is there
      within: 0s
      steps: [{{get: "http://127.0.0.1:{port}/account", headers: {{Token: "${{TOKEN}}"}}}}]
    - name: the bank pays
      within: 0s
      steps: [{{get: "http://bank.example.org/pay"}}]
"""


@pytest.fixture
def site() -> Iterator[Receiver]:
    with receiver() as found:
        found.answer = lambda _request: (200, '{"orders": [1, 2]}')
        yield found


def points(items: tuple[Item, ...]) -> dict[str, Verdict]:
    return {one.id: one.verdict for one in items}


def test_health_waits_until_it_is_well_and_else_says_what_it_last_said(work: Workplace, site: Receiver) -> None:
    work.services["api"] = f"{{engine: compose, health: 'http://{site.address}/health'}}"
    work.services["conf"] = "{engine: files, paths: [recoup.yaml]}"
    work.extra = "compose: {file: compose.yaml}\n"
    (work.folder / "compose.yaml").write_text("name: shop\nservices: {api: {image: none}}\n")
    work.write_plan()
    work.recoup("backup", "conf")
    answers = iter([503, 503, 200])
    site.answer = lambda _request: (next(answers), "")
    with after_restore(work, "application-loss", health=("api",)) as run:
        step = run.steps["health-api"]
        assert "well after" in after.health(run.recovery, step).detail
        site.answer = lambda _request: (500, "")
        with pytest.raises(EngineError, match="api is not well after 1 s: status 500") as failure:
            after.health(run.recovery, step, seconds=1)
        assert "docker compose logs --tail 50 api" in (failure.value.hint or "")
        assert "--skip health-api" in (failure.value.hint or "")


def test_questions_and_flows_are_asked_of_production_and_write_nothing(
    work: Workplace, postgres17: PostgresServer, redis7: RedisServer, site: Receiver
) -> None:
    database = postgres17.new_database()
    postgres17.execute("create table orders as select generate_series(1, 5) id", database)
    redis7.client().set("basket", "3")
    checks = 'checks: [{name: orders, sql: "select count(*) from orders", at_least: 5}, '
    checks += '{name: none, sql: "select count(*) from orders where id < 0", equals: 0}]'
    work.add_postgres(postgres17, database, more=f", {checks}")
    work.add_redis(redis7)
    work.services["redis"] = work.services["redis"][:-1] + ", checks: [{redis: GET basket, at_least: 3}]}"
    work.extra = _FLOWS.format(port=site.port)
    work.environment |= {"DRILL_TOKEN": "of the drill", "TOKEN": "of production"}
    work.write_plan()
    work.recoup("backup", "redis")
    with after_restore(work, "database-corruption", POSTGRES, flows=("f",), checked=("postgres", "redis")) as run:
        good = after.checks(run.recovery, run.steps["checks-postgres"])
        assert [one.verdict for one in good.findings] == [Verdict.OK, Verdict.OK]
        assert [one.verdict for one in after.checks(run.recovery, run.steps["checks-redis"]).findings] == [Verdict.OK]
        # Nobody waits for the questions: not one of them needs more than a reader's lock.
        with postgres17.connect(database) as busy, busy.transaction():
            busy.execute("insert into orders values (6)")
            again = after.checks(run.recovery, run.steps["checks-postgres"])
            busy.execute("delete from orders where id = 6")
        assert again.findings == good.findings
        done = {one.subject: one for one in after.flows(run.recovery, run.steps["flows"]).findings}
        assert {name: one.verdict.value for name, one in done.items()} == {
            "the orders are shown": "ok",
            "a query cannot write": "failed",
            "somebody orders": "unknown",
            "somebody signs in": "ok",
            "the account of the drill is there": "unknown",
            "the bank pays": "unknown",
        }
        assert "read-only" in done["a query cannot write"].detail
        assert "not done in production" in done["somebody orders"].detail
        assert "bank.example.org:80 is not in the stack" in done["the bank pays"].detail
        assert "/order" not in site.paths
        postgres17.execute("delete from orders where id > 2", database)
        redis7.client().delete("basket")
        wrong = after.checks(run.recovery, run.steps["checks-postgres"]).findings
        assert [one.verdict for one in wrong] == [Verdict.FAILED, Verdict.OK]
        assert [one.verdict for one in after.checks(run.recovery, run.steps["checks-redis"]).findings] == [
            Verdict.FAILED
        ]
    assert postgres17.execute("select max(id) from orders", database) == [(2,)]


def test_a_new_copy_is_taken_once_and_a_run_that_copies_is_waited_for(work: Workplace, redis7: RedisServer) -> None:
    redis7.client().set("basket", "3")
    work.add_redis(redis7)
    work.write_plan()
    before = work.backup("redis")
    with after_restore(work, "redis-loss", REDIS) as run:
        run.done("start-redis")
        state, step = run.recovery.system.state_folder, run.steps["protect-redis"]
        with hold_lease(state, "redis", "backup of redis"):
            with pytest.raises(BusyError):
                protect(run.recovery, step, busy_seconds=0.1)
            over = threading.Event()

            def take() -> None:
                protect(run.recovery, step)
                over.set()

            waiting = threading.Thread(target=take)
            run.said.clear()
            waiting.start()
            assert wait_until(lambda: bool(run.said), limit_seconds=120)
            assert "waiting for another run to end" in run.said[0]
            assert not over.is_set()
        waiting.join(120)
        assert over.is_set()
        after_ids = set(work.listed()) - {before}
        assert len(after_ids) == 1
        again = after.protect(run.recovery, step)  # as after a kill: it is there, and no second one is taken
        assert again.data["copy"] in after_ids
        assert again.data["grade"] == "intact"
        assert [one.verdict for one in again.findings] == [Verdict.OK]
        assert set(work.listed()) - {before} == after_ids


def test_while_another_run_copies_no_repository_is_asked_and_its_copy_does(
    work: Workplace, redis7: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis7.client().set("basket", "3")
    work.add_redis(redis7)
    work.write_plan()
    before = work.backup("redis")
    opened, pauses = System.open_some, 0
    asked: list[int] = []  # after how many pauses

    def counted(system: System, **wanted: Any) -> Opened:
        asked.append(pauses)
        return opened(system, **wanted)

    with after_restore(work, "redis-loss", REDIS) as run, contextlib.ExitStack() as other:
        run.done("start-redis")
        other.enter_context(hold_lease(run.recovery.system.state_folder, "redis", "backup of redis"))

        def pause(_seconds: float) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 5:  # it ends, and has taken the copy that is needed
                other.close()
                work.backup("redis")

        monkeypatch.setattr(System, "open_some", counted)
        monkeypatch.setattr(clock, "pause", pause)
        done = protect(run.recovery, run.steps["protect-redis"])
    assert {one for one in asked if one < 5} == {0}
    assert asked.count(0) == 1
    assert {done.data["copy"]} == set(work.listed()) - {before}


@contextlib.contextmanager
def _restored_server(work: Workplace) -> Iterator[PostgresServer]:
    """A server that was lost, and runs again on what was restored to its newest instant; the daemon streams it."""
    with PostgresServer(require_found(lambda: find_postgres(17))) as server:
        server.execute("create table orders as select generate_series(1, 5) id")
        more = ", base: daily 02:00, wal: continuous"
        more += ', checks: [{name: orders, sql: "select count(*) from orders", at_least: 6}]'
        work.add_postgres(server, "postgres", more=more)
        work.write_plan()
        with daemon(work) as running:
            running.wait_for("postgres base: ok")
            server.execute("insert into orders values (6)")
            _streamed(work, server)
            server.kill()
            restored = work.folder.parent / "restored"
            work.recoup("restore", "--service", "postgres", "--to-time", "latest", "--destination", str(restored))
            shutil.rmtree(server.data_folder)
            shutil.move(restored, server.data_folder)
            server.adopt()
            server.start()
            yield server


def _streamed(work: Workplace, server: PostgresServer) -> None:
    """Wait until all that the server has written is in the repository."""
    written = Lsn.parse(server.execute("select pg_current_wal_flush_lsn()")[0][0])

    def safe() -> bool:
        said = [one.facts.get("safe_lsn") for one in read_workers(state_of(work)) if one.name == "wal postgres"]
        return bool(said and said[0]) and Lsn.parse(str(said[0])) >= written

    wait_for(safe, "all is streamed", every=0.1)


def test_a_base_on_the_new_timeline_is_what_the_next_restore_starts_from(work: Workplace) -> None:
    with _restored_server(work) as server, after_restore(work, "database-corruption", POSTGRES) as run:
        run.done("hold", "confirm", "choose-postgres", "restore-postgres", "place-postgres", "start-postgres")
        assert points(go_through(run.recovery, stream_seconds=0))["copy-postgres"] is Verdict.FAILED
        done = after.protect(run.recovery, run.steps["protect-postgres"])
        assert done.data["timeline"] == 2
        assert [one.verdict for one in done.findings] == [Verdict.OK]
        found = go_through(run.recovery)
        assert points(found)["stream-postgres"] is Verdict.OK, found
        assert points(found)["copy-postgres"] is Verdict.OK, found
        assert points(found)["integrity-postgres"] is Verdict.OK, found
        server.execute("insert into orders values (7)")
        _streamed(work, server)
        asked = ("--service", "postgres", "--to-time", "latest", "--destination", str(work.folder.parent / "again"))
        assert done.data["copy"] in work.recoup("restore", *asked).said


def test_the_list_names_what_is_missing_and_closes_when_people_have_answered(
    work: Workplace, postgres17: PostgresServer, site: Receiver, free_port: int
) -> None:
    database = postgres17.new_database()
    postgres17.execute("create table orders as select generate_series(1, 5) id", database)
    work.add_postgres(postgres17, database, more=", base: daily 02:00, wal: continuous")
    work.extra = f"pings: {{backup: 'http://{site.address}/ping/5'}}\nmetrics: '127.0.0.1:{free_port}'\n"
    work.write_plan()
    work.backup("postgres", "--kind", "base")
    work.key_file.chmod(0o644)
    with after_restore(work, "database-corruption", POSTGRES) as run:
        run.done("choose-postgres", "place-postgres", "start-postgres")
        step = run.steps["checklist"]
        done = after.checklist(run.recovery, step)
        found = points(after.still_open(run.recovery))
        assert {name: verdict.value for name, verdict in found.items()} == {
            "copy-postgres": "failed",
            "stream-postgres": "failed",
            "key-file": "failed",
            "metrics": "failed",
            "ping-backup": "unknown",
            "users": "unknown",
            "outside": "unknown",
            "cause": "unknown",
            "access": "unknown",
        }
        wrong = {one.check for one in done.findings if one.verdict is not Verdict.OK}
        assert wrong == {"it is backed up again", "what is written is streamed again", "users can work"}
        assert done.data["items"][0]["id"] == "services"

        work.key_file.chmod(0o600)
        after.protect(run.recovery, run.steps["protect-postgres"])
        run.somebody({"cause": False})
        left = points(after.still_open(run.recovery))
        assert set(left) == {"stream-postgres", "metrics", "cause"}
        assert run.asked == ["users", "outside", "cause", "access"]
        run.somebody({})
        assert set(points(after.still_open(run.recovery))) == {"stream-postgres", "metrics"}
        assert run.asked[4:] == ["cause"], "what was answered is not asked again, but for a no"
        with daemon(work):
            assert wait_until(lambda: after.still_open(run.recovery) == (), limit_seconds=120)


def test_nobody_there_leaves_the_questions_open_and_the_rest_done(work: Workplace, redis7: RedisServer) -> None:
    redis7.client().set("basket", "3")
    work.add_redis(redis7)
    work.write_plan()
    work.backup("redis")
    with after_restore(work, "redis-loss", REDIS) as run:
        run.done("choose-redis", "start-redis")
        after.protect(run.recovery, run.steps["protect-redis"])
        done = after.checklist(run.recovery, run.steps["checklist"])
        unknown = [one.check for one in done.findings if one.verdict is not Verdict.OK]
        assert unknown == ["users can work"], "the plan has nothing that could show it, and nobody was asked"
        assert open_items(go_through(run.recovery)) != ()
        redis7.stop()
        wrong = points(go_through(run.recovery))
        assert wrong["services"] is Verdict.FAILED
        assert wrong["integrity-redis"] is Verdict.FAILED


def test_one_look_reads_the_catalog_of_a_repository_and_the_stack_once(
    work: Workplace, redis7: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.add_redis(redis7)
    work.services["sessions"] = work.services["redis"]
    work.extra = "compose: {file: absent.yaml}\n"
    work.write_plan()
    work.backup("redis")
    listed: list[str] = []
    opened: list[str] = []
    listing, opening = LocalStore.list, stack.read_project

    def counted(store: LocalStore, prefix: str) -> Iterator[ObjectInfo]:
        listed.append(prefix)
        return listing(store, prefix)

    def counted_too(source: ComposeSource) -> Project:
        opened.append(str(source.files[0].name))
        return opening(source)

    with after_restore(work, "redis-loss", REDIS) as run:
        run.done("choose-redis", "start-redis")
        monkeypatch.setattr(LocalStore, "list", counted)
        monkeypatch.setattr(stack, "read_project", counted_too)
        go_through(run.recovery, stream_seconds=0)
        assert listed.count(layout.MANIFESTS) == 1
        assert listed.count(layout.HEARTBEATS) == 1, "for all databases"
        assert opened == ["absent.yaml"]
        now = clock.now()
        here = DaemonRecord(pid=1, started=now, alive=now, state="running", plan_loaded=now)
        record_daemon(run.recovery.system.state_folder, here)
        listed.clear()
        go_through(run.recovery, stream_seconds=0)
        assert listed.count(layout.HEARTBEATS) == 0, "what daemons elsewhere say is not asked where one runs here"


def test_a_database_that_was_only_started_needs_no_new_copy(work: Workplace, redis7: RedisServer) -> None:
    redis7.client().set("basket", "3")
    work.add_redis(redis7)
    work.write_plan()
    work.backup("redis")
    with after_restore(work, "application-loss", REDIS) as run:
        run.done("start-redis")
        found = points(go_through(run.recovery))
        assert found["copy-redis"] is Verdict.OK, "the newest copy does: it is of these data"
        assert found["integrity-redis"] is Verdict.OK
