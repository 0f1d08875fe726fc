"""Windows, gaps and the choice of what to replay: pure decisions over facts, with hypothesis against a plain model."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as some

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recovery_choice import Choice, choose, wal_files
from recoup.engines.postgres.recovery_target import AtLsn, AtName, AtTime, AtXid, Latest, Target, target_settings
from recoup.engines.postgres.timelines import History, Switch, parse_history
from recoup.engines.postgres.wal_inventory import HeldPiece, KnownGap, WalInventory, assemble
from recoup.engines.postgres.wal_windows import Base, reach_of
from recoup.kernel.errors import DamageError, RefusedError

MIB = 1 << 20
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def minute(number: float) -> datetime:
    return NOON + timedelta(minutes=number)


def base(segment: int, *, timeline: int = 1, name: str = "", time: datetime | None = None) -> Base:
    """A base backup that begins and ends in a segment; the segment of number n is written in minute n."""
    return Base(
        id=name or f"base-{segment}",
        timeline=timeline,
        begin=Lsn(segment * MIB + 1000),
        end=Lsn(segment * MIB + 5000),
        time=time or minute(segment - 0.5),
    )


def inventory(*segments: tuple[int, int], **more: object) -> WalInventory:
    return WalInventory(
        segment_bytes=MIB,
        segments={(tl, number): minute(number) for tl, number in segments},
        **more,  # type: ignore[arg-type]
    )


def on_one(first: int, last: int, *, timeline: int = 1) -> list[tuple[int, int]]:
    return [(timeline, number) for number in range(first, last + 1)]


# Timeline 1 wrote segments 1 to 9; timeline 2 grew out of it in the middle of segment 5 and wrote 5 to 12.
FORK = Lsn(5 * MIB + MIB // 2)
FORKED = History(timeline=2, switches=(Switch(timeline=1, at=FORK),))


def forked() -> WalInventory:
    stamps = {(1, number): minute(number) for number in range(1, 10)}
    stamps |= {(2, number): minute(number + 20) for number in range(5, 13)}
    return WalInventory(segment_bytes=MIB, segments=stamps, histories={2: FORKED})


# -- windows and gaps --------------------------------------------------------------------------------------------


def test_a_window_lasts_from_the_end_of_a_base_backup_to_the_end_of_the_wal() -> None:
    (window,) = reach_of(inventory(*on_one(1, 9)), [base(3)]).windows
    assert (window.begin, window.end) == (Lsn(3 * MIB + 5000), Lsn(10 * MIB))
    assert (window.begin_time, window.end_time) == (minute(2.5), minute(9))


def test_a_base_backup_without_wal_after_it_is_a_point() -> None:
    reach = reach_of(inventory(*on_one(1, 3)), [base(7)])
    assert (reach.windows, [one.id for one in reach.points]) == ((), ["base-7"])


def test_a_missing_segment_ends_the_window_and_is_named_with_its_range() -> None:
    held = inventory(
        *on_one(1, 4),
        *on_one(7, 9),
        gaps=(KnownGap(timeline=1, start=Lsn(5 * MIB), end=Lsn(7 * MIB), reason="the slot was lost"),),
    )
    reach = reach_of(held, [base(2), base(8)])
    assert [(window.begin.value // MIB, window.end.value // MIB) for window in reach.windows] == [(2, 5), (8, 10)]
    (gap,) = reach.gaps
    assert (gap.begin, gap.end, gap.begin_time, gap.end_time) == (Lsn(5 * MIB), base(8).end, minute(4), minute(7.5))
    assert gap.why == (
        "WAL segment 000000010000000000000005 to 000000010000000000000006 are missing: the slot was lost"
    )
    with pytest.raises(RefusedError, match="lies in a gap of timeline 1, from 0/500000 to 0/801388: WAL segment 0000"):
        choose(AtTime(time=minute(6)), held, [base(2), base(8)])


def test_pieces_of_the_present_segment_lengthen_the_window_to_their_last_byte() -> None:
    pieces = tuple(
        HeldPiece(timeline=1, segment=4, start=start, end=end, newest=minute(4 + end / MIB))
        for start, end in ((0, 4096), (4096, 9000), (9000, 20_000), (30_000, 40_000))
    )
    held = inventory(*on_one(1, 3), pieces={(1, 4): pieces})
    (window,) = reach_of(held, [base(2)]).windows
    assert window.end == Lsn(4 * MIB + 20_000)
    files = wal_files(choose(Latest(), held, [base(2)]), base(2), held)
    assert [(one.name[-2:], [(p.start, p.end) for p in one.pieces]) for one in files] == [
        ("02", []), ("03", []), ("04", [(0, 4096), (4096, 9000), (9000, 20_000)])
    ]  # fmt: skip


def test_a_timeline_and_the_one_that_grew_out_of_it_each_have_their_window() -> None:
    reach = reach_of(forked(), [base(2)])
    assert [(one.timeline, one.end.value // MIB) for one in reach.windows] == [(1, 10), (2, 13)]


def test_a_timeline_that_ended_at_the_switch_is_part_of_the_later_window() -> None:
    stamps = {(1, number): minute(number) for number in range(1, 5)} | {(2, n): minute(n) for n in range(5, 9)}
    held = WalInventory(segment_bytes=MIB, segments=stamps, histories={2: FORKED})
    reach = reach_of(held, [base(2)])
    assert [(one.timeline, one.end.value // MIB) for one in reach.windows] == [(2, 9)]
    # A target on the older part is followed on the timeline that wrote it.
    assert choose(AtTime(time=minute(2.7)), held, [base(2)]).history.timeline == 1


def test_the_segment_of_a_switch_comes_from_the_old_timeline_until_the_new_one_has_archived_it() -> None:
    stamps = {(1, number): minute(number) for number in range(1, 10)}
    held = WalInventory(segment_bytes=MIB, segments=stamps, histories={2: FORKED})
    chosen = choose(Latest(), held, [base(2)], timeline=2)
    assert chosen.window.end == FORK
    last = wal_files(chosen, base(2), held)[-1]
    assert last.name == "000000020000000000000005"
    assert [(one.timeline, one.end, one.of_whole) for one in last.pieces] == [(1, MIB // 2, True)]


# -- targets -----------------------------------------------------------------------------------------------------


def test_the_newest_base_backup_before_the_target_comes_first() -> None:
    chosen = choose(AtTime(time=minute(6.2)), inventory(*on_one(1, 9)), [base(2), base(5), base(8)])
    assert [one.id for one in chosen.bases] == ["base-5", "base-2"]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (AtTime(time=minute(60)), "is beyond the WAL that is archived, which ends at 2026-11-23 12:09:00Z"),
        (AtTime(time=minute(0)), "is before the end of the oldest base backup, 2026-11-23 12:01:30Z"),
        (AtLsn(lsn=Lsn(50 * MIB)), "is beyond the WAL that is archived"),
        (AtLsn(lsn=Lsn(2 * MIB + 4000)), "is before the end of the oldest base backup"),
        (AtXid(xid=10), "had begun before the oldest base backup did"),
    ],
)  # fmt: skip
def test_a_target_that_cannot_be_reached_is_refused_with_the_windows(target: Target, why: str) -> None:
    with pytest.raises(RefusedError, match=why) as refused:
        choose(target, inventory(*on_one(1, 9)), [base(2)], next_xid=lambda _base: 700)
    assert "2026-11-23 12:01:30Z to 2026-11-23 12:09:00Z (0/201388 to 0/A00000 on timeline 1)" in str(
        refused.value.hint
    )


def test_without_any_base_backup_nothing_can_be_reached_and_that_is_said() -> None:
    with pytest.raises(RefusedError, match="no instant") as refused:
        choose(Latest(), inventory(*on_one(1, 9)), [])
    assert "nothing at all" in str(refused.value.hint)


def test_a_target_on_two_timelines_with_different_data_is_refused_until_one_is_named() -> None:
    for target in (AtTime(time=minute(8)), AtLsn(lsn=Lsn(7 * MIB))):
        with pytest.raises(RefusedError, match="more than one timeline") as refused:
            choose(target, forked(), [base(2)])
        assert "--timeline 1 or --timeline 2" in str(refused.value.hint)
        assert choose(target, forked(), [base(2)], timeline=1).history.timeline == 1
        assert choose(target, forked(), [base(2)], timeline=2).history.timeline == 2


def test_a_target_that_both_timelines_share_needs_no_word_and_follows_the_one_that_wrote_it() -> None:
    for target in (AtTime(time=minute(3.2)), AtLsn(lsn=Lsn(4 * MIB)), AtLsn(lsn=Lsn(5 * MIB + 10))):
        assert choose(target, forked(), [base(2)]).history.timeline == 1


def test_a_target_after_the_second_recovery_follows_the_later_timeline() -> None:
    chosen = choose(AtTime(time=minute(28)), forked(), [base(2)])
    assert chosen.history == FORKED
    names = [one.name for one in wal_files(chosen, base(2), forked())]
    assert names[0] == "00000002.history"
    assert names[1:5] == ["000000010000000000000002", "000000010000000000000003", "000000010000000000000004",
                          "000000020000000000000005"]  # fmt: skip


def test_latest_is_the_end_of_the_newest_timeline() -> None:
    assert choose(Latest(), forked(), [base(2)]).window.end == Lsn(13 * MIB)


def test_a_base_backup_of_the_abandoned_part_of_a_timeline_is_not_used_on_the_next() -> None:
    chosen = choose(Latest(), forked(), [base(2), base(7)])
    assert [one.id for one in chosen.bases] == ["base-2"]
    with pytest.raises(RefusedError):
        choose(Latest(), forked(), [base(7)], timeline=2)


def test_a_timeline_that_is_not_there_is_refused() -> None:
    with pytest.raises(RefusedError, match="on timeline 9"):
        choose(Latest(), forked(), [base(2)], timeline=9)


def test_the_base_backup_for_a_transaction_began_before_it_did() -> None:
    counters = {"base-2": 700, "base-5": 800}
    held = inventory(*on_one(1, 9))
    bases = [base(2), base(5)]
    for xid, wanted in ((750, ["base-2"]), (800, ["base-5", "base-2"]), (900, ["base-5", "base-2"])):
        chosen = choose(AtXid(xid=xid), held, bases, next_xid=lambda one: counters[one.id])
        assert [one.id for one in chosen.bases] == wanted
    # 32 bits of an id are read as the nearest full one, around a wrap
    wrapped = {"base-2": (1 << 32) - 50, "base-5": (1 << 32) + 100}
    chosen = choose(AtXid(xid=5), held, bases, next_xid=lambda one: wrapped[one.id])
    assert [one.id for one in chosen.bases] == ["base-2"]


def test_a_base_backup_that_began_after_the_target_by_the_servers_clock_is_not_used() -> None:
    held, bases = inventory(*on_one(1, 9)), [base(2), base(5)]
    chosen = choose(AtTime(time=minute(6)), held, bases, server_time=lambda one: minute(7 if one.id == "base-5" else 1))
    assert [one.id for one in chosen.bases] == ["base-2"]
    with pytest.raises(RefusedError, match="by the server's own clock"):
        choose(AtTime(time=minute(6)), held, bases, server_time=lambda _one: minute(7))


def test_a_named_point_is_a_position_once_it_was_found() -> None:
    chosen = choose(AtName(name="before"), inventory(*on_one(1, 9)), [base(2), base(5)], found=Lsn(4 * MIB))
    assert [one.id for one in chosen.bases] == ["base-2"]
    assert not chosen.end_suffices


@pytest.mark.parametrize(
    ("target", "setting", "inclusive"),
    [
        (AtTime(time=NOON, before=True), ("recovery_target_time", "2026-11-23 12:00:00.000000+00"), "off"),
        (AtLsn(lsn=Lsn(MIB)), ("recovery_target_lsn", "0/100000"), "on"),
        (AtXid(xid=(3 << 32) | 7), ("recovery_target_xid", "7"), "on"),
        (AtName(name="x y"), ("recovery_target_name", "x y"), "on"),
        (Latest(), None, "on"),
    ],
)
def test_exactly_one_setting_is_set_and_the_others_are_emptied_before_it(
    target: Target, setting: tuple[str, str] | None, inclusive: str
) -> None:
    settings = list(target_settings(target).items())
    assert settings[-1] == ("recovery_target_inclusive", inclusive)
    assert [one for one in settings[:-1] if one[1]] == ([setting] if setting else [])
    assert setting is None or settings[-2] == setting
    assert len(settings) == 6


# -- properties --------------------------------------------------------------------------------------------------

SEGMENTS = some.sets(some.tuples(some.integers(1, 3), some.integers(0, 12)), max_size=30)
BASES = some.sets(some.tuples(some.integers(1, 3), some.integers(0, 12)), max_size=5)


@some.composite
def histories(draw: some.DrawFn) -> dict[int, History]:
    found: dict[int, History] = {}
    if draw(some.booleans()):
        at = draw(some.integers(1, 12 * MIB))
        found[2] = History(timeline=2, switches=(Switch(timeline=1, at=Lsn(at)),))
        if draw(some.booleans()):
            later = draw(some.integers(at, 13 * MIB))
            found[3] = History(timeline=3, switches=(Switch(timeline=1, at=Lsn(at)), Switch(timeline=2, at=Lsn(later))))
    return found


@given(SEGMENTS, BASES, histories(), some.integers(0, 13 * MIB), some.none() | some.integers(1, 3))
def test_what_is_chosen_is_whole_and_what_is_refused_cannot_be_done(
    segments: set[tuple[int, int]],
    taken: set[tuple[int, int]],
    known: dict[int, History],
    at: int,
    timeline: int | None,
) -> None:
    held = inventory(*segments, histories=known)
    bases = [base(number, timeline=tl, name=f"{tl}-{number}") for tl, number in sorted(taken)]
    target = AtLsn(lsn=Lsn(at))
    try:
        chosen = choose(target, held, bases, timeline=timeline)
    except RefusedError as refused:
        if "more than one timeline" not in refused.message:
            assert not any(
                possible(held, one, target, tl) for one in bases for tl in ([timeline] if timeline else [1, 2, 3])
            )
        return
    assert timeline is None or chosen.history.timeline == timeline
    check(chosen, held, target)


def possible(held: WalInventory, one: Base, target: AtLsn, timeline: int) -> bool:
    """The plain model: walk from the base to the target, segment by segment, on the timeline that is followed."""
    history = held.history(timeline)
    if not history.holds(one.timeline, one.end) or one.end > target.lsn:
        return False
    at = one.end.value
    if held.held_on(history, at // MIB) is None:
        return False
    while True:
        there = held.held_on(history, at // MIB)
        end = at // MIB * MIB + (there.end if there is not None else 0)
        if there is None or end <= one.end.value:
            return at >= target.lsn.value > one.end.value
        if end >= target.lsn.value:
            return end > one.end.value
        if there.end < MIB:
            return False
        at = end


def check(chosen: Choice, held: WalInventory, target: AtLsn) -> None:
    for one in chosen.bases:
        assert one.end <= target.lsn
        files = {file.segment: file for file in wal_files(chosen, one, held) if file.segment is not None}
        first, last = one.end.value // MIB, max(one.end.value, target.lsn.value - 1) // MIB
        assert set(range(first, last + 1)) <= set(files)
        for segment, file in files.items():
            assert file.name == held.name(chosen.history.owner(segment, MIB), segment)


@given(some.lists(some.tuples(some.integers(0, 20), some.integers(1, 10)), max_size=12))
def test_pieces_cover_exactly_what_is_contiguous_from_the_beginning(spans: list[tuple[int, int]]) -> None:
    pieces = [HeldPiece(timeline=1, segment=1, start=a, end=a + n, newest=NOON) for a, n in spans]
    covered, bytes_there = 0, {at for a, n in spans for at in range(a, a + n)}
    while covered in bytes_there:
        covered += 1
    held = assemble(pieces)
    assert (held.end if held is not None else 0) == covered
    if held is not None:
        at = 0
        for piece in held.pieces:
            assert piece.start <= at < piece.end
            at = piece.end


@given(some.lists(some.tuples(some.integers(1, 50), some.integers(0, 1 << 40)), min_size=1, max_size=6))
def test_a_history_file_is_read_back_or_refused(lines: list[tuple[int, int]]) -> None:
    text = "".join(f"{tl}\t{Lsn(at)}\tbefore 2026-11-23 12:00:00+00\n\n" for tl, at in lines)
    ordered = all(a[0] < b[0] and a[1] <= b[1] for a, b in itertools.pairwise(lines)) and lines[-1][0] < 60
    if not ordered:
        with pytest.raises(DamageError):
            parse_history(60, text.encode())
        return
    history = parse_history(60, text.encode())
    assert history.timelines == (*(tl for tl, _ in lines), 60)
    for tl, at in lines:
        assert history.end_of(tl) == Lsn(at)
        assert history.holds(tl, Lsn(at))
        assert not history.holds(tl, Lsn(at + 1))
    # every byte has one owner, and it never goes back
    owners = [history.owner(segment, MIB) for segment in range(0, (1 << 40) // MIB, 1 << 14)]
    assert owners == sorted(owners)


@pytest.mark.parametrize(
    "text", [b"", b"# nothing\n", b"x\t0/5000000\twhy\n", b"2\t0/5000000\n", b"1\t5000000\n", b"\xff\x00"]
)
def test_what_is_no_history_file_is_refused(text: bytes) -> None:
    with pytest.raises(DamageError):
        parse_history(2, text)
