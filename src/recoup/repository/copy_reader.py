"""An artefact read back. Implements ``engines.engine.CopyReader`` over one or several repositories that hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from recoup.engines.engine import Member, StreamInfo
from recoup.kernel.errors import RecoupError
from recoup.repository.index import Index
from recoup.repository.manifest import Manifest
from recoup.repository.object_reader import ObjectReader, load_index
from recoup.repository.repository import Repository


class ArtefactReader:
    """Reads one artefact. The first repository is preferred; what is damaged or missing there comes from the next.

    The objects of an artefact are byte for byte the same in every repository, so one manifest describes them all and
    a single frame can come from whichever repository still has it right.
    """

    def __init__(self, manifest: Manifest, repositories: Sequence[Repository]) -> None:
        if not repositories:
            raise ValueError("an artefact is read from at least one repository")
        self.manifest = manifest
        self._stores = [repository.store for repository in repositories]
        self._key = repositories[0].key
        self._indexes: dict[str, Index] = {}
        self._readers: list[ObjectReader] = []
        self._passed_over: list[RecoupError] = []  # of indexes

    def passed_over(self) -> tuple[str, ...]:
        """What was damaged or missing in one repository and came from another, for the report. At most a hundred."""
        failures = [*self._passed_over, *(failure for one in self._readers for failure in one.passed_over)]
        return tuple(dict.fromkeys(failure.message for failure in failures))[:100]

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the engine knew of the copy."""
        return self.manifest.facts

    @property
    def fingerprint(self) -> Mapping[str, Any] | None:
        """The fingerprint of the data at the moment of the copy."""
        return self.manifest.fingerprint

    def streams(self) -> tuple[StreamInfo, ...]:
        """The streams of the artefact, in the order in which they were written."""
        return tuple(
            StreamInfo(name=stored.stream, content=stored.content, plain_bytes=stored.plain_bytes)
            for stored in self.manifest.objects
        )

    def read(self, name: str, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Plain bytes of a stream, in order. Raise ``DamageError`` when no repository has them right."""
        return self._open(name).read(start, length)

    def members(self, name: str) -> Iterator[Member]:
        """The members of a tar stream, from its index."""
        return self._open(name).members()

    def each_frame(self, name: str, act: Callable[[int, bytes], None], workers: int = 0) -> None:
        """Call ``act(plain offset, plain bytes)`` for every frame, in any order, from several threads."""
        self._open(name).each_frame(act, workers)

    def frame_sizes(self) -> Iterator[tuple[int, int]]:
        """The plain and the stored bytes of every frame of all streams, from the indexes."""
        for stored in self.manifest.objects:
            yield from ((frame.plain_bytes, frame.cipher_bytes) for frame in self._index(stored.stream).rows())

    def _open(self, name: str) -> ObjectReader:
        stored, index = self.manifest.object_of(name), self._index(name)
        reader = ObjectReader(self._stores, stored.key, key=self._key, index=index)
        self._readers.append(reader)
        return reader

    def _index(self, name: str) -> Index:
        index = self._indexes.get(name)
        if index is None:
            index = load_index(self._stores, self.manifest.object_of(name), self._key, passed_over=self._passed_over)
            self._indexes[name] = index
        return index
