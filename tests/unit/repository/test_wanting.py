"""What a repository lacks: as much as its rules would keep, never without what it depends on."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from recoup.repository.retention import Copy, Proof, Rules, Snapshot, decide
from recoup.repository.wanting import decide_wanting

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FITS = {"pg/base", "pg/incremental", "pg/dump"}


def _copy(age: int, kind: str = "dump", *depends_on: str, proof: Proof = Proof.GOOD, name: str | None = None) -> Copy:
    begun = NOON - age * DAY
    return Copy(
        id=name or f"{kind}{age}", service="pg", kind=kind, begun=begun, ended=begun, proof=proof, depends_on=depends_on
    )


def _snapshot(*copies: Copy, rules: Rules | None = None, **more: object) -> Snapshot:
    rules = rules or Rules(counts={"daily": 3}, minimum=1)
    return Snapshot(copies=copies, rules={"pg": rules}, now=NOON, **more)  # type: ignore[arg-type]


def test_only_what_the_rules_would_keep_is_brought_the_oldest_first() -> None:
    found = decide_wanting(_snapshot(_copy(9)), [_copy(age) for age in range(6)], FITS)
    assert [one.id for one in found.bring] == ["dump2", "dump1", "dump0"]


def test_what_stops_pruning_is_no_reason_to_bring_what_expired() -> None:
    stopped = _snapshot(
        _copy(1, proof=Proof.BAD), _copy(2, proof=Proof.UNPROVEN), blocked={("pg", "dump"): "it failed"},
        frozen="a hold that cannot be believed",
    )  # fmt: skip
    found = decide_wanting(stopped, [_copy(age) for age in (0, 7, 8, 9)], FITS)
    assert [one.id for one in found.bring] == ["dump7", "dump0"], "one stands in for the damaged one"


def test_what_depends_on_something_that_does_not_go_there_stays_away_with_the_reason() -> None:
    chain = [_copy(2, "base"), _copy(1, "incremental", "base2"), _copy(0, "incremental", "incremental1")]
    assert [one.id for one in decide_wanting(_snapshot(), chain, FITS).bring] == [
        "base2",
        "incremental1",
        "incremental0",
    ]
    found = decide_wanting(_snapshot(), chain, FITS - {"pg/base"})
    assert found.bring == ()
    assert {copy.id: why.split(",")[0] for copy, why in found.left} == {
        "incremental1": "it depends on base2",
        "incremental0": "it depends on incremental1",
    }


def test_a_copy_of_the_future_is_not_brought_and_makes_nothing_else_expire() -> None:
    found = decide_wanting(_snapshot(rules=Rules(keep=3 * DAY)), [_copy(-400), _copy(0), _copy(2)], FITS)
    assert [one.id for one in found.bring] == ["dump2", "dump0"]
    assert [copy.id for copy, _ in found.left] == ["dump-400"]


@given(
    held=st.sets(st.integers(0, 40)),
    others=st.sets(st.integers(0, 40)),
    daily=st.integers(1, 10),
    weekly=st.integers(0, 4),
)
def test_what_is_brought_is_kept_and_a_second_look_finds_nothing(
    held: set[int], others: set[int], daily: int, weekly: int
) -> None:
    counts = {"daily": daily} | ({"weekly": weekly} if weekly else {})
    rules = Rules(counts=counts, minimum=1)

    def copies(ages: set[int]) -> list[Copy]:
        # every fifth day a base backup, and incrementals that build on it
        found = {age: _copy(age, "base") for age in {age - age % 5 + 4 for age in ages}}
        found |= {age: _copy(age, "incremental", f"base{age - age % 5 + 4}") for age in ages if age % 5 != 4}
        return list(found.values())

    snapshot, there = _snapshot(*copies(held), rules=rules), copies(others)
    found = decide_wanting(snapshot, there, FITS)
    assert found.left == ()
    after = [*snapshot.copies, *found.bring]
    names = {one.id for one in after}
    assert all(set(one.depends_on) <= names for one in after)
    kept = {one.copy.id for one in decide(_snapshot(*after, rules=rules)) if one.keep}
    assert {one.id for one in found.bring} <= kept
    assert decide_wanting(_snapshot(*after, rules=rules), there, FITS).bring == ()
