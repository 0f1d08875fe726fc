"""When WAL that is held for the archive is said, alarmed of, and let go."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.slot import SlotFacts
from recoup.engines.postgres.wal_guard import DEFAULT_LIMIT_BYTES, Protect, judge, limit_of

GIB = 1 << 30
FACTS = SlotFacts(
    exists=True, active=True, wal_status="reserved", restart=Lsn(0), safe_bytes=None, keep_bytes=None, wal_bytes=None,
    position=Lsn(0), standby=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("held_gib", "planned_gib", "server_gib", "protect", "level"),
    [
        (1, None, None, "production", "ok"),
        (5, None, None, "production", "warning"),
        (8, None, None, "production", "alarm"),
        (10, None, None, "production", "let go"),
        (10, None, None, "archive", "alarm"),
        (10, None, 10, "production", "alarm"),  # the server's own limit: it lets go by itself
        (2, 2, 10, "production", "let go"),
        (2, 20, 3, "production", "ok"),
    ],
)
def test_the_limit_is_the_plans_or_the_servers_or_ten_gib(
    held_gib: int, planned_gib: int | None, server_gib: int | None, protect: Protect, level: str
) -> None:
    facts = replace(FACTS, position=Lsn(held_gib * GIB), keep_bytes=None if server_gib is None else server_gib * GIB)
    planned = None if planned_gib is None else planned_gib * GIB
    judgement = judge(facts, planned_bytes=planned, protect=protect)
    assert judgement.level == level
    assert bool(judgement.text) == (level != "ok")


def test_a_slot_that_is_lost_or_about_to_be_is_never_well() -> None:
    assert judge(replace(FACTS, wal_status="lost"), planned_bytes=None, protect="production").level == "lost"
    assert judge(replace(FACTS, restart=None), planned_bytes=None, protect="production").level == "lost"
    assert judge(replace(FACTS, wal_status="unreserved"), planned_bytes=None, protect="production").level == "alarm"
    assert judge(replace(FACTS, exists=False), planned_bytes=None, protect="production").level == "ok"
    assert limit_of(FACTS, None) == DEFAULT_LIMIT_BYTES
