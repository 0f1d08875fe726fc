"""What the tests of the Redis command stream share: a plan with one stream, its worker in a thread, its restore."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from recoup.assembly.access import open_for_reading
from recoup.assembly.protect import redis_stream
from recoup.assembly.protect.redis_inventory import StreamHoldings, read_holdings
from recoup.assembly.protect.redis_stream import RedisStream
from recoup.assembly.restore.job import Report, Wish
from recoup.assembly.restore.redis_moment import choose_redis, restore_redis
from recoup.assembly.system import System
from recoup.backup.run_records import read_workers
from recoup.demo.host import wait_until
from recoup.demo.programs import Programs
from recoup.demo.servers import RedisServer
from recoup.kernel import clock
from recoup.kernel.errors import RecoupError
from recoup.recovery.in_place import Consent
from recoup.repository.seal import Key
from tests.integration.redis_copies import ignore


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
            thread.join(120)
            assert not thread.is_alive()

    def wait(self, question: Callable[[dict[str, Any]], bool], *, seconds: float = 120) -> dict[str, Any]:
        """Wait until the worker says so; what it said then."""
        said: dict[str, Any] = {}

        def so() -> bool:
            nonlocal said
            said = self.facts()
            return question(said)

        assert wait_until(so, limit_seconds=seconds), (said, self.error)
        return said

    def restored(self, target: datetime, name: str, *, force: bool = False) -> tuple[Path, Report]:
        """Restore the service as of ``target`` into a fresh folder."""
        opened = open_for_reading(self.plan, None, None)
        destination = self.folder / name
        chosen = choose_redis(opened, "redis", target)
        wish, consent = Wish(destination=str(destination)), Consent(force=force, yes=True, ask=None)
        return destination, restore_redis(opened, chosen, wish, consent, lambda _: None, ignore)

    def state_at(self, target: datetime) -> tuple[State, Report]:
        """What a server of the same release holds that was started on the restored folder."""
        folder, report = self.restored(target, f"restored-{secrets.token_hex(4)}")
        with RedisServer(Programs(path=self.server.program), password=self.server.password) as server:
            server.stop()
            shutil.copy(folder / "dump.rdb", server.folder / "dump.rdb")
            if server.owner is not None:
                os.chown(server.folder / "dump.rdb", *server.owner)
            server.start()
            return read_state(server), report

    def mark(self) -> datetime:
        """An instant after all that was written so far, and before something that was written later and is stored."""
        self.settle()
        clock.pause(0.003)  # stamps have whole milliseconds
        now = server_now(self.server)
        clock.pause(0.003)
        with contextlib.closing(self.server.client()) as client:
            client.incr("behind")
        self.settle()
        return now

    def offset(self) -> int:
        """Where the server's stream stands."""
        with contextlib.closing(self.server.client()) as client:
            return int(client.info("replication")["master_repl_offset"])

    def settle(self) -> None:
        """Wait until everything that the server has written so far is stored."""
        offset = self.offset()
        self.wait(lambda facts: facts.get("stored_offset", -1) >= offset)


Value = tuple[str, object, int | None]  #: type, content, expiry in ms since 1970
State = dict[tuple[int, bytes], Value]


def read_state(server: RedisServer) -> State:
    """Everything that a server holds, as a client sees it."""
    state: State = {}
    for database in (0, 3):
        with contextlib.closing(server.client(database)) as client:
            for key in client.scan_iter():
                if (value := _read_value(client, key)) is not None:
                    state[database, key] = value
    return state


def _read_value(client: redis.Redis, key: bytes) -> Value | None:
    kind = client.type(key).decode()
    with client.pipeline(transaction=True) as both:  # at one instant
        left, (seconds, microseconds) = both.pttl(key).time().execute()
    expiry = None if left < 0 else seconds * 1000 + microseconds // 1000 + left
    match kind:
        case "string":
            return kind, client.get(key), expiry
        case "list":
            return kind, client.lrange(key, 0, -1), expiry
        case "set":
            return kind, sorted(client.smembers(key)), expiry
        case "zset":
            return kind, client.zrange(key, 0, -1, withscores=True), expiry
        case "hash":
            return kind, sorted(client.hgetall(key).items()), expiry
        case "stream":
            groups = [
                (group["name"], group["pending"], group["last-delivered-id"]) for group in client.xinfo_groups(key)
            ]
            return kind, (client.xrange(key), groups), expiry
    return None


def differences(before: State, after: State) -> list[object]:
    """What differs; expiries may do so by as much as it takes to ask for them."""
    found: list[object] = [key for key in before.keys() | after.keys() if (key in before) != (key in after)]
    for key in before.keys() & after.keys():
        (kind, value, expiry), (kind2, value2, expiry2) = before[key], after[key]
        if (kind, value) != (kind2, value2) or (expiry is None) != (expiry2 is None):
            found.append((key, before[key], after[key]))
        elif expiry is not None and expiry2 is not None and abs(expiry - expiry2) > 1500:
            found.append((key, expiry, expiry2))
    return found


def server_now(server: RedisServer) -> datetime:
    """The server's clock."""
    with contextlib.closing(server.client()) as client:
        seconds, microseconds = client.time()
    return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)


def make_plan(
    folder: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch, *, repositories: tuple[str, ...] = ("local",)
) -> Streamed:
    """Write the plan."""
    monkeypatch.setenv("RECOUP_STATE", str(folder / "state"))
    monkeypatch.setenv("STREAMED_PASSWORD", server.password)
    monkeypatch.setenv("PATH", f"{server.program.parent}{os.pathsep}{os.environ['PATH']}")  # replays are its release's
    monkeypatch.setattr(redis_stream, "_SAY_SECONDS", 0.02)
    monkeypatch.setattr(redis_stream, "_BACKOFF_SECONDS", (0.1, 0.2, 0.5))
    monkeypatch.setattr(redis_stream, "IDLE_SECONDS", 0.2)  # a ping moves the offset too
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


def numbers_at(streamed: Streamed, target: datetime) -> list[int]:
    """The list ``log`` as of ``target``."""
    state, _ = streamed.state_at(target)
    value = state.get((0, b"log"), ("list", [], None))[1]
    assert isinstance(value, list)
    return [int(one) for one in value]


def write(server: RedisServer, numbers: range) -> None:
    with contextlib.closing(server.client()) as client:
        for number in numbers:
            client.rpush("log", number)
