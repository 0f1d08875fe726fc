"""What a recovery stops and starts: what was running, or would be; not what somebody had stopped on purpose."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.assembly.recover import facts as recover_facts
from recoup.assembly.recover.context import RecoverWish
from recoup.assembly.system import System
from recoup.kernel.errors import EngineError, UsageError
from recoup.plan.load import load
from recoup.recovery.runbook import Facts

_PLAN = """
recoup: 1
system: Shop
compose: {file: compose.yaml}
services:
  postgres: {engine: postgres, compose: db}
  redis: {engine: redis, compose: redis}
  elsewhere: {engine: postgres, url: "postgresql://u@127.0.0.1:1/x"}
  api: {engine: compose, after: [postgres, redis], health: "http://127.0.0.1:1/"}
  worker: {engine: compose, after: [postgres], health: "http://127.0.0.1:2/"}
  pages: {engine: compose, after: [redis]}
repositories: {local: {path: backups}}
key: {file: recoup.key}
"""
_UP = {"db": "running", "redis": "running", "api": "running", "worker": "running", "pages": "running"}


def _facts(
    monkeypatch: pytest.MonkeyPatch, folder: Path, situation: str, *, states: dict[str, str], **more: Any
) -> Facts:
    (folder / "recoup.yaml").write_text(_PLAN)
    containers = []
    for name, words in states.items():
        state, _, status = words.partition(" ")
        ended = int(status) if status else None
        one = SimpleNamespace(service=name, state=state, exit_status=ended, running=state == "running")
        containers.append(one)
    services = {name: SimpleNamespace(depends_on=(), mounts=()) for name in _UP}
    project = SimpleNamespace(services=services, volumes={}, service=services.__getitem__)
    client = SimpleNamespace(containers=lambda: tuple(containers))
    monkeypatch.setattr(recover_facts, "open_stack", lambda _: SimpleNamespace(project=project, client=client))
    monkeypatch.setattr(recover_facts, "choose_database", lambda *_: object())
    monkeypatch.setattr(recover_facts, "what_of", lambda _: "from a copy")
    opened = cast(Any, SimpleNamespace(catalog=lambda: None))
    wish = RecoverWish(situation=cast(Any, situation), **more)
    return recover_facts.facts_of(opened, System(load(folder / "recoup.yaml")), wish)


def test_what_needs_the_lost_database_stops_first_and_what_does_not_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = _facts(monkeypatch, tmp_path, "database-corruption", states=_UP, services=("postgres",))
    assert set(facts.stopped) == {"api", "worker", "db"}
    assert facts.stopped[-1] == "db", "the applications stop before what they write to"
    assert set(facts.applications) == {"api", "worker"}
    replaced = {one.service: one.replaces for one in facts.databases}
    assert replaced == {"postgres": "the data in the volume of db", "redis": "", "elsewhere": ""}
    assert {one.service for one in facts.databases if one.by_hand} == {"elsewhere"}


@pytest.mark.parametrize(
    ("state", "comes_back"),
    [("exited 0", False), ("exited 143", False), ("exited 137", False), ("exited 1", True), ("restarting", True)],
)
def test_an_application_that_failed_comes_back_and_one_that_was_stopped_stays_so(
    state: str, comes_back: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = _facts(
        monkeypatch, tmp_path, "database-corruption", states={**_UP, "worker": state}, services=("postgres",)
    )
    assert ("worker" in facts.applications) is comes_back
    assert ("worker" in facts.stopped) is comes_back
    assert ("worker" in facts.health) is comes_back, "nobody asks how something is that stands still on purpose"
    assert "api" in facts.applications


def test_when_the_database_is_down_all_that_needs_it_is_wanted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    states = {"db": "restarting", "redis": "running", "api": "exited 0", "worker": "exited 143", "pages": "exited 0"}
    facts = _facts(monkeypatch, tmp_path, "database-corruption", states=states, services=("postgres",))
    assert set(facts.applications) == {"api", "worker"}


def test_a_stack_that_cannot_be_asked_is_an_error_but_not_after_the_loss_of_all(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def silent(_: object) -> None:
        raise EngineError("the container engine does not answer")

    facts = _facts(monkeypatch, tmp_path, "redis-loss", states=_UP)
    assert [one.service for one in facts.databases if one.replaces] == ["redis"]
    system, opened = System(load(tmp_path / "recoup.yaml")), cast(Any, SimpleNamespace(catalog=lambda: None))
    monkeypatch.setattr(recover_facts, "open_stack", silent)
    with pytest.raises(EngineError, match="does not answer"):
        recover_facts.facts_of(opened, system, RecoverWish(situation="redis-loss"))
    monkeypatch.setattr(recover_facts, "recorded_images", lambda *_: {})
    facts = recover_facts.facts_of(opened, system, RecoverWish(situation="server-loss"))
    assert facts.stopped == ()
    assert set(facts.applications) == {"api", "worker", "pages"}


def test_a_database_that_the_plan_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no database 'orders'"):
        _facts(monkeypatch, tmp_path, "redis-loss", states=_UP, services=("orders",))


def test_where_the_plan_has_no_such_database_nothing_else_is_taken_for_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(globals(), "_PLAN", _PLAN.replace("  redis: {engine: redis, compose: redis}\n", "").replace(
        "[postgres, redis]", "[postgres]").replace("[redis]", "[postgres]"))  # fmt: skip
    with pytest.raises(
        UsageError, match="the plan has no Redis, so there is nothing to do after a redis-loss"
    ) as wrong:
        _facts(monkeypatch, tmp_path, "redis-loss", states=_UP)
    assert "recoup diagnose" in str(wrong.value.hint)
