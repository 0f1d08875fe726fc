"""Which copy shows that a database is backed up again after a recovery."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from recoup.assembly.recover import protect
from recoup.assembly.recover.checklist import looks_of
from recoup.assembly.recover.protect import Sources, copy_since
from recoup.kernel import clock
from recoup.kernel.finding import Verdict
from recoup.recovery.progress import Progress, StepProgress
from recoup.repository.catalog import REPLACED, Catalog, Entry

_BACK = datetime(2026, 11, 23, 3, tzinfo=UTC)


def _entry(name: str, minutes: int, *, timeline: int = 2, label: str | None = None) -> Entry:
    at = clock.to_text(_BACK + timedelta(minutes=minutes))
    return Entry(
        id=name, service="shop", engine="postgres", kind="base", label=label, begun_text=at, ended_text=at,
        stored_bytes=1, plain_bytes=1, repositories=("local",), facts_text=f'{{"timeline": {timeline}}}',
    )  # fmt: skip


def _chosen(monkeypatch: pytest.MonkeyPatch, *entries: Entry, proven: tuple[str, ...] = ()) -> str | None:
    def grade(_system: object, entry: Entry, _repositories: object) -> str | None:
        return "intact" if entry.id in proven else "stored"

    monkeypatch.setattr(protect, "grade_of", grade)
    monkeypatch.setattr(protect, "copy_kind", lambda _system, _service: "base")
    known = Sources(catalog=Catalog(entries=entries), opened=())
    found = copy_since(cast("Any", SimpleNamespace()), known, "shop", _BACK, 2)
    return None if found is None else found.id


def test_a_proven_copy_counts_while_a_newer_one_is_still_being_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    newer, older = _entry("newer", 9), _entry("older", 4)
    assert _chosen(monkeypatch, newer, older, proven=("older",)) == "older"
    assert _chosen(monkeypatch, newer, older, proven=("newer", "older")) == "newer"


def test_without_a_proven_one_the_newest_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _chosen(monkeypatch, _entry("newer", 9), _entry("older", 4)) == "newer"


@pytest.mark.parametrize(
    "other",
    [
        _entry("of-before", -1),
        _entry("of-another-timeline", 5, timeline=1),
        _entry("of-what-was-replaced", 5, label=REPLACED),
        _entry("of-the-future", 60 * 24 * 365 * 50),
    ],
    ids=lambda one: one.id,
)
def test_a_copy_of_other_data_does_not_count_however_well_it_is_proven(
    monkeypatch: pytest.MonkeyPatch, other: Entry
) -> None:
    assert _chosen(monkeypatch, other, proven=(other.id,)) is None


def test_data_that_were_left_as_they_are_were_not_looked_at_when_they_came_back() -> None:
    steps = {name: StepProgress(standing="done", verdict=Verdict.OK) for name in ("choose-shop", "swap-shop")}
    steps |= {"start-shop": StepProgress(standing="done", verdict=Verdict.OK)}
    run = Progress(run="r", situation="database-corruption", begun=_BACK, order=1, frozen=tuple(steps), steps=steps)
    assert looks_of(run, "shop") == {"choose-shop": Verdict.OK, "start-shop": Verdict.OK}
    left = replace(run, steps={**steps, "swap-shop": StepProgress(standing="skipped")})
    assert looks_of(left, "shop")["swap-shop"] is Verdict.UNKNOWN
