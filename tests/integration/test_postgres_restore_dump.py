"""Dumps restored into real servers: everything comes back, and the old database is never at risk."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.dump import DumpFormat
from recoup.engines.postgres.replace_database import look_at
from recoup.engines.postgres.restore_database import DumpRestore, restore_dump
from recoup.kernel.errors import DamageError, EngineError, RefusedError, UsageError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.process import Command, run
from tests.integration.held_copy import HeldCopy
from tests.integration.logical import (
    both_ways,
    databases_of,
    direct,
    dumped,
    make_roles,
    nasty_database,
    replacing,
    small_database,
)
from tests.real import require_found


@pytest.mark.parametrize("form", list(DumpFormat))
def test_everything_comes_back_from_a_dump(any_postgres: PostgresServer, form: DumpFormat) -> None:
    name = nasty_database(any_postgres)
    for access in both_ways(any_postgres):
        copy = dumped(access, name, form=form)
        any_postgres.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        done = restore_dump(access, copy, DumpRestore(source=name, replacement=replacing(name)))
        assert done.kept is None
        assert overall(done.findings) is Verdict.OK, done.findings
    acl, limit = any_postgres.execute(f"SELECT datacl::text, datconnlimit FROM pg_database WHERE datname = '{name}'")[0]
    assert "recoup_owner=C*/postgres" in acl
    assert "=c/postgres" in acl, "TEMPORARY stays revoked from everybody"
    assert limit == -1
    assert any_postgres.execute("SHOW work_mem", name) == [("8MB",)]
    assert any_postgres.execute("SHOW search_path", name) == [('public, "a ""b"',)]


def test_a_full_database_is_replaced_only_by_force_and_kept(any_postgres: PostgresServer) -> None:
    name = small_database(any_postgres)
    access = direct(any_postgres)
    copy = dumped(access, name)
    any_postgres.execute("DELETE FROM orders WHERE id > 10", name)
    with pytest.raises(RefusedError, match=r"holds 1 tables.*would be replaced") as refused:
        restore_dump(access, copy, DumpRestore(source=name, replacement=replacing(name)))
    assert "--force" in str(refused.value.hint)
    assert any_postgres.execute("SELECT count(*) FROM orders", name) == [(10,)]

    busy = any_postgres.connect(name)
    target = look_at(access, name)
    assert (target.exists, target.tables, target.connections) == (True, 1, 1)
    done = restore_dump(access, copy, DumpRestore(source=name, replacement=replacing(name, force=True)))
    busy.close()
    assert done.kept is not None
    assert any_postgres.execute("SELECT count(*) FROM orders", name) == [(100,)]
    assert any_postgres.execute("SELECT count(*) FROM orders", done.kept) == [(10,)]


def test_an_empty_database_needs_no_force(postgres15: PostgresServer) -> None:
    name, empty = small_database(postgres15), postgres15.new_database("empty")
    for access in both_ways(postgres15):
        copy = dumped(access, name)
        restore_dump(access, copy, DumpRestore(source=name, replacement=replacing(empty)))
        assert postgres15.execute("SELECT count(*) FROM orders", empty) == [(100,)]
        postgres15.execute(f"DROP DATABASE {empty}")
        postgres15.execute(f"CREATE DATABASE {empty}")


def _damage_rows(copy: HeldCopy, stream: str) -> None:
    copy.data[stream] = copy.data[stream].replace(b"order 77\n", b"order 99\n")


def _cut(copy: HeldCopy, stream: str) -> None:
    copy.data[stream] = copy.data[stream][: len(copy.data[stream]) // 2]


def _break_sql(copy: HeldCopy, stream: str) -> None:
    copy.data[stream] = copy.data[stream].replace(b"ADD CONSTRAINT orders_pkey", b"ADD CONSTRAINX orders_pkey")


def _doubled(copy: HeldCopy, stream: str) -> None:
    copy.data[stream] = copy.data[stream].replace(b"77\torder 77\n", b"76\torder 76\n")


@pytest.mark.parametrize("form", list(DumpFormat))
@pytest.mark.parametrize("harm", [_damage_rows, _cut, _break_sql, _doubled], ids=lambda harm: harm.__name__)
def test_a_dump_that_does_not_go_in_whole_leaves_the_old_database_as_it_was(
    postgres15: PostgresServer, harm: Callable[[HeldCopy, str], None], form: DumpFormat
) -> None:
    name = small_database(postgres15)
    for access in both_ways(postgres15):
        copy = dumped(access, name, form=form)
        before = databases_of(postgres15)
        harm(copy, copy.facts["databases"][name]["stream"])
        with pytest.raises((DamageError, EngineError)) as refused:
            restore_dump(access, copy, DumpRestore(source=name, replacement=replacing(name, force=True)))
        assert "Traceback" not in str(refused.value)
        assert databases_of(postgres15) == before, "the fresh database is gone, and nothing else"
        with postgres15.connect(name) as connection:
            assert connection.execute("SELECT count(*), min(note) FROM orders").fetchall() == [(100, "order 1")]


def test_a_changed_row_is_named_by_its_table(postgres15: PostgresServer) -> None:
    name = small_database(postgres15)
    copy = dumped(direct(postgres15), name)
    _damage_rows(copy, f"{name}.dump")
    with pytest.raises(DamageError, match=r'"public"."orders": 100 rows on both sides, and at least one differs'):
        restore_dump(direct(postgres15), copy, DumpRestore(source=name, replacement=replacing(name, force=True)))


def test_missing_roles_are_refused_by_name_or_created_from_the_globals(any_postgres: PostgresServer) -> None:
    role = 'lost "role"'
    make_roles(any_postgres, role, "lost_group")
    quoted = '"lost ""role"""'
    name = small_database(any_postgres)
    any_postgres.execute(f"ALTER ROLE {quoted} LOGIN PASSWORD 'secret-of-role' CONNECTION LIMIT 7")
    any_postgres.execute(f"GRANT lost_group TO {quoted}")
    any_postgres.execute(f"ALTER TABLE orders OWNER TO {quoted}", name)
    copy = dumped(direct(any_postgres), name)
    any_postgres.execute(f"DROP DATABASE {name}")
    any_postgres.execute(f"DROP ROLE {quoted}")
    for access in both_ways(any_postgres):
        with pytest.raises(RefusedError, match='lost "role"') as refused:
            restore_dump(access, copy, DumpRestore(source=name, replacement=replacing(name)))
        assert "--create-roles" in str(refused.value.hint)
    restore_dump(direct(any_postgres), copy, DumpRestore(source=name, replacement=replacing(name), create_roles=True))
    assert any_postgres.execute(
        f"SELECT rolcanlogin, rolconnlimit, rolpassword LIKE 'SCRAM%', pg_has_role(rolname, 'lost_group', 'member') "
        f"FROM pg_authid WHERE rolname = '{role}'"
    ) == [(True, 7, True, True)]
    any_postgres.execute(f"DROP DATABASE {name}")
    any_postgres.execute(f"DROP ROLE {quoted}")


