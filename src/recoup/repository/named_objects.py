"""Objects that are authenticated by their own names: one listing is the inventory, and no manifest is needed.

A name ends in a stamp, the newest server time in the content, and in a MAC over purpose, name, stamp and ciphertext:
docs/decisions/0012-wal-names-carry-the-mac.md. WAL (``wal_archive.py``) and command streams (``stream_archive.py``)
are kept so; their formats are in ``docs/repository-format.md``.
"""

from __future__ import annotations

import hmac
import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from recoup.kernel.errors import DamageError, MissingObjectError
from recoup.repository import layout
from recoup.repository.frames import new_packer, zstd
from recoup.repository.repository import Repository
from recoup.repository.seal import Key, mac_of, seal, unseal

#: Half of HMAC-SHA256, which RFC 2104 (section 5) allows: 128 bits.
MAC_DIGITS: Final = 32
#: How a name ends, as a regular expression with two groups: the stamp and the MAC.
ENDING: Final = rf"-(\d{{8}}T\d{{9}}Z)-([0-9a-f]{{{MAC_DIGITS}}}){re.escape(layout.WAL_ENDING)}"
_FRAME_BYTES: Final = 1 << 20


def stamp_text(stamp: datetime) -> str:
    """An aware instant as names carry it, cut to the millisecond: ``20261123T020000123Z``."""
    if stamp.tzinfo is None:
        raise ValueError("a stamp without a zone")
    utc = stamp.astimezone(UTC)
    return f"{utc:%Y%m%dT%H%M%S}{utc.microsecond // 1000:03d}Z".rjust(19, "0")


def parse_stamp(text: str) -> datetime:
    """The instant that a name carries. Raise ``ValueError`` for a text that is none."""
    return datetime.strptime(text[:-1] + "000+0000", "%Y%m%dT%H%M%S%f%z")


def stored_limit(plain_bytes: int) -> int:
    """What an object of so many plain bytes can be at most, stored: frames add a little to what does not compress."""
    return plain_bytes + plain_bytes // 16 + (64 << 10)


def seal_bytes(
    key: Key, plain: bytes | bytearray | memoryview, *, level: int, pool: ThreadPoolExecutor | None = None
) -> bytes:
    """Compress ``plain`` in frames of 1 MiB and encrypt them. ``pool`` compresses in parallel."""
    view = memoryview(plain)
    parts = [view[at : at + _FRAME_BYTES] for at in range(0, len(view), _FRAME_BYTES)] or [view]

    def pack(part: memoryview) -> bytes:
        return new_packer("zstd", level).pack(part, len(part))

    return seal(key, b"".join(pool.map(pack, parts) if pool and len(parts) > 1 else map(pack, parts)))


def mac_text(key: Key, purpose: str, bound: str, data: bytes) -> str:
    """The MAC that a name carries. ``bound`` is the object key up to it, ``data`` the ciphertext."""
    return mac_of(key, purpose, bound, data).hex()[:MAC_DIGITS]


def require_authentic(key: Key, purpose: str, object_key: str, mac: str, data: bytes, where: str = "") -> None:
    """Raise ``DamageError`` when the ciphertext is not what the name ``object_key``, ending in ``mac``, says."""
    bound = object_key[: -len(f"-{mac}{layout.WAL_ENDING}")]
    if not hmac.compare_digest(mac_text(key, purpose, bound, data), mac):
        raise DamageError(f"{object_key}{where} is not authentic: changed, cut, renamed, or sealed with another key")


def open_bytes(key: Key, object_key: str, data: bytes, where: str = "") -> bytes:
    """Decrypt and decompress ciphertext that was proven authentic.

    Raise ``WrongKeyError`` when it does not decrypt, ``DamageError`` when it does not decompress.
    """
    packed = unseal(key, data, what=object_key)
    try:
        return zstd.decompress(packed)
    except zstd.ZstdError as failure:
        raise DamageError(f"{object_key}{where} does not decompress: {failure}") from failure


def fetch(repository: Repository, object_key: str, *, limit_bytes: int) -> bytes:
    """The stored bytes of an object. Raise ``DamageError`` when it is missing, ``StorageError``."""
    try:
        return repository.store.get(object_key, limit_bytes=limit_bytes)
    except MissingObjectError as missing:
        raise DamageError(f"{object_key} is missing in {repository}") from missing


def reason_text(reason: str) -> bytes:
    """What the record of a gap holds: why something is lost. People will read it."""
    return json.dumps({"reason": reason}, ensure_ascii=True).encode() + b"\n"


def parse_reason(object_key: str, plain: bytes) -> str:
    """What ``reason_text`` wrote. Raise ``DamageError`` for anything else."""
    try:
        return str(json.loads(plain)["reason"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise DamageError(f"{object_key} is authentic but is not what Recoup writes") from wrong
