"""A server with a known past: rows that were committed one after the other, each with its position, time and id.

The WAL goes into a real repository through ``WalArchive``, read from the server's own ``pg_wal``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from recoup.demo.programs import Programs, find_postgres
from recoup.demo.servers import PostgresServer
from recoup.engines.postgres.base_backup import take_base_backup
from recoup.engines.postgres.earlier import earlier_backup
from recoup.engines.postgres.lsn import Lsn
from recoup.kernel import clock, ids
from recoup.kernel.secret import Secret
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.copy_writer import ArtefactWriter, Header
from recoup.repository.repository import Repository
from recoup.repository.wal_archive import WalArchive
from tests.real import require_found


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """One committed row. ``lsn`` is the end of its commit record, ``before`` where that record may begin."""

    row: int
    xid: int
    before: Lsn
    lsn: Lsn
    time: datetime


@dataclass(slots=True, kw_only=True)
class Story:
    """The server, what was committed on it, and where its WAL goes."""

    server: PostgresServer
    repositories: Sequence[Repository]
    service: str = "postgres"
    commits: list[Commit] = field(default_factory=list)
    segment_bytes: int = 1 << 20

    @property
    def system_identifier(self) -> str:
        return str(self.server.execute("SELECT system_identifier FROM pg_control_system()")[0][0])

    @property
    def archives(self) -> list[WalArchive]:
        return [WalArchive(one, self.service, self.system_identifier) for one in self.repositories]

    def commit(self, count: int = 1, *, filling: int = 0) -> Commit:
        """Commit rows, one transaction each; ``filling`` bytes of WAL go with each. The last one is returned."""
        with self.server.connect() as connection:
            for _ in range(count):
                row = len(self.commits) + 1
                with connection.transaction():
                    xid = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
                    connection.execute("INSERT INTO story VALUES (%s, %s)", (row, "x"))
                    if filling:
                        connection.execute(
                            "SELECT pg_logical_emit_message(true, 'filling', repeat('x', %s))", (filling,)
                        )
                    before = connection.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
                at = connection.execute(
                    "SELECT pg_xact_commit_timestamp(%s::text::xid), pg_current_wal_insert_lsn()::text", (xid[0],)
                ).fetchone()
                self.commits.append(
                    Commit(row=row, xid=int(xid[0]), before=Lsn.parse(before[0]), lsn=Lsn.parse(at[1]), time=at[0])
                )
        return self.commits[-1]

    def base(self, since: ArtefactReader | None = None) -> ArtefactReader:
        """Take a base backup into the repositories, or an incremental one."""
        now = clock.now()
        header = Header(
            id=ids.new_id(now), system="test", service=self.service, engine="postgres", label=None,
            kind="base" if since is None else "incremental",
            begun=now,
        )  # fmt: skip
        earlier = None if since is None else earlier_backup(since.manifest.id, since)
        with ArtefactWriter(header, self.repositories) as writer:
            facts = take_base_backup(Secret(self.server.url()), writer, label="story", since=earlier)
            outcome = writer.finish(facts)
        return ArtefactReader(self.repositories[0].manifest(outcome.manifest.id), self.repositories)

    def archive(self, *, piece: bool = False, without: Sequence[str] = ()) -> list[str]:
        """Switch the segment and archive all that are whole; with ``piece`` what the present one holds, as a piece.

        ``without`` are names that are left out. What is archived already stays as it is.
        """
        if not piece:
            self.server.execute("SELECT pg_switch_wal()")
        current, offset, now = self.server.execute(
            # One further on: a position between two segments counts as the end of the first before PostgreSQL 17.
            "SELECT f.file_name, f.file_offset - 1, clock_timestamp() "
            "FROM pg_walfile_name_offset(pg_current_wal_flush_lsn() + 1) f"
        )[0]
        held = {getattr(entry, "name", "") for entry in self.archives[0].entries()}
        archived = []
        for path in sorted((self.server.data_folder / "pg_wal").iterdir()):
            if path.name.endswith(".history"):
                for archive in self.archives:
                    archive.put_history(int(path.name[:8], 16), path.read_bytes(), now)
            elif len(path.name) == 24 and path.name < current and path.name not in (*held, *without):
                if path.name[:8] != current[:8]:
                    continue  # of the time before a recovery; the older server has archived it
                for archive in self.archives:
                    archive.put_segment(path.name, path.read_bytes(), now)
                archived.append(path.name)
            elif path.name == current and piece and offset:
                for archive in self.archives:
                    archive.put_piece(current, 0, path.read_bytes()[:offset], now)
        return archived

    def rows_up_to(self, commit: Commit) -> list[int]:
        """The rows that a recovery to the end of ``commit`` must show."""
        return [one.row for one in self.commits if one.lsn <= commit.lsn]


@contextmanager
def story(
    major: int, repositories: Sequence[Repository], *, settings: Mapping[str, str] | None = None
) -> Iterator[Story]:
    """A fresh server with segments of 1 MiB and an empty table ``story``."""
    settings = {
        "track_commit_timestamp": "on",
        "min_wal_size": "200MB",
        "max_wal_size": "400MB",
        "wal_keep_size": "200MB",
        **(settings or {}),
    }
    server = PostgresServer(
        require_found(lambda: find_postgres(major)), settings=settings, initdb_arguments=["--wal-segsize=1"]
    )
    with server:
        server.execute("CREATE TABLE story (row int PRIMARY KEY, filling text)")
        yield Story(server=server, repositories=repositories)


def rows_in(story: Story, folder: Path, **settings: str) -> list[int]:
    """The rows of a restored folder, by booting it."""
    with booted(story, folder, **settings) as server:
        return [row for (row,) in server.execute("SELECT row FROM story ORDER BY row")]


@contextmanager
def booted(story: Story, folder: Path, **settings: str) -> Iterator[PostgresServer]:
    """The server of a restored folder, started as an operator would."""
    settings = {"track_commit_timestamp": "on", "wal_keep_size": "200MB", **settings}
    with PostgresServer(Programs(path=story.server.bin), data_folder=folder, settings=settings) as server:
        yield server


def own(story: Story, folder: Path) -> Path:
    """Make a folder that the server's user owns."""
    folder.mkdir()
    if story.server.owner is not None:
        os.chown(folder, *story.server.owner)
    return folder
