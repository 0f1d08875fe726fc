"""The plan is edited in the middle of a recovery: what it does not ask any more is not taken for answered."""

from __future__ import annotations

import pytest

from recoup.assembly.recover import after as after
from recoup.demo.servers import RedisServer
from recoup.kernel.errors import UncheckedError
from recoup.kernel.finding import Verdict
from tests.acceptance.after_place import after_restore
from tests.acceptance.test_recover_after import REDIS
from tests.acceptance.workplace import Workplace


def test_what_was_taken_out_of_the_plan_is_unknown_and_ends_nothing_with_an_error(
    work: Workplace, redis7: RedisServer
) -> None:
    redis7.client().set("basket", "3")
    work.add_redis(redis7)
    work.write_plan()
    work.recoup("backup", "redis")
    with after_restore(work, "redis-loss", REDIS, flows=("f",), checked=("redis",), health=("redis",)) as run:
        for act, step in ((after.checks, "checks-redis"), (after.flows, "flows")):
            (finding,) = act(run.recovery, run.steps[step]).findings
            assert finding.verdict is Verdict.UNKNOWN, finding
        with pytest.raises(UncheckedError, match="the plan has no health address of redis any more") as gone:
            after.health(run.recovery, run.steps["health-redis"])
        assert "--skip health-redis" in str(gone.value.hint)
