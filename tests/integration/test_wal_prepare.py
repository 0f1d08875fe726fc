"""``recoup check --prepare`` and ``--undo`` on real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from recoup.assembly.postgres_address import open_stream
from recoup.assembly.prepare import preparations, wal_findings
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.kernel.finding import Verdict
from recoup.kernel.secret import Secret
from recoup.plan.services import PostgresService
from tests.acceptance.workplace import new_workplace
from tests.integration.wal_place import GatedSystem, wal_place
from tests.real import require_found


@pytest.fixture(params=[15], ids=lambda major: f"postgres{major}")
def own_server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    with PostgresServer(require_found(lambda: find_postgres(request.param))) as server:
        yield server


def as_role(system: GatedSystem, server: PostgresServer, role: str) -> None:
    """Give the plan another role."""
    file = system.loaded.file
    file.write_text(file.read_text().replace(server.url(), server.url(user=role)))
    state, gates = system.state_folder, system.gates
    system.__init__(GatedSystem.from_file(file).loaded)  # type: ignore[misc]
    system.__dict__["state_folder"] = state
    system.gates = gates


def slots(server: PostgresServer) -> int:
    ((count,),) = server.execute("SELECT count(*)::int FROM pg_replication_slots")
    assert isinstance(count, int)
    return count


def test_everything_a_superuser_can_do_is_done_once_and_taken_back(own_server: PostgresServer) -> None:
    with wal_place(own_server) as place:
        (before,) = preparations(place.system, undo=False)
        assert [step.kind for step in before.steps] == ["setting", "slot"]
        assert slots(own_server) == 0
        service = place.system.plan.services["pg"]
        assert isinstance(service, PostgresService)
        assert Verdict.FAILED in {one.verdict for one in wal_findings(place.system, "pg", service)}
        for step in before.steps:
            before.do(step)
        assert own_server.execute("SHOW max_slot_wal_keep_size") == [("10GB",)]
        assert slots(own_server) == 1
        assert [one.steps for one in preparations(place.system, undo=False)] == [()]
        assert {one.verdict for one in wal_findings(place.system, "pg", service)} == {Verdict.OK}
        (back,) = preparations(place.system, undo=True)
        assert [step.kind for step in back.steps] == ["slot", "setting"]
        for step in back.steps:
            back.do(step)
        assert own_server.execute("SHOW max_slot_wal_keep_size") == [("-1",)]
        assert slots(own_server) == 0
        assert [one.steps for one in preparations(place.system, undo=True)] == [()]


def test_a_limit_that_was_there_before_is_not_taken_back(own_server: PostgresServer) -> None:
    own_server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '3GB'")
    own_server.execute("SELECT pg_reload_conf()")
    with wal_place(own_server) as place:
        (before,) = preparations(place.system, undo=False)
        assert [step.kind for step in before.steps] == ["slot"]
        before.do(before.steps[0])
        (back,) = preparations(place.system, undo=True)
        assert [step.kind for step in back.steps] == ["slot"]


def test_for_a_role_without_rights_the_exact_statements_are_given_for_somebody_else(own_server: PostgresServer) -> None:
    own_server.execute('CREATE ROLE "an ""odd"" role" LOGIN')
    with wal_place(own_server) as place:
        as_role(place.system, own_server, 'an "odd" role')
        (found,) = preparations(place.system, undo=False)
        texts = [step.text for step in found.steps]
        assert texts[0] == 'ALTER ROLE "an ""odd"" role" REPLICATION;'
        assert all(step.by_hand for step in found.steps)
        own_server.execute(texts[0])
        (found,) = preparations(place.system, undo=False)
        assert [step.kind for step in found.steps] == ["setting", "slot"]


def test_without_a_replication_line_the_connection_through_the_database_is_enough(own_server: PostgresServer) -> None:
    hba = own_server.data_folder / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text("host replication all 127.0.0.1/32 reject\nhost postgres all 127.0.0.1/32 trust\n")
    own_server.execute("SELECT pg_reload_conf()")
    try:
        with wal_place(own_server) as place:
            (found,) = preparations(place.system, undo=False)
            # The connection falls back to a replication connection through the database, so nothing is missing.
            assert "hba" not in [step.kind for step in found.steps]
    finally:
        hba.write_text(before)
        own_server.execute("SELECT pg_reload_conf()")


def test_too_few_slots_are_said_to_need_a_restart_and_nothing_is_restarted(own_server: PostgresServer) -> None:
    own_server.settings |= {"max_replication_slots": "1"}
    own_server.stop()
    own_server.start()
    own_server.execute("SELECT pg_create_physical_replication_slot('somebody')")
    with wal_place(own_server) as place:
        (found,) = preparations(place.system, undo=False)
        (step,) = [one for one in found.steps if one.kind == "restart"]
        assert step.text == "ALTER SYSTEM SET max_replication_slots = '6';"
        assert "needs a restart" in (step.by_hand or "")


def test_the_command_prints_first_asks_and_ends_with_what_is_left(own_server: PostgresServer) -> None:
    with new_workplace() as work:
        work.add_postgres(own_server, more=", wal: continuous")
        work.write_plan()
        seen = work.json("check", "--prepare", expect=4)
        assert (seen["done"], seen["left"]) == (0, 2)
        assert "ALTER SYSTEM SET max_slot_wal_keep_size" in seen["services"][0]["steps"][0]["text"]
        assert slots(own_server) == 0
        done = work.recoup("check", "--prepare", "--yes")
        assert "nothing is left to do" in done.out
        assert slots(own_server) == 1
        assert "nothing to do" in work.recoup("check", "--prepare").out
        assert "nothing is left to do" in work.recoup("check", "--undo", "--yes").out
        assert slots(own_server) == 0
        work.recoup("check", "--undo", "--prepare", expect=2)


def test_a_stream_through_a_database_does_not_hold_the_one_that_is_restored(own_server: PostgresServer) -> None:
    database = own_server.new_database("shop")
    hba = own_server.data_folder / "pg_hba.conf"
    hba.write_text("host replication all 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 trust\n")
    own_server.execute("SELECT pg_reload_conf()")
    with open_stream(Secret(own_server.url(database)), application_name="test") as wire:
        assert wire.identify().timeline == 1
        own_server.execute(f'ALTER DATABASE "{database}" RENAME TO "{database}_old"')
