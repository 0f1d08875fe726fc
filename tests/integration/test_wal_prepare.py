"""``recoup check --prepare`` and ``--undo`` on real servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recoup.assembly.postgres_address import open_stream
from recoup.assembly.protect.prepare import preparations, wal_findings
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.access import ProgramAccess
from recoup.engines.postgres.prepare import carry_out, plan_preparation, plan_undo, take_back
from recoup.kernel.errors import EngineError
from recoup.kernel.finding import Verdict
from recoup.kernel.process import LocalRunner
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


def _closed(server: PostgresServer) -> tuple[ProgramAccess, Secret, Path]:
    """A server that lets nobody in over its network, and its file; as reached beside it, and from here."""
    hba = server.data_folder / "pg_hba.conf"
    hba.write_text("local all all trust\nhost all all 127.0.0.1/32 reject\n# the end, and no new line")
    hba.chmod(0o640)
    inside = {"PGHOST": server.execute("SHOW unix_socket_directories")[0][0], "PGPORT": str(server.port)}
    server.execute(f"ALTER ROLE {server.user} PASSWORD 'a word'")
    server.execute("SELECT pg_reload_conf()")
    address = Secret(f"postgresql://{server.user}:a%20word@127.0.0.1:{server.port}/postgres")
    return ProgramAccess(LocalRunner(), user=server.user, environment=inside, folder=None), address, hba


def test_the_line_that_allows_replication_is_added_once_and_only_it_is_removed(own_server: PostgresServer) -> None:
    access, url, hba = _closed(own_server)
    before, owned = hba.read_bytes(), hba.stat()
    found = plan_preparation(access, url, "recoup_x", keep_bytes=1 << 30)
    assert [(step.kind, step.by_hand) for step in found.steps] == [("setting", None), ("hba", None), ("slot", None)]
    line = found.steps[1].note
    for step in (*found.steps[:2], found.steps[1], found.steps[2]):
        carry_out(access, url, step)
    assert hba.read_bytes() == line.encode() + b"\n" + before
    kept = hba.stat()
    assert (kept.st_mode, kept.st_uid, kept.st_gid) == (owned.st_mode, owned.st_uid, owned.st_gid)
    assert plan_preparation(access, url, "recoup_x", keep_bytes=1 << 30).steps == ()

    own = hba.read_text().replace("# the end", "host  replication  other  samenet  md5\n# the end")
    hba.write_text(own)  # somebody else's line, added meanwhile
    back = plan_undo(access, "recoup_x", (("hba", line),))
    assert [step.kind for step in back.steps] == ["slot", "hba"]
    for step in back.steps:
        take_back(access, url, step)
    assert hba.read_text().rstrip("\n") == own.removeprefix(line + "\n")
    take_back(access, url, back.steps[1])  # again: nothing is left to remove
    assert [path.name for path in hba.parent.glob("*.recoup")] == []


def test_a_broken_file_is_not_touched_and_a_line_that_does_not_help_is_removed(own_server: PostgresServer) -> None:
    access, url, hba = _closed(own_server)
    good = hba.read_text()
    step = next(one for one in plan_preparation(access, url, "x", keep_bytes=1 << 30).steps if one.kind == "hba")
    hba.write_text("nonsense\n" + good)
    with pytest.raises(EngineError, match=r"line 1 of pg_hba.conf in .* is wrong"):
        carry_out(access, url, step)
    assert hba.read_text() == "nonsense\n" + good
    hba.write_text(good)
    wrong = Secret(url.reveal().replace("a%20word", "another"))
    with pytest.raises(EngineError, match="password authentication failed"):
        carry_out(access, wrong, step)
    assert hba.read_text().rstrip("\n") == good
