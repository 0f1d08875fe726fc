"""The WAL archive of one cluster in one repository: segments, pieces of the present one, history files, known gaps.

Every object is authenticated by its own name, so no manifest is written for 16 MiB and one listing is the inventory:
docs/decisions/0012-wal-names-carry-the-mac.md. The format is in ``docs/repository-format.md``.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from recoup.kernel.errors import DamageError, RefusedError
from recoup.repository import layout, wal_names
from recoup.repository.named_objects import (
    fetch,
    mac_text,
    open_bytes,
    parse_reason,
    reason_text,
    require_authentic,
    seal_bytes,
    stamp_text,
    stored_limit,
)
from recoup.repository.repository import Repository
from recoup.repository.seal import Key
from recoup.repository.wal_names import WalEntry, WalGap, WalHistory, WalPiece, WalSegment
from recoup.storage.object_store import ObjectExistsError

PURPOSE: Final = "wal"
#: The largest segment that is archived: it is held in memory. PostgreSQL's default is 16 MiB.
MAX_SEGMENT_BYTES: Final = 64 << 20
_MAX_STORED_BYTES: Final = stored_limit(MAX_SEGMENT_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedWal:
    """Bytes of WAL, compressed and sealed once, to be stored in as many repositories of the same key as there are."""

    name: str
    stamp: datetime
    service: str
    system_identifier: str
    key: str
    data: bytes


def seal_wal(
    key: Key, *, service: str, system_identifier: str, name: str, stamp: datetime,
    plain: bytes | bytearray | memoryview, level: int = 1, pool: ThreadPoolExecutor | None = None,
) -> SealedWal:  # fmt: skip
    """Compress and seal ``plain`` under ``name`` (as ``wal_names`` makes them). ``pool`` compresses in parallel.

    Raise ``ValueError`` for more than ``MAX_SEGMENT_BYTES``, and for names that cannot be part of an object key.
    """
    if len(plain) > MAX_SEGMENT_BYTES:
        raise ValueError(f"{len(plain)} bytes of WAL at once")
    data = seal_bytes(key, plain, level=level, pool=pool)
    bound = layout.wal_bound(layout.wal_folder(service, system_identifier), name, stamp_text(stamp))
    return SealedWal(
        name=name,
        stamp=stamp,
        service=service,
        system_identifier=system_identifier,
        key=layout.wal_key(bound, mac_text(key, PURPOSE, bound, data)),
        data=data,
    )


class WalArchive:
    """The WAL of one cluster in one repository. Safe to use from several threads; one writer at a time is meant."""

    def __init__(self, repository: Repository, service: str, system_identifier: str) -> None:
        """Raise ``ValueError`` for a service or an identifier that cannot be part of an object key."""
        self.repository = repository
        self.service, self.system_identifier = service, system_identifier
        self._folder = layout.wal_folder(service, system_identifier)

    def entries(self, name: str = "") -> Iterator[WalEntry]:
        """What the archive holds by its names, in the order of the names (timeline, position); unproven until read.

        ``name`` is how they begin: a timeline, a segment. Objects that Recoup did not name are passed over.
        """
        for info in self.repository.store.list(layout.wal_prefix(self._folder, name)):
            entry = wal_names.parse(info.key, info.size_bytes)
            if entry is not None:
                yield entry

    def put_segment(self, name: str, plain: bytes | bytearray | memoryview, stamp: datetime) -> WalSegment:
        """Archive a whole segment. Returns once the store has acknowledged it.

        The same bytes again are a success. Raise ``RefusedError`` when the archive holds other bytes under ``name``,
        ``DamageError`` when what it holds cannot be read to compare, ``StorageError``.
        """
        stored = self.put(self._seal(wal_names.check_segment_name(name), plain, stamp))
        assert isinstance(stored, WalSegment)
        return stored

    def put_piece(self, segment: str, start: int, plain: bytes | bytearray | memoryview, stamp: datetime) -> WalPiece:
        """Archive the bytes of ``segment`` from ``start`` on, before it is complete. As ``put_segment``."""
        stored = self.put(self._seal(wal_names.piece_name(segment, start, start + len(plain)), plain, stamp))
        assert isinstance(stored, WalPiece)
        return stored

    def put_history(self, timeline: int, plain: bytes, stamp: datetime) -> WalHistory:
        """Archive the history file of a timeline. As ``put_segment``."""
        stored = self.put(self._seal(wal_names.history_name(timeline), plain, stamp))
        assert isinstance(stored, WalHistory)
        return stored

    def put_gap(self, timeline: int, start: int, end: int, reason: str, stamp: datetime) -> WalGap:
        """Record that WAL ``[start, end)`` of a timeline is lost, and why: people will read it."""
        stored = self.put(self._seal(wal_names.gap_name(timeline, start, end), reason_text(reason), stamp))
        assert isinstance(stored, WalGap)
        return stored

    def put(self, sealed: SealedWal) -> WalEntry:
        """Store what ``seal_wal`` made with this repository's key for this service and cluster."""
        if (sealed.service, sealed.system_identifier) != (self.service, self.system_identifier):
            raise ValueError(f"{sealed.key} does not belong into {self._folder}")
        for held in self.entries(sealed.name + "-"):
            self._same(held, sealed)
            return held
        try:
            info = self.repository.store.put(sealed.key, sealed.data, if_absent=True)
            size = info.size_bytes
        except ObjectExistsError:  # a repeated request whose first answer was lost: the key names these very bytes
            size = len(sealed.data)
        stored = wal_names.parse(sealed.key, size)
        assert stored is not None, f"{sealed.key} is not a name"
        return stored

    def read(self, entry: WalEntry) -> bytes:
        """The plain bytes of an entry. Nothing is decrypted before its MAC matched.

        Raise ``DamageError`` when it is missing, changed, swapped or cut, ``WrongKeyError``, ``StorageError``.
        """
        if not entry.key.startswith(self._folder):
            raise ValueError(f"{entry.key} is not in {self._folder}")
        data = fetch(self.repository, entry.key, limit_bytes=_MAX_STORED_BYTES)
        plain = open_wal(self.repository.key, entry.key, data)
        if isinstance(entry, WalPiece) and len(plain) != entry.end - entry.start:
            raise DamageError(f"{entry.key} holds {len(plain)} bytes instead of {entry.end - entry.start}")
        return plain

    def reason(self, gap: WalGap) -> str:
        """Why the WAL of a gap is lost, as it was recorded. Raise as ``read`` does."""
        return parse_reason(gap.key, self.read(gap))

    def delete(self, entry: WalEntry) -> None:
        """Remove an entry. Removing what is gone is fine. Raise ``StorageError``."""
        if not entry.key.startswith(self._folder):
            raise ValueError(f"{entry.key} is not in {self._folder}")
        self.repository.store.delete(entry.key)

    def copy_from(self, other: WalArchive, entry: WalEntry) -> None:
        """Store an entry of another repository's archive of the same cluster, after checking its MAC.

        Raise as ``read`` and ``put`` do.
        """
        if other.repository.key.id != self.repository.key.id:
            name = entry.key.rsplit("/", 1)[-1].rsplit("-", 2)[0]
            self.put(self._seal(name, other.read(entry), entry.stamp))
        else:
            self.put(other.raw(entry))

    def raw(self, entry: WalEntry) -> SealedWal:
        """An entry as it is stored, proven authentic, to be put into another repository of the same key.

        Raise as ``read`` does.
        """
        data = fetch(self.repository, entry.key, limit_bytes=_MAX_STORED_BYTES)
        open_wal(self.repository.key, entry.key, data)
        return SealedWal(
            name=entry.key.rsplit("/", 1)[-1].rsplit("-", 2)[0],
            stamp=entry.stamp,
            service=self.service,
            system_identifier=self.system_identifier,
            key=entry.key,
            data=data,
        )

    def _seal(self, name: str, plain: bytes | bytearray | memoryview, stamp: datetime) -> SealedWal:
        return seal_wal(
            self.repository.key, service=self.service, system_identifier=self.system_identifier, name=name,
            stamp=stamp, plain=plain,
        )  # fmt: skip

    def _same(self, held: WalEntry, sealed: SealedWal) -> None:
        # Two seals of the same bytes differ by their salts, so the plain bytes are compared.
        if self.read(held) != open_wal(self.repository.key, sealed.key, sealed.data):
            raise RefusedError(
                f"{self.repository} already holds {sealed.name} of cluster {self.system_identifier} with other content",
                hint="Two servers write WAL of the same name: a copy of the cluster that runs on, or a restored one "
                "that kept its timeline. Stop the one that is not production. Nothing was replaced.",
            )


