"""A small source, and the sequence of a backup, for tests that break storage underneath it."""

from __future__ import annotations

import hashlib
import io
import random
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recoup.backup.take import Taken, take_copy
from recoup.engines.engine import Content, CopyFacts, ProgressListener, Sink
from recoup.repository.copy_reader import ArtefactReader
from recoup.repository.copy_writer import Packing
from recoup.repository.manifest import Manifest
from recoup.repository.repository import Repository, open_or_create
from recoup.repository.seal import Key
from recoup.storage.object_store import ObjectStore

KEY = Key.from_text("5a" * 32)


def sample_tar(seed: int = 1) -> bytes:
    """A tar of a few members, some larger than a frame, some not compressible."""
    chance = random.Random(seed)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for number, size in enumerate((0, 10, 5_000, 70_000, 300_000)):
            data = chance.randbytes(size) if number % 2 else (b"all work and no play " * size)[:size]
            member = tarfile.TarInfo(f"folder/file-{number}")
            member.size = size
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSource:
    """Writes a tar and a text. ``between`` is called between the two, to interfere."""

    tar: bytes
    text: bytes = b"what else there is to say\n" * 40
    service: str = "sample"
    engine: str = "files"
    kind: str = "files"
    between: Callable[[], None] = lambda: None

    def take(self, sink: Sink, begun_stamp: str, on_progress: ProgressListener) -> CopyFacts:
        """See ``backup.take.Source``."""
        with sink.stream("sample.tar", content=Content.TAR) as stream:
            for start in range(0, len(self.tar), 10_000):
                stream.write(self.tar[start : start + 10_000])
        self.between()
        with sink.stream("notes.txt") as stream:
            stream.write(self.text)
        return CopyFacts(facts={"digest": hashlib.sha256(self.tar + self.text).hexdigest()})


def repository(name: str, store: ObjectStore) -> Repository:
    """Open or make a repository with the tests' key."""
    return open_or_create(name, store, KEY)


def take(source: SampleSource, repositories: Sequence[Repository], state: Path) -> Taken:
    """Take a copy as ``recoup backup`` does, with small frames so that there are many operations."""
    return take_copy(
        source,
        repositories,
        system="Sample",
        label=None,
        packing=Packing(frame_bytes=64 << 10),
        state_folder=state,
        on_progress=lambda _: None,
    )


def is_whole(manifest: Manifest, holder: Repository) -> bool:
    """Whether the artefact reads back from ``holder`` alone exactly as it was written."""
    reader = ArtefactReader(manifest, [holder])
    content = b"".join(b"".join(reader.read(info.name)) for info in reader.streams())
    return hashlib.sha256(content).hexdigest() == manifest.facts["digest"]
