"""What a recovery sees before it stops anything, on real servers: damage is named, and what is well is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recoup.assembly.recover.confirm import confirm
from recoup.assembly.recover.runs import JOURNAL, run_folder
from recoup.assembly.restore.place_files import note_brought
from recoup.assembly.system import System
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.kernel import clock, ids
from recoup.kernel.finding import Verdict
from recoup.recovery import progress as written
from recoup.recovery.journal import Journal
from recoup.recovery.runbook import Situation
from recoup.recovery.step import Done
from tests.integration.logical import small_database
from tests.integration.planted_cluster import without_checksums
from tests.integration.planted_damage import flip_in_header
from tests.integration.recovery_place import RecoveryPlace, recovering, recovery_place
from tests.real import require_found


def confirmed(place: RecoveryPlace, situation: Situation, service: str, said: list[str] | None = None) -> Done:
    with recovering(place, situation, service, said=said) as (recovery, step):
        return confirm(recovery, step)


def test_a_table_that_is_hurt_is_named_and_one_that_is_well_is_not_replaced(server_folder: Path) -> None:
    with PostgresServer(require_found(lambda: find_postgres(17))) as server:
        name = small_database(server, rows=2000)
        without_checksums(server)
        url = json.dumps(server.url(name))
        place = recovery_place(server_folder / "plan", f"{{postgres: {{engine: postgres, url: {url}}}}}")
        place.repository  # noqa: B018 - it is made

        (well,) = confirmed(place, "database-corruption", "postgres").findings
        assert well.verdict is Verdict.FAILED
        assert "nothing is wrong" in well.detail
        assert "--skip confirm --because" in (well.hint or "")

        with server.connect(name) as connection:
            ((path,),) = connection.execute("SELECT pg_relation_filepath('orders')").fetchall()
            connection.execute("CREATE EXTENSION amcheck")
        server.stop()
        flip_in_header(server.data_folder / path)
        server.start()
        said: list[str] = []
        done = confirmed(place, "database-corruption", "postgres", said)
        (hurt,) = done.findings
        assert hurt.verdict is Verdict.OK, hurt
        assert "public.orders" in hurt.detail
        assert "page 0" in hurt.detail
        assert {one["what"] for one in done.data["hurt"]} >= {f"{name}: public.orders"}
        assert any("to name what is hurt" in one for one in said)

        server.stop()
        (silent,) = confirmed(place, "database-corruption", "postgres").findings
        assert silent.verdict is Verdict.UNKNOWN, "whether it is stopped or damaged cannot be seen by an address"


def test_an_application_whose_compose_file_is_gone_is_lost(server_folder: Path) -> None:
    place = recovery_place(
        server_folder / "plan", "{api: {engine: compose}}", more="compose: {file: docker-compose.yml}\n"
    )
    place.repository  # noqa: B018 - it is made
    (found,) = confirmed(place, "application-loss", "api").findings
    assert found.verdict is Verdict.OK, found
    assert "docker-compose.yml (it is missing)" in found.detail


def test_an_application_whose_plan_had_to_be_brought_back_is_lost_whatever_else_can_be_seen(
    server_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECOUP_STATE", str(tmp_path))
    place = recovery_place(
        server_folder / "plan", "{api: {engine: compose}}", more="compose: {file: docker-compose.yml}\n"
    )
    place.repository  # noqa: B018 - it is made
    system = System.from_file(place.plan)
    (system.folder / "docker-compose.yml").write_text("services: {api: {image: api}}\n")

    def verdict() -> Verdict:
        return confirmed(place, "application-loss", "api").findings[0].verdict

    assert verdict() is not Verdict.OK
    note_brought(system.state_folder, system.folder, "20261123-213332-fnt660")
    assert verdict() is Verdict.OK
    earlier = run_folder(system.state_folder, ids.new_id(clock.now()))
    earlier.mkdir(parents=True)
    with Journal(earlier / JOURNAL, who="a", host="b", boot="1") as it:
        it.append(written.RUN_BEGUN, run="r", situation="application-loss", order=1, steps=[])
    assert verdict() is not Verdict.OK, "that was brought for an earlier run"
