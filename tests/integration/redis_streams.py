"""What the tests of the Redis command stream share: a plan with one stream, its worker in a thread, its restore."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from recoup.assembly.redis_inventory import StreamHoldings, read_holdings
from recoup.assembly.redis_stream import RedisStream
from recoup.assembly.system import System
from recoup.backup.run_records import read_workers
from recoup.demo.host import wait_until
from recoup.demo.servers import RedisServer
from recoup.kernel.errors import RecoupError
from recoup.repository.seal import Key


@dataclass
class Streamed:
    """A plan that protects one Redis by its stream, in one or more folders."""

    folder: Path
    server: RedisServer
    every: timedelta = timedelta(milliseconds=100)
    error: RecoupError | None = None
    workers: list[RedisStream] = field(default_factory=list)

    @property
    def plan(self) -> Path:
        return self.folder / "recoup.yaml"

    def system(self) -> System:
        return System.from_file(self.plan)

    def holdings(self) -> StreamHoldings:
        system = self.system()
        return read_holdings(system.open(kind="stream").repositories, "redis", system.state_folder)

    def facts(self) -> dict[str, Any]:
        """What the worker last said of itself."""
        return next((dict(one.facts) for one in read_workers(self.system().state_folder)), {})

    @contextlib.contextmanager
    def streaming(self, *, held_bytes: int | None = None, covered: bool = True) -> Iterator[RedisStream]:
        """The worker at work; with ``covered``, from when a copy lies at the beginning of the stream."""
        options = {} if held_bytes is None else {"held_bytes": held_bytes}
        worker = RedisStream(self.system(), "redis", every=self.every, **options)
        stop = threading.Event()

        def work() -> None:
            try:
                worker.run(stop)
            except RecoupError as failure:
                self.error = failure

        thread = threading.Thread(target=work)
        thread.start()
        try:
            if covered:
                self.wait(lambda facts: facts.get("connected") is True and facts.get("base") == "present")
            yield worker
        finally:
            stop.set()
            thread.join(60)
            assert not thread.is_alive()

    def wait(self, question: Callable[[dict[str, Any]], bool], *, seconds: float = 30) -> dict[str, Any]:
        """Wait until the worker says so."""
        assert wait_until(lambda: question(self.facts()), limit_seconds=seconds), (self.facts(), self.error)
        return self.facts()

    def offset(self) -> int:
        """Where the server's stream stands."""
        with contextlib.closing(self.server.client()) as client:
            return int(client.info("replication")["master_repl_offset"])

    def settle(self) -> None:
        """Wait until everything that the server has written so far is stored."""
        offset = self.offset()
        self.wait(lambda facts: (facts.get("stored_offset") or -1) >= offset)


def make_plan(
    folder: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch, *, repositories: tuple[str, ...] = ("local",)
) -> Streamed:
    """Write the plan."""
    monkeypatch.setenv("RECOUP_STATE", str(folder / "state"))
    monkeypatch.setenv("STREAMED_PASSWORD", server.password)
    key = folder / "recoup.key"
    key.write_text(Key.generate().text.reveal() + "\n")
    key.chmod(0o600)
    places = "".join(f"  {name}: {{path: {json.dumps(str(folder / name))}}}\n" for name in repositories)
    (folder / "recoup.yaml").write_text(
        "recoup: 1\nsystem: Shop\nservices:\n"
        f"  redis: {{engine: redis, url: 'redis://:${{STREAMED_PASSWORD}}@127.0.0.1:{server.port}/0', "
        "stream: continuous}\n"
        f"repositories:\n{places}key: {{file: recoup.key}}\n"
    )
    return Streamed(folder=folder, server=server)
