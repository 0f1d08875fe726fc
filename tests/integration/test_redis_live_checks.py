"""The plan's checks of a Redis, asked of a copy: read-only, honest about what they prove."""

from __future__ import annotations

from pathlib import Path

import pytest

from recoup.demo.servers import RedisServer
from recoup.engines.redis.plan_checks import RedisCheck
from recoup.kernel.finding import Finding, Verdict
from tests.integration.live_redis import launcher_of, live
from tests.integration.redis_copies import fill, take

pytestmark = pytest.mark.redis
OK, FAILED, UNKNOWN = Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN


def _asked(server: RedisServer, root: Path, *checks: RedisCheck) -> list[Finding]:
    with live(take(server), launcher_of(server), root, checks=checks) as copy:
        copy.boots()
        return list(copy.works())


def test_numbers_texts_lengths_and_databases_are_compared(any_redis: RedisServer, tmp_path: Path) -> None:
    fill(any_redis)
    cases = [
        (RedisCheck(command="DBSIZE", at_least=1000, at_most=1300), OK),
        (RedisCheck(command="DBSIZE", database=3, equals=50), OK),
        (RedisCheck(command="GET number:127", equals=127), OK),
        (RedisCheck(command="get number:127", equals="127", name="a number"), OK),
        (RedisCheck(command="LRANGE list:small 0 -1", equals=6), OK),
        (RedisCheck(command="HGET hash:small 'name'", equals="value"), OK),
        (RedisCheck(command="XLEN stream:big", at_least=999), OK),
        (RedisCheck(command="OBJECT ENCODING set:numbers", equals="intset"), OK),
        (RedisCheck(command="EXISTS string:1", equals=True), OK),
        (RedisCheck(command="ZSCORE zset:small a", equals=1.5), OK),
        (RedisCheck(command="DBSIZE", at_least=5000), FAILED),
        (RedisCheck(command="GET nothing", equals="x"), FAILED),
        (RedisCheck(command="GET string:1", at_least=1), FAILED),
        (RedisCheck(command="LLEN string:1", at_least=1), FAILED),
    ]
    findings = _asked(any_redis, tmp_path, *[check for check, _ in cases])
    assert [one.verdict for one in findings] == [verdict for _, verdict in cases], findings
    assert findings[3].subject == "a number"
    assert findings[-1].detail.startswith("WRONGTYPE")
    # A value may be anybody's secret: of a text that is not what was expected, only the length is told.
    assert all("value 1" not in one.detail for one in findings)


def test_a_check_that_an_empty_redis_passes_proves_nothing(redis6: RedisServer, tmp_path: Path) -> None:
    fill(redis6)
    findings = _asked(
        redis6,
        tmp_path,
        RedisCheck(command="EXISTS maintenance", equals=0),
        RedisCheck(command="DBSIZE", at_least=0),
        RedisCheck(command="KEYS broken:*", at_most=0),
        RedisCheck(command="DBSIZE", at_least=1),
    )
    assert [one.verdict for one in findings] == [UNKNOWN, UNKNOWN, UNKNOWN, OK]
    assert all("empty Redis" in one.detail for one in findings[:3])
    assert all(one.hint for one in findings[:3])


def test_a_rule_without_exceptions_can_be_asked_so_that_it_proves_something(
    redis7: RedisServer, tmp_path: Path
) -> None:
    fill(redis7)
    rule = "if redis.call('DBSIZE') > 0 then return redis.call('SCARD', KEYS[1]) end return nil"
    (finding,) = _asked(redis7, tmp_path, RedisCheck(command=f'EVAL_RO "{rule}" 1 broken', equals=0, name="no broken"))
    assert finding.verdict is OK, finding


def test_commands_that_do_more_than_read_are_not_run(any_redis: RedisServer, tmp_path: Path) -> None:
    fill(any_redis)
    refused = [
        "SET string:1 changed",
        "DEL string:1",
        "FLUSHALL",
        "CONFIG SET save ''",
        "CONFIG GET save",
        "DEBUG SLEEP 0",
        "REPLICAOF 127.0.0.1 6379",
        "EVAL 'return 1' 0",
        "SHUTDOWN NOSAVE",
        "XREAD BLOCK 0 STREAMS stream:big $",
        "SUBSCRIBE x",
        "SORT list:big ALPHA STORE other",
        "MIGRATE 127.0.0.1 6379 string:1 0 10",
        "NOSUCHCOMMAND",
        "GET",
    ]
    checks = [RedisCheck(command=command, equals="OK") for command in refused]
    kept = RedisCheck(command="GET number:127", equals=127)
    *findings, last = _asked(any_redis, tmp_path, *checks, kept)
    assert {one.verdict for one in findings} == {UNKNOWN}, findings
    assert last.verdict is OK


def test_without_checks_nothing_is_proven_and_what_to_write_is_said(redis7: RedisServer, tmp_path: Path) -> None:
    (finding,) = _asked(redis7, tmp_path)
    assert finding.verdict is UNKNOWN
    assert "checks: [{redis: DBSIZE, at_least: 1}]" in (finding.hint or "")
