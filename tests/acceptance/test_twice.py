"""Every command that acts on a PostgreSQL, given twice: the second time does nothing more, or says why it will not."""

from __future__ import annotations

import pytest

from recoup.demo.host import temporary_folder
from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.repository.repository import open_repository
from recoup.repository.seal import Key
from recoup.storage.local import LocalStore
from tests.acceptance.workplace import KEY, new_workplace
from tests.integration.wal_story import Story, own, rows_in
from tests.real import require_found


@pytest.mark.parametrize("major", [15, 16, 17, 18], ids=lambda major: f"postgres{major}")
def test_every_command_given_twice_does_it_once_or_says_why_it_will_not(major: int) -> None:
    settings = {"track_commit_timestamp": "on", "wal_keep_size": "200MB"}
    with (
        PostgresServer(require_found(lambda: find_postgres(major)), settings=settings) as server,
        new_workplace() as work,
        temporary_folder("restored", mode=0o755) as place,
    ):
        work.add_postgres(server, more=", wal: continuous, fingerprint: false")
        work.write_plan()
        work.recoup("check", "--prepare", "--yes")
        assert "nothing to do" in work.recoup("check", "--prepare", "--yes").out
        assert server.execute("SELECT count(*) FROM pg_replication_slots") == [(1,)]

        server.execute("CREATE TABLE story (row int PRIMARY KEY, filling text)")
        first, second = (work.backup("postgres", "--kind", "base") for _ in range(2))
        assert set(work.listed()) == {first, second}
        for _ in range(2):
            assert "proven intact" in work.recoup("verify", second, "--grade", "intact").out

        local = open_repository("local", LocalStore(work.local), Key.from_text(KEY))
        told = Story(server=server, repositories=[local], segment_bytes=16 << 20)
        told.commit(2)
        told.archive()
        windows = [work.json("windows", "postgres")["services"] for _ in range(2)]
        assert windows[0] == windows[1]
        assert len(windows[0][0]["windows"]) == 1

        folder = own(told, place / "restored")
        back = ("restore", "--to-time", "latest", "--service", "postgres", "--destination", str(folder))
        work.recoup(*back)
        seen = sorted((path, path.lstat().st_mtime_ns) for path in folder.rglob("*"))
        assert f"holds the PostgreSQL {major} cluster" in work.recoup(*back, expect=5).err
        assert sorted((path, path.lstat().st_mtime_ns) for path in folder.rglob("*")) == seen
        assert rows_in(told, folder) == [1, 2]

        removed = [work.json("prune")["repositories"] for _ in range(2)]
        assert set(work.listed()) == {first, second}, removed
        work.recoup("check", "--undo", "--yes")
        assert server.execute("SELECT count(*) FROM pg_replication_slots") == [(0,)]
        work.recoup("check", "--undo", "--yes")
