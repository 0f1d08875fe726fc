"""What repositories hold of one PostgreSQL cluster: its base backups and its WAL, as facts to decide on; and the bytes.

Repositories hold the same WAL under the same names, so what is damaged or missing in one is read from the next.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from recoup.assembly.access import Found, Readable
from recoup.assembly.protect.incremental import KINDS, candidates
from recoup.engines.postgres.lsn import Lsn
from recoup.engines.postgres.recovery_choice import WalFile
from recoup.engines.postgres.timelines import History, parse_history
from recoup.engines.postgres.wal_inventory import HeldPiece, KnownGap, WalInventory
from recoup.engines.postgres.wal_pages import first_page_fault
from recoup.engines.postgres.wal_windows import Base
from recoup.kernel.errors import DamageError, RecoupError, StorageError
from recoup.repository.catalog import Catalog
from recoup.repository.repository import Repository
from recoup.repository.wal_archive import WalArchive, entries_of
from recoup.repository.wal_names import WalEntry, WalGap, WalHistory, WalPiece, WalSegment

_DEFAULT_SEGMENT_BYTES = 16 << 20
_READING = 8  #: manifests and history files read at once

Source = tuple[WalArchive, WalEntry]


@dataclass(slots=True, kw_only=True)
class ClusterFacts:
    """One cluster of a service. ``found`` are its base backups by their ids; ``problems`` is what was not readable."""

    service: str
    system_identifier: str
    found: dict[str, Found]
    bases: tuple[Base, ...]
    inventory: WalInventory
    sources: dict[str, list[Source]]
    problems: tuple[str, ...]
    passed_over: list[str] = field(default_factory=list)
    _noting: threading.Lock = field(default_factory=threading.Lock)

    @property
    def segment_bytes(self) -> int:
        """The size of its WAL segments."""
        return self.inventory.segment_bytes

    def fetch(self, file: WalFile) -> bytes:
        """The bytes of a file as the server wants it: a segment in its full size, zeros behind what pieces give.

        Safe to call from several threads. Raise ``DamageError`` or ``StorageError`` when no repository has it right.
        """
        if file.segment is None:
            return self._read(file.name)
        if not file.pieces:
            return self._segment(file.timeline, file.segment)
        data = bytearray()
        for piece in file.pieces:
            if piece.of_whole:
                part = self._segment(piece.timeline, piece.segment)[: piece.end]
            else:
                part = self._read(_piece_name(self.inventory.name(piece.timeline, piece.segment), piece))
            data += part[len(data) - piece.start :]
        return bytes(data) + bytes(self.segment_bytes - len(data))

    def _segment(self, timeline: int, segment: int) -> bytes:
        def check(data: bytes) -> str | None:
            if len(data) != self.segment_bytes:
                return f"has {len(data)} bytes instead of {self.segment_bytes}"
            return first_page_fault(data, self.system_identifier, timeline, segment * self.segment_bytes)

        return self._read(self.inventory.name(timeline, segment), check)

    def _read(self, name: str, check: Callable[[bytes], str | None] = lambda _data: None) -> bytes:
        failures: list[RecoupError] = []
        for archive, entry in self.sources.get(name, ()):
            failure: RecoupError
            try:
                data = archive.read(entry)
                fault = check(data)
                if fault is None:
                    return data
                failure = DamageError(f"{entry.key} {fault}")
            except (DamageError, StorageError) as wrong:
                failure = wrong
            failures.append(failure)
            self._note(f"{archive.repository.name}: {failure.message}")
        if not failures:
            raise DamageError(f"WAL {name} of {self.service} is in no repository any more")
        raise failures[0]

    def _note(self, what: str) -> None:
        with self._noting:
            if len(self.passed_over) < 100 and what not in self.passed_over:
                self.passed_over.append(what)


def read_clusters(opened: Readable, service: str, catalog: Catalog) -> list[ClusterFacts]:
    """Every cluster of which there are base backups or WAL under the name of a service, the newest backup's first.

    A repository that fails is a problem that is told, and the others are read. Raise nothing for damage.
    """
    problems: list[str] = []
    found = _base_backups(opened, service, catalog, problems)
    listed: dict[str, dict[str, list[Source]]] = defaultdict(lambda: defaultdict(list))
    for repository in opened.repositories:
        try:
            _list(repository, service, listed)
        except StorageError as failure:
            problems.append(f"{repository.name}: its WAL could not be listed: {failure.message}")
    identifiers = dict.fromkeys([str(one.manifest.facts["system_identifier"]) for one in found] + list(listed))
    return [_cluster(service, identifier, found, listed.get(identifier, {}), problems) for identifier in identifiers]


def _base_backups(opened: Readable, service: str, catalog: Catalog, problems: list[str]) -> list[Found]:
    there = {one.id for one in catalog.entries}
    wanted = [one.id for one in candidates(catalog, service) if there.issuperset(one.depends_on)]

    def read(identifier: str) -> Found | str:
        try:
            return opened.find(identifier, service=service, kinds=KINDS, catalog=catalog)
        except RecoupError as failure:
            return f"base backup {identifier}: {failure.message}"

    with ThreadPoolExecutor(_READING) as pool:
        answers = list(pool.map(read, wanted))
    problems += [one for one in answers if isinstance(one, str)]
    return [one for one in answers if isinstance(one, Found) and "end_lsn" in one.manifest.facts]


def _list(repository: Repository, service: str, into: dict[str, dict[str, list[Source]]]) -> None:
    archives: dict[str, WalArchive] = {}
    for identifier, entry in entries_of(repository, service):
        archive = archives.get(identifier)
        if archive is None:
            archive = archives[identifier] = WalArchive(repository, service, identifier)
        into[identifier][_name(entry)].append((archive, entry))


def _name(entry: WalEntry) -> str:
    match entry:
        case WalSegment() | WalHistory():
            return entry.name
        case WalPiece():
            return f"{entry.segment}.{entry.start}-{entry.end}"
        case WalGap():
            return f"{entry.timeline}.{entry.start}-{entry.end}.gap"


def _piece_name(segment: str, piece: HeldPiece) -> str:
    return f"{segment}.{piece.start}-{piece.end}"


def _cluster(
    service: str,
    identifier: str,
    found: Iterable[Found],
    sources: dict[str, list[Source]],
    problems: Sequence[str],
) -> ClusterFacts:
    mine = {one.manifest.id: one for one in found if str(one.manifest.facts["system_identifier"]) == identifier}
    sizes = [int(one.manifest.facts["wal_segment_bytes"]) for one in mine.values()]
    size = sizes[0] if sizes else _DEFAULT_SEGMENT_BYTES
    facts = ClusterFacts(
        service=service,
        system_identifier=identifier,
        found=mine,
        bases=tuple(_base(one) for one in mine.values()),
        inventory=WalInventory(segment_bytes=size, segments={}),
        sources=sources,
        problems=(),
    )
    wrong = list(problems)
    facts.inventory = _inventory(facts, size, wrong)
    facts.problems = tuple(wrong)
    return facts


def _base(one: Found) -> Base:
    manifest, facts = one.manifest, one.manifest.facts
    return Base(
        id=manifest.id,
        timeline=int(facts["timeline"]),
        begin=Lsn.parse(str(facts["begin_lsn"])),
        end=Lsn.parse(str(facts["end_lsn"])),
        time=manifest.ended,
    )


def _inventory(facts: ClusterFacts, size: int, problems: list[str]) -> WalInventory:
    segments, gaps = {}, []
    pieces: dict[tuple[int, int], list[HeldPiece]] = defaultdict(list)
    histories: dict[int, History] = {}
    for name, sources in facts.sources.items():
        archive, entry = sources[0]
        try:
            if isinstance(entry, WalSegment):
                segments[entry.timeline, entry.number(size)] = max(one.stamp for _, one in sources)
            elif isinstance(entry, WalPiece):
                number = entry.number(size)
                piece = HeldPiece(
                    timeline=entry.timeline, segment=number, start=entry.start, end=min(entry.end, size),
                    newest=entry.stamp,
                )  # fmt: skip
                pieces[entry.timeline, number].append(piece)
            elif isinstance(entry, WalHistory):
                histories[entry.timeline] = parse_history(entry.timeline, facts._read(name))
            else:
                gaps.append(_gap(archive, entry))
        except ValueError:
            problems.append(f"{name} is no WAL of segments of {size} bytes")
        except RecoupError as failure:
            problems.append(f"{name} cannot be read: {failure.message}")
    return WalInventory(
        segment_bytes=size,
        segments=segments,
        pieces={place: tuple(found) for place, found in pieces.items()},
        histories=histories,
        gaps=tuple(gaps),
    )


def _gap(archive: WalArchive, entry: WalGap) -> KnownGap:
    try:
        reason = archive.reason(entry)
    except RecoupError as failure:
        reason = f"it was recorded as lost, and the reason cannot be read ({failure.message})"
    return KnownGap(timeline=entry.timeline, start=Lsn(entry.start), end=Lsn(entry.end), reason=reason)
