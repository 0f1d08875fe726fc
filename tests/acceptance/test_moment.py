"""``recoup restore --to-time`` and ``recoup windows`` as users call them; in a folder, and in a Compose volume."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recoup.demo.host import temporary_folder
from recoup.repository.repository import Repository, open_or_create, open_repository
from recoup.repository.seal import Key
from recoup.repository.wal_archive import WalArchive
from recoup.storage.local import LocalStore
from tests.acceptance.test_compose_stack import Operator, operator
from tests.acceptance.workplace import KEY, Workplace, wait_for
from tests.integration.wal_story import own, rows_in, story
from tests.testhost.fixtures import Stack

__all__ = ["operator"]

_KEY = Key.from_text(KEY)


def test_windows_and_every_way_to_say_a_moment_from_the_command_line(work: Workplace) -> None:
    local = open_or_create("local", LocalStore(work.local, create=True), _KEY)
    with story(17, [local]) as told, temporary_folder("restored", mode=0o755) as place:
        work.add_postgres(told.server)
        work.write_plan()
        told.commit()
        told.base()
        middle = told.commit(2)
        told.archive()
        told.commit()
        told.archive()
        shown = work.recoup("windows").out
        assert "postgres (postgres)" in shown
        assert "timeline 1" in shown
        (service,) = work.json("windows", "postgres")["services"]
        (window,) = service["windows"]
        assert (window["timeline"], service["gaps"], service["points"]) == (1, [], [])

        asked = work.recoup("restore", "--to-lsn", str(middle.lsn), "--before", "--destination", "x", "--plan").out
        assert "would restore postgres into x" in asked
        assert f"to before LSN {middle.lsn}" in asked
        folder = own(told, place / "restored")
        done = work.recoup("restore", "--to-time", middle.time.isoformat(), "--destination", str(folder), "--json")
        (finding,) = done.json["findings"]
        assert finding["verdict"] == "ok"
        assert "recovery stopping before commit of transaction" in finding["detail"]
        assert rows_in(told, folder) == [1, 2, 3]
        again = work.recoup("restore", "--to-time", "latest", "--destination", str(folder), expect=5)
        assert "holds the PostgreSQL 17 cluster" in again.err

        beyond = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        refused = work.recoup("restore", "--to-time", beyond, "--destination", str(place / "no"), expect=5)
        assert "is beyond the WAL that is archived" in refused.err
        assert "on timeline 1" in refused.err
        assert not (place / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--to-time", "yesterday"), "is no instant"),
        (("--to-time", "2026-11-23"), "is a day and no instant"),
        (("--to-lsn", "12"), "not a WAL position"),
        (("--to-time", "latest", "--to-xid", "9"), "exactly one of"),
        (("--before",), "exactly one of"),
        (("--to-name", "x", "--before"), "makes no sense"),
        (("--to-time", "latest", "--service", "files"), "no moments between them"),
        (("--to-time", "latest", "--service", "nobody"), "there is no service"),
        (("--to-time", "latest", "--stack", "now"), "leave out"),
    ],
)
def test_what_makes_no_sense_is_said(work: Workplace, arguments: tuple[str, ...], why: str) -> None:
    open_or_create("local", LocalStore(work.local, create=True), _KEY)
    work.services["postgres"] = "{engine: postgres, url: 'postgresql://nobody@127.0.0.1:1/x'}"
    work.services["files"] = "{engine: files, paths: [.]}"
    work.write_plan()
    assert why in work.recoup("restore", *arguments, expect=2).err


# -- in the volume of a Compose service ----------------------------------------------------------------------------


def _repository(plan: Path, folder: Path) -> Repository:
    key = next(path for path in (plan / "recoup.key",) if path.exists()).read_text().strip()
    return open_repository("local", LocalStore(folder), Key.from_text(key))


def _archive(stack: Stack, repository: Repository) -> None:
    """Archive the WAL of the container, as far as it is whole."""
    identifier = stack.sql("select system_identifier from pg_control_system()").strip()
    archive = WalArchive(repository, "postgres", identifier)
    stack.sql("select pg_switch_wal()")
    current = stack.sql("select pg_walfile_name(pg_current_wal_flush_lsn() + 1)").strip()
    held = {getattr(entry, "name", "") for entry in archive.entries()}
    for name in stack.sql("select name from pg_ls_waldir() order by name").split():
        if len(name) == 24 and name < current and name not in held:
            where = ["docker", "compose", "-f", str(stack.file), "--env-file", str(stack.env_file), "exec", "-T"]
            done = subprocess.run(
                [*where, "postgres", "cat", f"/var/lib/postgresql/data/pg_wal/{name}"],
                cwd=stack.folder, env={**os.environ, **stack.machine.docker_environment}, capture_output=True,
                check=True,
            )  # fmt: skip
            archive.put_segment(name, done.stdout, datetime.now(UTC))


@pytest.mark.testhost
@pytest.mark.xdist_group("testhost")
def test_a_compose_database_goes_back_to_before_the_accident_in_its_volume(operator: Operator, tmp_path: Path) -> None:
    stack = operator.stack
    operator.run("backup", "postgres", "--kind", "base")
    repository = _repository(stack.folder, tmp_path / "backups")
    stack.sql("insert into orders (client_id, what, price) values (1, 'precious', 99)")
    good = stack.sql("select count(*), sum(price) from orders")
    # One transaction: the position is that before its commit.
    accident = stack.sql("truncate orders cascade; select pg_current_wal_insert_lsn()").strip()
    assert stack.sql("select count(*) from orders").strip() == "0"
    _archive(stack, repository)
    (service,) = [
        one for one in json.loads(operator.run("windows", "--json"))["services"] if one["service"] == "postgres"
    ]
    assert len(service["windows"]) == 1

    asked = operator.run("restore", "--to-time", "latest", "--service", "postgres", expect=5)
    assert "nobody agreed to replace it" in asked
    assert stack.sql("select count(*) from orders").strip() == "0"
    assert stack.answers()

    said = operator.run("restore", "--to-lsn", accident, "--before", "--service", "postgres", "--yes")
    assert "ok      the recovery stopped at its target" in said
    assert "ok      the running cluster is the recovered one" in said
    assert "what was replaced is kept" in said
    assert stack.sql("select count(*), sum(price) from orders") == good
    wait_for(stack.answers, "the application answers again")
    left = stack.compose("exec", "-T", "postgres", "ls", "-A", "/var/lib/postgresql/data").split()
    assert not {"recovery.signal", "pgsql_tmp_recoup_recovery", "pgsql_tmp_recoup_incoming"} & set(left)
    assert stack.sql("show restore_command").strip() == ""
