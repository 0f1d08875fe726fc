"""What a plan says of alarms, pings and metrics."""

from __future__ import annotations

from datetime import timedelta

import pytest

from recoup.kernel.errors import PlanError
from recoup.plan.load import parse_plan

_PLAN = """\
recoup: 1
system: shop
services: {postgres: {engine: postgres, url: 'postgresql://recoup@db/shop'}}
repositories: {local: {path: /backups}}
key: {file: recoup.key}
channels: {team: ['slack://${SLACK_HOOK}']}
"""


def test_without_a_word_the_alarms_repeat_every_four_hours_and_a_stream_may_lag_five_minutes() -> None:
    plan = parse_plan(_PLAN)
    assert (plan.alarms.to, plan.alarms.every, plan.alarms.lag) == (None, timedelta(hours=4), timedelta(minutes=5))
    assert plan.pings == {}
    assert plan.metrics is None


def test_a_ping_s_address_may_be_a_reference_and_is_kept_as_written() -> None:
    plan = parse_plan(
        _PLAN + "pings: {backup: 'https://hc-ping.com/${HC_UUID}', postgres: 'http://kuma:3001/api/push/x'}"
    )
    assert str(plan.pings["backup"]) == "https://hc-ping.com/${HC_UUID}"


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("alarms: {to: [taem]}", "recoup.yaml:7:15: alarms.to.0: there is no channel 'taem' (did you mean \"team\"?)"),
        ("alarms: {every: 0m}", "recoup.yaml:7:17: alarms.every: must be longer than zero"),
        ("pings: {postgers: 'https://h/1'}", 'pings.postgers: neither backup nor a service (did you mean "postgres"?)'),
        ("pings: {backup: 'hc-ping.com/1'}", "pings.backup: not a web address"),
        ("metrics: localhost", "recoup.yaml:7:10: metrics: not an address to listen at: 'localhost'"),
        ("metrics: '127.0.0.1:99999'", "metrics: not an address to listen at"),
    ],
)
def test_a_wrong_word_is_named_with_its_place(more: str, fault: str) -> None:
    with pytest.raises(PlanError) as refused:
        parse_plan(_PLAN + more)
    assert fault in refused.value.message
