"""WAL streamed from real servers into repositories, with everything going wrong that can."""

from __future__ import annotations

import pytest

from recoup.demo.host import wait_until
from recoup.demo.servers import PostgresServer, S3Server
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
            limit_seconds=120,
        )
        segments = [one for one in place.entries() if isinstance(one, WalSegment)]
        assert len(segments) >= 3
        place.no_hole()
        place.check_against_server()
        # The server is told what is safe, and lets go of the rest.
        assert wait_until(lambda: place.confirmed() >= end, limit_seconds=120)
        assert place.errors == []


def test_nothing_is_confirmed_to_the_server_before_every_required_repository_has_it(
    any_postgres: PostgresServer,
) -> None:
    with wal_place(any_postgres, repositories="  second: {path: second}") as place:
        place.start()
        place.wait_safe(place.commit("before"))
        place.wait_safe(place.commit("before"), "second")
        gate = place.system.gates["second"]
        gate.open.clear()
        before = place.safe("second")
        end = place.fill_segments(2)
        position = place.commit("not in both")
        place.wait_safe(position, "local")
        # Ask the server for as long as the first repository needed, and then some: it must never believe more.
        for _ in range(20):
            assert place.confirmed() <= before < end
            ((flushed,),) = any_postgres.execute(
                "SELECT flush_lsn <= restart_lsn FROM pg_stat_replication r JOIN pg_replication_slots s "
                f"ON s.active_pid = r.pid WHERE s.slot_name = '{place.slot}'"
            )
            assert flushed is True
            place.commit("more")
        assert place.safe("second") == before
        gate.open.set()
        place.wait_safe(position, "second")
        assert wait_until(lambda: place.confirmed() >= end, limit_seconds=120)
        place.check_against_server("second")
        place.no_hole("second")


def test_a_repository_that_is_not_required_holds_nothing_up_and_copies_later_what_it_missed(
    postgres18: PostgresServer,
) -> None:
    with wal_place(postgres18, repositories="  second: {path: second, required: false}") as place:
        place.start()
        place.wait_safe(place.commit("before"), "second")
        gate = place.system.gates["second"]
        gate.failing = True
        end = place.fill_segments(3)
        place.wait_safe(end)
        assert wait_until(lambda: place.confirmed() >= end, limit_seconds=120)
        assert wait_until(lambda: place.facts.get("error.second") is not None, limit_seconds=120)
        assert gate.refused > 0
        gate.failing = False
        position = place.commit("after")
        place.wait_safe(position, "second")
        place.no_hole("second")
        place.check_against_server("second")
        assert wait_until(lambda: place.facts.get("mode.second") == "running, not waited for", limit_seconds=120)


def test_a_full_disk_under_a_required_repository_stops_confirming_and_loses_nothing(
    any_postgres: PostgresServer,
) -> None:
    with wal_place(any_postgres) as place:
        place.start()
        place.wait_safe(place.commit("before"))
        gate = place.system.gates["local"]
        gate.failing = True
        before = place.safe()
        end = place.fill_segments(2)
        assert wait_until(lambda: gate.refused >= 3, limit_seconds=120)
        assert place.confirmed() <= before
        assert wait_until(lambda: "no space left" in str(place.facts.get("error.local")), limit_seconds=120)
        gate.failing = False
        place.wait_safe(end)
        place.no_hole()
        place.check_against_server()
        assert wait_until(lambda: place.confirmed() >= end, limit_seconds=120)


def test_a_receiver_killed_in_the_middle_of_a_segment_goes_on_without_hole_or_difference(
    any_postgres: PostgresServer,
) -> None:
    with wal_place(any_postgres) as place:
        place.start()
        for number in range(4):
            place.wait_safe(place.commit(f"before cut {number}"))
            place.break_off()
            position = place.commit(f"after cut {number}")
        place.wait_safe(position)
        place.wait_safe(place.fill_segments(1))
        place.no_hole()
        place.check_against_server()
        assert place.errors, "the cuts were not noticed at all"


def test_a_worker_that_is_stopped_stores_what_came_and_the_next_one_goes_on_from_the_repository(
    postgres17: PostgresServer,
) -> None:
    with wal_place(postgres17, more="wal_every: 1h, wal_heartbeat: 1h") as place:
        place.start()
        place.wait_safe(place.fill_segments(1))
        position = place.commit("in the last piece")
        assert wait_until(lambda: place.facts.get("lag_bytes", 0) > 0, limit_seconds=120)
        place.stop()
        assert place.safe() >= position
        again = place.commit("while nobody listened")
        for note in place.system.state_folder.glob("**/*"):
            if note.is_file():
                note.unlink()  # what this machine remembers must not matter
        place.start()
        place.wait_safe(place.fill_segments(1))
        assert place.safe() > again
        place.no_hole()
        place.check_against_server()
        assert place.errors == []


def test_a_bucket_gets_the_wal_as_a_folder_does(postgres18: PostgresServer, s3: S3Server) -> None:
    bucket = s3.new_bucket()
    repository = (
        f"  offsite: {{url: 's3://{bucket}/production', endpoint: '{s3.endpoint}', region: {s3.region}, "
        f"credentials: {{access_key: '${{WAL_S3_ID}}', secret_key: '${{WAL_S3_KEY}}'}}}}"
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WAL_S3_ID", s3.access_key)
        environment.setenv("WAL_S3_KEY", s3.secret_key)
        with wal_place(postgres18, repositories=repository) as place:
            place.start()
            place.wait_safe(place.commit("in the bucket"), "offsite")
            end = place.fill_segments(2)
            place.wait_safe(end, "offsite")
            place.no_hole("offsite")
            place.check_against_server("offsite")
            assert wait_until(lambda: place.confirmed() >= end, limit_seconds=120)
            assert place.errors == []