def test_a_missing_extension_is_named_before_anything_is_changed(
    postgres17: PostgresServer, postgres16: PostgresServer
) -> None:
    name = postgres16.new_database("extended")
    copy = dumped(direct(postgres16), name)
    assert copy.fingerprint is not None
    copy.fingerprint["databases"][name]["extensions"]["made_up"] = "1.0"
    before = databases_of(postgres17)
    with pytest.raises(EngineError, match="lacks extensions that the copy needs: made_up"):
        restore_dump(direct(postgres17), copy, DumpRestore(source=name, replacement=replacing(name)))
    assert databases_of(postgres17) == before


def test_a_dump_goes_into_a_newer_major_and_what_is_not_provable_is_said(
    postgres15: PostgresServer, postgres18: PostgresServer
) -> None:
    name = small_database(postgres15)
    copy = dumped(direct(postgres15), name)
    done = restore_dump(direct(postgres18), copy, DumpRestore(source=name, replacement=replacing(name)))
    assert overall(done.findings) in (Verdict.OK, Verdict.UNKNOWN)
    assert postgres18.execute("SELECT count(*) FROM orders", name) == [(100,)]


def test_a_database_that_is_not_in_the_copy_is_a_wrong_call(postgres15: PostgresServer) -> None:
    name = small_database(postgres15)
    copy = dumped(direct(postgres15), name)
    with pytest.raises(UsageError, match="holds no database 'other'") as wrong:
        restore_dump(direct(postgres15), copy, DumpRestore(source="other", replacement=replacing("other")))
    assert name in str(wrong.value.hint)


