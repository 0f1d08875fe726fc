"""A base backup through a real repository: sealed, read back, checked, restored, booted."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recoup.demo.programs import Programs
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.base_check import check_base_copy
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.kernel import clock, ids
from recoup.kernel.errors import DamageError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.copy_writer import ArtefactWriter, Header
from recoup.repository.repository import Repository, open_or_create
from recoup.repository.seal import Key
from recoup.storage.local import LocalStore


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return open_or_create("local", LocalStore(tmp_path / "repository", create=True), Key.generate())


def stored(server: PostgresServer, repository: Repository) -> ArtefactReader:
    header = Header(
        id=ids.new_id(clock.now()), system="test", service="postgres", engine="postgres", kind="base", label=None,
        begun=clock.now(),
    )  # fmt: skip
    with ArtefactWriter(header, [repository]) as writer:
        facts = take_base_backup(Secret(server.url()), writer, label="through a repository")
        outcome = writer.finish(facts)
    return ArtefactReader(repository.manifest(outcome.manifest.id), [repository])


def test_a_base_backup_survives_its_repository(
    postgres17: PostgresServer, repository: Repository, server_folder: Path
) -> None:
    space = server_folder / "space"
    space.mkdir()
    if postgres17.owner is not None:
        os.chown(space, *postgres17.owner)
    database = postgres17.new_database("sealed")
    postgres17.execute(f"CREATE TABLESPACE sealed LOCATION '{space}'")
    try:
        postgres17.execute(
            "CREATE TABLE far TABLESPACE sealed AS SELECT i, md5(i::text) t FROM generate_series(1, 50000) i", database
        )
        postgres17.execute("CREATE TABLE near AS SELECT i, md5(i::text) t FROM generate_series(1, 50000) i", database)
        reader = stored(postgres17, repository)
    finally:
        postgres17.execute(f'DROP DATABASE "{database}"')
        postgres17.execute("DROP TABLESPACE sealed")
    assert len(reader.streams()) == 3
    assert overall(check_base_copy(reader)) is Verdict.OK
    placed = restore_base_to_folder(reader, server_folder / "restored", owner=postgres17.owner)
    with PostgresServer(Programs(path=postgres17.bin), data_folder=placed.folder) as restored:
        assert restored.execute("SELECT (SELECT count(*) FROM far), (SELECT count(*) FROM near)", database) == [
            (50000, 50000)
        ]


def test_damage_in_the_object_is_a_finding_and_stops_a_restore(
    postgres17: PostgresServer, repository: Repository, tmp_path: Path
) -> None:
    reader = stored(postgres17, repository)
    (path,) = (tmp_path / "repository").rglob("base.tar.zst.enc")
    path.chmod(0o600)
    with open(path, "r+b") as sealed:
        sealed.seek(path.stat().st_size // 2)
        byte = sealed.read(1)
        sealed.seek(-1, os.SEEK_CUR)
        sealed.write(bytes([byte[0] ^ 1]))
    findings = check_base_copy(reader)
    assert overall(findings) is Verdict.FAILED
    with pytest.raises(DamageError):
        restore_base_to_folder(reader, tmp_path / "restored")
    assert not (tmp_path / "restored/global/pg_control").exists()
