"""Prove from its bytes alone that a dump is whole: every entry, every data block, every row that was counted.

No server is needed. For the custom format the table of contents and all data blocks are walked to the end; for plain
SQL the text is read as psql reads it. Both give the number of rows of each table, which must equal the number that was
counted in the dump's own snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from recoup.engines.engine import CopyReader
from recoup.engines.postgres.archive import ArchiveReader
from recoup.engines.postgres.dump import PLAIN_HEAD, PLAIN_TRAILER
from recoup.engines.postgres.session import identifier
from recoup.engines.postgres.sql_text import CopiedRows, SqlFilter
from recoup.kernel.errors import DamageError, RefusedError, UnknownFormatError
from recoup.kernel.finding import Finding, Verdict

_CHECK = "the dump is whole"
_CLUSTER_HEAD = b"--\n-- PostgreSQL database cluster dump\n--\n"
_CLUSTER_TRAILER = b"-- PostgreSQL database cluster dump complete\n"
_TAIL = 400
_LOCK = re.compile(rb"\n\\restrict ([A-Za-z0-9]+)\n")
_REST = rb"--\n\s*(?:\\unrestrict ([A-Za-z0-9]+)\n\s*)?\Z"
_NOT_CHECKED = "whether a server accepts it; large objects and values only as bytes"
_NAME = r'(?:"(?:[^"]|"")*"|[\w$]+)'
_COPY_TARGET = re.compile(rf"^[ \t]*COPY ({_NAME})(?:\.({_NAME}))?[ (]", re.IGNORECASE | re.MULTILINE)


def check_dump_copy(copy: CopyReader) -> list[Finding]:
    """One finding for each database of the copy, and one for its globals. A damaged stream is ``failed``."""
    findings: list[Finding] = []
    fingerprints = (copy.fingerprint or {}).get("databases") or {}
    databases: Mapping[str, Any] = copy.facts.get("databases") or {}
    for database, facts in databases.items():
        check = partial(
            _archive if copy.facts.get("format") == "custom" else _plain,
            copy,
            str(facts["stream"]),
            _counted_rows(fingerprints.get(database)),
        )
        findings.append(_judged(str(facts["stream"]), check))
    global_facts = copy.facts.get("globals")
    if global_facts:
        findings.append(_judged(global_facts["stream"], partial(_globals, copy, global_facts["stream"])))
    return findings


def _judged(stream: str, check: Callable[[], str]) -> Finding:
    try:
        detail = check()
    except (DamageError, RefusedError) as damage:
        return Finding(check=_CHECK, subject=stream, verdict=Verdict.FAILED, detail=damage.message)
    except UnknownFormatError as unknown:
        return Finding(check=_CHECK, subject=stream, verdict=Verdict.UNKNOWN, detail=unknown.message, hint=unknown.hint)
    return Finding(
        check=_CHECK, subject=stream, verdict=Verdict.OK, detail=detail, not_checked=_NOT_CHECKED, left_to="sound"
    )


def _counted_rows(fingerprint: Mapping[str, Any] | None) -> dict[str, int]:
    """Rows by table, of the tables whose rows a dump must carry."""
    tables: Mapping[str, Any] = (fingerprint or {}).get("tables", {})
    return {
        name: entry["rows"]
        for name, entry in tables.items()
        if "rows" in entry and entry["kind"] == "table" and "extension" not in entry
    }


def _archive(copy: CopyReader, stream: str, counted: Mapping[str, int]) -> str:
    reader = ArchiveReader(copy.read(stream))
    contents = reader.contents()
    waiting = {entry.number: entry for entry in contents.entries if entry.has_data}
    rows: dict[str, int | None] = {}
    size = 0
    for block in reader.blocks():
        entry = waiting.pop(block.number, None)
        if entry is None:
            raise DamageError(f"a data block for entry {block.number}, which has none in the table of contents or two")
        size += block.data_bytes
        if entry.kind == "TABLE DATA":
            rows[f"{identifier(entry.schema)}.{identifier(entry.name)}"] = block.rows
    if waiting:
        missing = next(iter(waiting.values()))
        raise DamageError(f"no data for {len(waiting)} entries, the first is {missing.kind} {missing.name!r}")
    _compare_rows(rows, counted)
    version = ".".join(map(str, contents.archive_version))
    return f"{len(contents.entries)} entries, {len(rows)} tables with data, {size} bytes; archive version {version}"


def _plain(copy: CopyReader, stream: str, counted: Mapping[str, int]) -> str:
    ends = _Ends()
    text = SqlFilter()
    for _ in text.filtered(ends.watched(copy.read(stream))):
        pass
    ends.require(PLAIN_HEAD, PLAIN_TRAILER, stream)
    rows: dict[str, int | None] = dict(copied_rows(text.copied))
    _compare_rows(rows, counted)
    return f"{len(rows)} tables with data, from pg_dump's first line to its last"


def _globals(copy: CopyReader, stream: str) -> str:
    ends = _Ends()
    for _ in ends.watched(copy.read(stream)):
        pass
    ends.require(_CLUSTER_HEAD, _CLUSTER_TRAILER, stream)
    return "from pg_dumpall's first line to its last"


def _compare_rows(rows: Mapping[str, int | None], counted: Mapping[str, int]) -> None:
    for name, number in counted.items():
        if name not in rows:
            raise DamageError(f"no data for table {name}, which had {number} rows")
        if rows[name] is not None and rows[name] != number:
            raise DamageError(f"{rows[name]} rows for table {name}, which had {number}")


def copied_rows(copied: list[CopiedRows]) -> dict[str, int]:
    """Rows by table, named as in fingerprints; blocks of a table without a schema are left out."""
    found: dict[str, int] = {}
    for block in copied:
        matches = _COPY_TARGET.findall(block.statement)
        if matches and matches[-1][1]:
            name = ".".join(part if part.startswith('"') else identifier(part) for part in matches[-1])
            found[name] = found.get(name, 0) + block.rows
    return found


class _Ends:
    """Remembers the first and the last bytes of a stream that passes by."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""

    def watched(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if len(self._head) < _TAIL:
                self._head = (self._head + piece)[:_TAIL]
            self._tail = (self._tail + piece)[-_TAIL:] if len(piece) < _TAIL else piece[-_TAIL:]
            yield piece

    def require(self, head: bytes, trailer: bytes, stream: str) -> None:
        if not self._head.startswith(head):
            raise DamageError(f"{stream} does not begin as pg_dump begins")
        # Newer programs lock psql at the beginning and unlock it with the same word at the end.
        locked = _LOCK.search(self._head)
        ended = re.search(re.escape(trailer) + _REST, self._tail)
        if ended is None or (locked and trailer == PLAIN_TRAILER and ended[1] != locked[1]):
            raise DamageError(f"{stream} does not end as pg_dump ends: it was cut")
