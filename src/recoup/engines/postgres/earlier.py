"""The backup that an incremental one builds on, as it lies in a repository: no server is needed to speak of it."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from recoup.engines.engine import CopyReader
from recoup.engines.postgres.stream_names import BASE_ARCHIVE, MANIFEST_STREAM
from recoup.kernel.errors import UnknownFormatError

TAKE_A_BASE: Final = "Take a base backup (--kind base); the next incremental one builds on it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """The backup that an incremental one builds on: its facts, and the server's manifest of it.

    ``chain`` names all that is needed to restore it, the oldest first, itself the last.
    """

    id: str
    chain: tuple[str, ...]
    system_identifier: str
    timeline: int
    begin_lsn: str
    manifest: Callable[[], Iterable[bytes]]

    def facts(self) -> dict[str, Any]:
        """What the facts of the incremental backup say of it."""
        return {"since": self.id, "since_lsn": self.begin_lsn}


def earlier_backup(artefact_id: str, reader: CopyReader, *, chain: tuple[str, ...] = ()) -> Earlier:
    """The backup in ``reader`` as one to build on; without ``chain`` it stands alone.

    Nothing but its facts is read before ``manifest`` is called.
    Raise ``UnknownFormatError`` when its facts are not those of a base backup.
    """
    facts = reader.facts
    try:
        return Earlier(
            id=artefact_id,
            chain=chain or (artefact_id,),
            system_identifier=str(facts["system_identifier"]),
            timeline=int(facts["timeline"]),
            begin_lsn=str(facts["begin_lsn"]),
            manifest=lambda: read_manifest(reader),
        )
    except KeyError as missing:
        raise UnknownFormatError(f"{artefact_id} does not say its {missing}, as every base backup does") from None


def read_manifest(reader: CopyReader) -> Iterator[bytes]:
    """The server's own manifest of a copy, in pieces: a stream of its own, or the last member that pg_basebackup
    writes. Raise ``UnknownFormatError`` when the copy holds none."""
    if MANIFEST_STREAM in {info.name for info in reader.streams()}:
        return reader.read(MANIFEST_STREAM)
    for member in reader.members(BASE_ARCHIVE):
        if member.path == MANIFEST_STREAM:
            return reader.read(BASE_ARCHIVE, member.offset, member.size_bytes)
    raise UnknownFormatError("the copy holds no manifest of the server")


def tar_with_manifest(reader: CopyReader) -> Iterator[bytes]:
    """``base.tar`` with the server's manifest in it, as ``pg_combinebackup`` wants to find it unpacked."""
    if MANIFEST_STREAM in {info.name for info in reader.streams()}:
        size = next(info.plain_bytes for info in reader.streams() if info.name == MANIFEST_STREAM)
        member = tarfile.TarInfo(MANIFEST_STREAM)
        member.size, member.mode = size, 0o600
        yield member.tobuf(tarfile.USTAR_FORMAT)
        yield from reader.read(MANIFEST_STREAM)
        yield bytes(-size % tarfile.BLOCKSIZE)
    yield from reader.read(BASE_ARCHIVE)
