"""Reading ``global/pg_control``: who a cluster is and in which state it was left.

Layout: src/include/catalog/pg_control.h of PostgreSQL 14 to 18 (control versions 1300, 1700, 1800). The fields up to
the checkpoint copy lie at fixed offsets. Those after it moved between versions, but a constant stands among them (the
double 1234567.0, kept there to compare float formats), and what follows it has kept its order; so it is the anchor.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from datetime import UTC, datetime

from google_crc32c import value as crc32c

from recoup.engines.postgres.lsn import Lsn
from recoup.kernel.errors import DamageError, UnknownFormatError

CONTROL_FILE = "global/pg_control"
_MAJORS = {1300: (14, 15, 16), 1700: (17,), 1800: (18,)}
_ANCHOR = struct.pack("<d", 1234567.0)
_HEAD = struct.Struct("<QIIi4xqQQII")
_NEXT_XID = struct.Struct("<Q")  # CheckPoint.nextXid, after fullPageWrites (and wal_level) and their padding
_AFTER_ANCHOR = struct.Struct("<8I?3xI")
_NONCE_BYTES = 32


class ClusterState(enum.IntEnum):
    """DBState: what the server was doing when it last wrote the file."""

    STARTING = 0
    SHUT_DOWN = 1
    SHUT_DOWN_IN_RECOVERY = 2
    SHUTTING_DOWN = 3
    IN_CRASH_RECOVERY = 4
    IN_ARCHIVE_RECOVERY = 5
    IN_PRODUCTION = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What matters of a ``pg_control``. ``system_identifier`` is decimal text, as PostgreSQL shows it."""

    system_identifier: str
    control_version: int
    catalog_version: int
    state: ClusterState
    written: datetime  #: when the server last wrote the file, by its own clock, rounded down to the second
    checkpoint: Lsn
    redo: Lsn
    timeline: int
    next_xid: int  #: the first transaction id, with its epoch, that the checkpoint had not seen assigned
    block_bytes: int
    relation_segment_blocks: int
    wal_block_bytes: int
    wal_segment_bytes: int
    data_checksums: bool

    @property
    def majors(self) -> tuple[int, ...]:
        """The major versions that write this control version."""
        return _MAJORS[self.control_version]


def parse_control(data: bytes) -> Control:
    """Given the content of ``pg_control``, return it after its own checksum matched.

    Raise ``DamageError`` for a short or damaged file, ``UnknownFormatError`` for a version not known here.
    """
    if len(data) < 512:
        raise DamageError(f"pg_control is too short: {len(data)} bytes")
    system, version, catalog, state, written, checkpoint, redo, timeline, _ = _HEAD.unpack_from(data)
    if version not in _MAJORS:
        raise UnknownFormatError(
            f"pg_control has version {version}, which is none of PostgreSQL 14 to 18 on a little-endian machine",
            hint="Restore with a Recoup that knows this version of PostgreSQL.",
        )
    anchor = data.find(_ANCHOR, _HEAD.size, 512)
    if anchor < 0:
        raise DamageError("pg_control is damaged: its float constant is missing")
    after = anchor + len(_ANCHOR)
    block, relation, wal_block, wal_segment, *_, checksum_version = _AFTER_ANCHOR.unpack_from(data, after)
    end = after + _AFTER_ANCHOR.size + _NONCE_BYTES
    if version >= 1800:  # default_char_signedness stands before the nonce; the checksum is aligned to four bytes
        end += 4
    (stored,) = struct.unpack_from("<I", data, end)
    if stored != crc32c(data[:end]):
        raise DamageError("pg_control is damaged: its checksum does not match")
    return Control(
        system_identifier=str(system),
        control_version=version,
        catalog_version=catalog,
        state=ClusterState(state),
        written=datetime.fromtimestamp(written, UTC),
        checkpoint=Lsn(checkpoint),
        redo=Lsn(redo),
        timeline=timeline,
        next_xid=_NEXT_XID.unpack_from(data, _HEAD.size + 8)[0],
        block_bytes=block,
        relation_segment_blocks=relation,
        wal_block_bytes=wal_block,
        wal_segment_bytes=wal_segment,
        data_checksums=checksum_version != 0,
    )
