"""The BASE_BACKUP command, in its two grammars and two layouts (PostgreSQL 14, and 15 to 18), as a stream of archives.

Source: PostgreSQL documentation, "Streaming Replication Protocol", BASE_BACKUP; src/backend/backup/basebackup.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import ExecStatus

from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.stream_names import BASE_ARCHIVE, MANIFEST_STREAM
from recoup.engines.postgres.wire import IDLE_SECONDS, Wire, drain_copy, rows_of
from recoup.kernel.errors import EngineError

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_ARCHIVE_NAME = re.compile(r"base\.tar|[1-9]\d{0,9}\.tar")
_NEW_ARCHIVE, _MANIFEST, _DATA, _PROGRESS = b"nmdp"
#: Two closing blocks of zeros, which PostgreSQL 14 leaves out.
_TAR_END = bytes(1024)
_REPORT_EVERY_BYTES = 8 << 20
_UPLOAD_BYTES = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseBackupOptions:
    """What to ask the server for. ``max_rate_kib`` limits the server's sending, in KiB per second (32 to 1,048,576)."""

    label: str
    checkpoint_fast: bool = True
    max_rate_kib: int | None = None
    include_wal: bool = True
    manifest_checksums: str = "CRC32C"
    incremental: bool = False  #: after ``upload_manifest`` on the same connection; PostgreSQL 17 and later

    def command(self, major: int) -> str:
        """The BASE_BACKUP command in the grammar of that major version."""
        label = "'" + self.label.replace("'", "''") + "'"
        old = [f"LABEL {label}", "PROGRESS"]
        new = [f"LABEL {label}", "PROGRESS"]
        if self.checkpoint_fast:
            old.append("FAST")
            new.append("CHECKPOINT 'fast'")
        if self.include_wal:
            old.append("WAL")
            new.append("WAL true")
        # The server waits until the last WAL segment is archived, which a broken archive_command would prolong
        # for ever; with the WAL inside the copy there is nothing to wait for.
        old.append("NOWAIT")
        new.append("WAIT false")
        if self.max_rate_kib is not None:
            old.append(f"MAX_RATE {self.max_rate_kib}")
            new.append(f"MAX_RATE {self.max_rate_kib}")
        old += ["TABLESPACE_MAP", "MANIFEST 'yes'", f"MANIFEST_CHECKSUMS '{self.manifest_checksums}'"]
        new += ["TABLESPACE_MAP true", "MANIFEST 'yes'", f"MANIFEST_CHECKSUMS '{self.manifest_checksums}'"]
        if self.incremental:
            new.append("INCREMENTAL")
        return f"BASE_BACKUP ({', '.join(new)})" if major >= 15 else f"BASE_BACKUP {' '.join(old)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tablespace:
    """A tablespace of the backed-up server. ``path`` is where it lies there; ``kib`` its size when the backup began."""

    oid: int
    path: str
    kib: int


def upload_manifest(wire: Wire, pieces: Iterable[bytes], *, idle_seconds: float = IDLE_SECONDS) -> None:
    """Tell the server which backup an incremental one builds on: UPLOAD_MANIFEST (PostgreSQL 17 and later).

    Raise ``ServerError`` when the server does not accept it; it reads all of it first.
    """
    wire.send("UPLOAD_MANIFEST")
    wire.result(ExecStatus.COPY_IN, idle_seconds=idle_seconds)
    try:
        for piece in pieces:
            for at in range(0, len(piece), _UPLOAD_BYTES):
                wire.pgconn.put_copy_data(piece[at : at + _UPLOAD_BYTES])
        wire.pgconn.put_copy_end()
    except psycopg.Error as failure:
        raise wire.lost(failure) from failure
    while wire.result(idle_seconds=idle_seconds) is not None:
        pass


