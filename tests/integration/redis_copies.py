"""What the Redis tests share: a copy in memory, and a data set with every type, encoding and kind of expiry."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import redis

from recoup.demo.servers import RedisServer
from recoup.engines.engine import Content, CopyFacts, Member, Progress, StreamInfo
from recoup.engines.redis.snapshot import STREAM, take_rdb


class MemoryCopy:
    """A sink that keeps what it is given, and the reader of it."""

    def __init__(self, data: bytes = b"", taken: CopyFacts | None = None) -> None:
        self.data = data
        self.taken = taken
        self.discarded = False

    @contextlib.contextmanager
    def stream(
        self, name: str, *, content: Content = Content.OPAQUE, expected_bytes: int | None = None
    ) -> Iterator[MemoryCopy]:
        assert name == STREAM
        self._growing = bytearray()
        try:
            yield self
        except BaseException:
            self.discarded = True
            raise
        self.data = bytes(self._growing)

    def write(self, data: bytes | memoryview) -> None:
        self._growing += data

    @property
    def facts(self) -> Mapping[str, Any]:
        return {} if self.taken is None else self.taken.facts

    @property
    def fingerprint(self) -> Mapping[str, Any] | None:
        return None if self.taken is None else self.taken.fingerprint

    def streams(self) -> tuple[StreamInfo, ...]:
        return (StreamInfo(name=STREAM, content=Content.OPAQUE, plain_bytes=len(self.data)),)

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = len(self.data) if length is None else start + length
        for position in range(start, end, 50_000):
            yield self.data[position : min(position + 50_000, end)]

    def members(self, name: str) -> Iterator[Member]:
        return iter(())

    def each_frame(self, name: str, act: Callable[[int, bytes], None], workers: int = 0) -> None:
        raise AssertionError("an RDB is read in order")


def ignore(progress: Progress) -> None:
    """A progress listener that does not listen."""


def take(server: RedisServer, **options: Any) -> MemoryCopy:
    """A copy of that server, now."""
    with contextlib.closing(server.client()) as client:
        client.config_set("repl-diskless-sync-delay", 0)  # 5 s otherwise
    copy = MemoryCopy()
    copy.taken = take_rdb(server.url(), copy, on_progress=ignore, **options)
    return copy


def fingerprint_now(server: RedisServer, like: Mapping[str, Any]) -> dict[str, Any]:
    """The fingerprint of a running server, comparable with an earlier one."""
    now = take(server, origin_ms=like["origin_ms"]).fingerprint
    assert now is not None
    return dict(now)


def fill(server: RedisServer) -> None:
    """Every type in every encoding that this server's version has, expiries, several databases."""
    with contextlib.closing(server.client()) as client:
        major = int(str(client.info("server")["redis_version"]).split(".")[0])
        with client.pipeline(transaction=False) as pipe:
            _fill_strings(pipe)
            _fill_collections(pipe)
            _fill_streams(pipe)
            pipe.execute()
        client.xdel("stream:big", "1005-1")
        client.xreadgroup("group", "alice", {"stream:big": ">"}, count=7)
        client.xreadgroup("group", "bob", {"stream:big": ">"}, count=3)
        client.xack("stream:big", "group", "1001-1")
        if major >= 7:
            code = "#!lua name=mylib\nredis.register_function('one', function() return 1 end)"
            client.function_load(code, replace=True)
        if major >= 8:
            _fill_fields_that_expire(client)
    for database in (3, 15):
        with contextlib.closing(server.client(database)) as client:
            client.mset({f"other:{database}:{i}": "x" * i for i in range(50)})
            client.expire(f"other:{database}:7", 5000)


def _fill_strings(pipe: Any) -> None:
    for i in range(1000):
        pipe.set(f"string:{i}", f"value {i} " * (i % 40))
    for number in (0, -1, 127, 128, -129, 32767, 32768, 2**31 - 1, 2**31, -(2**63), 2**63 - 1):
        pipe.set(f"number:{number}", number)
    pipe.set("binary", bytes(range(256)) * 3)
    pipe.set(b"key \x00\xff\r\n", "odd key")
    pipe.set("random", secrets.token_bytes(300_000))
    pipe.set("compressible", b"abc" * 1_000_000)
    pipe.set("empty", "")
    for i in range(200):
        pipe.set(f"session:{i}", f"user {i}", ex=3600 + 97 * i)
    pipe.set("far", "future", exat=4_102_444_800)


def _fill_collections(pipe: Any) -> None:
    pipe.rpush("list:small", "a", 1, -5, 70_000, 2**40, "long " * 30)
    pipe.rpush("list:big", *[f"item {i}" for i in range(5000)], "x" * 20_000)
    pipe.sadd("set:numbers", *range(-20, 20))
    pipe.sadd("set:wide", 1, 100_000, 2**40)
    pipe.sadd("set:words", "a", "b", "c", 7)
    pipe.sadd("set:big", *[f"member {i}" for i in range(2000)])
    pipe.zadd("zset:small", {"a": 1.5, "b": -2, "c": 1e300, "d": float("inf"), "e": 0.1})
    pipe.zadd("zset:big", {f"member {i}": i / 7 for i in range(2000)})
    pipe.hset("hash:small", mapping={"name": "value", "number": 5, "": "empty field"})
    pipe.hset("hash:big", mapping={f"field {i}": f"value {i}" * 3 for i in range(2000)})
    pipe.hset("hash:expires", mapping={"a": "b"})
    pipe.expire("hash:expires", 7200)


def _fill_streams(pipe: Any) -> None:
    for i in range(1000):
        fields = {"sensor": i, "value": "x" * (i % 30)} if i % 5 else {"other": "fields", "n": i, "more": ""}
        pipe.xadd("stream:big", fields, id=f"{1000 + i}-1")  # type: ignore[arg-type]
    pipe.xgroup_create("stream:big", "group", id="0")
    pipe.xgroup_create("stream:big", "idle", id="$")
    pipe.xadd("stream:empty", {"a": 1}, id="5-5")
    pipe.xdel("stream:empty", "5-5")


def _fill_fields_that_expire(client: redis.Redis) -> None:
    client.hset("hash:fields", mapping={"stays": 1, "goes": 2, "goes later": 3})
    client.hexpire("hash:fields", 4000, "goes")
    client.hexpire("hash:fields", 9000, "goes later")
    client.hset("hash:fields:big", mapping={f"field {i}": i for i in range(1000)})
    client.hexpire("hash:fields:big", 5000, *[f"field {i}" for i in range(0, 1000, 3)])
    client.hset("hash:fields:all", mapping={"a": 1, "b": 2})
    client.hexpire("hash:fields:all", 6000, "a", "b")
