"""The WAL worker when the server itself changes: restarted, promoted, set back, replaced, or short of room."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recoup.backup.run_records import read_requests
from recoup.backup.wal_held import Reach
from recoup.demo.host import wait_until
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres import wal_stream
from recoup.engines.postgres.lsn import Lsn, segment_name
from recoup.kernel import clock
from recoup.kernel.errors import RefusedError
from recoup.repository.wal_archive import WalArchive
from recoup.repository.wal_names import WalGap, WalHistory, WalPiece, WalSegment
from tests.integration.wal_place import SEGMENT, WalPlace, wal_place
from tests.real import require_found


@pytest.fixture(params=[15, 16, 17, 18], ids=lambda major: f"postgres{major}")
def own_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with PostgresServer(require_found(lambda: find_postgres(request.param))) as server:
        yield server


@pytest.fixture
def own17() -> Iterator[PostgresServer]:
    with PostgresServer(require_found(lambda: find_postgres(17))) as server:
        yield server


def promote_in_place(server: PostgresServer) -> None:
    """Begin a new timeline, as a promotion or a point-in-time recovery does."""
    server.stop(grace_seconds=400)
    (server.data_folder / "recovery.signal").touch()
    with open(server.data_folder / "postgresql.auto.conf", "a", encoding="utf-8") as settings:
        settings.write("restore_command = 'false'\n")
    server.adopt()
    server.start()
    assert wait_until(lambda: server.execute("SELECT pg_is_in_recovery()") == [(False,)], limit_seconds=120)


def test_a_restart_is_not_held_up_and_a_new_timeline_is_followed_with_its_history(own_server: PostgresServer) -> None:
    with wal_place(own_server) as place:
        place.start()
        place.wait_safe(place.fill_segments(1))
        place.commit("on timeline 1")
        promote_in_place(own_server)
        assert not [one for one in place.errors if "cannot take its last WAL" in one.message], "it was held up"
        assert "database system is shut down" in own_server.log_tail(1 << 20), "it had to be killed"
        ((switch,),) = own_server.execute(
            "SELECT regexp_replace(pg_read_file('pg_wal/00000002.history'), '^1\t([0-9A-F/]+)\t.*$', '\\1')"
        )
        at = Lsn.parse(switch.strip()).value
        chain = (Reach(timeline=1, end=at), Reach(timeline=2, end=None))
        position = place.commit("on timeline 2")
        end = place.fill_segments(1)

        def reached() -> bool:
            held = place.held(history=chain)
            return held is not None and held.timeline == 2 and held.safe >= max(position, end)

        assert wait_until(reached, limit_seconds=120, every=0.05), (
            f"{place.entries()} {place.facts} {place.errors[-3:]}"
        )
        entries = place.entries()
        assert [one.timeline for one in entries if isinstance(one, WalHistory)] == [2]
        # All of timeline 1 is there up to the switch, and timeline 2 begins with the segment of the switch.
        old = [one for one in entries if isinstance(one, WalPiece) and one.timeline == 1]
        assert max(one.number(SEGMENT) * SEGMENT + one.end for one in old) == at
        first = min(one.number(SEGMENT) for one in entries if isinstance(one, WalSegment) and one.timeline == 2)
        assert first == at // SEGMENT
        place.no_hole()
        place.no_hole(timeline=2)
        place.check_against_server()


def test_a_slot_that_the_server_gave_up_leaves_a_recorded_gap_and_asks_for_a_base_backup(
    own_server: PostgresServer,
) -> None:
    own_server.settings |= {"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    own_server.stop()
    own_server.start()
    with wal_place(own_server, repositories="  second: {path: second}") as place:
        place.start()
        place.wait_safe(place.commit("archived"), "second")
        place.stop()
        safe = place.safe()
        for _ in range(6):
            place.fill_segments(1)
            own_server.execute("CHECKPOINT")
        assert own_server.execute("SELECT wal_status FROM pg_replication_slots") == [("lost",)]
        place.start()
        place.wait_safe(place.commit("after the gap"))
        for name in ("local", "second"):
            (gap,) = [one for one in place.entries(name) if isinstance(one, WalGap)]
            assert gap.start == safe
            assert gap.end % SEGMENT == 0
            assert "gave up the slot" in place.archive(name).reason(gap), place.errors
        assert ("pg", "base") in read_requests(place.system.state_folder)
        assert "is lost" in place.facts["gap"]
        place.check_against_server()
        # Coming back once more finds no second gap.
        place.stop()
        place.start()
        place.wait_safe(place.fill_segments(1))
        assert len([one for one in place.entries() if isinstance(one, WalGap)]) == 1


def test_another_cluster_at_the_same_address_is_refused(
    own_server: PostgresServer, request: pytest.FixtureRequest
) -> None:
    before: PostgresServer = request.getfixturevalue(f"postgres{own_server.major}")
    with wal_place(before) as place:
        place.start()
        place.wait_safe(place.commit("ours"))
        place.stop()
        # The plan is the same, and another cluster answers.
        plan = place.system.loaded.file
        plan.write_text(plan.read_text().replace(f":{before.port}/", f":{own_server.port}/"))
        with wal_place(own_server) as other:
            other.worker._system = type(place.system).from_file(plan)
            other.worker._system.gates = place.system.gates  # type: ignore[attr-defined]
            other.start()
            assert wait_until(lambda: bool(other.errors), limit_seconds=120)
            other.stop()
            assert isinstance(other.errors[0], RefusedError)
            assert "the copies of pg are of cluster" in other.errors[0].message
        assert own_server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]


def test_a_segment_that_the_archive_holds_already_is_a_success_and_is_stored_once(any_postgres: PostgresServer) -> None:
    with wal_place(any_postgres) as place:
        place.start()
        place.wait_safe(place.fill_segments(1))
        place.stop()
        ahead = _segment_ahead(place)
        end = place.fill_segments(3)
        # Whoever stored it, another receiver or a run whose acknowledgement was lost: it comes from the server again.
        place.archive().put_segment(ahead, (any_postgres.data_folder / "pg_wal" / ahead).read_bytes(), clock.now())
        place.start()
        place.wait_safe(end)
        for _ in range(2):  # and after each break, what had come is sent again
            place.break_off()
            place.wait_safe(place.fill_segments(1))
        names = [one.name for one in place.entries() if isinstance(one, WalSegment)]
        assert names.count(ahead) == 1
        assert len(names) == len(set(names))
        place.no_hole()
        place.check_against_server()
        assert not [one for one in place.errors if isinstance(one, RefusedError)]
        assert wait_until(lambda: place.confirmed() >= end, limit_seconds=120)


def _segment_ahead(place: WalPlace) -> str:
    """The name of the segment behind the one that the archive needs next; without pieces that would name its end."""
    held = place.held()
    assert held is not None
    for piece in held.pieces:
        place.archive().delete(piece)
    return segment_name(1, held.end // SEGMENT + 1, SEGMENT)


def test_other_content_under_a_name_that_the_archive_holds_is_refused_and_nothing_is_replaced(
    any_postgres: PostgresServer,
) -> None:
    with wal_place(any_postgres) as place:
        place.start()
        place.wait_safe(place.fill_segments(1))
        place.stop()
        archive, name = place.archive(), _segment_ahead(place)
        theirs = archive.put_segment(name, b"somebody else's WAL", clock.now())
        place.start()
        place.fill_segments(3)
        assert wait_until(lambda: bool(place.errors), limit_seconds=120), f"{name} {place.entries()} {place.facts}"
        assert isinstance(place.errors[0], RefusedError)
        assert f"already holds {name}" in place.errors[0].message
        assert archive.read(theirs) == b"somebody else's WAL"
        assert place.confirmed() <= theirs.number(SEGMENT) * SEGMENT


def test_a_server_that_was_set_back_is_refused(own17: PostgresServer) -> None:
    with wal_place(own17) as place:
        place.start()
        place.wait_safe(place.fill_segments(1))
        place.stop()
        position = place.held()
        assert position is not None
        beyond = segment_name(1, position.end // SEGMENT + 3, SEGMENT)
        for number in range(4):
            name = segment_name(1, position.end // SEGMENT + number, SEGMENT)
            place.archive().put_segment(name, b"from the future", clock.now())
        place.start()
        assert wait_until(lambda: bool(place.errors), limit_seconds=120)
        assert isinstance(place.errors[0], RefusedError)
        assert "set back" in (place.errors[0].hint or "")
        assert any(isinstance(one, WalSegment) and one.name == beyond for one in place.entries())


def test_a_former_primary_is_refused(own17: PostgresServer) -> None:
    with wal_place(own17) as place:
        place.start()
        place.wait_safe(place.commit("before the fail-over"))
        place.stop()
        place.archive().put_history(2, b"1\t0/3000000\tno recovery target specified\n", clock.now())
        place.start()
        assert wait_until(lambda: bool(place.errors), limit_seconds=120)
        assert "already follows timeline 2" in place.errors[0].message


def test_an_idle_server_is_provably_alive_and_its_heartbeat_is_archived(any_postgres: PostgresServer) -> None:
    with wal_place(any_postgres, more="wal_every: 200ms, wal_heartbeat: 500ms") as place:
        place.start()
        assert wait_until(lambda: place.facts.get("beats", 0) >= 3, limit_seconds=120)
        beats = place.facts["beats"]
        heard = place.facts["last_heard"]
        assert wait_until(lambda: place.facts["beats"] > beats and place.facts["last_heard"] > heard, limit_seconds=120)
        assert wait_until(lambda: place.facts.get("lag_seconds", 99) < 3, limit_seconds=120)
        archive = place.archive()
        held = place.held()
        assert held is not None
        found = b"".join(archive.read(one) for one in place.entries() if isinstance(one, WalPiece))
        assert found.count(b"recoup\0heartbeat") >= 2
        assert place.errors == []
        assert len(held.pieces) <= 40


def test_what_waits_too_long_is_let_go_before_the_disk_is_in_danger_and_said(own17: PostgresServer) -> None:
    own17.settings |= {"min_wal_size": "32MB", "max_wal_size": "32MB"}
    own17.stop()
    own17.start()
    with wal_place(own17, more="wal_every: 200ms, wal_heartbeat: 500ms, wal_limit: 40MiB") as place:
        place.start()
        place.wait_safe(place.commit("archived"))
        gate = place.system.gates["local"]
        gate.failing = True
        safe = place.safe()
        place.fill_segments(4)
        assert wait_until(lambda: "slot was dropped" in str(place.facts.get("gap")), limit_seconds=120), place.facts
        for _ in range(3):
            place.fill_segments(2)
            own17.execute("CHECKPOINT")
        gate.failing = False
        place.wait_safe(place.commit("after"), seconds=120)
        (gap,) = [one for one in place.entries() if isinstance(one, WalGap)]
        assert gap.start == safe
        assert ("pg", "base") in read_requests(place.system.state_folder)


def test_a_slow_repository_is_not_waited_for_any_more_before_anything_is_let_go(own17: PostgresServer) -> None:
    more = "wal_every: 200ms, wal_heartbeat: 500ms, wal_limit: 40MiB"
    with wal_place(own17, more=more, repositories="  second: {path: second}") as place:
        place.start()
        place.wait_safe(place.commit("in both"), "second")
        gate = place.system.gates["second"]
        gate.failing = True
        end = place.fill_segments(4)
        assert wait_until(lambda: place.confirmed() >= end, limit_seconds=120), place.facts
        assert wait_until(lambda: place.facts.get("waived") == "second", limit_seconds=120)
        gate.failing = False
        place.wait_safe(place.commit("in both again"), "second")
        place.no_hole("second")
        assert not [one for one in place.entries() if isinstance(one, WalGap)]
        assert place.errors == []


def test_with_protect_archive_nothing_is_let_go(own17: PostgresServer) -> None:
    more = "wal_every: 200ms, wal_heartbeat: 500ms, wal_limit: 20MiB, protect: archive"
    with wal_place(own17, more=more) as place:
        place.start()
        place.wait_safe(place.commit("archived"))
        place.system.gates["local"].failing = True
        end = place.fill_segments(3)
        assert wait_until(lambda: place.facts.get("guard") == "alarm", limit_seconds=120)
        assert own17.execute("SELECT count(*) FROM pg_replication_slots") == [(1,)]
        place.system.gates["local"].failing = False
        place.wait_safe(end)
        assert not [one for one in place.entries() if isinstance(one, WalGap)]


def test_while_a_required_repository_cannot_be_opened_the_others_get_the_wal_and_nothing_is_confirmed(
    own17: PostgresServer,
) -> None:
    with wal_place(own17, repositories="  second: {path: second}") as place:
        place.start()
        place.wait_safe(place.commit("in both"), "second")
        place.stop()
        confirmed = place.confirmed()
        place.system.gates["second"].away = True
        place.start()
        end = place.fill_segments(2)
        place.wait_safe(end)
        assert place.confirmed() <= confirmed
        assert wait_until(lambda: place.facts["mode.second"] == "not opened", limit_seconds=120)
        place.stop()
        place.system.gates["second"].away = False
        place.start()
        place.wait_safe(end, "second")
        assert wait_until(lambda: place.confirmed() >= end, limit_seconds=120)
        place.no_hole("second")


def test_a_server_that_shuts_down_is_let_go_when_its_last_wal_cannot_be_archived(
    own17: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wal_stream, "_SHUTDOWN_PATIENCE_SECONDS", 3.0)
    with wal_place(own17) as place:
        place.start()
        place.wait_safe(place.commit("archived"))
        place.system.gates["local"].failing = True
        place.commit("not archived yet")
        began = clock.monotonic()
        own17.stop(grace_seconds=400)
        assert 3 < clock.monotonic() - began < 400, "and not the time after which it is killed"
        assert wait_until(
            lambda: any("cannot take its last WAL" in one.message for one in place.errors), limit_seconds=120
        ), "it was let go"
        place.system.gates["local"].failing = False
        own17.start()
        place.wait_safe(place.commit("after the restart"))
        place.check_against_server()
        assert isinstance(place.archive(), WalArchive)


def test_much_wal_held_while_nobody_listened_is_archived_and_not_let_go(own17: PostgresServer) -> None:
    with wal_place(own17, more="wal_every: 200ms, wal_heartbeat: 1s, wal_limit: 40MiB") as place:
        place.start()
        place.wait_safe(place.commit("archived"))
        place.stop()
        end = place.fill_segments(6)
        place.start()
        place.wait_safe(end)
        place.no_hole()
        assert "gap" not in place.facts


def test_a_damaged_piece_is_replaced_from_the_server(own17: PostgresServer) -> None:
    with wal_place(own17) as place:
        place.start()
        place.wait_safe(place.commit("archived"))
        place.stop()
        piece = next(one for one in place.entries() if isinstance(one, WalPiece))
        store = place.repository().store
        sealed = store.get(piece.key)
        store.delete(piece.key)
        store.put(piece.key, sealed[:-1] + bytes([sealed[-1] ^ 1]))
        place.start()
        place.wait_safe(place.commit("after"))
        assert any("archived anew" in one.message for one in place.errors)
        place.check_against_server()