class BaseBackupStream:
    """One BASE_BACKUP in progress.

    Call ``begin``; then, while ``next_archive`` gives a name, ``pump`` its bytes; then ``end``. Only after ``end``
    returned does the backup exist: the server may report an error after it has sent all the data.
    """

    def __init__(self, wire: Wire, on_bytes: Callable[[int], None], *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._wire = wire
        self._on_bytes = on_bytes
        self._idle_seconds = idle_seconds
        self._major = wire.major
        self._header: bytes | None = None
        self._old_names: list[str] = []
        self._current = ""
        self._held: PGresult | None = None
        self._done = 0
        self._reported = 0
        self.tablespaces: tuple[Tablespace, ...] = ()
        self.total_kib = 0

    def begin(self, options: BaseBackupOptions) -> tuple[Lsn, int]:
        """Start the backup and return its start position and timeline. Waits for the server's checkpoint."""
        wire = self._wire
        wire.send(options.command(self._major))
        # Nothing is said until the checkpoint is done: at most checkpoint_timeout (1 day at the very most) when it
        # is spread, seconds to minutes when it is fast.
        patience = max(self._idle_seconds, 1800.0 if options.checkpoint_fast else 5400.0)
        start = wire.result(ExecStatus.TUPLES_OK, idle_seconds=patience)
        spaces = wire.result(ExecStatus.TUPLES_OK, idle_seconds=patience)
        assert start is not None
        assert spaces is not None
        found = []
        for oid, path, kib in rows_of(spaces):
            self.total_kib += int(kib or 0)
            self._old_names.append(f"{oid}.tar" if oid else BASE_ARCHIVE)
            if oid:
                found.append(Tablespace(oid=int(oid), path=path or "", kib=int(kib or 0)))
        self._old_names.append(MANIFEST_STREAM)
        self.tablespaces = tuple(found)
        position, timeline = rows_of(start)[0]
        assert position is not None
        assert timeline is not None
        if self._major >= 15:
            wire.result(ExecStatus.COPY_OUT, idle_seconds=self._idle_seconds)
            drain_copy(wire, self._hold_header, idle_seconds=self._idle_seconds)
        return Lsn.parse(position), int(timeline)

    def next_archive(self) -> str | None:
        """The name of the archive whose bytes come next; None when there is no further one."""
        if self._major < 15:
            if not self._old_names:
                return None
            if self._held is None:
                self._wire.result(ExecStatus.COPY_OUT, idle_seconds=self._idle_seconds)
            self._current = self._old_names.pop(0)
            return self._current
        if self._header is None:
            return None
        header, self._header = self._header, None
        if header[0] == _MANIFEST:
            self._current = MANIFEST_STREAM
            return MANIFEST_STREAM
        name = header[1:].split(b"\0", 1)[0].decode(errors="replace")
        if header[0] != _NEW_ARCHIVE or not _ARCHIVE_NAME.fullmatch(name):
            raise EngineError(f"{self._wire.address} sent a base backup that cannot be understood: {header[:64]!r}")
        self._current = name
        return name

    def pump(self, write: Callable[[memoryview], None]) -> None:
        """Write the bytes of the current archive; on return the archive is complete.

        Raise ``EngineError`` when the server gave up in the middle, which to libpq looks like an end.
        """
        if self._major < 15:

            def plain(data: memoryview) -> bool:
                write(data)
                self._count(len(data))
                return False

            drain_copy(self._wire, plain, idle_seconds=self._idle_seconds)
            expected = ExecStatus.COPY_OUT if self._old_names else ExecStatus.TUPLES_OK
            self._held = self._wire.result(expected, idle_seconds=self._idle_seconds)
            if self._current != MANIFEST_STREAM:
                write(memoryview(_TAR_END))
            return

        def tagged(data: memoryview) -> bool:
            tag = data[0]
            if tag == _DATA:
                write(data[1:])
                self._count(len(data))
                return False
            return self._hold_header(data)

        went_on = drain_copy(self._wire, tagged, idle_seconds=self._idle_seconds)
        if not went_on and self._current != MANIFEST_STREAM:
            self.end()
            raise EngineError(f"{self._wire.address} ended a base backup without its manifest")

    def end(self) -> tuple[Lsn, int]:
        """Wait for the server's word that the backup is whole; return its end position and timeline.

        Raise ``EngineError`` when the server found a fault (a page checksum, a missing WAL segment) on the way.
        """
        result = self._held or self._wire.result(ExecStatus.TUPLES_OK, idle_seconds=self._idle_seconds)
        assert result is not None
        position, timeline = rows_of(result)[0]
        while self._wire.result(idle_seconds=self._idle_seconds) is not None:
            pass
        self._on_bytes(self._done)
        assert position is not None
        assert timeline is not None
        return Lsn.parse(position), int(timeline)

    def _hold_header(self, data: memoryview) -> bool:
        if data[0] == _PROGRESS:
            return False
        self._header = bytes(data)
        return True

    def _count(self, size: int) -> None:
        self._done += size
        if self._done - self._reported >= _REPORT_EVERY_BYTES:
            self._reported = self._done
            self._on_bytes(self._done)
