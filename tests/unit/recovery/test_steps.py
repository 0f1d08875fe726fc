"""Steps of a recovery: which there are for a situation, and how they are carried out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from recoup.kernel.errors import EngineError, RefusedError, UncheckedError, UsageError
from recoup.kernel.finding import Finding, Verdict
from recoup.recovery.runbook import PEOPLE, REHEARSED, Database, Facts, Where, steps_of
from recoup.recovery.step import Act, Consent, Done, Phase, Step, Watching, run_steps

_FACTS = Facts(
    files=("configuration",),
    databases=(
        Database(service="postgres", engine="postgres", what="from base 1"),
        Database(service="redis", engine="redis", what="from rdb 2"),
    ),
    applications=("api",),
    health=("api",),
    checked=("postgres",),
    flows=("a client orders",),
)


def _step(name: str, phase: Phase = Phase.RECOVER) -> Step:
    return Step(id=name, title=name, meaning=name, act=Act.FILES, phase=phase)


@dataclass(slots=True)
class _Doer:
    fail: dict[str, Exception] = field(default_factory=dict)
    refuse: dict[str, Exception] = field(default_factory=dict)
    find: dict[str, Verdict] = field(default_factory=dict)
    done: list[str] = field(default_factory=list)

    def before(self, step: Step) -> None:
        if step.id in self.refuse:
            raise self.refuse[step.id]

    def act(self, step: Step) -> Done:
        self.done.append(step.id)
        if step.id in self.fail:
            raise self.fail[step.id]
        return Done(detail="done")

    def after(self, step: Step) -> Sequence[Finding]:
        verdict = self.find.get(step.id)
        return () if verdict is None else (Finding(check="it is well", subject=step.id, verdict=verdict, detail="so"),)


def test_after_a_lost_server_everything_is_brought_back_and_counted() -> None:
    steps = steps_of("server-loss", _FACTS)
    assert [one.id for one in steps] == [
        *("files-configuration", "stack", "restore-postgres", "swap-postgres", "start-postgres"),
        *("restore-redis", "swap-redis", "start-redis"),
        *("application-api", "others", "health-api", "checks-postgres", "flows"),
    ]
    assert all(one.phase is not Phase.PREPARE for one in steps)


def test_what_a_disaster_leaves_standing_is_prepared_and_not_counted() -> None:
    lost = {one.id: one.phase for one in steps_of("data-loss", _FACTS)}
    assert lost["stack"] is Phase.PREPARE
    assert lost["restore-redis"] is Phase.RECOVER
    corrupt = {one.id: one.phase for one in steps_of("database-corruption", _FACTS)}
    assert corrupt["restore-redis"] is Phase.PREPARE
    assert corrupt["restore-postgres"] is Phase.RECOVER


@pytest.mark.parametrize("situation", REHEARSED)
def test_nothing_starts_before_what_it_needs_and_ids_are_unique(situation: str) -> None:
    steps = steps_of(situation, _FACTS)  # type: ignore[arg-type]
    names = [one.id for one in steps]
    assert len(set(names)) == len(names)
    assert names.index("start-postgres") < names.index("application-api") < names.index("flows")
    phases = [one.phase for one in steps]
    assert phases == sorted(phases, key=list(Phase).index)


def test_people_are_steps_only_when_they_can_be_asked() -> None:
    assert all(one.kind == "machine" for one in steps_of("server-loss", _FACTS))
    asked = steps_of(
        "server-loss", Facts(**{**{name: getattr(_FACTS, name) for name in _FACTS.__slots__}, "people": True})
    )
    assert [one.id for one in asked if one.kind == "person"] == ["new-server", "let-users-in"]
    assert all(one.differs for one in PEOPLE), "what is done differently in a drill is said"


def test_in_production_users_are_let_in_and_in_a_drill_nothing_is_changed() -> None:
    def meaning(where: Where) -> str:
        steps = steps_of("server-loss", replace(_FACTS, people=True), where)
        return next(one.meaning for one in steps if one.id == "let-users-in")

    assert "Change nothing" in meaning("sandbox")
    assert "drill" not in meaning("production")
    assert "Change nothing" not in meaning("production")


def test_what_replaces_production_needs_the_word_of_a_person_and_comes_after_all_that_could_refuse() -> None:
    facts = replace(
        _FACTS,
        databases=(replace(_FACTS.databases[0], replaces="the data in the volume"), _FACTS.databases[1]),
        stopped=("api", "postgres"),
    )
    steps = steps_of("database-corruption", facts, "production")
    names = [one.id for one in steps]
    assert names == [
        *("hold", "confirm", "choose-postgres", "stop", "restore-postgres", "swap-postgres", "start-postgres"),
        *("application-api", "others", "health-api", "checks-postgres", "flows", "protect-postgres", "checklist"),
    ]
    asks = {one.id: one.consent for one in steps if one.consent is not Consent.NONE}
    assert asks == {"stop": Consent.YES, "swap-postgres": Consent.TYPED}
    assert [one.id for one in steps if one.replaces] == ["swap-postgres"]


def test_a_server_that_somebody_else_runs_is_restored_beside_and_placed_by_a_person() -> None:
    facts = replace(
        _FACTS,
        compose=False,
        applications=(),
        databases=(
            replace(_FACTS.databases[0], by_hand=True),
            replace(_FACTS.databases[1], at_once=True, replaces="what the server holds"),
        ),
        hurt=("postgres", "redis"),
    )
    steps = steps_of("database-corruption", facts, "production")
    acting = [one.id for one in steps if one.act in (Act.RESTORE, Act.SWAP, Act.ASK, Act.START)]
    assert acting == ["restore-postgres", "place-postgres", "swap-redis", "start-postgres", "start-redis"]
    assert next(one.kind for one in steps if one.id == "place-postgres") == "person"


def test_a_breach_is_not_rehearsed() -> None:
    with pytest.raises(UsageError, match="cannot be rehearsed"):
        steps_of("security-breach", _FACTS)


def test_the_first_step_that_fails_is_the_last_and_the_others_are_unknown() -> None:
    doer = _Doer(fail={"b": EngineError("the disk is full", hint="Make room.")})
    runs = run_steps([_step("a"), _step("b"), _step("c")], doer, Watching())
    assert [one.verdict for one in runs] == [Verdict.OK, Verdict.FAILED, Verdict.UNKNOWN]
    assert (runs[1].detail, runs[1].hint) == ("the disk is full", "Make room.")
    assert runs[2].started is None
    assert doer.done == ["a", "b"]


def test_a_step_that_is_refused_is_not_done() -> None:
    doer = _Doer(refuse={"a": RefusedError("this is production")})
    runs = run_steps([_step("a"), _step("b")], doer, Watching())
    assert [one.verdict for one in runs] == [Verdict.FAILED, Verdict.UNKNOWN]
    assert doer.done == []


def test_a_check_that_fails_does_not_hide_the_next() -> None:
    doer = _Doer(find={"a": Verdict.FAILED, "b": Verdict.OK})
    runs = run_steps([_step("a", Phase.PROVE), _step("b", Phase.PROVE)], doer, Watching())
    assert [one.verdict for one in runs] == [Verdict.FAILED, Verdict.OK]
    assert runs[0].detail == "it is well: a: so"


def test_what_could_not_be_looked_at_is_unknown_and_the_run_goes_on() -> None:
    doer = _Doer(fail={"a": UncheckedError("psql is missing")}, find={"b": Verdict.UNKNOWN})
    runs = run_steps([_step("a"), _step("b"), _step("c")], doer, Watching())
    assert [one.verdict for one in runs] == [Verdict.UNKNOWN, Verdict.UNKNOWN, Verdict.OK]


def test_who_watches_hears_of_each_step_before_and_after() -> None:
    heard: list[str] = []
    watching = Watching(
        begins=lambda number, of, step: heard.append(f"{number}/{of} {step.id}"),
        ended=lambda run: heard.append(f"{run.step.id} {run.verdict}"),
    )
    run_steps([_step("a"), _step("b")], _Doer(), watching)
    assert heard == ["1/2 a", "a ok", "2/2 b", "b ok"]


def test_an_interrupt_goes_through() -> None:
    class Interrupted(_Doer):
        def act(self, step: Step) -> Done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_steps([_step("a")], Interrupted(), Watching())
