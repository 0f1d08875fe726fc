"""Whether there is room to restore a copy, decided before it is restored."""

from __future__ import annotations

from recoup.verification.room import Room, lack_of_room, least_kept_free, restored_bytes

_FRAME = 256 << 10


def test_zeros_are_restored_as_holes_and_need_no_room() -> None:
    sparse = [(_FRAME, 60)] * 40_000
    data = [(_FRAME, _FRAME // 5)] * 100
    assert restored_bytes("base", sparse + data) < 200 << 20
    assert restored_bytes("base", data) > 100 * _FRAME
    assert restored_bytes("incremental", data) > 200 * _FRAME, "the parts, and what they are combined to"


def test_too_little_room_is_said_with_the_numbers() -> None:
    room = Room(place="/state", free_bytes=3 << 30, kept_free_bytes=1 << 30)
    assert lack_of_room(2 << 30, room) is None
    assert lack_of_room((2 << 30) + 1, room) == (
        "it needs about 2.0 GiB; /state has 3.0 GiB free, of which 1.0 GiB are kept for others"
    )
    small = Room(place="/state", free_bytes=300 << 30, kept_free_bytes=1 << 30, allowed_bytes=1 << 30)
    assert lack_of_room(2 << 30, small) == "it needs about 2.0 GiB of disk, and 1.0 GiB are allowed"


def test_a_part_of_every_disk_is_left_to_others() -> None:
    assert least_kept_free(10 << 30) == 1 << 30
    assert least_kept_free(100 << 30) == 5 << 30
