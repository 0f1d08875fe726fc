"""The newest clean recovery point: found wherever the damage began, with few looks, and never one that is bad."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from recoup.recovery.clean_point import Changes, Count, Line, Seen, Settled, Spot, Start, next_move

END = 10_000
DAMAGE = "every row can be read: public.orders"


@dataclass
class World:
    """Copies at ``bases``; a page rots on the disk at ``rotten``; a damaged page is logged at ``logged``."""

    bases: Sequence[int]
    rotten: int | None = None
    logged: int | None = None
    always: frozenset[str] = frozenset()
    lost: frozenset[int] = frozenset()  #: copies whose objects are damaged in the repository
    proven: dict[int, bool] = field(default_factory=dict)

    def line(self) -> Line:
        starts = tuple(Start(id=f"b{at}", at=at, proven=self.proven.get(at)) for at in self.bases)
        return Line(name="1", starts=starts, end=END)

    def look(self, spot: Spot) -> Seen:
        base = int(spot.start[1:])
        if base in self.lost:
            return Seen(spot=spot, faults=frozenset({f"b{base} is damaged"}), usable=False)
        rot = self.rotten is not None and base >= self.rotten
        logged = self.logged is not None and spot.at >= self.logged
        faults = self.always | ({DAMAGE} if rot or logged else frozenset())
        return Seen(spot=spot, faults=faults, marker=str(spot.at // 10))


def search(
    lines: Sequence[Line],
    look: Callable[[Spot], Seen],
    changed: Sequence[int] | None = None,
    **limits: int,
) -> tuple[Settled, list[Seen]]:
    seen: list[Seen] = []
    counts: list[Changes] = []
    while not isinstance(move := next_move(lines, seen, counts, **limits), Settled):
        if isinstance(move, Count):
            at = None if changed is None else tuple(one for one in changed if move.low < one < move.high)
            counts.append(Changes(line=move.line, low=move.low, high=move.high, at=at))
            assert len(counts) <= 2, "a stretch is counted once"
            continue
        assert move.spot not in [one.spot for one in seen], "nothing is looked at twice"
        seen.append(look(move.spot))
    return move, seen


def settled(world: World, **limits: int) -> tuple[Spot, Settled, int]:
    found, seen = search([world.line()], world.look, None, **limits)
    assert found.spot is not None
    return found.spot, found, len(seen)


def test_the_end_of_the_log_is_enough_when_it_is_clean() -> None:
    spot, found, looks = settled(World([100, 5000]))
    assert (spot, found.proven, looks) == (Spot(line="1", start="b5000", at=END), True, 1)


def test_what_rotted_on_the_disk_is_left_behind_with_an_older_copy_and_nothing_is_lost() -> None:
    spot, found, looks = settled(World([100, 2000, 5000, 7000], rotten=4000))
    assert (spot, found.proven) == (Spot(line="1", start="b100", at=END), True)
    assert looks == 3


def test_damage_in_the_log_is_stopped_in_front_of_and_not_a_step_earlier() -> None:
    spot, _, looks = settled(World([100, 5000], logged=8765), most_looks=40)
    assert spot.start == "b5000"
    assert 8755 < spot.at < 8765
    assert looks <= 16


def test_between_two_points_without_a_change_nothing_more_is_looked_at() -> None:
    world = World([5000], logged=8765)
    line = replace(world.line(), counted=END)
    found, seen = search([line], world.look, changed=[5100, 6000, 8100, 8700, 8765, 9000, 9900])
    assert (found.spot, found.next_bad) == (Spot(line="1", start="b5000", at=8700), 8765)
    assert len(seen) <= 5


def test_where_changes_cannot_be_counted_the_positions_do() -> None:
    world = World([5000], logged=8765)
    found, _ = search([replace(world.line(), counted=END)], world.look, most_looks=40)
    assert found.spot is not None
    assert 8755 < found.spot.at < 8765


def test_a_copy_that_is_proven_is_not_looked_at_again() -> None:
    world = World([100, 5000], logged=9000, proven={5000: True})
    _, seen = search([world.line()], world.look, most_looks=40)
    assert Spot(line="1", start="b5000", at=5000) not in [one.spot for one in seen]


def test_a_copy_that_is_known_to_be_bad_is_passed_over() -> None:
    spot, _, _ = settled(World([100, 5000, 7000], proven={7000: False}))
    assert spot == Spot(line="1", start="b5000", at=END)


def test_a_newest_copy_that_is_damaged_in_the_repository_costs_nothing_but_a_look() -> None:
    spot, found, looks = settled(World([100, 5000, 7000], lost=frozenset({7000})))
    assert (spot, found.proven, looks) == (Spot(line="1", start="b5000", at=END), True, 2)


def test_what_was_wrong_all_along_does_not_send_anybody_back() -> None:
    old = frozenset({"a sequence is behind: public.x"})
    found, _ = search([(world := World([100, 5000], always=old)).line()], world.look)
    assert found == Settled(spot=Spot(line="1", start="b5000", at=END), proven=True, tolerated=old)


def test_what_was_wrong_all_along_does_not_hide_what_is_new() -> None:
    world = World([100, 5000], logged=8000, always=frozenset({"old"}))
    found, _ = search([world.line()], world.look, most_looks=60)
    assert found.spot is not None
    assert 7980 <= found.spot.at < 8000
    assert (found.proven, found.tolerated) == (True, frozenset({"old"}))


def test_without_any_look_the_newest_point_is_taken_and_not_called_proven() -> None:
    spot, found, looks = settled(World([100, 5000]), most_looks=0)
    assert (spot, found.proven, looks) == (Spot(line="1", start="b5000", at=END), False, 0)


def test_a_look_that_cannot_be_made_ends_the_looking() -> None:
    found, seen = search([World([100, 5000]).line()], lambda spot: Seen(spot=spot, faults=None))
    assert (found.spot, found.proven, len(seen)) == (Spot(line="1", start="b5000", at=END), False, 1)


def test_when_looks_run_out_the_newest_point_seen_clean_is_taken_and_its_neighbour_named() -> None:
    world = World([100, 5000], logged=9990)
    spot, found, looks = settled(world, most_looks=5)
    assert looks == 5
    assert found.proven
    assert 5000 <= spot.at < 9990 <= (found.next_bad or 0)


def test_an_older_line_is_gone_back_to_when_nothing_of_the_newer_is_clean() -> None:
    newer, older = World([6000], rotten=0), World([100, 300])
    lines = [newer.line(), Line(name="0", starts=older.line().starts, end=400)]
    found, _ = search(lines, lambda spot: newer.look(spot) if spot.line == "1" else older.look(spot))
    assert (found.spot, found.proven) == (Spot(line="0", start="b300", at=400), True)


def test_nothing_is_chosen_when_nothing_can_be_gone_back_to() -> None:
    world = World([100, 5000], lost=frozenset({100, 5000}))
    found, _ = search([world.line()], world.look)
    assert found == Settled(spot=None, proven=False)


positions = st.integers(1, END - 1)


@given(
    bases=st.lists(positions, min_size=1, max_size=12, unique=True).map(sorted),
    rotten=st.none() | positions,
    logged=st.none() | positions,
    lost=st.integers(0, 4095),
)
def test_the_choice_is_clean_and_nothing_newer_would_have_been(
    bases: list[int], rotten: int | None, logged: int | None, lost: int
) -> None:
    gone = frozenset(at for number, at in enumerate(bases) if lost >> number & 1)
    world = World(bases, rotten=rotten, logged=logged, lost=gone)
    found, seen = search([world.line()], world.look, most_looks=200)
    good = [
        at for at in bases if at not in gone and (rotten is None or at < rotten) and (logged is None or at < logged)
    ]
    assert len(seen) <= 2 * len(bases) + 16
    if not good:
        # Everything was damaged before the oldest copy was taken, or cannot be read.
        assert not found.proven or found.tolerated
        return
    assert found.spot is not None
    assert found.proven
    assert not world.look(found.spot).faults
    if logged is None:
        assert found.spot.at == END
    else:
        assert found.spot.at > logged - 10  # a marker changes every ten positions


@given(
    base=positions,
    logged=positions,
    changed=st.lists(positions, max_size=40, unique=True).map(sorted),
)
def test_where_changes_can_be_counted_every_one_before_the_damage_comes_back(
    base: int, logged: int, changed: list[int]
) -> None:
    world = World([base], logged=logged)
    found, seen = search([replace(world.line(), counted=END)], world.look, changed=changed)
    if logged <= base:
        assert not found.proven or found.tolerated
        return
    assert found.spot is not None
    last_good = max([base, *(at for at in changed if base < at < logged)])
    assert last_good // 10 <= found.spot.at // 10
    assert found.spot.at < logged
    assert len(seen) <= 2 + 7


@given(
    bases=st.lists(positions, min_size=1, max_size=12, unique=True).map(sorted),
    logged=st.none() | positions,
    most=st.integers(0, 6),
)
def test_a_point_that_was_seen_damaged_is_never_chosen_however_few_looks_there_are(
    bases: list[int], logged: int | None, most: int
) -> None:
    world = World(bases, logged=logged)
    found, seen = search([world.line()], world.look, most_looks=most)
    assert len(seen) <= most
    bad = {one.spot for one in seen if one.faults}
    assert found.spot not in bad or found.tolerated
