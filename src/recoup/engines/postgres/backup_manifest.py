"""PostgreSQL's own ``backup_manifest``: what the server says it sent, file by file.

Format: PostgreSQL documentation, "Backup Manifest Format" (version 1 up to 16, version 2 from 17). The server and its
tools write one file to a line, so the manifest of a million files is read line by line. Its last line holds the
SHA-256 of everything before it.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from google_crc32c import extend

from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import DamageError, UnknownFormatError

_VERSIONS = (1, 2)
_LONGEST_LINE = 1 << 20


class ChecksumKind(enum.StrEnum):
    """The checksums a server can put into its manifest."""

    NONE = "NONE"
    CRC32C = "CRC32C"
    SHA224 = "SHA224"
    SHA256 = "SHA256"
    SHA384 = "SHA384"
    SHA512 = "SHA512"


class Summer(Protocol):
    """Computes one file's checksum."""

    def update(self, data: bytes, /) -> object:
        """Take in the next bytes."""
        ...

    def hexdigest(self) -> str:
        """The checksum as the manifest writes it."""
        ...


class _Crc32c:
    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: bytes, /) -> None:
        self._crc = extend(self._crc, data)

    def hexdigest(self) -> str:
        # The server prints the bytes of its 32-bit number as they lie in memory (src/common/checksum_helper.c).
        return self._crc.to_bytes(4, "little").hex()


class _Nothing:
    def update(self, data: bytes, /) -> None:
        """A manifest without checksums: sizes only."""

    def hexdigest(self) -> str:
        return ""


def new_summer(kind: ChecksumKind) -> Summer:
    """A fresh computation of that checksum."""
    if kind is ChecksumKind.CRC32C:
        return _Crc32c()
    if kind is ChecksumKind.NONE:
        return _Nothing()
    return hashlib.new(kind.value.lower())


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """One file as the server sent it. ``checksum`` is lower-case hexadecimal, empty for ``NONE``."""

    size_bytes: int
    kind: ChecksumKind
    checksum: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WalRange:
    """WAL that a server must replay on one timeline before the copy is consistent."""

    timeline: int
    start: Lsn
    end: Lsn


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupManifest:
    """A manifest whose own checksum matched. Paths are relative to the data folder (``pg_tblspc/<oid>/…`` outside)."""

    version: int
    system_identifier: str | None  #: since version 2
    files: dict[str, ManifestFile]
    wal_ranges: tuple[WalRange, ...]


def parse_manifest(pieces: Iterable[bytes]) -> BackupManifest:
    """Given a manifest in pieces, return it.

    Raise ``DamageError`` when its checksum does not match or it is cut off, ``UnknownFormatError`` for another
    version or shape.
    """
    digest = hashlib.sha256()
    head: list[bytes] = []
    files: dict[str, ManifestFile] = {}
    tail: list[bytes] = []
    section: list[bytes] | None = head  # None: each line is a file
    claimed: bytes | None = None
    strange: UnknownFormatError | None = None  # whether a line is damaged or merely new, only the checksum tells
    for line in _lines(pieces):
        if claimed is not None:
            raise DamageError("the server's backup manifest goes on after its end")
        if line.startswith(b'"Manifest-Checksum"'):
            claimed = line
            continue
        digest.update(line)
        if section is head and line.startswith(b'"Files"'):
            section = None
        elif section is not None:
            section.append(line)
        elif line.startswith(b"],"):
            section = tail
        elif strange is None:
            try:
                _add_file(files, line)
            except UnknownFormatError as error:
                strange = error
    if claimed is None:
        raise DamageError("the server's backup manifest is cut off: its own checksum is missing")
    if claimed != b'"Manifest-Checksum": "%s"}\n' % digest.hexdigest().encode():
        raise DamageError("the server's backup manifest does not match its own checksum")
    if strange is not None:
        raise strange
    return _assemble(b"".join(head), files, b"".join(tail))


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from (line + b"\n" for line in whole)
        if len(rest) > _LONGEST_LINE:
            raise UnknownFormatError("the server's backup manifest has a line of more than 1 MiB")
    if rest:
        raise DamageError("the server's backup manifest is cut off in the middle of a line")


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as wrong:
        raise UnknownFormatError(f"the server's backup manifest cannot be understood at {text[:80]!r}") from wrong


def _add_file(files: dict[str, ManifestFile], line: bytes) -> None:
    path, file = _file_of(line)
    if path in files:
        raise UnknownFormatError(f"the server's backup manifest lists {path!r} twice")
    files[path] = file


def _file_of(line: bytes) -> tuple[str, ManifestFile]:
    entry = _json(line.rstrip().removesuffix(b","))
    try:
        if "Encoded-Path" in entry:  # a name that is not UTF-8, in hexadecimal
            path = bytes.fromhex(entry["Encoded-Path"]).decode("utf-8", "surrogateescape")
        else:
            path = str(entry["Path"])
        return path, ManifestFile(
            int(entry["Size"]),
            ChecksumKind(entry.get("Checksum-Algorithm", "NONE")),
            str(entry.get("Checksum", "")).lower(),
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise UnknownFormatError(f"the server's backup manifest cannot be understood at {line[:80]!r}") from wrong


def _assemble(head: bytes, files: dict[str, ManifestFile], tail: bytes) -> BackupManifest:
    top = _json(head.rstrip().removesuffix(b",") + b"}")
    rest = _json(b"{" + tail.rstrip().removesuffix(b",") + b"}")
    version = top.get("PostgreSQL-Backup-Manifest-Version")
    if version not in _VERSIONS:
        raise UnknownFormatError(f"the server's backup manifest has version {version}, and only 1 and 2 are known")
    try:
        ranges = tuple(
            WalRange(
                timeline=int(entry["Timeline"]), start=Lsn.parse(entry["Start-LSN"]), end=Lsn.parse(entry["End-LSN"])
            )
            for entry in rest["WAL-Ranges"]
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise UnknownFormatError("the server's backup manifest has no WAL ranges that can be understood") from wrong
    identifier = top.get("System-Identifier")
    return BackupManifest(
        version=version,
        system_identifier=None if identifier is None else str(identifier),
        files=files,
        wal_ranges=ranges,
    )
