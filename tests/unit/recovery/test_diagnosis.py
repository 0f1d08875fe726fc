"""What happened, and what to type: every disaster beside the harmless thing that looks like it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recoup.kernel.finding import Verdict
from recoup.recovery.diagnosis import Data, Diagnosis, Engine, Runnable, Seen, diagnose
from recoup.recovery.runbook import RECOVERED

NOW = datetime(2026, 11, 23, 3, tzinfo=UTC)


def postgres(**facts: Any) -> Seen:
    given = {
        "service": "postgres", "engine": "postgres", "answers": True, "state": "running", "data": "there",
        "compose_service": "db", "back_to": NOW, "loss": timedelta(minutes=5), "kinds": frozenset({"base"}),
    }  # fmt: skip
    return Seen(**{**given, **facts})


def redis(**facts: Any) -> Seen:
    return postgres(**{"service": "redis", "engine": "redis", "compose_service": "cache",
                       "kinds": frozenset({"rdb"}), **facts})  # fmt: skip


def api(**facts: Any) -> Seen:
    return Seen(**{"service": "api", "engine": "application", "answers": True, "state": "running",
                   "compose_service": "api", **facts})  # fmt: skip


def commands(found: Diagnosis) -> list[str]:
    return [one.command for one in found.advice]


def gone(make: Any, **facts: Any) -> Seen:
    return make(answers=False, state="missing", data="missing", **facts)  # type: ignore[no-any-return]


def test_nothing_is_wrong_when_everything_answers_with_its_own_data() -> None:
    found = diagnose([postgres(), redis(), api()])
    assert (found.situation, found.verdict, found.advice) == ("nothing", Verdict.OK, ())


def test_a_server_is_lost_when_no_container_and_no_data_are_left() -> None:
    found = diagnose([gone(postgres), gone(redis), api(answers=False, state="missing")])
    assert (found.situation, found.loss) == ("server-loss", timedelta(minutes=5))
    assert commands(found) == ["recoup recover server-loss"]


def test_an_application_that_still_runs_shows_that_the_server_is_not_lost() -> None:
    assert diagnose([gone(postgres), gone(redis), api()]).situation == "data-loss"


def test_a_stopped_database_is_started_and_not_restored() -> None:
    found = diagnose([postgres(answers=False, state="exited"), redis(), api(answers=False)])
    assert found.situation == "stopped"
    assert commands(found) == ["docker compose up -d db"]


def test_containers_that_are_gone_while_the_volumes_are_there_are_started_and_not_restored() -> None:
    down = {"answers": False, "state": "missing"}
    found = diagnose([postgres(**down), redis(**down), api(**down)])
    assert (found.situation, commands(found)) == ("stopped", ["docker compose up -d db cache"])


def test_a_database_that_runs_and_does_not_answer_is_looked_at_before_it_is_replaced() -> None:
    found = diagnose([postgres(answers=False, state="restarting", detail="restarted 9 times"), redis(), api()])
    assert found.situation == "database-corruption"
    assert "logs" in commands(found)[0]
    assert commands(found)[1] == "recoup recover database-corruption"


def test_damage_that_the_server_names_is_a_corruption_and_comes_back_to_the_newest_instant() -> None:
    found = diagnose([postgres(damage=("3 checksum failures in shop",), streamed=True), redis(), api()])
    assert found.situation == "database-corruption"
    assert found.because == ("postgres: 3 checksum failures in shop",)
    assert commands(found) == ["recoup recover database-corruption"]


def test_where_a_run_cannot_bring_it_back_the_restore_itself_is_named_under_a_hold() -> None:
    own = postgres(compose_service=None, state=None, damage=("2 checksum failures",), streamed=True)
    found = diagnose([own, redis()])
    assert found.recover is None
    assert commands(found)[0].startswith("recoup hold incident --reason ")
    assert commands(found)[1] == "recoup restore --service postgres --to-time latest --destination /srv/restored"
    dumped = diagnose([postgres(damage=("x",), kinds=frozenset({"dump"})), redis()])
    assert commands(dumped)[1] == "recoup restore latest --service postgres --kind dump"


def test_a_run_is_told_which_of_several_databases_it_is_for() -> None:
    other = postgres(service="billing")
    assert commands(diagnose([postgres(damage=("x",)), other])) == [
        "recoup recover database-corruption --service postgres"
    ]
    both = diagnose([postgres(damage=("x",)), redis(damage=("y",))])
    assert commands(both) == ["recoup recover database-corruption --service postgres --service redis"]


def test_a_run_is_suggested_only_for_situations_that_have_one() -> None:
    assert set(get_args(Runnable)) == set(RECOVERED)


def test_a_redis_that_runs_on_nothing_has_lost_its_data() -> None:
    found = diagnose([postgres(), redis(data="emptied"), api()])
    assert (found.situation, found.concerned) == ("redis-loss", ("redis",))
    assert commands(found) == ["recoup recover redis-loss"]


def test_wrong_answers_are_lost_rows_and_nobody_is_told_to_go_back_to_the_newest_copy() -> None:
    for streamed in (True, False):
        found = diagnose([postgres(wrong=("orders: the answer is 0",), streamed=streamed), redis(), api()])
        assert found.situation == "data-loss"
        assert not [one for one in commands(found) if "latest" in one]
        assert found.loss is None


def test_a_fresh_cluster_in_a_new_volume_is_replaced_by_force_and_a_foreign_one_is_not() -> None:
    fresh = diagnose([postgres(data="emptied", fresh=True), redis(), api()])
    assert commands(fresh)[-1].endswith("--force")
    foreign = diagnose([postgres(data="foreign", detail="cluster 7"), redis(), api()])
    assert not [one for one in commands(foreign) if one.startswith("recoup restore")]


def test_a_server_of_its_own_is_restored_beside_and_only_when_its_data_are_gone() -> None:
    found = diagnose([postgres(compose_service=None, state=None, answers=False, data="unknown")])
    assert found.situation == "stopped"
    (advice,) = found.advice
    assert advice.command.endswith("--destination /srv/restored")
    assert advice.meaning.startswith("Only when its data are gone or damaged")


def test_an_application_is_to_blame_only_when_the_databases_are_well() -> None:
    found = diagnose([postgres(), redis(), api(answers=False, state="exited", detail="exited with status 1")])
    assert (found.situation, found.concerned) == ("application-loss", ("api",))
    assert not [one for one in commands(found) if one.startswith("recoup restore")]


def test_what_is_lost_without_a_copy_is_said_and_no_command_promises_it() -> None:
    found = diagnose([gone(redis, back_to=None, loss=None, kinds=frozenset()), postgres(), api()])
    assert "redis: there is no copy to go back to that could be read" in found.because
    assert [one for one in commands(found) if "restore" in one] == []
    assert found.loss is None


@pytest.mark.parametrize("blind", [postgres(answers=None), redis(data="unknown"), api(answers=None)])
def test_what_could_not_be_looked_at_is_unknown_and_never_well(blind: Seen) -> None:
    others = [one for one in (postgres(), redis(), api()) if one.service != blind.service]
    found = diagnose([*others, blind])
    assert (found.situation, found.verdict, found.concerned) == ("unknown", Verdict.UNKNOWN, (blind.service,))


SEEN = st.builds(
    Seen,
    service=st.sampled_from(["a", "b", "c", "d"]),
    engine=st.sampled_from(get_args(Engine)),
    answers=st.sampled_from([True, False, None]),
    state=st.sampled_from(["running", "exited", "restarting", "missing", None]),
    data=st.sampled_from(get_args(Data)),
    damage=st.sampled_from([(), ("broken",)]),
    wrong=st.sampled_from([(), ("0 rows",)]),
    compose_service=st.sampled_from([None, "x"]),
    back_to=st.sampled_from([None, NOW]),
    streamed=st.booleans(),
    kinds=st.sampled_from([frozenset(), frozenset({"base"}), frozenset({"dump"})]),
).map(lambda one: one if one.engine in ("postgres", "redis") else replace(one, data="unknown", damage=(), wrong=()))


@given(st.lists(SEEN, min_size=1, max_size=4))
def test_it_is_well_exactly_when_every_service_is_and_a_restore_always_needs_a_copy(seen: list[Seen]) -> None:
    found = diagnose(seen)
    worst = {one.verdict for one in seen}
    assert (found.verdict is Verdict.OK) == (worst == {Verdict.OK})
    if Verdict.FAILED in worst:
        assert found.verdict is Verdict.FAILED
    assert found.because
    if any(command.startswith("recoup restore --service") for command in commands(found)):
        assert any(one.back_to is not None for one in seen)
