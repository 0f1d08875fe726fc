"""Real servers for all tests. One of each for a whole session, and with ``pytest -n`` for each worker.

They are shared: a test makes a database, a bucket or (for Redis) an empty server of its own, and a test that stops a
server starts it again. A test that breaks one starts its own from ``recoup.demo.servers``.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from recoup.demo.host import Ports, temporary_folder
from recoup.demo.programs import find_postgres, find_redis, find_weed
from recoup.demo.servers import PostgresServer, RedisServer, S3Server
from tests import clusters, heard, leftovers, order, scratch
from tests.real import require_found
from tests.testhost.fixtures import hall, second_host, stack, standing_stack, testhost

__all__ = ["hall", "second_host", "stack", "standing_stack", "testhost"]  # the fixtures of tests/testhost


# Property tests are seeded, so that a run that passed passes again; `make soak` lets chance choose. A busy machine is
# no fault of a test's.
_BUSY = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("seeded", derandomize=True, deadline=None, suppress_health_check=_BUSY)
settings.register_profile("soak", derandomize=False, deadline=None, suppress_health_check=_BUSY, print_blob=True)
settings.load_profile("soak" if os.environ.get("RECOUP_SOAK") else "seeded")


heard.hear_in_children()
_in_memory = scratch.use_memory()  # before anything makes a temporary file; workers inherit it


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Free the memory, unless there is a failure to look into."""
    if _in_memory is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        atexit.register(scratch.give_back, _in_memory)


PostgresServer._make_cluster = clusters.copying(PostgresServer._make_cluster)  # type: ignore[method-assign]
PostgresServer.new_database = leftovers.noting(PostgresServer.new_database)  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Note for whom databases are made."""
    with leftovers.making(fixturedef.scope):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, None, None]:
    """Drop databases that nobody needs any more."""
    yield
    leftovers.after_test(last_of_file=nextitem is None or nextitem.path != item.path)


def pytest_configure(config: pytest.Config) -> None:
    """Let several workers take files in the order below. Otherwise those with the most tests come first."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave long series to ``make soak``. Put the files that take longest first: then all workers end together."""
    if not os.environ.get("RECOUP_SOAK"):
        long_series = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long_series)
        items[:] = [item for item in items if item not in long_series]
    if hasattr(config, "workerinput"):
        long = order.seconds()
        items.sort(key=lambda item: -long.get(item.nodeid.partition("::")[0], 0))


def _postgres(major: int) -> Iterator[PostgresServer]:
    with PostgresServer(require_found(lambda: find_postgres(major))) as server:
        yield server


@pytest.fixture(scope="session")
def postgres15() -> Iterator[PostgresServer]:
    """Debian's PostgreSQL 15."""
    yield from _postgres(15)


@pytest.fixture(scope="session")
def postgres16() -> Iterator[PostgresServer]:
    """PostgreSQL 16."""
    yield from _postgres(16)


@pytest.fixture(scope="session")
def postgres17() -> Iterator[PostgresServer]:
    """PostgreSQL 17, with every contrib extension."""
    yield from _postgres(17)


@pytest.fixture(scope="session")
def postgres18() -> Iterator[PostgresServer]:
    """PostgreSQL 18."""
    yield from _postgres(18)


@pytest.fixture(scope="session", params=[15, 16, 17, 18], ids=lambda major: f"postgres{major}")
def any_postgres(request: pytest.FixtureRequest) -> PostgresServer:
    """Each of the PostgreSQL servers in turn."""
    server = request.getfixturevalue(f"postgres{request.param}")
    assert isinstance(server, PostgresServer)
    return server


def _redis(major: int) -> Iterator[RedisServer]:
    settings = {"enable-debug-command": "local"} if major >= 7 else {}
    with RedisServer(require_found(lambda: find_redis(major)), settings=settings) as server:
        yield server


@pytest.fixture(scope="session")
def _redis6() -> Iterator[RedisServer]:
    yield from _redis(6)


@pytest.fixture(scope="session")
def _redis7() -> Iterator[RedisServer]:
    yield from _redis(7)


@pytest.fixture(scope="session")
def _redis8() -> Iterator[RedisServer]:
    yield from _redis(8)


def _emptied(server: RedisServer) -> RedisServer:
    server.start()
    client = server.client()
    try:
        client.flushall()
    finally:
        client.close()
    return server


@pytest.fixture
def redis6(_redis6: RedisServer) -> RedisServer:
    """A Redis 6.2, empty, with a password."""
    return _emptied(_redis6)


@pytest.fixture
def redis7(_redis7: RedisServer) -> RedisServer:
    """Debian's Redis 7.0, empty, with a password."""
    return _emptied(_redis7)


@pytest.fixture
def redis8(_redis8: RedisServer) -> RedisServer:
    """A Redis 8, empty, with a password."""
    return _emptied(_redis8)


@pytest.fixture(params=[6, 7, 8], ids=lambda major: f"redis{major}")
def any_redis(request: pytest.FixtureRequest) -> RedisServer:
    """Each of the Redis servers in turn, empty."""
    server = request.getfixturevalue(f"redis{request.param}")
    assert isinstance(server, RedisServer)
    return server


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server with Object Lock."""
    with S3Server(require_found(find_weed)) as server:
        yield server


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port for a server that must be told it: below those that connections are given, and no other test takes it.

    One that the system gives and that is freed at once may be that of the next connection of any program.
    """
    kept = Ports(1)
    yield kept.numbers[0]
    kept.release()


@pytest.fixture
def server_folder() -> Iterator[Path]:
    """A temporary folder that the servers' user owns and reaches (pytest's own ``tmp_path`` is closed to it)."""
    with temporary_folder("test") as folder:
        yield folder
