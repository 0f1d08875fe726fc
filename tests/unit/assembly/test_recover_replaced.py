"""Where a run has replaced data is found without the copy that it put there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.assembly import postgres, redis
from recoup.assembly.access import Found
from recoup.assembly.recover.context import Recovery
from recoup.assembly.recover.member import place_data
from recoup.assembly.recover.replaced import replaced_in
from recoup.assembly.redis import RedisHome
from recoup.assembly.restore.homes import PostgresHome
from recoup.assembly.system import System
from recoup.drill.codec import encode
from recoup.kernel import clock
from recoup.kernel.errors import UsageError
from recoup.plan.load import load
from recoup.recovery.progress import Progress, StepProgress
from recoup.recovery.runbook import Facts

_PLAN = """
recoup: 1
system: Shop
compose: {file: compose.yaml}
services:
  postgres: {engine: postgres, compose: db}
  redis: {engine: redis, compose: cache}
  elsewhere: {engine: redis, url: "redis://127.0.0.1:1"}
repositories: {local: {path: backups}}
key: {file: recoup.key}
"""
_RUN = "20261123-030000-abcdef"


class _Unreachable:
    """Repositories of which nothing can be read."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for, and the bucket is away")


def _recovery(folder: Path, steps: dict[str, dict[str, Any]]) -> Recovery:
    (folder / "recoup.yaml").write_text(_PLAN)
    known = {name: StepProgress(standing="done", attempts=1, data=data) for name, data in steps.items()}
    progress = Progress(
        run=_RUN, situation="server-loss", begun=clock.now(), order=1, frozen=tuple(known), steps=known,
        facts={"facts": encode(Facts())},
    )  # fmt: skip

    class OnItsWay(Recovery):
        @property
        def progress(self) -> Progress:
            return progress

    return OnItsWay(
        run=_RUN, wish=cast(Any, None), opened=cast(Any, _Unreachable()), system=System(load(folder / "recoup.yaml")),
        state=folder, journal=cast(Any, None), voice=cast(Any, None), scope=cast(Any, None),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Compose project that says nothing of itself."""
    service = SimpleNamespace(environment={}, command=None)
    project = SimpleNamespace(name="shop", service=lambda _name: service)
    found = SimpleNamespace(project=project, client=SimpleNamespace(runner=lambda _name: None))
    for module in (postgres, redis):
        monkeypatch.setattr(module, "open_stack", lambda _system: found)
    monkeypatch.setattr(redis, "redis_password", lambda *_: None)


def _copy(kind: str, facts: dict[str, Any]) -> Found:
    return Found(manifest=cast(Any, SimpleNamespace(id="20261122-010000-ffffff", kind=kind, facts=facts)), holders=())


def test_a_volume_is_found_by_what_the_choice_said_and_by_the_id_that_the_steps_used(tmp_path: Path) -> None:
    chosen = place_data(_copy("base", {}))
    found = replaced_in(_recovery(tmp_path, {"choose-postgres": chosen}), "postgres")
    assert found is not None
    assert isinstance(found.home, PostgresHome)
    assert (found.compose, found.placement) == ("db", "20261122-010000-ffffff.abcdef")
    used = {"choose-postgres": chosen, "restore-postgres": {"placement": "moment-1234567890.000000"}}
    found = replaced_in(_recovery(tmp_path, used), "postgres")
    assert found is not None
    assert found.placement == "moment-1234567890.000000", "one that was interrupted is finished under its own"


def test_a_redis_is_found_under_the_names_that_its_copy_gave_its_files(tmp_path: Path) -> None:
    settings = {"dir": "/other", "dbfilename": "all.rdb", "maxmemory": "1gb"}
    found = replaced_in(
        _recovery(tmp_path, {"choose-redis": place_data(_copy("rdb", {"settings": settings}))}), "redis"
    )
    assert found is not None
    assert isinstance(found.home, RedisHome)
    assert found.placement == "20261122-010000-ffffff.abcdef"
    assert found.home.facts == {"settings": {"dir": "/other", "dbfilename": "all.rdb"}}
    assert replaced_in(_recovery(tmp_path, {}), "elsewhere") is None, "Recoup does not run that server"


def test_a_database_that_the_plan_does_not_have_any_more_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the plan has no database 'orders' any more"):
        replaced_in(_recovery(tmp_path, {}), "orders")
