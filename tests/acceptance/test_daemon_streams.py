"""``recoup daemon`` with everything on: WAL, the Redis stream and copies at once, through ``kill -9`` and a restart."""

from __future__ import annotations

import signal

from recoup.backup import run_records as records
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer, RedisServer
from tests.acceptance.daemon_place import RunningDaemon, daemon, state_of, wait_gone
from tests.acceptance.workplace import Workplace, wait_for
from tests.real import require_found


def _all_run(work: Workplace, running: RunningDaemon) -> None:
    def so() -> bool:
        found = {one.name: one for one in records.read_workers(state_of(work))}
        streams = [one for name, one in found.items() if name.startswith(("wal ", "stream "))]
        began = records.read_daemon(state_of(work))
        assert began is not None
        fresh = all(one.said is not None and one.said >= began.started for one in streams)
        return len(streams) == 2 and fresh and all(one.state == "running" and not one.error for one in streams)

    try:
        wait_for(so, "the streams run")
    except AssertionError as failure:
        raise AssertionError(f"{failure}\n{records.read_workers(state_of(work))}\n{running.log}") from failure


def test_streams_and_copies_run_together_survive_kill_9_and_drain(work: Workplace, redis7: RedisServer) -> None:
    with PostgresServer(require_found(lambda: find_postgres(17))) as postgres:
        work.add_postgres(postgres, more=", base: daily 02:00, wal: continuous, fingerprint: false")
        work.add_redis(redis7)
        work.services["redis"] = work.services["redis"][:-1] + ", rdb: daily 02:15, stream: continuous}"
        work.write_plan()
        with daemon(work) as running:
            running.wait_for("next: ")
            _all_run(work, running)
            children = running.children()
            running.kill_alone()
            wait_gone(children)
        with daemon(work, "--grace", "5m") as running:
            _all_run(work, running)
            running.signal(signal.SIGTERM)
            running.ends(0, 400)
            assert "did not drain" not in running.log
    assert {one["kind"] for one in work.json("list", "-n", "0")["artefacts"]} >= {"base", "rdb"}
