"""Incremental backups of real servers: what they hold, what they come back as, and when they are refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from recoup.demo.host import temporary_folder, wait_until
from recoup.demo.programs import Programs
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres import place_chain
from recoup.engines.postgres.access import DirectAccess, ProgramAccess
from recoup.engines.postgres.base_by_program import take_base_backup_by_program
from recoup.engines.postgres.base_check import check_base_copy
from recoup.engines.postgres.base_fingerprint import compare_with_base
from recoup.engines.postgres.earlier import earlier_backup
from recoup.engines.postgres.identity import describe_folder
from recoup.engines.postgres.incremental import check_incremental
from recoup.engines.postgres.place_chain import restore_chain_to_folder
from recoup.engines.postgres.place_folder import restore_base_to_folder
from recoup.kernel.errors import DamageError, EngineError, RefusedError
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.process import LocalRunner
from recoup.kernel.secret import Secret
from tests.integration.incrementals import Chain, summarizing, take, take_chain
from tests.integration.postgres_copies import MemoryCopy


@pytest.fixture(scope="module", params=[17, 18], ids=lambda major: f"postgres{major}")
def chain(request: pytest.FixtureRequest) -> Iterator[Chain]:
    with summarizing(request.param) as server, temporary_folder("chain") as folder:
        yield take_chain(server, folder)


@pytest.mark.parametrize("length", [2, 3])
def test_every_backup_of_a_chain_comes_back_as_it_was(chain: Chain, server_folder: Path, length: int) -> None:
    server = chain.server
    placed = restore_chain_to_folder(
        chain.copies[:length], server_folder / "restored", owner=server.owner, programs=[server.bin]
    )
    assert not list(server_folder.rglob("recoup-*"))
    with PostgresServer(Programs(path=server.bin), data_folder=placed.folder) as restored:
        findings = compare_with_base(chain.prints[length - 1], DirectAccess(Secret(restored.url())))
        assert overall(findings) is Verdict.OK, findings


@pytest.mark.parametrize("major", [17, 18])
def test_rows_that_were_deleted_between_the_backups_do_not_come_back_through_an_index(
    major: int, server_folder: Path
) -> None:
    with summarizing(major, autovacuum="off") as server:
        for statement in (
            "CREATE TABLE t AS SELECT i, repeat('x', 100) AS note FROM generate_series(1, 20000) i",
            "ALTER TABLE t ADD PRIMARY KEY (i)",
            "VACUUM (FREEZE, ANALYZE) t",  # the visibility map says of every page that all its rows are there
        ):
            server.execute(statement)
        base = take(server)
        server.execute("DELETE FROM t WHERE i % 100 = 0")
        copies = [base, take(server, base)]
        placed = restore_chain_to_folder(copies, server_folder / "restored", owner=server.owner, programs=[server.bin])
    with PostgresServer(Programs(path=server.bin), data_folder=placed.folder) as restored, restored.connect() as asked:
        for setting in ("enable_seqscan", "enable_bitmapscan", "enable_indexscan"):
            asked.execute(f"SET {setting} = off".encode())
        assert asked.execute("SELECT count(*) FROM t WHERE i > 0").fetchall() == [(19800,)]


def test_an_incremental_backup_is_small_and_intact(chain: Chain) -> None:
    base, *later = (len(copy.data["base.tar"]) for copy in chain.copies)
    assert all(one < base for one in later)
    for copy in chain.copies:
        findings = check_base_copy(copy)
        assert overall(findings) is Verdict.OK, findings


# -- what comes back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chain", [18], indirect=True)
def test_the_room_that_is_asked_for_is_enough_and_not_much_more(
    chain: Chain, server_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, int]] = []
    monkeypatch.setattr(place_chain, "require_room", lambda needs: asked.extend(needs))
    folder = server_folder / "restored"
    restore_chain_to_folder(chain.copies, folder, owner=chain.server.owner, programs=[chain.server.bin])
    restored = sum(path.stat().st_size for path in server_folder.rglob("*") if path.is_file() and not path.is_symlink())
    fetched = sum(len(copy.data[name]) for copy in chain.copies for name in copy.data if name.endswith(".tar"))
    assert sum(size for _, size in asked) >= restored
    assert sum(size for _, size in asked) <= fetched + 2 * restored


@pytest.mark.parametrize("chain", [17], indirect=True)
def test_without_room_nothing_is_fetched(chain: Chain, server_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statvfs = os.statvfs

    def full(path: Path) -> SimpleNamespace:
        seen = statvfs(path)
        return SimpleNamespace(f_bfree=100, f_bavail=100, f_frsize=seen.f_frsize)

    monkeypatch.setattr(os, "statvfs", full)
    with pytest.raises(EngineError, match="not enough room"):
        restore_chain_to_folder(
            chain.copies, server_folder / "restored", owner=chain.server.owner, programs=[chain.server.bin]
        )


@pytest.mark.parametrize("chain", [17], indirect=True)
@pytest.mark.parametrize(
    ("order", "error"),
    [((1, 0), "begins with an incremental"), ((0, 2), "do not follow"), ((0, 2, 1), "do not follow"), ((0, 0), "do")],
)
def test_a_wrong_order_is_refused_before_anything_is_written(
    chain: Chain, server_folder: Path, order: tuple[int, ...], error: str
) -> None:
    with pytest.raises(DamageError, match=error):
        restore_chain_to_folder(
            [chain.copies[one] for one in order], server_folder / "restored", programs=[chain.server.bin]
        )
    assert list(server_folder.iterdir()) == []


@pytest.mark.parametrize("chain", [18], indirect=True)
def test_an_incremental_backup_alone_is_refused(chain: Chain, server_folder: Path) -> None:
    with pytest.raises(DamageError, match="incremental"):
        restore_chain_to_folder([chain.copies[1]], server_folder / "restored")
    with pytest.raises(DamageError, match="incremental"):
        restore_base_to_folder(chain.copies[1], server_folder / "restored")
    assert list(server_folder.iterdir()) == []


def test_without_the_programs_of_its_version_a_chain_is_not_even_fetched(chain: Chain, server_folder: Path) -> None:
    with pytest.raises(EngineError, match=f"no pg_combinebackup of PostgreSQL {chain.server.major}") as caught:
        restore_chain_to_folder(chain.copies, server_folder / "restored", programs=[])
    assert caught.value.hint is not None
    assert f"postgresql-{chain.server.major}" in caught.value.hint
    assert list(server_folder.iterdir()) == []


@pytest.mark.parametrize("chain", [18], indirect=True)
def test_when_combining_fails_the_folder_does_not_start_and_the_same_call_finishes_it(
    chain: Chain, server_folder: Path
) -> None:
    server, folder = chain.server, server_folder / "restored"
    broken = server_folder / "broken"
    broken.mkdir(mode=0o755)
    program = broken / "pg_combinebackup"
    program.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {server.bin}/pg_combinebackup --version\n'
        f"echo 'pg_combinebackup: error: could not write file: No space left on device' >&2\nexit 1\n"
    )
    program.chmod(0o755)
    with pytest.raises(EngineError, match="No space left") as caught:
        restore_chain_to_folder(chain.copies, folder, owner=server.owner, programs=[broken])
    assert caught.value.hint is not None
    assert "Make room" in caught.value.hint
    assert describe_folder(folder).unfinished_restore
    assert not (folder / "global/pg_control").exists()
    placed = restore_chain_to_folder(chain.copies, folder, owner=server.owner, programs=[server.bin])
    assert placed.started_over
    with PostgresServer(Programs(path=server.bin), data_folder=folder) as restored:
        assert restored.execute("SELECT count(*) FROM wide WHERE t = 'twice'", chain.database) == [(100,)]


@pytest.mark.parametrize("chain", [17], indirect=True)
def test_a_damaged_block_of_an_incremental_file_is_found(chain: Chain) -> None:
    copy = MemoryCopy()
    whole = chain.copies[1]
    copy.data, copy.contents, copy.copy_facts = dict(whole.data), dict(whole.contents), whole.copy_facts
    changed = next(one for one in whole.members("base.tar") if "INCREMENTAL." in one.path and one.size_bytes > 20_000)
    data = bytearray(copy.data["base.tar"])
    data[changed.offset + 9_000] ^= 1
    copy.replace("base.tar", bytes(data))
    wrong = [one for one in check_base_copy(copy) if one.verdict is Verdict.FAILED]
    assert [one.check for one in wrong] == ["every file is what the server sent"]
    assert changed.path in wrong[0].detail


# -- what is refused ---------------------------------------------------------------------------------------------


def test_a_server_without_summaries_is_refused_with_the_way_out() -> None:
    with summarizing(17, summarize_wal="off") as server:
        base = take(server)
        with pytest.raises(RefusedError, match="summarize_wal is off") as caught:
            take(server, base)
        assert caught.value.hint is not None
        assert "ALTER SYSTEM SET summarize_wal = on" in caught.value.hint
        finding = check_incremental(DirectAccess(Secret(server.url())))
        assert (finding.verdict, finding.hint) == (Verdict.FAILED, caught.value.hint)
        # turned on afterwards, what happened since the base backup is not summarized
        server.settings["summarize_wal"] = "on"
        server.stop()
        server.start()
        with pytest.raises(RefusedError, match="summaries") as caught:
            take(server, base)
        assert caught.value.hint is not None
        assert "Take a base backup" in caught.value.hint
        take(server, take(server))


def test_another_timeline_another_cluster_and_an_old_server_are_refused(
    chain: Chain, postgres16: PostgresServer
) -> None:
    with summarizing(17) as server:
        base = take(server)
        with pytest.raises(RefusedError, match="another cluster"):
            take(chain.server, base)
        server.stop()
        (server.data_folder / "recovery.signal").touch()
        server.settings["restore_command"] = "false"
        server.start()
        promoted = [(False,)]
        assert wait_until(lambda: server.execute("SELECT pg_is_in_recovery()") == promoted, limit_seconds=120)
        with pytest.raises(RefusedError, match="is on timeline 2, and earlier is of timeline 1"):
            take(server, base)
        take(server, take(server))
    old = take(postgres16)
    with pytest.raises(RefusedError, match="they came with PostgreSQL 17"):
        take(postgres16, old)


def test_removed_summaries_and_a_damaged_manifest_are_refused() -> None:
    with summarizing(18) as server:
        base = take(server)
        server.execute("CREATE TABLE t AS SELECT generate_series(1, 1000)")
        hurt = MemoryCopy()
        hurt.data, hurt.contents, hurt.copy_facts = dict(base.data), dict(base.contents), base.copy_facts
        hurt.replace("backup_manifest", base.data["backup_manifest"].replace(b"PG_VERSION", b"PG_VERSIOM", 1))
        with pytest.raises(RefusedError, match="manifest"):
            take(server, hurt)
        take(server, base)
        for path in (server.data_folder / "pg_wal/summaries").iterdir():
            path.unlink()
        with pytest.raises(RefusedError, match="summaries"):
            take(server, base)


# -- by the server's own program ---------------------------------------------------------------------------------


@pytest.mark.parametrize("major", [17, 18])
def test_inside_a_container_the_servers_own_program_takes_the_same_chain(major: int, server_folder: Path) -> None:
    with summarizing(major) as server:
        access = ProgramAccess(
            LocalRunner(),
            folder=server.bin,
            environment={"PGHOST": str(server.socket_folder), "PGPORT": str(server.port)},
        )
        server.execute("CREATE TABLE t AS SELECT i, md5(i::text) AS t FROM generate_series(1, 50000) i")
        copies: list[MemoryCopy] = []
        for number in range(3):
            copy = MemoryCopy()
            since = earlier_backup(f"copy{number}", copies[-1]) if copies else None
            copy.copy_facts = take_base_backup_by_program(access, copy, label="in the container", since=since)
            copies.append(copy)
            server.execute(f"UPDATE t SET t = 'changed' WHERE i % 1000 = {number}")
        assert copies[2].copy_facts is not None
        assert copies[2].copy_facts.depends_on == ("copy2",)
        assert overall(check_base_copy(copies[2])) is Verdict.OK
        for path in (server.data_folder / "pg_wal/summaries").iterdir():
            path.unlink()
        with pytest.raises(RefusedError, match="summaries"):
            take_base_backup_by_program(access, MemoryCopy(), label="x", since=earlier_backup("copy0", copies[0]))
        placed = restore_chain_to_folder(copies, server_folder / "restored", owner=server.owner, programs=[server.bin])
        with PostgresServer(Programs(path=server.bin), data_folder=placed.folder) as restored:
            assert restored.execute("SELECT count(*) FROM t WHERE t = 'changed'") == [(100,)]
            assert restored.execute("SELECT count(*) FROM t") == [(50000,)]
