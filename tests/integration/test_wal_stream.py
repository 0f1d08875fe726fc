"""WAL streamed from real servers into repositories, with everything going wrong that can."""

from __future__ import annotations

from recoup.demo.host import wait_until
from recoup.demo.servers import PostgresServer
from recoup.repository.wal_names import WalPiece, WalSegment
from tests.integration.wal_place import SEGMENT, wal_place


def test_a_committed_row_is_archived_within_the_interval_and_pieces_give_way_to_their_segment(
    any_postgres: PostgresServer,
) -> None:
    with wal_place(any_postgres) as place:
        place.start()
        position = place.commit("the first marker")
        place.wait_safe(position)
        archive = place.archive()
        pieces = [one for one in place.entries() if isinstance(one, WalPiece)]
        assert any(b"the first marker" in archive.read(one) for one in pieces)
        assert place.check_against_server() > 0
        end = place.fill_segments(3)
        place.wait_safe(end)
        assert wait_until(
            lambda: all(one.number(SEGMENT) >= end // SEGMENT for one in place.entries() if isinstance(one, WalPiece)),
            limit_seconds=5,
        )
        segments = [one for one in place.entries() if isinstance(one, WalSegment)]
        assert len(segments) >= 3
        place.no_hole()
        place.check_against_server()
        # The server is told what is safe, and lets go of the rest.
        assert wait_until(lambda: place.confirmed() >= end, limit_seconds=10)
        assert place.errors == []
