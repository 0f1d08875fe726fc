"""The search for a clean point with looks that are made up: what is said, what is written down, when it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recoup.assembly.recover import search as recover_search
from recoup.assembly.recover.lines import Points
from recoup.assembly.recover.looks import Looked
from recoup.assembly.recover.search import SEEN, Chosen, Search
from recoup.kernel.errors import RefusedError
from recoup.kernel.finding import Verdict
from recoup.recovery.clean_point import Line, Seen, Spot, Start
from tests.integration.recovery_place import RecoveryPlace, recovering, recovery_place

OLD, NEW = Start(id="20261122-020000-aaaaaa", at=100), Start(id="20261123-020000-bbbbbb", at=5000)
TIERS = "tiers: {gold: {rto: RTO, rpo: 1h}}\n"


@dataclass
class Made:
    """Looks as a test wants them."""

    answer: Callable[[Spot], Looked]
    made: int = 0

    def looker(self, **_: Any) -> Made:
        return self

    def look(self, spot: Spot, _member: object, _allowed: float) -> Looked:
        self.made += 1
        return self.answer(spot)


def looked(spot: Spot, *faults: str, seconds: float = 1.0, **more: Any) -> Looked:
    return Looked(seen=Seen(spot=spot, faults=frozenset(faults)), seconds=seconds, why="; ".join(faults), **more)


@pytest.fixture
def place(tmp_path: Path) -> RecoveryPlace:
    services = "{redis: {engine: redis, url: 'redis://127.0.0.1:1', tier: gold}}"
    found = recovery_place(tmp_path / "plan", services, more=TIERS.replace("RTO", "1h"))
    found.repository  # noqa: B018 - it is made
    return found


def search(
    place: RecoveryPlace, made: Made, monkeypatch: pytest.MonkeyPatch, *starts: Start, state: Path | None = None,
    line: str = "1", end: int = 10_000,
) -> tuple[Chosen, list[str]]:  # fmt: skip
    """The choice among points of a made-up log that ends at 10000, and the looks in the journal."""
    monkeypatch.setattr(recover_search, "Looker", made.looker)
    monkeypatch.setattr(recover_search, "member_of", lambda _opened, _data: None)
    points = Points(
        service="redis", lines=(Line(name=line, starts=starts or (OLD, NEW), end=end),), windows={},
        copies=frozenset(), said=("base backup x: its manifest is damaged",), keys=0,
    )  # fmt: skip
    with recovering(place, "redis-loss", "redis", state=state) as (recovery, step):
        found = Search(recovery=recovery, service="redis", step=step.id).newest_clean(points, 24)
        return found, [str(line.data["what"]) for line in recovery.journal.lines if line.event == SEEN]


def test_what_was_clean_is_chosen_and_what_could_not_be_read_is_said(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, journaled = search(place, Made(looked), monkeypatch)
    assert [one.verdict for one in found.findings] == [Verdict.OK]
    assert "passed over: base backup x: its manifest is damaged" in found.because
    assert len(journaled) == 1


def test_looks_end_when_the_promised_time_would_not_be_kept_and_the_best_known_point_is_taken(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.plan.write_text(place.plan.read_text().replace("rto: 1h", "rto: 3m"))
    proven = Start(id=NEW.id, at=NEW.at, proven=True, because="proven boots yesterday")
    made = Made(lambda spot: looked(spot, "it holds no key", seconds=150))
    found, _ = search(place, made, monkeypatch, OLD, proven)
    assert made.made == 1, "another look would end after the time there is"
    assert found.data["base"] == NEW.id
    assert "proven boots yesterday" in found.because


def test_a_point_that_nobody_could_look_at_is_taken_and_called_unknown(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    blind = Made(lambda spot: Looked(seen=Seen(spot=spot, faults=None), seconds=1, why="there is no room"))
    found, _ = search(place, blind, monkeypatch)
    (finding,) = found.findings
    assert finding.verdict is Verdict.UNKNOWN
    assert "it was not proven: there is no room" in finding.detail
    assert (found.data["base"], blind.made) == (NEW.id, 1)


def test_a_point_of_which_not_all_could_be_looked_at_is_unknown(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = search(place, Made(lambda spot: looked(spot, open=("amcheck is missing",))), monkeypatch)
    (finding,) = found.findings
    assert finding.verdict is Verdict.UNKNOWN
    assert "amcheck is missing" in finding.detail


def test_when_nothing_can_be_gone_back_to_nothing_is_chosen(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(spot: Spot) -> Looked:
        return Looked(
            seen=Seen(spot=spot, faults=frozenset({spot.start}), usable=False), seconds=1, why="its object is damaged"
        )

    with pytest.raises(RefusedError, match="every recovery point of redis is damaged") as refused:
        search(place, Made(gone), monkeypatch)
    assert "recoup list" in str(refused.value.hint)


def test_what_was_wrong_all_along_is_reported_and_sends_nobody_back(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = search(place, Made(lambda spot: looked(spot, "old damage")), monkeypatch)
    assert found.data["target"] == {"time": "1970-01-01T00:00:00.010000Z"}, "the end of the log"
    assert [one.verdict for one in found.findings] == [Verdict.OK, Verdict.UNKNOWN]
    assert "old damage" in found.findings[1].detail


def test_a_search_that_was_cut_off_makes_none_of_its_looks_again(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = tmp_path / "run"
    state.mkdir()
    asked: list[Spot] = []

    def power_fails(spot: Spot) -> Looked:
        asked.append(spot)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return looked(spot, "it holds no key")

    with pytest.raises(KeyboardInterrupt):
        search(place, Made(power_fails), monkeypatch, state=state)

    def well(spot: Spot) -> Looked:
        asked.append(spot)
        return looked(spot)

    _, journaled = search(place, Made(well), monkeypatch, state=state)
    assert len(asked) == len(set(asked)) + 1, "only the one that was cut off is made again"
    assert len(journaled) == len(set(asked))


@pytest.mark.parametrize("now", [{"line": "2"}, {"line": "1", "end": 9_000}], ids=["named anew", "shorter"])
def test_looks_at_a_log_that_is_another_by_now_are_made_again(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, now: dict[str, Any]
) -> None:
    state = tmp_path / "run"
    state.mkdir()
    search(place, Made(looked), monkeypatch, state=state)  # and the power fails before the choice is written down
    again = Made(looked)
    found, _ = search(place, again, monkeypatch, state=state, **now)
    assert again.made == 1
    assert [one.verdict for one in found.findings] == [Verdict.OK]
    assert len(found.data["looks"]) == 1, "only what was seen of the log that is there"


def test_looks_count_for_a_copy_that_is_still_there_and_not_for_one_that_was_pruned(
    place: RecoveryPlace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = tmp_path / "run"
    state.mkdir()
    bad_from_new = Made(lambda spot: looked(spot, *(["a page"] if spot.start == NEW.id else [])))
    search(place, bad_from_new, monkeypatch, state=state)
    again = Made(looked)
    found, _ = search(place, again, monkeypatch, OLD, state=state)
    assert again.made == 0, "the end was seen from the older copy"
    assert found.data["base"] == OLD.id