def test_a_prepared_transaction_refuses_the_swap_and_the_old_database_is_open_again() -> None:
    programs = require_found(lambda: find_postgres(15))
    with PostgresServer(programs, settings={"max_prepared_transactions": "2"}) as server:
        name = small_database(server)
        copy = dumped(direct(server), name)
        with server.connect(name, autocommit=False) as connection:
            connection.execute("DELETE FROM orders")
            connection.execute("PREPARE TRANSACTION 'waiting'")
            connection.commit()
        before = databases_of(server)
        with pytest.raises(RefusedError, match=r"prepared transactions.*waiting"):
            restore_dump(direct(server), copy, DumpRestore(source=name, replacement=replacing(name, force=True)))
        assert server.execute("SELECT count(*) FROM orders", name) == [(100,)]
        server.execute("ROLLBACK PREPARED 'waiting'", name)
        assert databases_of(server) >= before


def test_a_kill_at_any_act_is_resumed_by_the_same_command_and_harms_nothing(
    postgres17: PostgresServer, tmp_path: Path
) -> None:
    name = small_database(postgres17)
    copy = dumped(direct(postgres17), name)
    postgres17.execute("DELETE FROM orders WHERE id > 10", name)
    (tmp_path / "dump").write_bytes(copy.data[f"{name}.dump"])
    work: dict[str, Any] = {
        "url": postgres17.url(),
        "folder": str(postgres17.bin),
        "streams": {f"{name}.dump": str(tmp_path / "dump")},
        "facts": {**copy.facts, "globals": None},
        "fingerprint": copy.fingerprint,
        "source": name,
    }

    def restore(**more: Any) -> tuple[int, dict[str, Any]]:
        argv = [sys.executable, "-m", "tests.integration.killed_restore", json.dumps({**work, **more})]
        ended = run(Command(argv=argv, folder=Path(__file__).parents[2], timeout_seconds=100), expect=None)
        return ended.exit_status, json.loads(ended.stdout or b"{}")

    kill_at = 0
    while True:
        kill_at += 1
        target = f"{name}_{kill_at}"
        postgres17.execute(f"CREATE DATABASE {target} TEMPLATE {name}")
        postgres17.execute(f"ALTER DATABASE {target} SET work_mem TO '9MB'")
        run_id = replacing(target).run_id
        status, _ = restore(database=target, run_id=run_id, kill_at=kill_at, after=kill_at % 2 == 0)
        kept = f"{target}_replaced_{run_id.replace('-', '_')}"
        if status == -9:
            holder = kept if kept in databases_of(postgres17) else target
            assert _rows_if_open(postgres17, holder) in (10, None), "the old rows are there, whole"
            second, answer = restore(database=target, run_id=run_id, kill_at=0, after=False)
            assert (second, answer["kept"]) == (0, kept)
        else:
            assert status == 0
        assert postgres17.execute("SELECT count(*) FROM orders", target) == [(100,)]
        assert postgres17.execute("SELECT count(*) FROM orders", kept) == [(10,)]
        mine = {found for found in databases_of(postgres17) if found.startswith(f"{target}_")}
        assert mine == {kept}, "nothing half-written is left"
        postgres17.execute(f"DROP DATABASE {target}")
        postgres17.execute(f"DROP DATABASE {kept}")
        if status == 0:
            break
    assert kill_at > 10, "the restore has more acts than that: were they counted?"


def _rows_if_open(server: PostgresServer, database: str) -> int | None:
    if server.execute(f"SELECT datallowconn FROM pg_database WHERE datname = '{database}'") == [(False,)]:
        return None
    return int(server.execute("SELECT count(*) FROM orders", database)[0][0])
