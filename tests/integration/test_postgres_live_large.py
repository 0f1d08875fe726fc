"""A large, mostly empty database, sealed in a repository, brought to life in little room.

``RECOUP_SPARSE_GB`` makes it larger: 10 needs no more room than the default, but some minutes.
"""

from __future__ import annotations

import os
from pathlib import Path

from recoup.demo.programs import find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.live import LiveRequest, open_postgres_live
from recoup.kernel import clock, ids
from recoup.kernel.finding import Verdict, overall
from recoup.kernel.secret import Secret
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.copy_writer import ArtefactWriter, Header
from recoup.repository.repository import open_or_create
from recoup.repository.seal import Key
from recoup.storage.local import LocalStore
from tests.real import require_found

GIGABYTES = float(os.environ.get("RECOUP_SPARSE_GB", "0.25"))
PAGE = 8192
TABLE_PAGES = 100_000  #: below the size at which PostgreSQL begins another file
ROOM = 300 << 20


def used(folder: Path) -> int:
    """What a folder takes of its disk, in bytes."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def test_a_large_sparse_database_boots_within_little_room(tmp_path: Path, server_folder: Path) -> None:
    pages = int(GIGABYTES * 1e9) // PAGE
    repository = open_or_create("local", LocalStore(tmp_path / "repository", create=True), Key.generate())
    header = Header(
        id=ids.new_id(clock.now()), system="test", service="postgres", engine="postgres", kind="base", label=None,
        begun=clock.now(),
    )  # fmt: skip
    with PostgresServer(require_found(lambda: find_postgres(18))) as server:
        for number, first in enumerate(range(0, pages, TABLE_PAGES)):
            server.execute(f"CREATE TABLE large_{number} AS SELECT i FROM generate_series(1, 1000) i")
            server.execute("CHECKPOINT")
            (path,) = server.execute(f"SELECT pg_relation_filepath('large_{number}')")[0]
            os.truncate(server.data_folder / path, min(pages - first, TABLE_PAGES) * PAGE)
        with ArtefactWriter(header, [repository]) as writer:
            outcome = writer.finish(take_base_backup(Secret(server.url()), writer, label="large"))
    copy = ArtefactReader(repository.manifest(outcome.manifest.id), [repository])
    assert used(tmp_path / "repository") < ROOM
    with open_postgres_live([copy], server_folder / "sandboxes", LiveRequest()) as live:
        findings = live.boots()
        assert overall(findings) is Verdict.OK, findings
        with live.server.session() as session:
            size = session.query("SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relname ~ '^large_'")
            assert int(size[0][0] or 0) == pages * PAGE
            assert session.query("SELECT count(*) FROM public.large_0") == [("1000",)]
        taken = used(live.server.sandbox.folder)
        assert taken < ROOM, f"{taken >> 20} MiB of {pages * PAGE >> 20}"
