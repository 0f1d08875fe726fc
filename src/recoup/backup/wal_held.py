"""What a WAL archive holds along one history, and where receiving has to go on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from recoup.repository.wal_names import WalEntry, WalGap, WalHistory, WalPiece, WalSegment

#: Segments are stored several at once, so a killed writer can leave a hole no further back than this.
LOOK_BACK: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One timeline of a history and where it ended (an LSN as a number); None for the one that goes on."""

    timeline: int
    end: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldWal:
    """What one archive holds of a history.

    ``end`` is where its whole segments end, and ``timeline`` the one to go on with from there. ``pieces`` are those of
    the segment that begins at ``end``; ``piece_bytes`` is how much of it they give without a hole.
    ``superfluous`` are pieces of segments that the archive holds whole.
    """

    timeline: int
    end: int
    pieces: tuple[WalPiece, ...] = ()
    piece_bytes: int = 0
    superfluous: tuple[WalPiece, ...] = ()

    @property
    def safe(self) -> int:
        """Everything before this position is held."""
        return self.end + self.piece_bytes


def owner(history: Sequence[Reach], segment: int, segment_bytes: int) -> int:
    """The timeline under whose name the segment belongs: the newest that has begun by the segment's end."""
    found = history[0].timeline
    for one, following in pairwise(history):
        assert one.end is not None
        if one.end // segment_bytes <= segment:
            found = following.timeline
    return found


def held_wal(entries: Iterable[WalEntry], history: Sequence[Reach], segment_bytes: int) -> HeldWal | None:
    """What an archive holds along ``history`` (the oldest timeline first); None when it holds no segment of it."""
    whole: set[int] = set()
    pieces: list[WalPiece] = []
    gaps: list[WalGap] = []
    names: set[str] = set()
    for entry in entries:
        if isinstance(entry, WalSegment):
            names.add(entry.name)
            number = entry.number(segment_bytes)
            if owner(history, number, segment_bytes) == entry.timeline:
                whole.add(number)
        elif isinstance(entry, WalPiece):
            pieces.append(entry)
        elif isinstance(entry, WalGap):
            gaps.append(entry)
    superfluous = tuple(piece for piece in pieces if piece.segment in names)
    following = _following(whole, pieces, gaps, history, segment_bytes)
    if following is None:
        return None
    timeline = owner(history, following, segment_bytes)
    ours = tuple(
        piece
        for piece in pieces
        if piece.segment not in names and piece.timeline == timeline and piece.number(segment_bytes) == following
    )
    return HeldWal(
        timeline=timeline,
        end=following * segment_bytes,
        pieces=ours,
        piece_bytes=joined(ours),
        superfluous=superfluous,
    )


def _following(
    whole: set[int], pieces: list[WalPiece], gaps: list[WalGap], history: Sequence[Reach], segment_bytes: int
) -> int | None:
    """The number of the first segment that is missing at the end of what is held."""
    known = {gap.end // segment_bytes for gap in gaps if gap.timeline in {one.timeline for one in history}}
    if not whole:
        begun = [
            number
            for piece in pieces
            if piece.start == 0 and owner(history, number := piece.number(segment_bytes), segment_bytes)
            == piece.timeline
        ]  # fmt: skip
        return max([*begun, *known], default=None)
    ordered = sorted(whole)
    following = ordered[-1] + 1
    for before, after in pairwise(ordered[-LOOK_BACK - 1 :]):
        if after != before + 1 and after not in known:
            following = before + 1
            break
    return max([following, *(one for one in known if one > ordered[-1])])


def joined(pieces: Iterable[WalPiece]) -> int:
    """How many bytes from the beginning of a segment its pieces give without a hole."""
    end = 0
    for piece in sorted(pieces, key=lambda one: (one.start, one.end)):
        if piece.start > end:
            break
        end = max(end, piece.end)
    return end


def newest_timeline(entries: Iterable[WalEntry]) -> int:
    """The highest timeline of which there is WAL or a history file; 0 when there is none."""
    return max(
        (entry.timeline for entry in entries if isinstance(entry, WalSegment | WalPiece | WalHistory)), default=0
    )
