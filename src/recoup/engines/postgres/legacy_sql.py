"""Restore a file that another script made, into a fresh database that is swapped in only when all of it went in.

Restoring over a full database with errors ignored cannot happen here: the first error stops, with its line, and the old
database stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from recoup.engines.engine import Progress, ProgressListener
from recoup.engines.postgres.access import ServerAccess, open_maintenance
from recoup.engines.postgres.archive import ArchiveReader
from recoup.engines.postgres.dump import PLAIN_TRAILER
from recoup.engines.postgres.dump_check import copied_rows
from recoup.engines.postgres.fill import fill_from_archive, fill_from_sql
from recoup.engines.postgres.legacy_file import Content, LegacyFile, open_legacy_file
from recoup.engines.postgres.replace_database import Replaced, Replacement, replace_database
from recoup.engines.postgres.restore_database import require_extensions, require_roles
from recoup.engines.postgres.session import Session, literal
from recoup.kernel.errors import DamageError, RefusedError
from recoup.kernel.finding import Finding, Verdict
from recoup.kernel.secret import Secret

_HEAD = b"-- PostgreSQL database dump\n"
_CLUSTER_HEAD = b"-- PostgreSQL database cluster dump\n"
_LOOK = 4096
_TAIL = 400


def restore_legacy(
    access: ServerAccess,
    path: Path,
    key: Secret | None,
    replacement: Replacement,
    *,
    progress: ProgressListener | None = None,
) -> Replaced:
    """Restore the file ``path`` as the database ``replacement.database``.

    Raise ``WrongKeyError``, ``DamageError`` and ``UnknownFormatError`` for the file, ``EngineError`` with psql's line
    and text at the first SQL error, ``RefusedError`` for commands in it that would leave the fresh database or start
    programs, and for a target that holds data without ``force``. In each case the database that was there is
    untouched. Without a fingerprint the result is ``unknown`` where contents are concerned, and says so.
    """
    file = open_legacy_file(path, key)
    copied: dict[str, int] = {}

    def pieces() -> Iterator[bytes]:
        done = 0
        for piece in file.pieces():
            yield piece
            done += len(piece)
            if progress is not None:
                progress(Progress(what=f"restore of {path.name}", done_bytes=done))

    def fill(fresh: str) -> Sequence[str]:
        notes = [] if file.derivation is None or file.gzip else ["the file carries no checksum of its content"]
        if file.content is Content.ARCHIVE:
            if access.programs().local and not access.programs().reads_hostile_archives:
                notes.append("this pg_restore lacks the fix for CVE-2026-116314: restore only files you trust")
            return [*notes, *fill_from_archive(access, fresh, pieces())]
        filled = fill_from_sql(access, fresh, _complete(pieces(), file))
        copied.update(copied_rows(list(filled.copied)))
        return [*notes, *filled.notes]

    if file.content is Content.ARCHIVE:
        contents = ArchiveReader(file.pieces()).contents()
        with open_maintenance(access) as session:
            require_extensions(session, contents, None)
            require_roles(session, None, {}, contents, create=False)
    return replace_database(
        access, replacement, like=None, fill=fill, verify=lambda session: _verify(session, path, copied)
    )


def _complete(pieces: Iterator[bytes], file: LegacyFile) -> Iterator[bytes]:
    """Pass the text through; raise when pg_dump began it and did not end it, or when it holds a whole cluster."""
    head = tail = b""
    for piece in pieces:
        if len(head) < _LOOK:
            head = (head + piece)[:_LOOK]
            if _CLUSTER_HEAD in head:
                raise RefusedError(
                    f"{file.path} holds a whole cluster (pg_dumpall), not one database",
                    hint="Split it, one file for each database; roles and tablespaces are run by hand with psql.",
                )
        tail = (tail + piece)[-_TAIL:]
        yield piece
    if not head.strip():
        raise DamageError(f"{file.path} holds no SQL")
    if _HEAD in head and PLAIN_TRAILER not in tail:
        raise DamageError(f"{file.path} is cut: pg_dump's last line is missing")


def _verify(session: Session, path: Path, copied: Mapping[str, int]) -> list[Finding]:
    """Every row of every COPY block must be there. Raise ``DamageError`` when one is not."""
    rows = 0
    for name, expected in copied.items():
        kind = session.query(f"SELECT relkind FROM pg_class WHERE oid = {literal(name)}::regclass")[0][0]
        only = "" if kind == "p" else "ONLY "
        found = int(session.query(f"SELECT count(*) FROM {only}{name}")[0][0] or 0)
        if found < expected:
            raise DamageError(f"table {name} has {found} rows after the restore, the file holds {expected}")
        rows += found
    tables = int(session.query("SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'p') AND oid >= 16384")[0][0] or 0)
    if tables == 0:
        raise DamageError(f"{path} was run without an error, and made no table")
    return [
        Finding(
            check="everything in the file went in",
            subject=str(path),
            verdict=Verdict.OK,
            detail=f"{tables} tables; {rows} rows of {len(copied)} COPY blocks counted",
        ),
        Finding(
            check="the content equals the copied one",
            subject=str(path),
            verdict=Verdict.UNKNOWN,
            detail="the file carries no fingerprint to compare with",
            hint="Look at the data before users do; what was replaced is kept until you drop it.",
        ),
    ]