def open_wal(key: Key, object_key: str, data: bytes) -> bytes:
    """Given the key and the bytes of an object of WAL, return its plain bytes after checking its MAC.

    Raise ``DamageError`` when it is not authentic, ``WrongKeyError`` when authentic bytes do not decrypt.
    """
    entry = wal_names.parse(object_key, len(data))
    if entry is None:
        raise DamageError(f"{object_key} is not the name of an object of WAL")
    require_authentic(key, PURPOSE, object_key, entry.mac, data)
    return open_bytes(key, object_key, data)


def clusters_in(repository: Repository) -> list[tuple[str, str]]:
    """The (service, system identifier) pairs that the repository holds WAL of, in order. Raise ``StorageError``."""
    found = set()
    for info in repository.store.list(layout.WAL):
        if wal_names.parse(info.key, info.size_bytes) is not None:
            _, service, system_identifier, *_ = info.key.split("/")
            found.add((service, system_identifier))
    return sorted(found)


def entries_of(repository: Repository, service: str) -> Iterator[tuple[str, WalEntry]]:
    """What the repository holds of all clusters of a service, each with its system identifier, from one listing.

    As ``WalArchive.entries``.
    """
    for info in repository.store.list(layout.wal_service(service)):
        entry = wal_names.parse(info.key, info.size_bytes)
        if entry is not None:
            yield layout.wal_cluster(info.key), entry
