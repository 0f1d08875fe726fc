"""How much room a copy takes when it is restored into a sandbox, and whether that is there. A pure decision."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from recoup.kernel.units import show_size

#: A frame that was compressed to less than one part in so many holds nothing but zeros: it is restored as a hole.
_ZEROS_PACK_TO: Final = 400
#: What a server writes beside what it was given: its WAL, temporary files, indexes that are built.
_BESIDE_SHARE: Final = 0.1
_BESIDE_BYTES: Final = 64 << 20
#: How often the plain bytes of a kind are there while it is brought to life. A chain is placed part by part and then
#: combined; a dump grows by indexes; an RDB is read into memory and stays beside it.
_TIMES: Final = {"incremental": 2.0, "dump": 2.0}
_LEAST_FREE_SHARE: Final = 0.05
_LEAST_FREE_BYTES: Final = 1 << 30


def restored_bytes(kind: str, frames: Iterable[tuple[int, int]]) -> int:
    """What a copy of ``kind`` takes on a disk, given the (plain, stored) bytes of each frame of all its parts."""
    held = sum(plain for plain, stored in frames if stored * _ZEROS_PACK_TO > plain)
    return int(held * _TIMES.get(kind, 1.0) * (1 + _BESIDE_SHARE)) + _BESIDE_BYTES


def least_kept_free(disk_bytes: int) -> int:
    """What is never used of a disk: others live on it too."""
    return max(int(disk_bytes * _LEAST_FREE_SHARE), _LEAST_FREE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A disk, and what may be used of it. ``allowed_bytes`` None: all but what is kept free."""

    place: str
    free_bytes: int
    kept_free_bytes: int
    allowed_bytes: int | None = None


def lack_of_room(needed_bytes: int, room: Room) -> str | None:
    """Why a copy that takes ``needed_bytes`` is not restored there, with the numbers. None: it may be."""
    if room.allowed_bytes is not None and needed_bytes > room.allowed_bytes:
        return f"it needs about {show_size(needed_bytes)} of disk, and {show_size(room.allowed_bytes)} are allowed"
    usable = room.free_bytes - room.kept_free_bytes
    if needed_bytes > usable:
        return (
            f"it needs about {show_size(needed_bytes)}; {room.place} has {show_size(room.free_bytes)} free, of which "
            f"{show_size(room.kept_free_bytes)} are kept for others"
        )
    return None
