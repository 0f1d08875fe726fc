"""One artefact being written to several repositories at once. Implements ``engines.engine.Sink``.

The source is read once. Its sealed bytes go to every repository through a queue and a thread each; memory is bounded
by the queues. A repository that fails or stalls is left behind, and the others go on. When the streams are complete
they are read back from where they were written and compared; a repository left behind is then brought up from one
that has them. The manifest is written last, to each repository whose objects all matched.
"""

from __future__ import annotations

import contextlib
import platform
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from recoup import __version__
from recoup.engines.engine import Content, CopyFacts, StreamSink
from recoup.kernel import clock
from recoup.kernel.errors import DamageError, RecoupError, StorageError
from recoup.repository import layout
from recoup.repository.frames import Compression
from recoup.repository.landing import copy_object, read_back, write_manifest
from recoup.repository.manifest import IndexReference, Manifest, StoredObject, parse, serialise
from recoup.repository.object_writer import ObjectSealer, SealedObject
from recoup.repository.repository import Repository

#: Blocks that may wait for one repository. A block is at most about one frame of cipher bytes.
QUEUED_BLOCKS: Final = 32
#: A repository that accepts nothing for this long is left behind and brought up afterwards.
PATIENCE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is known of an artefact before its first byte."""

    id: str
    system: str
    service: str
    engine: str
    kind: str
    label: str | None
    begun: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How streams are compressed. ``level`` is the compressor's own scale."""

    compression: Compression = "zstd"
    level: int = 3
    frame_bytes: int = 0  #: 0: the default for the stream's content


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Where an artefact is now, and where it could not be written, with the reason."""

    manifest: Manifest
    stored_in: tuple[str, ...]
    failed: Mapping[str, RecoupError]


class _Lane:
    """The way of one stream into one repository: a bounded queue, a thread, the first error."""

    def __init__(self, repository: Repository, key: str, expected_bytes: int | None) -> None:
        self.repository = repository
        self.error: RecoupError | None = None
        self._key = key
        self._expected_bytes = expected_bytes
        self._blocks: queue.Queue[bytes | None] = queue.Queue(QUEUED_BLOCKS)
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._carry, name=f"lane-{repository.name}", daemon=True)
        self._begun = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Let it run."""
        self._begun = True
        self._thread.start()

    def offer(self, block: bytes | None) -> None:
        """Queue a block (None: the end). A lane that has failed takes and forgets; one that stalls fails."""
        if self.error is not None:
            return
        try:
            self._blocks.put(block, timeout=PATIENCE_SECONDS)
        except queue.Full:
            self.abandon(StorageError(f"{self.repository} accepted nothing for {PATIENCE_SECONDS:g} s"))

    def abandon(self, why: RecoupError) -> None:
        """Give up on this lane. Its thread aborts the write as soon as the store returns."""
        self.error = self.error or why
        self._abandoned.set()

    def join(self, timeout_seconds: float) -> None:
        """Wait until the store has committed or failed."""
        # Not the thread's own join: an interruption inside ``start`` leaves a thread that cannot be joined yet.
        if self._begun and not self._ended.wait(timeout_seconds):
            self.abandon(StorageError(f"{self.repository} did not finish a write within {timeout_seconds:g} s"))

    def _carry(self) -> None:
        try:
            with self.repository.store.writer(self._key, expected_bytes=self._expected_bytes) as writer:
                while not self._abandoned.is_set():
                    try:
                        block = self._blocks.get(timeout=0.5)
                    except queue.Empty:
                        continue
                    if block is None:
                        writer.commit()
                        return
                    writer.write(block)
        except RecoupError as failure:
            self.error = self.error or failure
            self._drain()
        finally:
            self._ended.set()

    def _drain(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._blocks.get_nowait()


class _Stream:
    """The ``StreamSink`` of one stream: a sealer whose blocks go to every lane."""

    def __init__(self, sealer: ObjectSealer) -> None:
        self._sealer = sealer

    def write(self, data: bytes | memoryview) -> None:
        self._sealer.write(data)


class ArtefactWriter:
    """Writes one artefact. Use as a context manager: leaving without ``finish`` removes what was written."""

    def __init__(self, header: Header, repositories: Sequence[Repository], packing: Packing | None = None) -> None:
        if not repositories:
            raise ValueError("an artefact is written to at least one repository")
        self.header = header
        self._repositories = list(repositories)
        self._packing = packing or Packing()
        self._folder = layout.artefact_folder(header.service, header.kind, header.id)
        self._failed: dict[str, RecoupError] = {}
        self._objects: list[StoredObject] = []
        self._lock = threading.Lock()
        self._finished = False

    def __enter__(self) -> ArtefactWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._finished:
            self.discard()

    @contextlib.contextmanager
    def stream(
        self, name: str, *, content: Content = Content.OPAQUE, expected_bytes: int | None = None
    ) -> Iterator[StreamSink]:
        """Begin a stream. Raise ``StorageError`` when no repository is left that takes it."""
        packing = self._packing
        object_name = layout.object_name(name, packing.compression)
        key = self._folder + object_name
        lanes: list[_Lane] = []

        def emit(block: bytes) -> None:
            for lane in lanes:
                lane.offer(block)
            if all(lane.error is not None for lane in lanes):
                raise self._nowhere(lanes)

        sealer = None
        try:  # from the first lane on: an interruption may come at any instant, and no lane may outlive it
            for one in self._repositories:
                if one.name not in self._failed:
                    lanes.append(_Lane(one, key, expected_bytes))
                    lanes[-1].start()  # known before it runs
            sealer = ObjectSealer(
                self._repositories[0].key,
                emit,
                compression=packing.compression,
                level=packing.level,
                content=content,
                frame_bytes=packing.frame_bytes,
            )
            yield _Stream(sealer)
            sealed = sealer.finish()
            for lane in lanes:
                lane.offer(None)
            for lane in lanes:
                lane.join(20 * PATIENCE_SECONDS)
        except BaseException:
            if sealer is not None:
                sealer.abort()
            for lane in lanes:
                lane.abandon(StorageError("the copy was given up"))
            for lane in lanes:
                lane.join(PATIENCE_SECONDS)
            raise
        stored = _describe(name, key, object_name, layout.index_name(name), self._folder, sealed)
        for lane in lanes:
            if lane.error is None:
                try:
                    lane.repository.store.put(stored.index.key, sealed.index)
                except StorageError as failure:
                    lane.error = failure
        with self._lock:
            self._failed.update({lane.repository.name: lane.error for lane in lanes if lane.error is not None})
            self._objects.append(stored)
        if all(lane.error is not None for lane in lanes):
            raise self._nowhere(lanes)

    def finish(self, copy: CopyFacts) -> Outcome:
        """Read everything back, bring up repositories left behind, write the manifest last.

        Raise the first error when no repository holds the whole artefact; then nothing of it remains.
        """
        manifest = self._manifest(copy)
        reached = [one for one in self._repositories if one.name not in self._failed]
        with ThreadPoolExecutor(len(reached) or 1, "read-back") as pool:
            proofs = list(pool.map(self._prove, reached))
        whole = [one for one, error in zip(reached, proofs, strict=True) if error is None]
        self._failed.update({one.name: error for one, error in zip(reached, proofs, strict=True) if error is not None})
        if not whole:
            self.discard()
            raise next(iter(self._failed.values()))
        for repository in self._repositories:
            if repository.name in self._failed:
                error = self._bring_up(whole[0], repository)
                if error is None:
                    del self._failed[repository.name]
                    whole.append(repository)
        key = self._repositories[0].key
        data = serialise(manifest, key)
        # As whoever reads it will see it: in JSON a tuple is a list, and the two are not equal.
        manifest = parse(data, key, manifest.id)
        stored_in = []
        for repository in [one for one in self._repositories if one in whole]:
            error = write_manifest(repository, manifest.id, data)
            if error is None:
                stored_in.append(repository.name)
            else:
                self._failed[repository.name] = error
        self._finished = True
        for repository in self._repositories:
            if repository.name not in stored_in:
                self._remove_from(repository)
        if not stored_in:
            raise next(iter(self._failed.values()))
        return Outcome(manifest=manifest, stored_in=tuple(stored_in), failed=dict(self._failed))

    def discard(self) -> None:
        """Remove every object of this artefact, wherever it was written. It has no manifest, so nobody saw it."""
        self._finished = True
        for repository in self._repositories:
            self._remove_from(repository)

    def _manifest(self, copy: CopyFacts) -> Manifest:
        header, key = self.header, self._repositories[0].key
        return Manifest(
            id=header.id,
            system=header.system,
            service=header.service,
            engine=header.engine,
            kind=header.kind,
            label=header.label,
            begun=header.begun,
            ended=clock.now(),
            tool={"recoup": __version__, "python": platform.python_version()},
            key_id=key.id,
            iterations=key.iterations,
            objects=tuple(self._objects),
            facts=copy.facts,
            fingerprint=copy.fingerprint,
            left_out=copy.left_out,
            depends_on=copy.depends_on,
        )

    def _prove(self, repository: Repository) -> RecoupError | None:
        """Read every object back from ``repository``; the error when one does not match."""
        try:
            for stored in self._objects:
                read_back(repository, stored.key, stored.stored_bytes, stored.sha256)
                read_back(repository, stored.index.key, stored.index.stored_bytes, stored.index.sha256)
        except (StorageError, DamageError) as failure:
            return failure
        return None

    def _bring_up(self, source: Repository, behind: Repository) -> RecoupError | None:
        """Copy the objects from a repository that has them whole; the error when that fails as well."""
        try:
            for stored in self._objects:
                index = stored.index
                copy_object(source, behind, stored.key, stored.stored_bytes, stored.sha256)
                copy_object(source, behind, index.key, index.stored_bytes, index.sha256)
        except (StorageError, DamageError) as failure:
            return failure
        return self._prove(behind)

    def _remove_from(self, repository: Repository) -> None:
        remove_unfinished(repository, self._folder, self.header.id)

    @staticmethod
    def _nowhere(lanes: Sequence[_Lane]) -> RecoupError:
        reasons = "; ".join(f"{lane.repository.name}: {lane.error}" for lane in lanes)
        hints = [lane.error.hint for lane in lanes if lane.error is not None and lane.error.hint]
        return StorageError(f"no repository takes the copy ({reasons})", hint=hints[0] if hints else None)


def remove_unfinished(repository: Repository, folder: str, artefact_id: str) -> bool:
    """Remove what an unfinished copy left; whether nothing of it is left for certain.

    The manifest goes first, and nothing else goes when that failed: objects whose manifest may exist are kept. What
    stays behind after a failure here has no manifest and therefore does not exist for anyone.
    """
    try:
        repository.store.delete(layout.manifest_key(artefact_id))
        for info in list(repository.store.list(folder)):
            repository.store.delete(info.key)
    except StorageError:
        return False
    return True


def _describe(
    stream: str, key: str, object_name: str, index_name: str, folder: str, sealed: SealedObject
) -> StoredObject:
    return StoredObject(
        stream=stream,
        name=object_name,
        key=key,
        stored_bytes=sealed.stored_bytes,
        sha256=sealed.sha256,
        plain_bytes=sealed.plain_bytes,
        content=sealed.content,
        compression=sealed.compression,
        frame_bytes=sealed.frame_bytes,
        index=IndexReference(
            name=index_name, key=folder + index_name, stored_bytes=len(sealed.index), sha256=sealed.index_sha256
        ),
    )
