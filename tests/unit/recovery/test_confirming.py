"""Does what is seen fit what was declared? A restore is stopped where a start would do, and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest

from recoup.kernel.finding import Verdict
from recoup.recovery.confirming import Hurt, confirm
from recoup.recovery.diagnosis import Seen
from tests.unit.recovery.test_diagnosis import api, gone, postgres, redis


def files(**facts: Any) -> Seen:
    return Seen(**{"service": "conf", "engine": "files", "answers": True, "data": "unknown", **facts})


def test_damage_that_the_server_names_fits_and_is_said() -> None:
    found = confirm("database-corruption", [postgres(damage=("2 checksum failures in shop",)), redis(), api()])
    assert (found.verdict, found.detail) == (Verdict.OK, "postgres: 2 checksum failures in shop")


def test_objects_that_a_closer_look_names_are_enough_and_are_said() -> None:
    hurt = [Hurt(service="postgres", what="shop: public.orders", said="page 3 cannot be read")]
    found = confirm("database-corruption", [postgres(), redis()], hurt)
    assert found.verdict is Verdict.OK
    assert "hurt: shop: public.orders (page 3 cannot be read)" in found.detail


def test_when_only_indexes_are_hurt_it_is_said_that_they_can_be_made_anew() -> None:
    index = Hurt(service="postgres", what="shop: public.orders_pkey", index=True)
    table = Hurt(service="postgres", what="shop: public.orders")
    assert "REINDEX" in confirm("database-corruption", [postgres()], [index]).detail
    assert "REINDEX" not in confirm("database-corruption", [postgres()], [index, table]).detail


@pytest.mark.parametrize("situation", ["database-corruption", "redis-loss", "application-loss"])
def test_where_nothing_is_wrong_nothing_is_stopped(situation: str) -> None:
    found = confirm(situation, [postgres(), redis(), api()])
    assert found.verdict is Verdict.FAILED
    assert "nothing is wrong" in found.detail
    assert "--skip confirm --because" in (found.hint or "")


def test_a_stopped_database_is_started_and_not_replaced() -> None:
    found = confirm("database-corruption", [postgres(answers=False, state="exited"), redis(), api()])
    assert found.verdict is Verdict.FAILED
    assert "docker compose up -d db" in (found.hint or "")


def test_another_disaster_than_the_declared_one_is_named() -> None:
    found = confirm("database-corruption", [postgres(), gone(redis), api()])
    assert found.verdict is Verdict.FAILED
    assert "redis-loss" in found.detail


def test_a_redis_that_lost_its_data_fits_although_another_service_is_worse_off() -> None:
    seen = [postgres(damage=("x",)), redis(data="emptied", detail="it has no key"), api()]
    assert confirm("redis-loss", seen).verdict is Verdict.OK


def test_an_application_or_its_files_that_are_gone_fit() -> None:
    assert confirm("application-loss", [postgres(), api(answers=False, state="missing")]).verdict is Verdict.OK
    assert confirm("application-loss", [postgres(), files(answers=False, detail="missing: conf")]).verdict is Verdict.OK


@pytest.mark.parametrize(
    "blind",
    [
        postgres(answers=None, data="unknown", detail="docker does not answer"),
        postgres(unasked=("orders: timeout",)),
        postgres(answers=False, state=None, data="unknown", compose_service=None, detail="connection refused"),
    ],
)
def test_what_could_not_be_looked_at_is_unknown_and_keeps_nobody_from_going_on(blind: Seen) -> None:
    assert confirm("database-corruption", [blind, redis()]).verdict is Verdict.UNKNOWN


def test_of_several_databases_only_those_count_that_are_to_be_brought_back() -> None:
    other = postgres(service="billing", damage=("x",))
    assert confirm("database-corruption", [postgres(), other], services=("billing",)).verdict is Verdict.OK
    assert confirm("database-corruption", [postgres(), other], services=("postgres",)).verdict is Verdict.FAILED
