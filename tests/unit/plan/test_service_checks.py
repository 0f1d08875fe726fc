"""The checks of services in a plan: SQL for PostgreSQL, a command for Redis, a path for files."""

from __future__ import annotations

import pytest

from recoup.plan.load import parse_plan
from recoup.plan.services import FilesService, RedisService
from tests.unit.plan.test_load import SMALLEST, check


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (
            "{engine: redis, url: 'redis://h', checks: [«{redis: DBSIZE}]}",
            "services.s.checks.0: nothing is expected: one of at_least, at_most, equals is needed",
        ),
        (
            "{engine: redis, url: 'redis://h', checks: [{redis: «\"GET 'x\", equals: 1}]}",
            "services.s.checks.0.redis: cannot be split into a command and its arguments: no closing quotation",
        ),
        (
            "{engine: redis, url: 'redis://h', checks: [{redis: DBSIZE, at_least: 1, database: «-1}]}",
            "services.s.checks.0.database: ",
        ),
        (
            "{engine: redis, url: 'redis://h', checks: [{«sql: x, equals: 1}]}",
            "services.s.checks.0.sql: unknown key",
        ),
        (
            "{engine: files, paths: [a], checks: [{file: a, at_least: «0}]}",
            "services.s.checks.0.at_least: ",
        ),
    ],
)
def test_a_wrong_check_is_named_with_its_place(service: str, expected: str) -> None:
    check(SMALLEST.replace("  files: {engine: files, paths: [uploads]}", f"  s: {service}"), expected)


def test_checks_of_redis_and_of_files_are_read() -> None:
    plan = parse_plan(
        SMALLEST.replace(
            "  files: {engine: files, paths: [uploads]}",
            "  cache: {engine: redis, url: 'redis://h', checks: [{redis: 'GET \"a b\"', database: 3, equals: '7'}]}\n"
            "  files: {engine: files, paths: [uploads], checks: [{file: 'uploads/*', contains: '${text}'}]}",
        )
    )
    cache, files = plan.services["cache"], plan.services["files"]
    assert isinstance(cache, RedisService)
    assert (cache.checks[0].redis, cache.checks[0].database, cache.checks[0].equals) == ('GET "a b"', 3, "7")
    assert isinstance(files, FilesService)
    assert (files.checks[0].at_least, files.checks[0].contains) == (1, "${text}")
