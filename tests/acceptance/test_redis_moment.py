"""Going back to an instant of a Redis by the command line."""

from __future__ import annotations

import contextlib
import json
import threading
from datetime import timedelta

import pytest

from recoup.assembly.protect import redis_stream
from recoup.assembly.protect.redis_stream import RedisStream
from recoup.assembly.system import System
from recoup.backup.run_records import read_workers
from recoup.demo.host import wait_until
from recoup.demo.programs import find_redis
from recoup.demo.servers import RedisServer
from recoup.kernel import clock
from tests.acceptance.workplace import Workplace
from tests.integration.redis_streams import server_now
from tests.real import require_found

pytestmark = pytest.mark.redis


def test_a_redis_goes_back_to_an_instant_and_the_windows_say_to_which(
    work: Workplace, redis7: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    work.add_redis(redis7)
    work.services["redis"] = work.services["redis"].removesuffix("}") + ", stream: continuous}"
    plan = work.write_plan()
    for name, value in {**work.environment, "RECOUP_STATE": str(work.state)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(redis_stream, "_SAY_SECONDS", 0.02)
    monkeypatch.setattr(redis_stream, "IDLE_SECONDS", 0.2)  # a ping moves the offset too
    system = System.from_file(plan)
    stop = threading.Event()
    worker = threading.Thread(target=RedisStream(system, "redis", every=timedelta(milliseconds=50)).run, args=(stop,))
    with contextlib.closing(redis7.client()) as client:
        worker.start()

        def settle() -> None:
            """Wait until all that the server has written so far is stored; its pings go on meanwhile."""
            offset = client.info("replication")["master_repl_offset"]

            def stored() -> bool:
                facts = next((one.facts for one in read_workers(system.state_folder)), {})
                return facts.get("base") == "present" and facts.get("stored_offset", -1) >= offset

            assert wait_until(stored, limit_seconds=120)

        settle()
        client.set("greeting", "hello")
        settle()
        clock.pause(0.01)
        moment = server_now(redis7).isoformat()
        clock.pause(0.01)
        client.set("greeting", "overwritten by mistake")
        settle()
        stop.set()
        worker.join(120)
        (window,) = json.loads(work.recoup("windows", "--json").out)["services"][0]["windows"]
        assert window["begin"] < moment < window["end"]
        shown = work.recoup("restore", "--to-time", moment, "--service", "redis", "--plan").out
        assert "segments of the command stream" in shown or "segment of the command stream" in shown
        refused = work.recoup("restore", "--to-time", "2020-01-01T00:00:00Z", "--service", "redis", expect=5)
        assert "It reaches: " in refused.err
        with RedisServer(require_found(lambda: find_redis(7)), password="") as other:
            work.recoup("restore", "--to-time", moment, "--service", "redis", "--destination", other.url())
            with contextlib.closing(other.client()) as target:
                assert target.get("greeting") == b"hello"
        said = work.recoup("restore", "--to-time", moment, "--service", "redis", "--force").out
        assert client.get("greeting") == b"hello"
        assert "the last command applied came at" in said
        assert "what was replaced is kept" in said
        print(shown, refused.err, said)
